//! What starting pods takes, and which phase of it.

use kernel_gossip::names::{birth, metric};
use serde_json::json;

use super::panel::{Dashboard, GREEN, ORANGE, Panel, RED};
use super::query::*;
use super::variable;

pub const UID: &str = "kernel-gossip-births";

pub fn dashboard() -> Dashboard {
    let (outcome, phase) = (label(birth::OUTCOME), label(birth::PHASE));
    let complete = is(birth::OUTCOME, "complete");
    let total = |outcome: &str| {
        let name = format!("{}_count", metric::BIRTH_DURATION.prometheus());
        sum(&[], &selected(&name, &[NODES, &is(birth::OUTCOME, outcome)]))
    };
    let of_births = |q: f64| quantile(q, &metric::BIRTH_DURATION, &[NODES, &complete], SHOWN, &[]);
    // No series without a birth in the time shown: 0/0 is no number.
    let known = |of: String| format!("({of}) >= 0");
    let of_phases = |q: f64| known(quantile(q, &metric::BIRTH_PHASE_DURATION, &[NODES], SHOWN, &[&phase]));
    let explore = json!({"a": {"datasource": "${traces}", "range": {"from": "${__from}", "to": "${__to}"}, "queries": [{
        "refId": "A", "queryType": "traceql", "limit": 50, "datasource": {"type": "tempo", "uid": "${traces}"},
        "query": format!("{{ resource.service.name = \"kernel-gossip\" && span.{} = \"birth\" }}", birth::KIND),
    }]}});
    Dashboard {
        uid: UID,
        title: "Kernel Gossip / Births",
        description: "How long pods' starts take, phase by phase. A birth whose outcome had none before on its node is missing in rates: a counter's first value is no growth.",
        variables: vec![variable::cluster(), variable::nodes(), variable::traces()],
        links: vec![json!({
            "type": "link", "title": "Traces of births", "url": format!("/explore?schemaVersion=1&orgId=1&panes={explore}"), "icon": "doc",
            "tags": [], "asDropdown": false, "includeVars": false, "keepTime": false, "targetBlank": true,
            "tooltip": "A trace's id is the pod's UID without dashes",
        })],
        rows: vec![
            ("Now", vec![
                Panel::stat("Born since the agents started", "Certified as complete. May be empty before the first.", "short").query(&total("complete"), "births"),
                Panel::stat("Failed since the agents started", "Zero is what the agents say; no data is that no agent says anything.", "short")
                    .query(&or_none(&total("failed"), NODES), "births").thresholds(&[(None, GREEN), (Some(1.0), ORANGE)]),
                Panel::stat("Unfinished", "Deleted before they were born, or watched for long enough.", "short").query(&or_none(&total("unfinished"), NODES), "births"),
                Panel::stat("Half within", "Of the complete ones in the time shown. Without any: may be empty.", "s").query(&of_births(0.5), "half"),
                Panel::stat("90 % within", "", "s").query(&of_births(0.9), "90 %"),
                Panel::stat("99 % within", "", "s").query(&of_births(0.99), "99 %").thresholds(&[(None, GREEN), (Some(30.0), ORANGE), (Some(120.0), RED)]),
            ]),
            ("Over time", vec![
                Panel::heat_map("How long births took", "Complete ones: from the pod's cgroup to the last of each container's program, its first socket, Ready.")
                    .query(&heat(&metric::BIRTH_DURATION, &[NODES, &complete]), "{{le}}").every("5m"),
                Panel::graph("Births a minute, by how they ended", "", "short")
                    .query(&format!("60 * {}", counted(&metric::BIRTH_DURATION, &[NODES], POINT, &[&outcome])), &format!("{{{{{outcome}}}}}")).stacked().every("5m"),
                Panel::graph("Phases, their means", "Of complete births. Phases overlap between containers: their sum is not the birth's length. No line where none was.", "s")
                    .query(&known(mean(&metric::BIRTH_PHASE_DURATION, &[NODES], POINT, &[&phase])), &format!("{{{{{phase}}}}}")).stacked().every("5m"),
                Panel::graph("90 % of births within, by node", "No line where none was.", "s")
                    .query(&known(quantile(0.9, &metric::BIRTH_DURATION, &[NODES, &complete], POINT, &["node"])), "{{node}}").every("5m"),
            ]),
            ("Slowest", vec![
                Panel::table("Phases, in the time shown", "Of complete births. Which phase is slow tells whom to ask: `scheduled` the API server, `volumes` the kubelet, `network` the CNI plugins, `image` the registry, `create` and `start` the runtime, `listen` the program.", "s")
                    .rows(&known(mean(&metric::BIRTH_PHASE_DURATION, &[NODES], SHOWN, &[&phase]))).rows(&of_phases(0.9)).rows(&of_phases(0.99))
                    .joined(&[(&phase, "Phase")], &["Mean", "90 % within", "99 % within"]),
                Panel::bars("Nodes, by their mean", "Of complete births in the time shown.", "s")
                    .now(&format!("topk(10, {})", known(mean(&metric::BIRTH_DURATION, &[NODES, &complete], SHOWN, &["node"]))), "{{node}}"),
            ]),
        ],
    }
}
