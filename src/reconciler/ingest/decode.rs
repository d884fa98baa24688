//! From OTLP log records to [`Report`]s and [`Certified`] births: pure, and total over whatever a peer may send.

use std::collections::HashMap;

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};

use super::certificate::{self, Certified};
use super::check;
use crate::bounds;
use crate::evidence::HistoryPoint;
use crate::evidence::{self, Severity, SignalEvidence, SignalKind, Source, Type};
use crate::names::{BIRTH_EVENT, EVENT_NAME, WHISPER_EVENT, birth, resource, whisper as attr};
use crate::reconciler::refusal::{Reason, Refusal};
use crate::reconciler::report::{NamedNeighbour, Report};

/// Log records read of one request; the rest is refused.
pub const RECORDS_MAX: usize = 10_000;
/// Attributes of one record or resource: ours has some thirty, a collector may add its own.
const ATTRIBUTES_MAX: usize = 128;

/// What one request held.
#[derive(Debug, Default)]
pub struct Decoded {
    pub reports: Vec<Report>,
    pub births: Vec<Certified>,
    /// One per refused record, up to [`RECORDS_MAX`]; beyond that `unread` counts.
    pub refused: Vec<Refusal>,
    /// What was left out of reports that were taken: of a wrong neighbour's name or a history that cannot be, none is
    /// better than no report.
    pub left_out: Vec<Refusal>,
    /// Records that are none of ours: other events, whispers of what is no pod.
    pub ignored: u64,
    /// Records not looked at, because the request held too many.
    pub unread: u64,
}

impl Decoded {
    fn read(&self) -> usize {
        self.reports.len() + self.births.len() + self.refused.len() + self.ignored as usize
    }
}

/// Reads the whispers and births among the records of one resource. What cannot be true is refused, record by
/// record; a refused record never hides its neighbours.
pub fn decode(logs: &ResourceLogs, now: Timestamp, out: &mut Decoded) {
    let pod = logs.resource.as_ref().map(|r| r.attributes.as_slice()).unwrap_or_default();
    let pod = Attributes::of(pod).and_then(|a| Pod::of(&a));
    for record in logs.scope_logs.iter().flat_map(|s| &s.log_records) {
        if out.read() >= RECORDS_MAX {
            out.unread += 1;
            continue;
        }
        match said(record, &pod, now, &mut out.left_out) {
            Ok(Some(Event::Whisper(report))) => out.reports.push(*report),
            Ok(Some(Event::Birth(certified))) => out.births.push(*certified),
            Ok(None) => out.ignored += 1,
            Err(refusal) => out.refused.push(refusal),
        }
    }
}

/// Whose records these are.
struct Pod {
    namespace: String,
    name: String,
    uid: String,
    container: String,
}

impl Pod {
    /// `Ok(None)`: of no pod at all.
    fn of(a: &Attributes) -> Result<Option<Pod>, Refusal> {
        let Some(name) = a.text(resource::POD)?.filter(|s| !s.is_empty()) else {
            return Ok(None);
        };
        let container = a.text(resource::CONTAINER)?.unwrap_or_default();
        Ok(Some(Pod {
            namespace: check::label(resource::NAMESPACE, a.need_text(resource::NAMESPACE)?)?.to_owned(),
            name: check::subdomain(resource::POD, name)?.to_owned(),
            uid: check::uid(resource::POD_UID, a.need_text(resource::POD_UID)?)?.to_owned(),
            container: if container.is_empty() {
                String::new()
            } else {
                check::label(resource::CONTAINER, container)?.to_owned()
            },
        }))
    }
}

/// What one record says.
enum Event {
    Whisper(Box<Report>),
    Birth(Box<Certified>),
}

/// `Ok(None)`: it is none of ours, or about no pod.
fn said(
    record: &LogRecord,
    pod: &Result<Option<Pod>, Refusal>,
    now: Timestamp,
    left_out: &mut Vec<Refusal>,
) -> Result<Option<Event>, Refusal> {
    const OURS: [&str; 2] = [WHISPER_EVENT, BIRTH_EVENT];
    let named = Some(record.event_name.as_str()).filter(|name| !name.is_empty());
    if named.is_some_and(|name| !OURS.contains(&name)) {
        return Ok(None);
    }
    let a = Attributes::of(&record.attributes)?;
    // Some pipelines carry the event's name in an attribute and not in the record's own field.
    let name = match named {
        Some(name) => Some(name),
        None => a.text(EVENT_NAME)?,
    };
    let Some(name) = name.filter(|name| OURS.contains(name)) else { return Ok(None) };
    let Some(pod) = pod.as_ref().map_err(Clone::clone)? else { return Ok(None) };
    let at = check::said_at(
        "time_unix_nano",
        check::unix_ns("time_unix_nano", record.time_unix_nano.into())?,
        now,
    )?;
    Ok(Some(match name {
        BIRTH_EVENT => Event::Birth(Box::new(certified(&a, pod, at)?)),
        _ => Event::Whisper(Box::new(whisper(&a, pod, (at, now), left_out)?)),
    }))
}

