//! One webhook body: pure, and total over whatever bytes come.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::check;
use crate::api::{
    Actor, BirthStep, CpuNumbers, KernelStats, MemoryNumbers, NetworkNumbers, Severity, SignalEvidence,
    SignalKind, Source,
};
use crate::bounds;
use crate::reconciler::refusal::{Reason, Refusal};
use crate::reconciler::report::Report;

/// Above this share of the window a reported throttling is critical, unless the sender says.
const CRITICAL_PERCENT: f64 = 50.0;
/// Why packets were dropped, in a sender's words.
const REASON_MAX: usize = 256;
/// Steps of a reported birth.
const STEPS_MAX: usize = 512;

/// Which door it came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Pixie,
    Ebpf,
}

impl Via {
    pub fn parse(name: &str) -> Option<Via> {
        [Via::Pixie, Via::Ebpf].into_iter().find(|v| v.path().ends_with(&format!("/{name}")))
    }

    /// Its path: also what RBAC grants.
    pub fn path(self) -> &'static str {
        match self {
            Via::Pixie => "/webhook/pixie",
            Via::Ebpf => "/webhook/ebpf",
        }
    }
}

/// What a body says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Report(Box<Report>),
    Birth(Box<ReportedBirth>),
}

/// A birth as others saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedBirth {
    pub namespace: String,
    pub pod: String,
    pub at: Timestamp,
    pub stats: KernelStats,
    pub timeline: Vec<BirthStep>,
}

