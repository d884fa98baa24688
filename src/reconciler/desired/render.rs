//! What an object says, in words and in its own types: pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::ResourceExt;

use super::{PodKey, PodState, SignalState};
use crate::api::{
    CpuNumbers, KernelTruth, KernelWhisper, KernelWhisperSpec, KernelWhisperStatus, LABEL_POD, MetricsSay,
    NeighbourShare, Signal, SignalEvidence, SignalKind, Source, WhisperState, object_name,
};
use crate::evidence::tidy;
use crate::plain;
use crate::reconciler::report::Report;

/// `<pod>-kw`.
pub const SUFFIX: &str = "kw";
/// Condition: some signal is active.
pub const WHISPERING: &str = "Whispering";
/// Condition: the Metrics API said something of the pod.
pub const METRICS_SAID: &str = "MetricsSaid";
/// What stands for a neighbour that is not to be named.
pub const WITHHELD: &str = "another namespace";

/// The numbers of a report with its neighbours, as an object carries them.
pub fn numbers(report: &Report, withhold: bool) -> SignalEvidence {
    let mut numbers = report.numbers.clone();
    let mut shares: Vec<NeighbourShare> = Vec::with_capacity(report.neighbours.len());
    for n in &report.neighbours {
        // A service of the node belongs to no namespace; a pod's cgroup not resolved to its pod may.
        let nobodys = n.namespace.is_empty() && n.pod.is_empty() && !n.name.contains("pod");
        let withheld = withhold && !nobodys && n.namespace != report.namespace;
        add(&mut shares, &n.name, withheld, n.percent);
    }
    shares.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    for s in &mut shares {
        s.percent = tidy(s.percent);
    }
    numbers.neighbours = shares;
    numbers.round();
    numbers
}

/// Adds to the share of this neighbour, or of all that are withheld.
fn add(shares: &mut Vec<NeighbourShare>, name: &str, withheld: bool, percent: f64) {
    let name = if withheld { WITHHELD } else { name };
    match shares.iter_mut().find(|s| s.withheld == withheld && s.name == name) {
        Some(share) => share.percent += percent,
        None => shares.push(NeighbourShare { name: name.to_owned(), withheld, percent }),
    }
}

/// Takes the names of neighbours in other namespaces out of what an object told; whether there were any.
/// An object has names alone: what is outside any pod (`namespace/pod/container`) and no cgroup of one is the node's.
pub fn withhold(numbers: &mut SignalEvidence, namespace: &str) -> bool {
    let others = |n: &NeighbourShare| match n.name.split_once('/') {
        Some((of, _)) if !of.is_empty() => of != namespace,
        _ => n.name.contains("pod"),
    };
    let before = std::mem::take(&mut numbers.neighbours);
    let mut any = false;
    for n in before {
        let now = !n.withheld && others(&n);
        any |= now;
        add(&mut numbers.neighbours, &n.name, n.withheld || now, n.percent);
    }
    numbers.neighbours.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    any
}

/// The object this state wants; `None` without a signal.
pub(crate) fn object(key: &PodKey, state: &PodState, now: Timestamp) -> Option<KernelWhisper> {
    let (about, head) = state.headline()?;
    let (container, kind) = about;
    let active = state.signals.values().any(|s| s.active);
    let metrics = state.metrics.clone().map(tidy_metrics);
    let spec = KernelWhisperSpec {
        pod_name: key.pod.clone(),
        pod_uid: state.uid.clone(),
        node_name: state.node.clone(),
    };
    let mut kw = KernelWhisper::new(&object_name(&key.pod, SUFFIX), spec);
    kw.metadata.namespace = Some(key.namespace.clone());
    kw.metadata.owner_references = Some(vec![owner(&key.pod, &state.uid)]);
    kw.labels_mut().extend(labels(&key.pod));
    kw.status = Some(KernelWhisperStatus {
        observed_generation: None,
        state: if active { WhisperState::Active } else { WhisperState::Resolved },
        severity: head.severity,
        signal: *kind,
        insight: cut(insight(container, *kind, head, metrics.as_ref()), 2048),
        recommendation: head
            .advice
            .as_ref()
            .map(|a| &a.text)
            .or_else(|| state.restored_advice.as_ref().filter(|(of, _)| of == about).map(|(_, text)| text))
            .map(|text| cut(text.clone(), 4096)),
        kernel_evidence: cut(evidence(container, *kind, head), 2048),
        kernel_truth: Some(truth(container, *kind, head)),
        conditions: conditions(state, *kind, active, now),
        metrics_say: metrics,
        signals: state.signals.iter().map(|((c, k), s)| signal(c, *k, s)).collect(),
        remediation: state.remediation.clone(),
    });
    Some(kw)
}

