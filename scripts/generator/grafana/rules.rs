//! What Prometheus records, and what it alerts on: time lost, not periods. Windows of 5 minutes hold five of the
//! agents' exports through a collector (one a minute).

use anyhow::Result;
use kernel_gossip::names::metric::{self, Metric};
use kernel_gossip::names::{attribute, birth};
use serde::Serialize;

use super::query::{increase, is, label, rate, selected, series, sum};

const RUNBOOKS: &str = "https://github.com/kernel-gossip/kernel-gossip/blob/main/docs/runbooks.md";

/// A workload, wherever it is.
const WHO: [&str; 8] = ["cluster", "node", "namespace", "pod", "container", "cgroup", "unit", "kind"];
const NODE: [&str; 2] = ["cluster", "node"];
const WINDOW: &str = "5m";

/// A workload's name in a sentence.
const NAME: &str = "{{ if $labels.pod }}{{ $labels.namespace }}/{{ $labels.pod }}/{{ $labels.container }}{{ else }}{{ $labels.cgroup }}{{ end }}";
/// A pod's, whose containers share a network.
const POD: &str =
    "{{ if $labels.pod }}{{ $labels.namespace }}/{{ $labels.pod }}{{ else }}{{ $labels.cgroup }}{{ end }}";
const ON_NODE: &str = "{{ if $labels.node }} on {{ $labels.node }}{{ end }}";

#[derive(Serialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rule {
    Recording { record: &'static str, expr: String },
    Alert { alert: &'static str, expr: String, r#for: &'static str, labels: Labels, annotations: Annotations },
}

#[derive(Serialize)]
struct Labels {
    severity: &'static str,
}

#[derive(Serialize)]
struct Annotations {
    summary: String,
    description: String,
    runbook_url: String,
}

const THROTTLED: &str = "workload:kernel_gossip_cpu_throttled_wall_time_seconds:rate5m";
const THROTTLE: &str = "workload:kernel_gossip_cpu_throttle_wait_time_seconds:rate5m";
const NEIGHBOUR: &str = "workload:kernel_gossip_cpu_neighbour_wait_time_seconds:rate5m";
const RUN: &str = "workload:kernel_gossip_cpu_run_time_seconds:rate5m";
const BLAME: &str = "culprit:kernel_gossip_cpu_neighbour_time_seconds:rate5m";
const MEMORY: &str = "workload:kernel_gossip_pressure_memory_full_time_seconds:rate5m";
const IO: &str = "workload:kernel_gossip_pressure_io_full_time_seconds:rate5m";

const DROPPED: &str = "workload:kernel_gossip_network_dropped:rate5m";
const PACKETS: &str = "workload:kernel_gossip_network_packets:rate5m";

fn of_workload(record: &'static str, of: &Metric, having: &str) -> Rule {
    Rule::Recording { record, expr: sum(&WHO, &rate(of, &[having], WINDOW)) }
}

/// Of what contains no other: a pod's has its containers' once more, as a slice has its services' and /kubepods all pods'.
fn stalled(record: &'static str, resource: &str) -> Rule {
    let having = format!(
        r#"{},kind!~"pod|root",unit!~".+\\.slice",cgroup!~".*kubepods.*""#,
        is(attribute::PRESSURE_RESOURCE, resource)
    );
    of_workload(record, &metric::PRESSURE_FULL_TIME, &having)
}

fn recording() -> Vec<Rule> {
    let (name, namespace, pod) = (
        label(attribute::NEIGHBOUR_NAME),
        label(attribute::NEIGHBOUR_NAMESPACE),
        label(attribute::NEIGHBOUR_POD),
    );
    vec![
        of_workload(RUN, &metric::CPU_RUN_TIME, ""),
        of_workload(THROTTLED, &metric::CPU_THROTTLED_WALL_TIME, ""),
        of_workload(THROTTLE, &metric::CPU_WAIT_TIME, &is(attribute::WAIT_CAUSE, "throttle")),
        of_workload(NEIGHBOUR, &metric::CPU_WAIT_TIME, &is(attribute::WAIT_CAUSE, "neighbour")),
        stalled(MEMORY, "memory"),
        stalled(IO, "io"),
        of_workload(DROPPED, &metric::NETWORK_DROPPED, ""),
        of_workload(PACKETS, &metric::NETWORK_PACKETS, ""),
        Rule::Recording {
            record: BLAME,
            expr: sum(
                &[&NODE[..], &[&*name, &*namespace, &*pod]].concat(),
                &rate(&metric::CPU_NEIGHBOUR_TIME, &[&format!("{name}!=\"other\"")], WINDOW),
            ),
        },
    ]
}

/// An alert: what a person reads first, and what more there is to say.
fn alert(
    alert: &'static str,
    severity: &'static str,
    r#for: &'static str,
    expr: String,
    summary: String,
    description: String,
) -> Rule {
    // As GitHub makes it of a heading.
    let runbook_url = format!("{RUNBOOKS}#{}", alert.to_ascii_lowercase());
    Rule::Alert {
        alert,
        expr,
        r#for,
        labels: Labels { severity },
        annotations: Annotations { summary, description, runbook_url },
    }
}