fn certified(a: &Attributes<'_>, pod: &Pod, at: Timestamp) -> Result<Certified, Refusal> {
    Ok(Certified {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        at,
        status: certificate::status(a.need_text(birth::CERTIFICATE)?)?,
    })
}

/// `at`: when it was said, and now. What only decorates it is left out where it is wrong.
fn whisper(
    a: &Attributes<'_>,
    pod: &Pod,
    (at, now): (Timestamp, Timestamp),
    left_out: &mut Vec<Refusal>,
) -> Result<Report, Refusal> {
    let signal = a.need_text(attr::SIGNAL)?;
    let kind = SignalKind::parse(signal).ok_or_else(|| {
        Refusal::of(
            Reason::UnknownSignal,
            attr::SIGNAL,
            format!("{} is not known here", check::shown(signal)),
        )
    })?;
    let since = check::unix_ns(attr::SINCE, a.need_int(attr::SINCE)?.into())?;
    Ok(Report {
        source: Source::Kernel,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: Some(pod.uid.clone()),
        container: pod.container.clone(),
        kind,
        severity: match a.need_text(attr::SEVERITY)? {
            "warning" => Severity::Warning,
            "critical" => Severity::Critical,
            _ => return Err(check::bad(attr::SEVERITY, "must be warning or critical")),
        },
        active: match a.need_text(attr::STATE)? {
            "active" => true,
            "resolved" => false,
            _ => return Err(check::bad(attr::STATE, "must be active or resolved")),
        },
        since: check::since(attr::SINCE, since, at)?,
        at,
        numbers: numbers(a)?,
        neighbours: neighbours(a, left_out).unwrap_or_else(|wrong| nothing(wrong, left_out)),
        history: history(a, now).unwrap_or_else(|wrong| nothing(wrong, left_out)),
    })
}

/// Every number there is.
fn numbers(a: &Attributes) -> Result<SignalEvidence, Refusal> {
    let window_seconds = a.double(attr::WINDOW, check::window)?;
    let mut numbers = SignalEvidence { window_seconds, ..SignalEvidence::default() };
    numbers.read(|field, name| {
        let value = match field.kind {
            Type::Double => a.get(name, "a number", double)?.map(evidence::Value::Double),
            Type::Int => a.get(name, "an integer", int)?.map(evidence::Value::Int),
            Type::Text => a.text(name)?.map(|text| evidence::Value::Text(text.to_owned())),
        };
        value.map(|v| field.checked(v).map_err(|wrong| check::bad(name, wrong.to_string()))).transpose()
    })?;
    Ok(numbers)
}

fn nothing<T>(wrong: Refusal, left_out: &mut Vec<Refusal>) -> Vec<T> {
    left_out.push(wrong);
    Vec::new()
}

/// Those of whom all can be true, their names cut where they are too long.
fn neighbours(a: &Attributes, left_out: &mut Vec<Refusal>) -> Result<Vec<NamedNeighbour>, Refusal> {
    let names = a.array(attr::NEIGHBOUR_NAMES, text_of)?;
    let namespaces = a.array(attr::NEIGHBOUR_NAMESPACES, text_of)?;
    let pods = a.array(attr::NEIGHBOUR_PODS, text_of)?;
    let percents = a.array(attr::NEIGHBOUR_PERCENTS, double_of)?;
    if namespaces.len() != names.len() || pods.len() != names.len() || percents.len() != names.len() {
        return Err(check::bad(attr::NEIGHBOUR_NAMES, "and its parallel arrays must be of one length"));
    }
    let mut out = Vec::with_capacity(names.len().min(bounds::NEIGHBOURS));
    for (((name, namespace), pod), percent) in
        names.into_iter().zip(namespaces).zip(pods).zip(percents).take(bounds::NEIGHBOURS)
    {
        match neighbour(name, namespace, pod, percent) {
            Ok(neighbour) => out.push(neighbour),
            Err(wrong) => left_out.push(wrong),
        }
    }
    Ok(out)
}

/// Whose namespace it is decides who may read it: that is no decoration.
fn neighbour(name: &str, namespace: &str, pod: &str, percent: f64) -> Result<NamedNeighbour, Refusal> {
    if name.is_empty() {
        return Err(check::bad(attr::NEIGHBOUR_NAMES, "must not be empty"));
    }
    if !namespace.is_empty() {
        check::label(attr::NEIGHBOUR_NAMESPACES, namespace)?;
    }
    Ok(NamedNeighbour {
        name: bounds::name(name, bounds::NAME).into_owned(),
        namespace: namespace.to_owned(),
        pod: bounds::name(pod, bounds::DNS_NAME).into_owned(),
        percent: check::amount(attr::NEIGHBOUR_PERCENTS, percent)?,
    })
}

