//! One node: who made whom wait.

use kernel_gossip::names::{attribute, metric, whisper};

use super::cluster::LOST_TO;
use super::panel::{BLUE, Dashboard, GREEN, GREY, LOST, ORANGE, Panel, RED};
use super::query::*;
use super::{COLUMNS, births, to, to_workload, variable};

pub const UID: &str = "kernel-gossip-node";

/// Exactly one.
const NODE: &str = r#"cluster="$cluster",node="$node""#;

pub fn dashboard() -> Dashboard {
    let cause = label(attribute::WAIT_CAUSE);
    let (neighbour, taken_by) = (label(attribute::NEIGHBOUR_NAME), label(attribute::TAKEN_BY));
    let lost = is(attribute::WAIT_CAUSE, LOST_TO);
    let waiting = |cause: &str| {
        sum(&[], &rate(&metric::CPU_WAIT_TIME, &[NODE, &is(attribute::WAIT_CAUSE, cause)], POINT))
    };
    let who_whom = format!(
        "sum by (who, {neighbour}) ({})",
        named(&format!(
            "topk(40, {} > 0)",
            sum(&[&WHO[..], &[&*neighbour]].concat(), &increase(&metric::CPU_NEIGHBOUR_TIME, &[NODE], SHOWN))
        ))
    );
    let blamed = greatest(10, &[&neighbour], &metric::CPU_NEIGHBOUR_TIME, &[NODE]);
    let (signal, severity) = (label(whisper::SIGNAL), label(whisper::SEVERITY));
    let stalled = |resource: &str| {
        let having = [
            NODE,
            &is(attribute::PRESSURE_RESOURCE, resource),
            r#"kind!~"pod|root",unit!~".+\\.slice",cgroup!~".*kubepods.*""#,
        ];
        named(&greatest(10, &WHO, &metric::PRESSURE_SOME_TIME, &having))
    };
    Dashboard {
        uid: UID,
        title: "Kernel Gossip / Node",
        description: "Who made whom wait on a node, and where its CPU time went.",
        variables: vec![variable::cluster(), variable::one_node()],
        links: vec![],
        rows: vec![
            ("Now", vec![
                Panel::stat("Workloads", "", "short").query(&sum(&[], &series(&metric::AGENT_WORKLOAD_KNOWN, &[NODE])), "workloads"),
                Panel::stat("Pods", "That the API server has told the agent of.", "short").query(&sum(&[], &series(&metric::AGENT_POD_KNOWN, &[NODE])), "pods"),
                Panel::stat("Running", "CPUs at work for workloads.", "suffix: CPUs").query(&sum(&[], &rate(&metric::CPU_RUN_TIME, &[NODE], POINT)), "ran"),
                Panel::stat("Lost to limits", "Summed over threads.", LOST).query(&waiting("throttle"), "throttle"),
                Panel::stat("Lost to neighbours", "Summed over threads.", LOST).query(&waiting("neighbour"), "neighbour"),
                Panel::stat("Whispers", "Active now. Zero is what the agent says; no data is that it says nothing.", "short")
                    .query(&or_none(&sum(&[], &series(&metric::WHISPER_ACTIVE, &[NODE])), NODE), "whispers").thresholds(&[(None, GREEN), (Some(1.0), RED)]),
            ]),
            ("Who made whom wait", vec![
                Panel::table("Victims (rows) and culprits (columns)", "Seconds in the time shown in which a victim's threads were ready to run while the culprit ran on their CPU. The forty greatest pairs.", "s")
                    .rows(&who_whom).matrix("who", &neighbour).size(24, 10),
                Panel::graph("Culprits", "Time of others while they ran: the ten greatest.", LOST).query(&blamed, &format!("{{{{{neighbour}}}}}")).stacked(),
                Panel::graph("Victims", "Time lost to neighbours: the ten greatest.", LOST)
                    .query(&named(&greatest(10, &WHO, &metric::CPU_WAIT_TIME, &[NODE, &is(attribute::WAIT_CAUSE, "neighbour")])), "{{who}}").stacked(),
            ]),
            ("CPU", vec![
                Panel::graph("Who ran", "CPU time of the ten greatest.", "suffix: CPUs").query(&named(&greatest(10, &WHO, &metric::CPU_RUN_TIME, &[NODE])), "{{who}}").stacked(),
                Panel::graph("Waiting for a CPU, by cause", "Of all threads of the node.", LOST)
                    .query(&sum(&[&cause], &rate(&metric::CPU_WAIT_TIME, &[NODE], POINT)), &format!("{{{{{cause}}}}}"))
                    .stacked().color("throttle", RED).color("neighbour", ORANGE).color("own", BLUE).color("unattributed", GREY),
                Panel::graph("Stopped by limits", "The share of time, of the ten stopped the longest.", "percentunit")
                    .query(&named(&greatest(10, &WHO, &metric::CPU_THROTTLED_WALL_TIME, &[NODE])), "{{who}}").share(),
                Panel::graph("Taken from who ran", "By interrupts and by the hypervisor (stolen time), of all CPUs together. Where nothing is taken, or the kernel cannot tell: may be empty.", "suffix: CPUs")
                    .query(&sum(&[&taken_by], &rate(&metric::CPU_TAKEN_TIME, &[NODE], POINT)), &format!("{{{{{taken_by}}}}}")).stacked(),
                Panel::table("Worst workloads", "Seconds lost in the time shown to limits and neighbours, summed over threads.", "s")
                    .rows(&format!("topk(20, {} > 0)", sum(&WHO, &increase(&metric::CPU_WAIT_TIME, &[NODE, &lost], SHOWN))))
                    .joined(&COLUMNS, &["Lost"]).lead("Pod", "The workload", &to_workload()).lead("Cgroup", "The workload", &to_workload()).size(24, 8),
                Panel::states("Whispers", "May be empty.").size(24, 8)
                    .query(&named(&format!("max by ({}, {signal}, {severity}) ({})", WHO.join(", "), series(&metric::WHISPER_ACTIVE, &[NODE]))), &format!("{{{{who}}}} {{{{{signal}}}}} {{{{{severity}}}}}")),
            ]),
            ("Pressure (PSI)", vec![
                Panel::graph("Waited for memory", "The share of time in which at least one task waited: the ten greatest. Nobody: may be empty.", "percentunit").query(&stalled("memory"), "{{who}}"),
                Panel::graph("Waited for I/O", "The share of time in which at least one task waited: the ten greatest. Nobody: may be empty.", "percentunit").query(&stalled("io"), "{{who}}"),
            ]),
            ("Births", vec![
                Panel::stat("Born since the agent started", "May be empty before the first.", "short")
                    .query(&sum(&[], &selected(&format!("{}_count", metric::BIRTH_DURATION.prometheus()), &[NODE])), "births")
                    .link("Births", &to(births::UID, &[("node", "$node")])),
            ]),
        ],
    }
}
