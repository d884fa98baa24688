//! A workload, a [`Whisper`] and a [`Certificate`] as named attributes: the one list the OTLP encoder and the JSON lines
//! of the terminal are both written from. Names and units: [`crate::names`].

use std::borrow::Cow;

use crate::api::ImageOrigin;
use crate::attribution::Workload;
use crate::birth::Certificate;
use crate::birth::certificate::image_of;
use crate::bounds;
use crate::evidence::Value;
use crate::names::{birth, resource, whisper as attr};
use crate::signals::{HistoryPoint, Whisper};

/// The value of one attribute. What is unknown has no attribute at all.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    Str(Cow<'static, str>),
    Int(i64),
    Double(f64),
    StrArray(Vec<String>),
    IntArray(Vec<i64>),
    DoubleArray(Vec<f64>),
}

impl From<&'static str> for AttrValue {
    fn from(s: &'static str) -> Self {
        AttrValue::Str(Cow::Borrowed(s))
    }
}

impl From<String> for AttrValue {
    fn from(s: String) -> Self {
        AttrValue::Str(Cow::Owned(s))
    }
}

impl From<u64> for AttrValue {
    /// OTLP integers are signed: what exceeds them (292 years in ns) is the greatest of them.
    fn from(n: u64) -> Self {
        AttrValue::Int(int(n))
    }
}

impl From<f64> for AttrValue {
    fn from(x: f64) -> Self {
        AttrValue::Double(x)
    }
}

impl From<Value> for AttrValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Double(x) => AttrValue::Double(x),
            Value::Int(n) => AttrValue::Int(n),
            Value::Text(text) => AttrValue::from(text),
        }
    }
}