/// The numbers a reader would act on: of each active signal what it is about, CPU used, wanted and
/// allowed, and what the metrics say.
pub(crate) fn significant_values(state: &PodState) -> Vec<f64> {
    let mut significant = Vec::with_capacity(4 * state.signals.len() + 1);
    for ((_, kind), s) in state.signals.iter().filter(|(_, s)| s.active) {
        let cpu = s.numbers.cpu.as_ref();
        // Percent and cores side by side: a hundredth of a core is as much as one percent.
        let cores = |pick: fn(&CpuNumbers) -> Option<f64>| 100.0 * cpu.and_then(pick).unwrap_or_default();
        significant.push(kind.kind().size(&s.numbers));
        significant.extend([cores(|c| c.usage_cores), cores(|c| c.demand_cores), cores(|c| c.limit_cores)]);
    }
    if let Some(m) = &state.metrics {
        significant.push(100.0 * m.cpu_cores);
        significant.extend(m.containers.iter().filter_map(|c| c.kernel_cpu_cores).map(|cores| 100.0 * cores));
    }
    significant
}

/// Whether two gists differ by more than a tenth of either, and more than 2 (percent, or hundredths of
/// a core), anywhere.
pub(crate) fn changed_materially(before: &[f64], now: &[f64]) -> bool {
    let differ = |(a, b): (&f64, &f64)| (a - b).abs() > (a.abs().max(b.abs()) / 10.0).max(2.0);
    before.len() != now.len() || before.iter().zip(now).any(differ)
}

/// The pod owns what is about it: with the pod its objects go.
pub fn owner(pod: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.to_owned(),
        uid: uid.to_owned(),
        ..Default::default()
    }
}

/// The labels of every object: a value holds 63 characters that end in a letter or digit.
pub fn labels(pod: &str) -> [(String, String); 2] {
    let pod = pod[..pod.len().min(63)].trim_end_matches(['.', '-']);
    [
        ("app.kubernetes.io/managed-by".to_owned(), "kernel-gossip".to_owned()),
        (LABEL_POD.to_owned(), pod.to_owned()),
    ]
}

fn signal(container: &str, kind: SignalKind, s: &SignalState) -> Signal {
    Signal {
        container: container.to_owned(),
        kind,
        source: s.source,
        state: if s.active { WhisperState::Active } else { WhisperState::Resolved },
        severity: s.severity,
        since: Time(s.since),
        last_seen: Time(s.last_seen),
        resolved_at: s.resolved_at.map(Time),
        count: s.count,
        text: cut(evidence(container, kind, s), 1024),
        evidence: s.numbers.clone(),
    }
}

fn truth(container: &str, kind: SignalKind, s: &SignalState) -> KernelTruth {
    let cpu = s.numbers.cpu.clone().unwrap_or_default();
    let mut summary = kind.kind().headline(&s.numbers);
    if s.source == Source::Reported {
        summary.push_str(" (reported)");
    }
    KernelTruth {
        summary: cut(summary, 128),
        container: container.to_owned(),
        source: s.source,
        window_seconds: s.numbers.window_seconds,
        throttled_percent: cpu.throttled_percent,
        throttled_full_percent: cpu.throttled_full_percent,
        cpu_usage_cores: cpu.usage_cores,
        actual_cpu_cores: cpu.usage_cores,
        demand_cpu_cores: cpu.demand_cores,
        cpu_limit_cores: cpu.limit_cores,
        cpu_request_cores: cpu.request_cores,
        neighbour_wait_percent: neighbour_percent(&s.numbers),
    }
}

