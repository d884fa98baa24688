//! Accounts, whispers and births as encoded OTLP requests, none larger than a limit.
//!
//! The SDK has one Resource per process and a metric per instrument; here is a Resource per container, so
//! the messages are built directly. An encoded request is a sequence of its repeated field, so requests
//! are joined by joining bytes.

pub mod trace;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;

use crate::api::BirthOutcome;
use crate::attribution::Workload;
use crate::birth::Certificate;
use crate::kernel::Log2Histogram;
use crate::kernel::hist::MIN_EXPONENT;
use crate::names::metric::Kind;
use crate::names::{self, resource};
use crate::signals::{Severity, Whisper};
use crate::sinks::event::{AttrValue, Attribute, birth_attributes, resource_attributes, whisper_attributes};
use crate::sinks::series::ledger::Account;
use crate::sinks::series::points::{self, SOURCES, Source, Value};

/// The largest request sent, encoded and before compression: a quarter of what gRPC servers take by
/// default.
pub const MAX_REQUEST: usize = 1 << 20;

/// The repeated field of `ExportMetricsServiceRequest`, `ExportLogsServiceRequest` and `ExportTraceServiceRequest`.
const REQUEST_FIELD: u32 = 1;

/// An encoded request, or the beginning of one: any number of them joined is a request too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub body: Bytes,
    /// Data points, events or spans in it.
    pub items: usize,
}

/// Fills requests up to a limit.
#[derive(Debug)]
pub struct Requests {
    limit: usize,
    body: Vec<u8>,
    items: usize,
    full: Vec<Request>,
    too_large: usize,
}

impl Requests {
    /// Requests of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Requests { limit, body: Vec::new(), items: 0, full: Vec::new(), too_large: 0 }
    }

    /// Adds the metrics of one Resource, in parts where they exceed the limit.
    pub fn metrics(&mut self, all: ResourceMetrics) {
        let items = all.scope_metrics.iter().flat_map(|s| &s.metrics).map(data_points).sum();
        let Err(all) = self.add(all, items) else { return };
        let Some((one, two)) = halves(all) else {
            self.too_large += items;
            return;
        };
        self.metrics(one);
        self.metrics(two);
    }

    /// Adds one event.
    pub fn event(&mut self, event: ResourceLogs) {
        if self.add(event, 1).is_err() {
            self.too_large += 1;
        }
    }

    /// Adds the spans of one trace.
    pub fn spans(&mut self, spans: ResourceSpans) {
        let items = spans.scope_spans.iter().map(|s| s.spans.len()).sum();
        if self.add(spans, items).is_err() {
            self.too_large += items;
        }
    }

    /// The requests, and the number of items that are too large for any.
    pub fn finish(mut self) -> (Vec<Request>, usize) {
        self.close();
        (self.full, self.too_large)
    }

    /// Adds an element of the request's repeated field; gives it back if it alone is over the limit.
    fn add<M: Message>(&mut self, element: M, items: usize) -> Result<(), M> {
        let length = element.encoded_len();
        let length = prost::encoding::key_len(REQUEST_FIELD) + prost::length_delimiter_len(length) + length;
        if length > self.limit {
            return Err(element);
        }
        if self.body.len() + length > self.limit {
            self.close();
        }
        self.body.reserve(length);
        prost::encoding::message::encode(REQUEST_FIELD, &element, &mut self.body);
        self.items += items;
        Ok(())
    }

    fn close(&mut self) {
        if !self.body.is_empty() {
            // What waits in the queue is counted by its length.
            self.body.shrink_to_fit();
            let body = Bytes::from(std::mem::take(&mut self.body));
            self.full.push(Request { body, items: std::mem::take(&mut self.items) });
        }
    }
}

/// The data points of a metric.
fn data_points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(d)) => d.data_points.len(),
        Some(Data::Sum(d)) => d.data_points.len(),
        Some(Data::Histogram(d)) => d.data_points.len(),
        Some(Data::ExponentialHistogram(d)) => d.data_points.len(),
        Some(Data::Summary(d)) => d.data_points.len(),
        None => 0,
    }
}

