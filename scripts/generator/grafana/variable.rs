//! Variables of dashboards: the same names, in the same order, on each.

use serde_json::{Value, json};

use super::query::{CLUSTER, NAMESPACES, NODES, any, series};
use kernel_gossip::names::metric;

/// Of Prometheus.
pub fn data_source() -> Value {
    json!({"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0, "refresh": 1,
        "regex": "", "multi": false, "includeAll": false, "options": []})
}

/// Of a store of traces.
pub fn traces() -> Value {
    json!({"type": "datasource", "name": "traces", "label": "Traces", "query": "tempo", "hide": 0, "refresh": 1,
        "regex": "", "multi": false, "includeAll": false, "options": []})
}

/// Values of a label. `all`: any number of them, and at first all, which is also what lacks the label.
fn query(name: &str, label: &str, of: &str, all: bool) -> Value {
    let query = format!("label_values({of}, {name})");
    let mut variable = json!({
        "type": "query", "name": name, "label": label, "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "hide": 0, "regex": "",
        "multi": all, "includeAll": all, "options": [],
    });
    if all {
        variable["allValue"] = ".*".into();
        variable["current"] = json!({"selected": true, "text": "All", "value": "$__all"});
    }
    variable
}

pub fn cluster() -> Value {
    query("cluster", "Cluster", &series(&metric::AGENT_WORKLOAD_KNOWN, &[]), false)
}

pub fn nodes() -> Value {
    query("node", "Node", &series(&metric::AGENT_WORKLOAD_KNOWN, &[CLUSTER]), true)
}

pub fn one_node() -> Value {
    query("node", "Node", &series(&metric::AGENT_WORKLOAD_KNOWN, &[CLUSTER]), false)
}

/// Some have no CPU time in the cgroups' files, some agents no probe.
fn workloads(having: &[&str]) -> String {
    any(&[&metric::CPU_USAGE_TIME, &metric::CPU_RUN_TIME], having)
}

pub fn namespaces() -> Value {
    query("namespace", "Namespace", &workloads(&[NODES]), true)
}

pub fn pods() -> Value {
    query("pod", "Pod", &workloads(&[NAMESPACES]), true)
}

pub fn containers() -> Value {
    let of = [NAMESPACES, r#"pod=~"$pod""#];
    query("container", "Container", &workloads(&of), true)
}

/// Of what is outside any pod.
pub fn cgroups() -> Value {
    query("cgroup", "Cgroup", &workloads(&[NODES, r#"pod="""#]), true)
}