/// What a body is, before the rest of it is read.
#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CpuThrottle {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pod_name: String,
    namespace: String,
    container_name: String,
    throttle_percentage: f64,
    actual_cpu_usage: Option<f64>,
    reported_cpu_usage: Option<f64>,
    period_seconds: f64,
    timestamp: Timestamp,
    severity: Option<Severity>,
    state: Option<State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryPressure {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pod_name: String,
    namespace: String,
    container_name: String,
    pressure_percentage: f64,
    memory_usage_bytes: Option<i64>,
    memory_limit_bytes: Option<serde_json::Number>,
    working_set_bytes: Option<i64>,
    refaults: Option<i64>,
    period_seconds: f64,
    timestamp: Timestamp,
    severity: Option<Severity>,
    state: Option<State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkIssue {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pod_name: String,
    namespace: String,
    container_name: Option<String>,
    dropped_packets: Option<i64>,
    drop_percentage: Option<f64>,
    retransmit_percentage: Option<f64>,
    reason: Option<String>,
    period_seconds: f64,
    timestamp: Timestamp,
    severity: Option<Severity>,
    state: Option<State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodCreation {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    pod_name: String,
    namespace: String,
    timestamp: Timestamp,
    total_syscalls: Option<i64>,
    namespaces_created: Option<i64>,
    cgroups_created: Option<i64>,
    cgroup_writes: Option<i64>,
    mounts: Option<i64>,
    processes: Option<i64>,
    total_duration_ms: Option<f64>,
    #[serde(default)]
    timeline: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    timestamp_ms: f64,
    actor: Actor,
    action: String,
    details: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Resolved,
}

/// What the body says, every field checked.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn parse(body: &[u8], now: Timestamp) -> Result<Event, Refusal> {
    let Typed { kind } = read(body)?;
    match kind.as_str() {
        "cpu_throttle" => {
            let b: CpuThrottle = read(body)?;
            let percent = check::percent("throttle_percentage", b.throttle_percentage)?;
            let default = if percent >= CRITICAL_PERCENT { Severity::Critical } else { Severity::Warning };
            let cpu = CpuNumbers {
                throttled_percent: Some(percent),
                usage_cores: optional("actual_cpu_usage", b.actual_cpu_usage, check::amount)?,
                reported_usage_cores: optional("reported_cpu_usage", b.reported_cpu_usage, check::amount)?,
                ..Default::default()
            };
            let numbers = SignalEvidence { cpu: Some(cpu), ..Default::default() };
            let about = About { namespace: b.namespace, pod: b.pod_name, container: Some(b.container_name) };
            let when = When { at: b.timestamp, period: b.period_seconds, state: b.state, now };
            report(SignalKind::CpuThrottle, about, when, b.severity.unwrap_or(default), numbers)
        }
        "memory_pressure" => {
            let b: MemoryPressure = read(body)?;
            let memory = MemoryNumbers {
                pressure_percent: Some(check::percent("pressure_percentage", b.pressure_percentage)?),
                usage_bytes: optional("memory_usage_bytes", b.memory_usage_bytes, check::count)?,
                limit_bytes: limit("memory_limit_bytes", b.memory_limit_bytes)?,
                working_set_bytes: optional("working_set_bytes", b.working_set_bytes, check::count)?,
                refaults: optional("refaults", b.refaults, check::count)?,
                ..Default::default()
            };
            let numbers = SignalEvidence { memory: Some(memory), ..Default::default() };
            let about = About { namespace: b.namespace, pod: b.pod_name, container: Some(b.container_name) };
            let when = When { at: b.timestamp, period: b.period_seconds, state: b.state, now };
            report(SignalKind::MemoryPressure, about, when, b.severity.unwrap_or(Severity::Warning), numbers)
        }
        "network_issue" => {
            let b: NetworkIssue = read(body)?;
            let network = NetworkNumbers {
                dropped_packets: optional("dropped_packets", b.dropped_packets, check::count)?,
                drop_percent: optional("drop_percentage", b.drop_percentage, check::percent)?,
                retransmit_percent: optional(
                    "retransmit_percentage",
                    b.retransmit_percentage,
                    check::percent,
                )?,
                reason: b.reason.as_deref().map(|r| bounds::sentence(r, REASON_MAX).into_owned()),
                ..NetworkNumbers::default()
            };
            if network == NetworkNumbers::default() {
                let why = "or drop_percentage, retransmit_percentage, reason: one of them is needed";
                return Err(check::bad("dropped_packets", why));
            }
            let numbers = SignalEvidence { network: Some(network), ..Default::default() };
            let about = About { namespace: b.namespace, pod: b.pod_name, container: b.container_name };
            let when = When { at: b.timestamp, period: b.period_seconds, state: b.state, now };
            report(SignalKind::NetworkIssue, about, when, b.severity.unwrap_or(Severity::Warning), numbers)
        }
        "pod_creation" => birth(read(body)?, now),
        _ => {
            let why = "must be cpu_throttle, memory_pressure, network_issue or pod_creation";
            Err(Refusal::of(Reason::UnknownSignal, "type", why))
        }
    }
}

struct About {
    namespace: String,
    pod: String,
    container: Option<String>,
}

struct When {
    at: Timestamp,
    period: f64,
    state: Option<State>,
    now: Timestamp,
}

fn report(
    kind: SignalKind,
    about: About,
    when: When,
    severity: Severity,
    numbers: SignalEvidence,
) -> Result<Event, Refusal> {
    check::label("namespace", &about.namespace)?;
    check::subdomain("pod_name", &about.pod)?;
    if let Some(container) = &about.container {
        check::label("container_name", container)?;
    }
    let at = check::said_at("timestamp", when.at, when.now)?;
    Ok(Event::Report(Box::new(Report {
        source: Source::Reported,
        namespace: about.namespace,
        pod: about.pod,
        uid: None,
        container: about.container.unwrap_or_default(),
        kind,
        severity,
        active: when.state != Some(State::Resolved),
        // Others do not say when it began: the desired state keeps the first report's time.
        since: check::since("timestamp", at, at)?,
        at,
        numbers: SignalEvidence {
            window_seconds: Some(check::window("period_seconds", when.period)?),
            ..numbers
        },
        neighbours: Vec::new(),
        history: Vec::new(),
    })))
}

fn birth(b: PodCreation, now: Timestamp) -> Result<Event, Refusal> {
    check::label("namespace", &b.namespace)?;
    check::subdomain("pod_name", &b.pod_name)?;
    if b.timeline.len() > STEPS_MAX {
        return Err(check::bad(
            "timeline",
            format!("must have at most {STEPS_MAX} steps, has {}", b.timeline.len()),
        ));
    }
    let stats = KernelStats {
        total_syscalls: optional("total_syscalls", b.total_syscalls, check::count)?,
        namespaces_created: optional("namespaces_created", b.namespaces_created, check::count)?,
        cgroups_created: optional("cgroups_created", b.cgroups_created, check::count)?,
        cgroup_writes: optional("cgroup_writes", b.cgroup_writes, check::count)?,
        mounts: optional("mounts", b.mounts, check::count)?,
        processes: optional("processes", b.processes, check::count)?,
        // A start of an hour is counted in millions of ms.
        total_duration_ms: optional("total_duration_ms", b.total_duration_ms, |f, ms| {
            check::amount(f, ms / 1e3).map(|s| s * 1e3)
        })?,
        ..Default::default()
    };
    let steps = b.timeline.into_iter().map(|s| {
        // Steps before the zero of the timeline are negative.
        check::amount("timeline.timestamp_ms", s.timestamp_ms.abs() / 1e3)?;
        if s.action.is_empty() {
            return Err(check::bad("timeline.action", "must not be empty"));
        }
        Ok(BirthStep {
            timestamp_ms: s.timestamp_ms,
            actor: s.actor,
            action: bounds::sentence(&s.action, bounds::ACTION).into_owned(),
            details: s.details.map(|d| bounds::sentence(&d, bounds::SENTENCE).into_owned()),
            uncertainty_ms: None,
        })
    });
    let timeline = steps.collect::<Result<Vec<_>, _>>()?;
    if stats == KernelStats::default() && timeline.is_empty() {
        return Err(check::bad("timeline", "or at least one count is needed"));
    }
    Ok(Event::Birth(Box::new(ReportedBirth {
        namespace: b.namespace,
        pod: b.pod_name,
        at: check::said_at("timestamp", b.timestamp, now)?,
        stats,
        timeline,
    })))
}

/// A limit in bytes; none where it is what the kernel has for "no limit": cgroup v1 the greatest number of pages
/// (9223372036854771712 where a page has 4 KiB, less where it has 64), others the greatest number there is, or -1.
fn limit(field: &'static str, value: Option<serde_json::Number>) -> Result<Option<i64>, Refusal> {
    const LARGEST_PAGE: i64 = 64 << 10;
    let Some(value) = value else { return Ok(None) };
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(bytes) if bytes >= i64::MAX - LARGEST_PAGE => Ok(None),
        Some(bytes) => check::count(field, bytes).map(Some),
        None if value.is_u64() => Ok(None),
        None => Err(check::bad(
            field,
            format!("must be a whole number of bytes, is {}", check::shown(&value.to_string())),
        )),
    }
}

fn optional<T>(
    field: &'static str,
    value: Option<T>,
    check: impl Fn(&'static str, T) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    value.map(|v| check(field, v)).transpose()
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        // serde names the field ("missing field `pod_name`") but may quote what was sent.
        let text: String = e.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        if e.is_data() {
            Refusal::of(Reason::BadField, "body", text)
        } else {
            Refusal::of(Reason::Malformed, "body", format!("is not JSON: {text}"))
        }
    })
}