/// Half of the metrics each, of one metric half of the points each; `None` for a single point.
fn halves(mut all: ResourceMetrics) -> Option<(ResourceMetrics, ResourceMetrics)> {
    let scope = all.scope_metrics.iter_mut().max_by_key(|s| s.metrics.len())?;
    let rest = match scope.metrics.len() {
        0 => return None,
        1 => vec![half_of_points(scope.metrics.first_mut()?)?],
        n => scope.metrics.split_off(n / 2),
    };
    let scope = ScopeMetrics { metrics: rest, ..scope_metrics(scope) };
    let two = ResourceMetrics {
        resource: all.resource.clone(),
        scope_metrics: vec![scope],
        schema_url: all.schema_url.clone(),
    };
    Some((all, two))
}

fn scope_metrics(like: &ScopeMetrics) -> ScopeMetrics {
    ScopeMetrics { scope: like.scope.clone(), metrics: Vec::new(), schema_url: like.schema_url.clone() }
}

fn half_of_points(metric: &mut Metric) -> Option<Metric> {
    fn half<T>(points: &mut Vec<T>) -> Option<Vec<T>> {
        (points.len() > 1).then(|| points.split_off(points.len() / 2))
    }
    let data = match metric.data.as_mut()? {
        Data::Gauge(d) => Data::Gauge(Gauge { data_points: half(&mut d.data_points)? }),
        Data::Sum(d) => Data::Sum(Sum { data_points: half(&mut d.data_points)?, ..*d }),
        Data::ExponentialHistogram(d) => {
            Data::ExponentialHistogram(ExponentialHistogram { data_points: half(&mut d.data_points)?, ..*d })
        }
        Data::Histogram(_) | Data::Summary(_) => return None,
    };
    Some(Metric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
        metadata: Vec::new(),
        data: Some(data),
    })
}

/// The metrics of one workload; `None` if nothing is known of it.
pub fn workload_metrics(account: &Account, node: Option<&str>) -> Option<ResourceMetrics> {
    let metrics: Vec<Metric> = SOURCES.iter().filter_map(|source| metric(source, account)).collect();
    if metrics.is_empty() {
        return None;
    }
    let mut resource = workload_resource(&account.who, node);
    resource.attributes.push(attribute(resource::KIND, points::kind(account.who.kind).into()));
    Some(ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: String::new() }],
        schema_url: names::SCHEMA_URL.into(),
    })
}

/// One whisper, said at `whisper.at` and seen by the sink at `observed_unix_ns`; `text` is for people.
pub fn whisper_event(
    whisper: &Whisper,
    text: String,
    node: Option<&str>,
    observed_unix_ns: u64,
) -> ResourceLogs {
    let severity = match (whisper.active(), whisper.severity) {
        (false, _) => SeverityNumber::Info,
        (true, Severity::Warning) => SeverityNumber::Warn,
        (true, Severity::Critical) => SeverityNumber::Error,
    };
    let times = (whisper.at.unix_ns, observed_unix_ns);
    let record = record(names::WHISPER_EVENT, severity, text, times, whisper_attributes(whisper));
    of_resource(&whisper.who, node, record)
}

/// One birth or restart, said at `birth.at` and seen by the sink at `observed_unix_ns`; `text` is for people.
pub fn birth_event(
    birth: &Certificate,
    text: String,
    node: Option<&str>,
    observed_unix_ns: u64,
) -> ResourceLogs {
    let severity = match birth.status.outcome {
        Some(BirthOutcome::Failed | BirthOutcome::Unfinished) => SeverityNumber::Warn,
        Some(BirthOutcome::Complete) | None => SeverityNumber::Info,
    };
    let times = (birth.at.unix_ns, observed_unix_ns);
    let mut record = record(names::BIRTH_EVENT, severity, text, times, birth_attributes(birth).into_iter());
    record.trace_id = trace::id(birth).map(Vec::from).unwrap_or_default();
    of_resource(&birth.who, node, record)
}

/// An event; `times`: when it was said and when it was seen by the sink.
fn record(
    event: &'static str,
    severity: SeverityNumber,
    text: String,
    times: (u64, u64),
    attributes: impl Iterator<Item = Attribute>,
) -> LogRecord {
    let name = (names::EVENT_NAME, event.into());
    LogRecord {
        time_unix_nano: times.0,
        observed_time_unix_nano: times.1,
        severity_number: severity.into(),
        severity_text: severity.as_str_name().trim_start_matches("SEVERITY_NUMBER_").into(),
        body: Some(any(AttrValue::from(text))),
        attributes: attributes.chain([name]).map(|(k, v)| attribute(k, v)).collect(),
        event_name: event.into(),
        ..LogRecord::default()
    }
}