/// Time in which at least one thread waited while others ran, percent of the window.
fn neighbour_percent(numbers: &SignalEvidence) -> Option<f64> {
    Some(tidy(numbers.contended()?.percent))
}

/// The numbers behind a signal, as text.
fn evidence(container: &str, kind: SignalKind, s: &SignalState) -> String {
    let mut text = String::with_capacity(256);
    if !container.is_empty() {
        let _ = write!(text, "{container}: ");
    }
    text.push_str(&kind.kind().headline(&s.numbers));
    let _ = s.numbers.window_seconds.map(|w| write!(text, " of {w:.0} s"));
    if let Some(c) = &s.numbers.cpu {
        cpu_evidence(&mut text, c, kind.kind().at_most(&s.numbers));
    }
    if let Some(m) = &s.numbers.memory {
        let parts = [("used", m.usage_bytes), ("working set", m.working_set_bytes), ("limit", m.limit_bytes)];
        for (what, bytes) in parts {
            let _ = bytes.map(|b| write!(text, ", {what} {}", plain::bytes(b)));
        }
        let _ = m.reclaimable_bytes.map(|b| write!(text, ", reclaimable {}", plain::bytes(b)));
        let _ = m.refaults.map(|n| write!(text, ", {n} refaults"));
        let _ = m.oom_kills.map(|n| write!(text, ", {n} OOM kills"));
    }
    if let Some(n) = &s.numbers.network {
        let _ = n.dropped_packets.map(|n| write!(text, ", {n} packets dropped"));
        let _ = n.retransmit_percent.map(|p| write!(text, ", {p:.1} % retransmitted"));
        let _ = n.reason.as_ref().map(|r| write!(text, ", reason {r}"));
    }
    if !s.numbers.neighbours.is_empty() {
        let _ = write!(text, "; {}: ", kind.kind().neighbours_did());
        let names: Vec<String> =
            s.numbers.neighbours.iter().map(|n| format!("{} {:.0} %", n.name, n.percent)).collect();
        text.push_str(&names.join(", "));
    }
    if s.source == Source::Reported {
        text.push_str("; reported by others, not measured by an agent");
    }
    text
}

fn cpu_evidence(text: &mut String, c: &CpuNumbers, at_most: Option<f64>) {
    let _ = c.throttled_full_percent.map(|p| write!(text, ", every CPU it wanted {p:.0} %"));
    if let Some(stalls) = c.stalls.filter(|n| *n > 0) {
        let _ = write!(text, ", {stalls} stalls");
        let _ = c.stall_p99_seconds.map(|s| write!(text, " (99 % at most {:.0} ms)", s * 1e3));
    }
    // Without the probe these are the headline.
    let periods = c.periods.filter(|n| *n > 0 && c.throttled_percent.is_some());
    if let (Some(throttled), Some(periods)) = (c.throttled_periods, periods) {
        let _ = write!(text, ", in {throttled} of {periods} periods");
    }
    let _ = c.usage_cores.map(|u| write!(text, "; used {u:.2} cores"));
    let _ = c.limit_cores.map(|l| write!(text, ", limit {l:.2}"));
    let _ = c.request_cores.map(|r| write!(text, ", request {r:.2}"));
    let _ = at_most.map(|d| write!(text, ", would have used at most {d:.2}"));
    let _ = c.reported_usage_cores.map(|r| write!(text, ", reported {r:.2}"));
    for (by, seconds) in
        [("the hypervisor", c.taken_hypervisor_seconds), ("interrupts", c.taken_interrupts_seconds)]
    {
        let _ = seconds.map(|s| write!(text, "; {by} took {s:.2} s of its time on a CPU"));
    }
    if let Some(wait) = c.wait_seconds {
        let _ = write!(text, "; its threads waited {wait:.2} s together");
        let parts = [
            ("throttled", c.wait_throttle_seconds),
            ("neighbours", c.wait_neighbour_seconds),
            ("own threads", c.wait_own_seconds),
            ("unattributed", c.wait_unattributed_seconds),
        ];
        for (what, seconds) in parts {
            let _ = seconds.filter(|s| *s > 0.0).map(|s| write!(text, ", {what} {s:.2}"));
        }
    }
}