/// One attribute, named by a constant of [`crate::names`].
pub type Attribute = (&'static str, AttrValue);

/// Who it is about, as OpenTelemetry resource attributes: what is known of the pod and container; the unit for what
/// belongs to no pod; the cgroup's path where the names need not tell it from others; the node where it is known.
pub fn resource_attributes(who: &Workload, node: Option<&str>) -> impl Iterator<Item = Attribute> + use<> {
    let of_no_pod = who.pod_uid.is_none() && who.pod.is_none();
    [
        text(resource::NAMESPACE, who.namespace.as_deref()),
        text(resource::POD, who.pod.as_deref()),
        text(resource::POD_UID, who.pod_uid.as_deref()),
        text(resource::CONTAINER, who.container.as_deref()),
        text(resource::CONTAINER_ID, who.container_id.as_deref()),
        text(resource::NODE, node),
        text(resource::CGROUP, who.told_by_path()),
        text(resource::UNIT, who.unit.as_deref().filter(|_| of_no_pod)),
    ]
    .into_iter()
    .flatten()
}

/// What a whisper says, as the attributes of one [`crate::names::WHISPER_EVENT`].
pub fn whisper_attributes(w: &Whisper) -> impl Iterator<Item = Attribute> + use<> {
    let head = [
        known(attr::SIGNAL, Some(w.signal.as_str())),
        known(attr::SEVERITY, Some(w.severity.as_str())),
        known(attr::STATE, Some(if w.active() { "active" } else { "resolved" })),
        known(attr::TRANSITION, Some(w.transition.as_str())),
        known(attr::SINCE, Some(w.since.unix_ns)),
        known(attr::WINDOW, w.evidence.window_seconds),
    ];
    let numbers = w.evidence.known().filter_map(|(field, value)| Some((field.attribute?, value.into())));
    head.into_iter().flatten().chain(numbers).chain(neighbours(w)).chain(history(w))
}

/// The neighbours as arrays in parallel; none where nobody is to blame.
fn neighbours(w: &Whisper) -> impl Iterator<Item = Attribute> + use<> {
    let all = &w.neighbours[..w.neighbours.len().min(bounds::NEIGHBOURS)];
    let strings = |f: fn(&Workload) -> String| AttrValue::StrArray(all.iter().map(|n| f(&n.who)).collect());
    let attributes = (!all.is_empty()).then(|| {
        [
            (attr::NEIGHBOUR_NAMES, strings(|who| bounds::name(&who.label(), bounds::NAME).into_owned())),
            (attr::NEIGHBOUR_NAMESPACES, strings(|who| who.namespace.clone().unwrap_or_default())),
            (attr::NEIGHBOUR_PODS, strings(|who| who.pod.clone().unwrap_or_default())),
            (attr::NEIGHBOUR_PERCENTS, AttrValue::DoubleArray(all.iter().map(|n| n.percent).collect())),
        ]
    });
    attributes.into_iter().flatten()
}

/// The history as arrays in parallel; no wall time where nothing measured it.
fn history(w: &Whisper) -> impl Iterator<Item = Attribute> + use<> {
    // The newest, where there are more.
    let all = &w.history[w.history.len().saturating_sub(bounds::HISTORY)..];
    let ints = |f: fn(&HistoryPoint) -> u64| AttrValue::IntArray(all.iter().map(|p| int(f(p))).collect());
    let attributes = (!all.is_empty()).then(|| {
        let wall: Option<Vec<i64>> = all.iter().map(|p| p.throttled_wall_ns.map(int)).collect();
        [
            Some((attr::HISTORY_TIME, ints(|p| p.unix_ns))),
            Some((attr::HISTORY_CPU_USAGE, ints(|p| p.cpu_usage_ns))),
            Some((attr::HISTORY_THROTTLED, ints(|p| p.throttled_ns))),
            wall.map(|w| (attr::HISTORY_THROTTLED_WALL, AttrValue::IntArray(w))),
        ]
    });
    attributes.into_iter().flatten().flatten()
}

/// What a birth says, as the attributes of one [`crate::names::BIRTH_EVENT`].
pub fn birth_attributes(c: &Certificate) -> Vec<Attribute> {
    let status = &c.status;
    let stats = status.kernel_stats.clone().unwrap_or_default();
    let failure = status.failure.as_ref();
    let number = |name, value: Option<i64>| value.map(|n| (name, AttrValue::Int(n)));
    let ended = status.outcome.map_or("unknown", crate::api::BirthOutcome::as_str);
    let mut out: Vec<Attribute> = [
        known(birth::KIND, Some(if c.restart { "restart" } else { "birth" })),
        known(birth::OUTCOME, Some(ended)),
        known(birth::DURATION, stats.total_duration_ms.map(|ms| ms / 1e3)),
        known(birth::FAILURE_PHASE, failure.map(|f| f.phase.clone())),
        known(birth::FAILURE_REASON, failure.map(|f| f.reason.clone())),
        known(birth::SLOW_PHASE, status.slow.as_ref().map(|s| s.phase.clone())),
        number(birth::SYSCALLS, stats.total_syscalls),
        number(birth::NAMESPACES, stats.namespaces_created),
        number(birth::CGROUPS, stats.cgroups_created),
        number(birth::CGROUP_WRITES, stats.cgroup_writes),
        number(birth::MOUNTS, stats.mounts),
        number(birth::PROCESSES, stats.processes),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !status.phases.is_empty() {
        let doubles = |f: fn(&crate::api::BirthPhase) -> f64| {
            AttrValue::DoubleArray(status.phases.iter().map(|p| f(p) / 1e3).collect())
        };
        let texts = |f: fn(&crate::api::BirthPhase) -> String| {
            AttrValue::StrArray(status.phases.iter().map(f).collect())
        };
        out.push((birth::PHASE_NAMES, texts(|p| p.name.clone())));
        out.push((birth::PHASE_CONTAINERS, texts(|p| p.container.clone().unwrap_or_default())));
        let images =
            status.phases.iter().map(|p| image_of(status, p).map_or("", ImageOrigin::as_str).to_owned());
        out.push((birth::PHASE_IMAGES, AttrValue::StrArray(images.collect())));
        out.push((birth::PHASE_STARTS, doubles(|p| p.start_ms)));
        out.push((birth::PHASE_DURATIONS, doubles(|p| p.duration_ms)));
    }
    if !status.missing.is_empty() {
        let parts = status.missing.iter().map(|m| m.part.clone()).collect();
        out.push((birth::MISSING, AttrValue::StrArray(parts)));
    }
    // Numbers and text of our own: writing them cannot fail.
    if let Ok(json) = serde_json::to_string(status) {
        out.push((birth::CERTIFICATE, AttrValue::from(json)));
    }
    out
}

fn known<V: Into<AttrValue>>(name: &'static str, value: Option<V>) -> Option<Attribute> {
    value.map(|v| (name, v.into()))
}

fn text(name: &'static str, value: Option<&str>) -> Option<Attribute> {
    known(name, value.map(|value| bounds::name(value, bounds::NAME).into_owned()))
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