fn of_resource(who: &Workload, node: Option<&str>, record: LogRecord) -> ResourceLogs {
    ResourceLogs {
        resource: Some(workload_resource(who, node)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: vec![record],
            schema_url: String::new(),
        }],
        schema_url: names::SCHEMA_URL.into(),
    }
}

fn workload_resource(who: &Workload, node: Option<&str>) -> Resource {
    Resource {
        attributes: resource_attributes(who, node).map(|(k, v)| attribute(k, v)).collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: names::SCOPE.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

/// The points one metric has for this account; `None` without any.
fn metric(source: &Source, account: &Account) -> Option<Metric> {
    let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
    (source.points)(account, &mut |values, value, since| {
        let attributes = source
            .metric
            .attributes
            .iter()
            .zip(values)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| attribute(name, (*value).to_owned().into()))
            .collect();
        match value {
            Value::Durations(histogram, sum) => {
                histograms.push(exponential(histogram, sum, attributes, since, account.at));
            }
            Value::Time(ns) => numbers.push(number(seconds(ns), attributes, since, account.at)),
            Value::Cores(cores) => numbers.push(number(cores, attributes, since, account.at)),
            Value::Count(n) => numbers.push(number(n, attributes, since, account.at)),
            Value::Level(n) => numbers.push(number(n, attributes, since, account.at)),
        }
    });
    if numbers.is_empty() && histograms.is_empty() {
        return None;
    }
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match source.metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers }),
        Kind::Histogram => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: histograms,
            aggregation_temporality: cumulative,
        }),
        kind @ (Kind::Counter | Kind::UpDownCounter) => Data::Sum(Sum {
            data_points: numbers,
            aggregation_temporality: cumulative,
            is_monotonic: kind == Kind::Counter,
        }),
    };
    Some(Metric {
        name: source.metric.name.into(),
        description: source.metric.description.into(),
        unit: source.metric.unit.into(),
        metadata: Vec::new(),
        data: Some(data),
    })
}

fn number(
    value: impl Into<number_data_point::Value>,
    attributes: Vec<KeyValue>,
    since: u64,
    at: u64,
) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: at,
        value: Some(value.into()),
        ..NumberDataPoint::default()
    }
}

/// The histogram bucket for bucket. Its first bucket, which also has all that is shorter, becomes the
/// zero bucket: OTLP then says of no duration that it was longer than it was.
fn exponential(
    histogram: &Log2Histogram,
    sum_ns: u64,
    attributes: Vec<KeyValue>,
    since: u64,
    at: u64,
) -> ExponentialHistogramDataPoint {
    let first = histogram.counts.iter().skip(1).position(|n| *n > 0).map_or(1, |i| i + 1);
    let end = histogram.counts.iter().rposition(|n| *n > 0).map_or(first, |i| (i + 1).max(first));
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: at,
        count: histogram.count(),
        sum: Some(seconds(sum_ns)),
        scale: 0,
        zero_count: histogram.counts[0],
        zero_threshold: Log2Histogram::upper_bound(0),
        positive: Some(Buckets {
            offset: first as i32 + MIN_EXPONENT,
            bucket_counts: histogram.counts[first..end].to_vec(),
        }),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// Nanoseconds in seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn attribute(name: &str, value: AttrValue) -> KeyValue {
    KeyValue { key: name.into(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: AttrValue) -> AnyValue {
    fn array<T>(all: Vec<T>, one: fn(T) -> any_value::Value) -> any_value::Value {
        let values = all.into_iter().map(|v| AnyValue { value: Some(one(v)) }).collect();
        any_value::Value::ArrayValue(ArrayValue { values })
    }
    let value = match value {
        AttrValue::Str(s) => any_value::Value::StringValue(s.into_owned()),
        AttrValue::Int(n) => any_value::Value::IntValue(n),
        AttrValue::Double(x) => any_value::Value::DoubleValue(x),
        AttrValue::StrArray(all) => array(all, any_value::Value::StringValue),
        AttrValue::IntArray(all) => array(all, any_value::Value::IntValue),
        AttrValue::DoubleArray(all) => array(all, any_value::Value::DoubleValue),
    };
    AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests;
