//! grafana/ and the kustomize component with its rules: dashboards, and what Prometheus records and alerts on.

mod agent;
mod births;
mod cluster;
mod node;
mod panel;
mod query;
mod rules;
mod variable;
mod workload;

use anyhow::Result;

/// Each file and its text.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("grafana/dashboards/cluster.json", cluster::dashboard().text()?),
        ("grafana/dashboards/workload.json", workload::dashboard().text()?),
        ("grafana/dashboards/node.json", node::dashboard().text()?),
        ("grafana/dashboards/births.json", births::dashboard().text()?),
        ("grafana/dashboards/agent.json", agent::dashboard().text()?),
        ("grafana/rules/kernel-gossip.yaml", rules::prometheus()?),
        ("k8s/components/alerts/prometheusrule.yaml", rules::kubernetes()?),
    ])
}

/// A dashboard at the same time, cluster and data source, with these variables more.
fn to(uid: &str, variables: &[(&str, &str)]) -> String {
    let more: String = variables.iter().map(|(name, value)| format!("&var-{name}={value}")).collect();
    format!("/d/{uid}?${{datasource:queryparam}}&${{cluster:queryparam}}{more}&${{__url_time_range}}")
}

/// The dashboard of the workload in a table's row.
fn to_workload() -> String {
    to(
        workload::UID,
        &[
            ("node", "${__data.fields.Node}"),
            ("namespace", "${__data.fields.Namespace}"),
            ("pod", "${__data.fields.Pod}"),
            ("container", "${__data.fields.Container}"),
            ("cgroup", "${__data.fields.Cgroup:percentencode}"),
        ],
    )
}

/// Labels of a workload as columns of a table.
const COLUMNS: [(&str, &str); 5] = [
    ("namespace", "Namespace"),
    ("pod", "Pod"),
    ("container", "Container"),
    ("cgroup", "Cgroup"),
    ("node", "Node"),
];