/// Who ran meanwhile, the three greatest, as a template: no label, as it may be another one each minute.
fn culprits() -> String {
    let name = label(attribute::NEIGHBOUR_NAME);
    let of = series(
        &metric::CPU_NEIGHBOUR_TIME,
        &["cluster=%q", "node=%q", "namespace=%q", "pod=%q", "container=%q", "cgroup=%q"],
    );
    format!(
        "{{{{ range printf `topk(3, sum by ({name}) (rate({of}[{WINDOW}])))` $labels.cluster $labels.node $labels.namespace \
         $labels.pod $labels.container $labels.cgroup | query }}}} {{{{ .Labels.{name} }}}} ({{{{ .Value | humanize }}}} s/s){{{{ end }}}}"
    )
}

/// Why its packets were dropped, the three most frequent reasons, as a template.
fn reasons() -> String {
    let reason = label(attribute::DROP_REASON);
    let of =
        series(&metric::NETWORK_DROPPED, &["cluster=%q", "node=%q", "namespace=%q", "pod=%q", "cgroup=%q"]);
    format!(
        "{{{{ range printf `topk(3, sum by ({reason}) (rate({of}[{WINDOW}])))` $labels.cluster $labels.node $labels.namespace \
         $labels.pod $labels.cgroup | query }}}} {{{{ .Labels.{reason} }}}} ({{{{ .Value | humanize }}}} a second){{{{ end }}}}"
    )
}

fn workload_alerts() -> Vec<Rule> {
    let throttled = |severity, above: &str| {
        alert(
            "KernelGossipThrottled",
            severity,
            "15m",
            format!("{THROTTLED} > {above}"),
            format!(
                "{NAME} is stopped by its CPU limit {{{{ $value | humanizePercentage }}}} of the time: raise the limit or drop it."
            ),
            format!(
                "In so much of the last 5 minutes some of {NAME}{ON_NODE} was refused the CPU by its limit, or by one of a cgroup above it. Its KernelWhisper says what limit it would take."
            ),
        )
    };
    let kept = format!("{NEIGHBOUR} > 0.25\nand\n{NEIGHBOUR} / ({NEIGHBOUR} + {RUN}) > 0.1");
    let stall = |name, of: &str, what: &str, advice: &str| {
        alert(
            name,
            "warning",
            "15m",
            format!("{of} > 0.1"),
            format!(
                "{NAME} stands still for {what} {{{{ $value | humanizePercentage }}}} of the time: {advice}."
            ),
            format!(
                "In so much of the last 5 minutes every task of {NAME}{ON_NODE} that had something to do waited for {what} (PSI, full)."
            ),
        )
    };
    let culprit = format!("{{{{ $labels.{} }}}}", label(attribute::NEIGHBOUR_NAME));
    vec![
        throttled("warning", "0.25"),
        throttled("critical", "0.5"),
        alert(
            "KernelGossipKeptWaiting",
            "warning",
            "15m",
            kept,
            format!(
                "{NAME} waits for others {{{{ $value | humanize }}}} s a second: raise its CPU request, or keep it apart from them."
            ),
            format!("Its threads were ready to run and others had the CPU{ON_NODE}:{}.", culprits()),
        ),
        alert(
            "KernelGossipNoisyNeighbour",
            "info",
            "15m",
            format!("{BLAME} > 1"),
            format!(
                "{culprit} keeps others waiting {{{{ $value | humanize }}}} s a second: limit it, or move it."
            ),
            format!(
                "So long, in each second, threads of other workloads{ON_NODE} were ready to run while {culprit} ran on their CPU."
            ),
        ),
        stall("KernelGossipMemoryStall", MEMORY, "memory", "raise its memory limit, or find what grows"),
        stall("KernelGossipIoStall", IO, "I/O", "look at its volume and its I/O limit"),
        alert(
            "KernelGossipPacketsDropped",
            "warning",
            "15m",
            // A packet in ten seconds is no traffic to speak of.
            format!("{DROPPED} / {PACKETS} > 0.01\nand\n{DROPPED} > 0.1"),
            format!(
                "The kernel drops {{{{ $value | humanizePercentage }}}} of the packets of {POD}: its KernelWhisper says why."
            ),
            format!(
                "So many of the packets that {POD}{ON_NODE} sent and received in the last 5 minutes were dropped by the node's kernel; by reason:{}.",
                reasons()
            ),
        ),
    ]
}

fn birth_alerts() -> Vec<Rule> {
    let name = metric::BIRTH_DURATION.prometheus();
    let failed = selected(&format!("{name}_count"), &[&is(birth::OUTCOME, "failed")]);
    let born = selected(&format!("{name}_bucket"), &[&is(birth::OUTCOME, "complete")]);
    let half = format!(
        "histogram_quantile(0.5, {})",
        sum(&["cluster", "node", "le"], &format!("rate({born}[30m])"))
    );
    vec![
        alert(
            "KernelGossipBirthsFail",
            "warning",
            "5m",
            format!("{} >= 3", sum(&NODE, &format!("increase({failed}[30m])"))),
            "Pods fail to start{{ if $labels.node }} on {{ $labels.node }}{{ end }}, {{ $value | humanize }} in half an hour: read their birth certificates.".into(),
            "A birth fails where it cannot go on as it is: an image that cannot be pulled, a volume that is not there, a program that ends.".into(),
        ),
        alert(
            "KernelGossipBirthsSlow",
            "info",
            "15m",
            format!("{half} > 30"),
            "Half of the pods take {{ $value | humanizeDuration }} or more to start{{ if $labels.node }} on {{ $labels.node }}{{ end }}: see which phase.".into(),
            "Of complete births of the last half hour, from the pod's cgroup to its last container's first socket, and Ready.".into(),
        ),
    ]
}

