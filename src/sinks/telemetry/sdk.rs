//! [`SelfStats`] through the OpenTelemetry SDK, which keeps the time, the Resource and the data model; its
//! exporter hands the result to the queue that all else goes through.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

use super::{SELF_SOURCES, SelfSource, SelfStats};
use crate::kernel::Log2Histogram;
use crate::kernel::hist::BUCKETS;
use crate::sinks::lock;
use crate::sinks::names::metric::Kind;
use crate::sinks::names::{self, resource};
use crate::sinks::otlp::OtlpSink;
use crate::sinks::points::Value;

/// Starts to send the agent's own telemetry at the sink's interval; what the sink does becomes part of it.
/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are honoured. Shut the provider down before the sink
/// is flushed: it sends the last numbers.
pub fn start(stats: &Arc<SelfStats>, sink: &Arc<OtlpSink>, node: Option<&str>) -> SdkMeterProvider {
    stats.watch(sink.clone());
    let mut attributes = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    if let Some(node) = node {
        // One agent a node: its node tells it from the others.
        attributes.push(KeyValue::new("service.instance.id", node.to_owned()));
        attributes.push(KeyValue::new(resource::NODE, node.to_owned()));
    }
    let mut resource = Resource::builder().with_attributes(attributes);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("kernel-gossip");
    }
    let reader = PeriodicReader::builder(ToQueue(sink.clone())).with_interval(sink.interval()).build();
    let provider = SdkMeterProvider::builder().with_resource(resource.build()).with_reader(reader).build();
    let meter = provider.meter(names::SCOPE);
    SELF_SOURCES.iter().for_each(|source| instrument(&meter, source, stats));
    provider
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
            // The SDK observes no histogram: this one is told of each duration as it is recorded.
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

/// Hands what the SDK collects to the queue.
struct ToQueue(Arc<OtlpSink>);

impl PushMetricExporter for ToQueue {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.0.resource_metrics(ExportMetricsServiceRequest::from(metrics).resource_metrics);
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
