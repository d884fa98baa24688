//! [`SelfStats`] through the OpenTelemetry SDK, which keeps the time, the Resource and the data model; the sink sends the
//! result over the connection of all metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

use super::{SELF_SOURCES, SelfSource, SelfStats};
use crate::kernel::Log2Histogram;
use crate::kernel::hist::BUCKETS;
use crate::names::metric::Kind;
use crate::names::{self, resource};
use crate::sinks::lock;
use crate::sinks::otlp::OtlpSink;
use crate::sinks::series::points::Value;

/// Starts to send the agent's own telemetry at the sink's interval; what the sink does becomes part of it.
/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are honoured. Shutting the provider down sends the last numbers; it
/// blocks until then, so that it is not to be done on a thread of the runtime.
pub fn start(stats: &Arc<SelfStats>, sink: &Arc<OtlpSink>, node: Option<&str>) -> SdkMeterProvider {
    stats.watch(sink.clone());
    let (attributes, wrong) = identity(node, &|name| std::env::var(name).ok());
    wrong.iter().for_each(|wrong| tracing::warn!("{wrong}"));
    // After those that the SDK finds on its own, which reads the same variables in its own way.
    let resource = Resource::builder()
        .with_attributes(attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)));
    let reader = PeriodicReader::builder(ToSink(sink.clone())).with_interval(sink.interval()).build();
    let provider = SdkMeterProvider::builder().with_resource(resource.build()).with_reader(reader).build();
    let meter = provider.meter(names::SCOPE);
    SELF_SOURCES.iter().for_each(|source| instrument(&meter, source, stats));
    provider
}

/// Who the agent is, in the order of what wins: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` (percent-encoded, as
/// the specification has it; empty is not set), its own name and node. And what is wrong with the variables.
fn identity(
    node: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> (BTreeMap<String, String>, Vec<String>) {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut all = BTreeMap::from([
        (resource::SERVICE.to_owned(), "kernel-gossip".to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some(node) = node {
        // One agent a node: its node tells it from the others.
        all.insert("service.instance.id".to_owned(), node.to_owned());
        all.insert(resource::NODE.to_owned(), node.to_owned());
    }
    let mut wrong = Vec::new();
    let set = env(ATTRIBUTES).unwrap_or_default();
    for pair in set.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let decoded = |text: &str| {
            let text = percent_encoding::percent_decode_str(text.trim()).decode_utf8().ok()?;
            Some(text.into_owned())
        };
        match pair.split_once('=').and_then(|(key, value)| Some((decoded(key)?, decoded(value)?))) {
            Some((key, value)) if !key.is_empty() => drop(all.insert(key, value)),
            _ => wrong.push(format!(
                "{ATTRIBUTES}: {:?} is left out: key=value is wanted, percent-encoded",
                pair.chars().take(60).collect::<String>()
            )),
        }
    }
    if let Some(name) = env("OTEL_SERVICE_NAME").filter(|name| !name.trim().is_empty()) {
        all.insert(resource::SERVICE.to_owned(), name.trim().to_owned());
    }
    (all, wrong)
}

/// Creates the instrument of one metric. It stays as long as the provider.
fn instrument(meter: &Meter, source: &'static SelfSource, stats: &Arc<SelfStats>) {
    let metric = source.metric;
    let stats = stats.clone();
    match (metric.kind, metric.unit) {
        (Kind::Counter, "s") => {
            let observe = move |to: &dyn AsyncInstrument<f64>| {
                observe(source, &stats, |value, attributes| {
                    if let Value::Time(ns) = value {
                        to.observe(ns as f64 / 1e9, attributes);
                    }
                });
            };
            let builder = meter.f64_observable_counter(metric.name).with_unit(metric.unit);
            builder.with_description(metric.description).with_callback(observe).build();
        }
        (Kind::Counter, _) => {
            let observe = move |to: &dyn AsyncInstrument<u64>| {
                observe(source, &stats, |value, attributes| {
                    if let Value::Count(n) = value {
                        to.observe(n, attributes);
                    }
                });
            };
            let builder = meter.u64_observable_counter(metric.name).with_unit(metric.unit);
            builder.with_description(metric.description).with_callback(observe).build();
        }
        (Kind::UpDownCounter | Kind::Gauge, _) => {
            let observe = move |to: &dyn AsyncInstrument<i64>| {
                observe(source, &stats, |value, attributes| {
                    if let Value::Level(n) = value {
                        to.observe(n, attributes);
                    }
                });
            };
            let builder = meter.i64_observable_up_down_counter(metric.name).with_unit(metric.unit);
            builder.with_description(metric.description).with_callback(observe).build();
        }
        (Kind::Histogram, _) => {
            // The SDK observes no histogram: this one gets each duration as it is recorded.
            let bounds = (0..BUCKETS).map(Log2Histogram::upper_bound).collect();
            let builder = meter.f64_histogram(metric.name).with_unit(metric.unit);
            let histogram = builder.with_description(metric.description).with_boundaries(bounds).build();
            lock(&stats.histograms).insert(metric.name, histogram);
        }
    }
}

fn observe(source: &SelfSource, stats: &SelfStats, mut to: impl FnMut(Value<'_>, &[KeyValue])) {
    (source.points)(stats, &mut |values, value| {
        let names = source.metric.attributes.iter();
        let attributes: Vec<_> =
            names.zip(values).map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect();
        to(value, &attributes);
    });
}

/// Hands what the SDK collects to the sink, which tells and counts how that ends: to the SDK it always ends well, as it
/// would log each failure.
struct ToSink(Arc<OtlpSink>);

impl PushMetricExporter for ToSink {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.0.own_metrics(metrics).await;
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(set: &[(&str, &str)]) -> (BTreeMap<String, String>, Vec<String>) {
        let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        identity(Some("node-1"), &env)
    }

    #[test]
    fn the_variables_say_who_the_agent_is() {
        let (plain, wrong) = who(&[("OTEL_SERVICE_NAME", ""), ("OTEL_RESOURCE_ATTRIBUTES", " , ")]);
        assert_eq!((plain["service.name"].as_str(), wrong.len()), ("kernel-gossip", 0), "empty is not set");
        assert_eq!(plain["service.instance.id"], "node-1");
        let set = "deployment.environment=a%20b,service.name=gossip-eu, service.instance.id = mine ,x=a=b";
        let (told, wrong) = who(&[("OTEL_RESOURCE_ATTRIBUTES", set)]);
        assert_eq!((told["deployment.environment"].as_str(), told["x"].as_str()), ("a b", "a=b"));
        assert_eq!(
            (told["service.name"].as_str(), told["service.instance.id"].as_str()),
            ("gossip-eu", "mine")
        );
        assert_eq!(wrong, [""; 0]);
        let (name, _) = who(&[("OTEL_RESOURCE_ATTRIBUTES", set), ("OTEL_SERVICE_NAME", "mine")]);
        assert_eq!(name["service.name"], "mine");
        let (some, wrong) = who(&[("OTEL_RESOURCE_ATTRIBUTES", "nonsense,a=%ff,=b,good=1")]);
        assert_eq!((some["good"].as_str(), wrong.len()), ("1", 3), "{wrong:?}");
    }
}