/// Losses after which numbers are missing. The others are repaired (a walk finds a cgroup), or are no table's.
const MISSING: &str = "slots_exhausted|pair_evicted|pair_dropped|cgroup_dropped|sample_untracked|blame_untracked|departed_dropped|birth_segments|birth_events|birth_dropped|birth_record|too_large|metrics_queue_full|events_queue_full|traces_queue_full|metrics_refused|events_refused|traces_refused|metrics_rejected|events_rejected|traces_rejected";

fn agent_alerts() -> Vec<Rule> {
    let known = series(&metric::AGENT_WORKLOAD_KNOWN, &[]);
    let count = |of: &str| format!("count by ({}) ({of})", NODE.join(", "));
    let reason = label(attribute::LOSS_REASON);
    let kind = label(attribute::EXPORT_KIND);
    let exports = |outcome: &str| {
        let of = rate(&metric::AGENT_EXPORTS, &[&is(attribute::EXPORT_OUTCOME, outcome)], WINDOW);
        sum(&[&NODE[..], &[&*kind]].concat(), &of)
    };
    let readings = format!("rate({}_bucket[{WINDOW}])", metric::AGENT_READING_DURATION.prometheus());
    let on = |what: &str| {
        format!("The agent{{{{ if $labels.node }}}} of {{{{ $labels.node }}}}{{{{ end }}}} {what}")
    };
    vec![
        alert(
            "KernelGossipAgentGone",
            "warning",
            "10m",
            format!("{}\nunless\n{}", count(&format!("last_over_time({known}[1h])")), count(&known)),
            on("is gone: nothing is known of what runs there. Look at its pod."),
            "It reported within the last hour and does not now. A node that was taken away looks the same for an hour.".into(),
        ),
        alert(
            "KernelGossipAgentBlind",
            "warning",
            "15m",
            format!("{}\nunless\n{}", count(&series(&metric::CPU_USAGE_TIME, &[])), count(&series(&metric::CPU_RUN_TIME, &[]))),
            on("has no CPU probe: no waits, stalls and neighbours are known there. Run kernel-gossip check there."),
            "It reads the cgroups' files and nothing else: BPF is denied to it, or the kernel lacks what the probe needs.".into(),
        ),
        alert(
            "KernelGossipAgentLosses",
            "warning",
            "15m",
            format!("{} > 0", sum(&[&NODE[..], &[&*reason]].concat(), &increase(&metric::AGENT_LOSSES, &[&is(attribute::LOSS_REASON, MISSING)], "10m"))),
            on(&format!("loses numbers ({{{{ $labels.{reason} }}}}): see what to set.")),
            "What it loses it counts, and where there is something to set its log says what.".into(),
        ),
        alert(
            "KernelGossipExportFails",
            "warning",
            "15m",
            format!("{} > 0\nunless\n{} > 0", exports("retried|refused"), exports("delivered")),
            on(&format!("cannot export {{{{ $labels.{kind} }}}}: look at the collector.")),
            "Requests fail and none is taken. What waits is kept up to --otlp-queue; then the oldest is dropped and counted.".into(),
        ),
        alert(
            "KernelGossipReadingsSlow",
            "warning",
            "15m",
            format!("histogram_quantile(0.99, {}) > 0.5", sum(&["cluster", "node", "le"], &readings)),
            on("takes {{ $value | humanizeDuration }} for a reading: it comes late, and costs CPU. See how many workloads there are."),
            "A reading a second is wanted; 99 of 100 took up to so long.".into(),
        ),
    ]
}

fn groups() -> Groups {
    let alerts = [workload_alerts(), birth_alerts(), agent_alerts()].into_iter().flatten().collect();
    Groups {
        groups: vec![
            Group { name: "kernel-gossip.recording", rules: recording() },
            Group { name: "kernel-gossip.alerts", rules: alerts },
        ],
    }
}

/// A rule file of Prometheus.
pub fn prometheus() -> Result<String> {
    Ok(format!("# Made by scripts/generate.\n{}", serde_saphyr::to_string(&groups())?))
}

/// The same for the Prometheus operator.
pub fn kubernetes() -> Result<String> {
    let labels = serde_json::json!({"app.kubernetes.io/name": "kernel-gossip", "app.kubernetes.io/part-of": "kernel-gossip"});
    let rule = serde_json::json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"name": "kernel-gossip", "labels": labels},
        "spec": groups(),
    });
    Ok(format!("# Made by scripts/generate.\n{}", serde_saphyr::to_string(&rule)?))
}