/// The history, oldest first. A counter that falls back (a container restarted) starts it over.
fn history(a: &Attributes, now: Timestamp) -> Result<Vec<HistoryPoint>, Refusal> {
    let times = a.array(attr::HISTORY_TIME, int_of)?;
    let usage = a.array(attr::HISTORY_CPU_USAGE, int_of)?;
    let throttled = a.array(attr::HISTORY_THROTTLED, int_of)?;
    let wall = a.array(attr::HISTORY_THROTTLED_WALL, int_of)?;
    if usage.len() != times.len()
        || throttled.len() != times.len()
        || !(wall.is_empty() || wall.len() == times.len())
    {
        return Err(check::bad(attr::HISTORY_TIME, "and its parallel arrays must be of one length"));
    }
    let ns = |field, n: i64| {
        u64::try_from(n).map_err(|_| check::bad(field, format!("must not be negative, is {n}")))
    };
    let mut out: Vec<HistoryPoint> = Vec::with_capacity(times.len().min(bounds::HISTORY));
    // The newest, where there are more than are kept.
    for i in times.len().saturating_sub(bounds::HISTORY)..times.len() {
        let time = check::unix_ns(attr::HISTORY_TIME, times[i].into())?;
        check::said_at(attr::HISTORY_TIME, time, now)?;
        let point = HistoryPoint {
            unix_ns: ns(attr::HISTORY_TIME, times[i])?,
            cpu_usage_ns: ns(attr::HISTORY_CPU_USAGE, usage[i])?,
            throttled_ns: ns(attr::HISTORY_THROTTLED, throttled[i])?,
            throttled_wall_ns: wall.get(i).map(|&n| ns(attr::HISTORY_THROTTLED_WALL, n)).transpose()?,
        };
        if let Some(last) = out.last() {
            if point.unix_ns <= last.unix_ns {
                return Err(check::bad(attr::HISTORY_TIME, "must rise"));
            }
            let fell = point.cpu_usage_ns < last.cpu_usage_ns
                || point.throttled_ns < last.throttled_ns
                || point.throttled_wall_ns < last.throttled_wall_ns;
            if fell {
                out.clear();
            }
        }
        out.push(point);
    }
    Ok(out)
}

/// Attributes by name. Of two with one name the later counts.
struct Attributes<'a>(HashMap<&'a str, &'a Value>);

impl<'a> Attributes<'a> {
    fn of(list: &'a [KeyValue]) -> Result<Self, Refusal> {
        if list.len() > ATTRIBUTES_MAX {
            let why = format!("{} attributes, at most {ATTRIBUTES_MAX} are read", list.len());
            return Err(Refusal::new(Reason::TooMuch, why));
        }
        let value = |kv: &'a KeyValue| Some((kv.key.as_str(), kv.value.as_ref()?.value.as_ref()?));
        Ok(Attributes(list.iter().filter_map(value).collect()))
    }

    fn text(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        self.get(name, "a string", |v| match v {
            Value::StringValue(s) => Some(s.as_str()),
            _ => None,
        })
    }

    fn need_text(&self, name: &'static str) -> Result<&'a str, Refusal> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    fn need_int(&self, name: &'static str) -> Result<i64, Refusal> {
        self.get(name, "an integer", int)?.ok_or_else(|| missing(name))
    }

    fn double(
        &self,
        name: &'static str,
        check: fn(&'static str, f64) -> Result<f64, Refusal>,
    ) -> Result<Option<f64>, Refusal> {
        self.get(name, "a number", double)?.map(|x| check(name, x)).transpose()
    }

    /// An array whose every element is of one kind; absent is empty.
    fn array<T>(
        &self,
        name: &'static str,
        element: fn(&'a AnyValue) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(Vec::new()) };
        let Value::ArrayValue(array) = value else { return Err(check::bad(name, "must be an array")) };
        array
            .values
            .iter()
            .map(|v| element(v).ok_or_else(|| check::bad(name, "holds an element of another type")))
            .collect()
    }

    fn get<T>(
        &self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| check::bad(name, format!("must be {wanted}")))
    }
}

fn missing(name: &'static str) -> Refusal {
    Refusal::of(Reason::Malformed, name, "is missing")
}

fn int(v: &Value) -> Option<i64> {
    match v {
        Value::IntValue(n) => Some(*n),
        _ => None,
    }
}

/// A pipeline may have turned 20.0 into 20.
fn double(v: &Value) -> Option<f64> {
    match v {
        Value::DoubleValue(x) => Some(*x),
        Value::IntValue(n) => Some(*n as f64),
        _ => None,
    }
}

fn int_of(v: &AnyValue) -> Option<i64> {
    v.value.as_ref().and_then(int)
}

fn double_of(v: &AnyValue) -> Option<f64> {
    v.value.as_ref().and_then(double)
}

fn text_of(v: &AnyValue) -> Option<&str> {
    match v.value.as_ref()? {
        Value::StringValue(s) => Some(s),
        _ => None,
    }
}
