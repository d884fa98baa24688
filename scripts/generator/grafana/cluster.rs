//! Who whispers, and who loses the most time to what.

use kernel_gossip::names::{attribute, metric, whisper};

use super::panel::{BLUE, Dashboard, GREEN, GREY, LOST, ORANGE, Panel, RED};
use super::query::*;
use super::{COLUMNS, node, to, to_workload, variable};

pub const UID: &str = "kernel-gossip-cluster";

/// What is lost: to its own limit, and to others.
pub const LOST_TO: &str = "throttle|neighbour";

pub fn dashboard() -> Dashboard {
    let cause = label(attribute::WAIT_CAUSE);
    let lost = is(attribute::WAIT_CAUSE, LOST_TO);
    let waiting = |cause: &str| {
        sum(&[], &rate(&metric::CPU_WAIT_TIME, &[NAMESPACES, &is(attribute::WAIT_CAUSE, cause)], POINT))
    };
    let whispering = |severity: &str| {
        let of = series(&metric::WHISPER_ACTIVE, &[NAMESPACES, &is(whisper::SEVERITY, severity)]);
        or_none(&sum(&[], &of), NODES)
    };
    let blind = format!(
        "count({}\nunless\n{})",
        aggregate("count", &["node"], &series(&metric::CPU_USAGE_TIME, &[NODES])),
        aggregate("count", &["node"], &series(&metric::CPU_RUN_TIME, &[NODES])),
    );
    // The numbers of those that lost the most.
    let most = format!(
        "topk(20, {} > 0)",
        sum(&WHO, &increase(&metric::CPU_WAIT_TIME, &[NAMESPACES, &lost], SHOWN))
    );
    let of_most = |of: String| format!("{of}\nand on ({})\n{most}", WHO.join(", "));
    let wait_for = |cause: &str| {
        of_most(sum(
            &WHO,
            &increase(&metric::CPU_WAIT_TIME, &[NAMESPACES, &is(attribute::WAIT_CAUSE, cause)], SHOWN),
        ))
    };
    let (signal, severity) = (label(whisper::SIGNAL), label(whisper::SEVERITY));
    Dashboard {
        uid: UID,
        title: "Kernel Gossip / Cluster",
        description: "Who whispers, and which workloads lose the most time to their limits and to each other.",
        variables: vec![variable::cluster(), variable::nodes(), variable::namespaces()],
        links: vec![],
        rows: vec![
            ("Now", vec![
                Panel::stat("Agents", "Nodes with an agent that reports.", "short").query(&agents(NODES), "agents"),
                Panel::stat("Agents without the CPU probe", "Nodes whose agent has no waits, stalls and neighbours, only what the cgroups' files say: `kernel-gossip check` there says why.", "short")
                    .query(&or_none(&blind, NODES), "nodes").thresholds(&[(None, GREEN), (Some(1.0), ORANGE)]),
                Panel::stat("Critical whispers", "Zero is what the agents say; no data is that no agent says anything.", "short")
                    .query(&whispering("critical"), "whispers").thresholds(&[(None, GREEN), (Some(1.0), RED)]),
                Panel::stat("Warnings", "", "short")
                    .query(&whispering("warning"), "whispers").thresholds(&[(None, GREEN), (Some(1.0), ORANGE)]),
                Panel::stat("Lost to limits", "Seconds in which a thread was ready to run and its CPU limit kept it off, a second, summed over threads.", LOST)
                    .query(&waiting("throttle"), "throttle"),
                Panel::stat("Lost to neighbours", "Seconds in which a thread was ready to run and another workload had the CPU, a second, summed over threads.", LOST)
                    .query(&waiting("neighbour"), "neighbour"),
            ]),
            ("Who whispers", vec![
                Panel::table("Whispers active now", "Empty where nobody whispers: may be empty.", "short")
                    .rows(&format!("max by ({}, {signal}, {severity}) ({}) == 1", WHO.join(", "), series(&metric::WHISPER_ACTIVE, &[NAMESPACES])))
                    .listed(&[&COLUMNS[..], &[(&*signal, "Signal"), (&*severity, "Severity")]].concat(), "Pod")
                    .lead("Pod", "The workload", &to_workload()).lead("Cgroup", "The workload", &to_workload()),
                Panel::graph("Whispers", "Active at a time, by what was crossed and how far.", "short")
                    .query(&sum(&[&signal, &severity], &series(&metric::WHISPER_ACTIVE, &[NAMESPACES])), &format!("{{{{{signal}}}}}, {{{{{severity}}}}}"))
                    .stacked(),
            ]),
            ("Time lost", vec![
                Panel::graph("Waiting for a CPU, by cause", "Of all threads: ready to run and not running. `own` is a wait for the workload's own threads.", LOST)
                    .query(&sum(&[&cause], &rate(&metric::CPU_WAIT_TIME, &[NAMESPACES], POINT)), &format!("{{{{{cause}}}}}"))
                    .stacked().color("throttle", RED).color("neighbour", ORANGE).color("own", BLUE).color("unattributed", GREY),
                Panel::graph("Lost, by namespace", "To limits and to neighbours. The ten namespaces that lost the most.", LOST)
                    .query(&no_pods("namespace", &greatest(10, &["namespace"], &metric::CPU_WAIT_TIME, &[NAMESPACES, &lost])), "{{namespace}}").stacked(),
                Panel::table("Worst workloads", "Seconds lost in the time shown, summed over threads; stopped: the time in which its limit stopped some of it.", "s")
                    .rows(&most).rows(&wait_for("throttle")).rows(&wait_for("neighbour"))
                    .rows(&of_most(sum(&WHO, &increase(&metric::CPU_THROTTLED_WALL_TIME, &[NAMESPACES], SHOWN))))
                    .rows(&of_most(sum(&WHO, &increase(&metric::CPU_RUN_TIME, &[NAMESPACES], SHOWN))))
                    .joined(&COLUMNS, &["Lost", "To its limit", "To neighbours", "Stopped", "Ran"])
                    .lead("Pod", "The workload", &to_workload()).lead("Cgroup", "The workload", &to_workload()).size(24, 10),
                Panel::bars("Nodes, by time lost", "To limits and to neighbours, in the time shown.", "s")
                    .now(&format!("topk(10, {})", sum(&["node"], &increase(&metric::CPU_WAIT_TIME, &[NAMESPACES, &lost], SHOWN))), "{{node}}")
                    .link("The node", &to(node::UID, &[("node", "${__field.labels.node}")])),
                Panel::bars("Noisiest neighbours", "For how long others waited while they ran, in the time shown; `other`: those that are not named singly.", "s")
                    .now(&format!("topk(10, {} > 0)", sum(&[&label(attribute::NEIGHBOUR_NAME)], &increase(&metric::CPU_NEIGHBOUR_TIME, &[NAMESPACES], SHOWN))), &format!("{{{{{}}}}}", label(attribute::NEIGHBOUR_NAME))),
            ]),
        ],
    }
}
