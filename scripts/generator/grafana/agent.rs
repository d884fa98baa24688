//! What the agents cost, what they lose, and what they cannot see.

use kernel_gossip::names::{attribute, metric};

use super::panel::{Dashboard, GREEN, ORANGE, Panel, RED};
use super::query::*;
use super::variable;

pub const UID: &str = "kernel-gossip-agent";

pub fn dashboard() -> Dashboard {
    let (reason, program) = (label(attribute::LOSS_REASON), label(attribute::BPF_PROGRAM));
    let (kind, outcome) = (label(attribute::EXPORT_KIND), label(attribute::EXPORT_OUTCOME));
    let per_node = |of: &metric::Metric| sum(&["node"], &series(of, &[NODES]));
    // OpenTelemetry's own name: others than agents may have it. The same target has both.
    let memory = sum(
        &["node"],
        &format!(
            "{} and on (job, instance, node) {}",
            series(&metric::AGENT_MEMORY, &[NODES]),
            series(&metric::AGENT_WORKLOAD_KNOWN, &[NODES])
        ),
    );
    let blind = format!(
        "{}\nunless\n{}",
        aggregate("count", &["node"], &series(&metric::CPU_USAGE_TIME, &[NODES])),
        aggregate("count", &["node"], &series(&metric::CPU_RUN_TIME, &[NODES])),
    );
    let run_time = sum(&[&program], &rate(&metric::AGENT_BPF_RUN_TIME, &[NODES], POINT));
    let runs = sum(&[&program], &rate(&metric::AGENT_BPF_RUNS, &[NODES], POINT));
    let reading = &metric::AGENT_READING_DURATION;
    let busy = sum(
        &["node"],
        &format!("rate({}[{POINT}])", selected(&format!("{}_sum", reading.prometheus()), &[NODES])),
    );
    let lost = sum(&[&reason], &increase(&metric::AGENT_LOSSES, &[NODES], SHOWN));
    Dashboard {
        uid: UID,
        title: "Kernel Gossip / Agent",
        description: "What the agents cost, what they lose, and where a probe is missing.",
        variables: vec![variable::cluster(), variable::nodes()],
        links: vec![],
        rows: vec![
            ("Now", vec![
                Panel::stat("Agents", "Nodes with an agent that reports.", "short").query(&agents(NODES), "agents"),
                Panel::stat("Without the CPU probe", "They have no waits, stalls and neighbours.", "short")
                    .query(&or_none(&format!("count({blind})"), NODES), "nodes").thresholds(&[(None, GREEN), (Some(1.0), ORANGE)]),
                Panel::stat("Slowest readings", "The node whose 99 % of readings take the longest.", "s")
                    .query(&format!("max({})", quantile(0.99, reading, &[NODES], POINT, &["node"])), "99 %").thresholds(&[(None, GREEN), (Some(0.25), ORANGE), (Some(0.5), RED)]),
                Panel::stat("Most memory", "Of one agent, resident.", "bytes").query(&format!("max({memory})"), "memory"),
                Panel::stat("Workloads", "In the last reading of each.", "short").query(&format!("sum({})", per_node(&metric::AGENT_WORKLOAD_KNOWN)), "workloads"),
                Panel::stat("Pods", "That the API server has reported.", "short").query(&format!("sum({})", per_node(&metric::AGENT_POD_KNOWN)), "pods"),
            ]),
            ("What they cost", vec![
                Panel::graph("Readings", "How long each took, from the kernel to the sinks, by node.", "s")
                    .query(&quantile(0.99, reading, &[NODES], POINT, &["node"]), "99 % within, {{node}}"),
                Panel::graph("Time in readings", "The share of one CPU that the agent's thread is at it, by node.", "percentunit").query(&busy, "{{node}}"),
                Panel::graph("BPF programs, time", "While kernel.bpf_stats_enabled is on, and not else: may be empty.", "percentunit").query(&run_time, &format!("{{{{{program}}}}}")).stacked(),
                Panel::graph("BPF programs, time a run", "While kernel.bpf_stats_enabled is on, and not else: may be empty.", "s")
                    .query(&format!("({run_time}\n/\n{runs}) >= 0"), &format!("{{{{{program}}}}}")),
                Panel::graph("Memory", "Resident, by node.", "bytes").query(&memory, "{{node}}"),
                Panel::graph("Memory of BPF maps", "The kernel's, by node.", "bytes").query(&per_node(&metric::AGENT_BPF_MAP_SIZE), "{{node}}"),
            ]),
            ("What they lose", vec![
                Panel::graph("Losses, by reason", "Each counted where it is lost; what each is: docs/metrics.md. None: may be empty.", "suffix: /s")
                    .query(&format!("{} > 0", sum(&[&reason], &rate(&metric::AGENT_LOSSES, &[NODES], POINT))), &format!("{{{{{reason}}}}}")),
                Panel::bars("Losses in the time shown", "None: may be empty.", "short").now(&format!("topk(10, {lost} > 0)"), &format!("{{{{{reason}}}}}")),
                Panel::graph("Wait for neighbours that has no name", "The table of victims and culprits was full, or the wait outlasted the history of who ran.", "suffix: s/s")
                    .query(&sum(&["node"], &rate(&metric::AGENT_BLAME_LOST_TIME, &[NODES], POINT)), "{{node}}"),
                Panel::table("Nodes without the CPU probe", "`kernel-gossip check` there says why. None: may be empty.", "short").rows(&blind).joined(&[("node", "Node")], &["Series of files"]),
            ]),
            ("Export over OTLP", vec![
                Panel::graph("Requests, by how they ended", "Without an exporter: may be empty.", "suffix: /s")
                    .query(&sum(&[&kind, &outcome], &rate(&metric::AGENT_EXPORTS, &[NODES], POINT)), &format!("{{{{{kind}}}}} {{{{{outcome}}}}}")),
                Panel::graph("Accepted items", "Data points, events, spans. Without an exporter: may be empty.", "suffix: /s")
                    .query(&sum(&[&kind], &rate(&metric::AGENT_EXPORTED_ITEMS, &[NODES], POINT)), &format!("{{{{{kind}}}}}")),
                Panel::graph("Waiting, bytes", "Of at most what --otlp-queue allows each agent. Without an exporter: may be empty.", "bytes")
                    .query(&sum(&[&kind], &series(&metric::AGENT_QUEUE_SIZE, &[NODES])), &format!("{{{{{kind}}}}}")).stacked(),
                Panel::graph("Waiting, items", "Without an exporter: may be empty.", "short")
                    .query(&sum(&[&kind], &series(&metric::AGENT_QUEUE_LENGTH, &[NODES])), &format!("{{{{{kind}}}}}")).stacked(),
            ]),
        ],
    }
}