/// What is wrong, in one sentence, and what the metrics made of it, in another.
fn insight(container: &str, kind: SignalKind, s: &SignalState, metrics: Option<&MetricsSay>) -> String {
    let who = if container.is_empty() { "The pod".to_owned() } else { format!("Container {container}") };
    let cpu = s.numbers.cpu.clone().unwrap_or_default();
    let window = s.numbers.window_seconds.map(|w| format!(" of {w:.0} s")).unwrap_or_default();
    let said = kind.kind().sentence(&who, &s.numbers);
    let mut text = said.unwrap_or_else(|| format!("{who}: {}", kind.kind().headline(&s.numbers))) + &window;
    match (cpu.usage_cores, kind.kind().at_most(&s.numbers)) {
        (Some(used), Some(most)) => {
            let _ = write!(text, "; it used {used:.2} cores and would have used at most {most:.2}");
        }
        (Some(used), None) => {
            let _ = write!(text, "; it used {used:.2} cores");
        }
        _ => {}
    }
    if let Some(first) = s.numbers.neighbours.first().filter(|_| kind.kind().blames()) {
        let _ = write!(text, "; first among the neighbours is {}, {:.0} %", first.name, first.percent);
    }
    text.push('.');
    if s.source == Source::Reported {
        text.push_str(" This was reported by others, not measured by an agent.");
    }
    if let Some(m) = metrics {
        let _ = write!(text, " The Metrics API says {} over {:.0} s.", m.summary, m.window);
    }
    if !s.active {
        text.push_str(" It is over.");
    }
    text
}

fn conditions(state: &PodState, kind: SignalKind, active: bool, now: Timestamp) -> Vec<Condition> {
    let condition = |type_: &str, truth: bool, reason: String, message: String| {
        let status = if truth { "True" } else { "False" };
        let before = state.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
            observed_generation: None,
        }
    };
    let n = state.signals.values().filter(|s| s.active).count();
    let whispering = if active {
        let message =
            if n == 1 { "1 signal is active.".to_owned() } else { format!("{n} signals are active.") };
        condition(WHISPERING, true, camel(kind.as_str()), message)
    } else {
        condition(WHISPERING, false, "Resolved".to_owned(), "No signal is active.".to_owned())
    };
    let said = match &state.metrics {
        Some(_) => {
            let message = "status.metricsSay is what the Metrics API says of the pod.".to_owned();
            condition(METRICS_SAID, true, "Reported".to_owned(), message)
        }
        None => {
            let silence = state.silence;
            condition(METRICS_SAID, false, silence.as_str().to_owned(), silence.message().to_owned())
        }
    };
    vec![said, whispering]
}

/// `cpu_throttle` as `CpuThrottle`.
fn camel(snake: &str) -> String {
    let part = |p: &str| {
        let mut c = p.chars();
        c.next().map(|f| f.to_ascii_uppercase().to_string() + c.as_str()).unwrap_or_default()
    };
    snake.split('_').map(part).collect()
}

/// At most `max` characters, as the schema counts them.
fn cut(mut text: String, max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(max) {
        text.truncate(at);
    }
    text
}

fn tidy_metrics(mut m: MetricsSay) -> MetricsSay {
    m.cpu_cores = tidy(m.cpu_cores);
    m.cpu_percent = m.cpu_percent.map(tidy);
    for c in &mut m.containers {
        c.cpu_cores = tidy(c.cpu_cores);
        c.cpu_percent = c.cpu_percent.map(tidy);
        c.kernel_cpu_cores = c.kernel_cpu_cores.map(tidy);
        c.kernel_throttled_cores = c.kernel_throttled_cores.map(tidy);
    }
    m
}
