//! Accounts and the agent's own numbers as Prometheus metrics.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use crate::kernel::Log2Histogram;
use crate::kernel::hist::MIN_EXPONENT;
use crate::sinks::ledger::{Account, Ledger};
use crate::sinks::lock;
use crate::sinks::names::metric::{Kind, Metric, prometheus_name};
use crate::sinks::points::{self, SOURCES, Value};
use crate::sinks::telemetry::{SELF_SOURCES, SelfStats};

/// Upper bounds of the buckets shown, as powers of two of a second: 61 µs to 1 s, every second one of the
/// kernel's, so each is exact. What is shorter counts in the first, what is longer only in `+Inf`.
pub const BOUNDS: [i32; 8] = [-14, -12, -10, -8, -6, -4, -2, 0];

/// A registry of everything on `/metrics`, read when it is encoded.
pub fn registry(ledger: Arc<Mutex<Ledger>>, stats: Arc<SelfStats>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Workloads(ledger)));
    registry.register_collector(Box::new(Agent(stats)));
    registry
}

#[derive(Debug)]
struct Workloads(Arc<Mutex<Ledger>>);

impl Collector for Workloads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Copied, so that readings go on while this is written out.
        let accounts = lock(&self.0).accounts();
        // Newest first: one replaced by another of the same name may still be kept, but is gone.
        let mut seen = HashSet::new();
        let named: Vec<(Labels<'_>, &Account)> =
            accounts.iter().map(|a| (labels(a), a)).filter(|(labels, _)| seen.insert(*labels)).collect();
        SOURCES.iter().try_for_each(|source| {
            family(&mut encoder, source.metric, |emit| {
                for (labels, account) in &named {
                    (source.points)(account, &mut |values, value, _| emit(labels, values, value));
                }
            })
        })
    }
}

#[derive(Debug)]
struct Agent(Arc<SelfStats>);

impl Collector for Agent {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        SELF_SOURCES.iter().try_for_each(|source| {
            family(&mut encoder, source.metric, |emit| {
                (source.points)(&self.0, &mut |values, value| emit(&NO_LABELS, values, value));
            })
        })
    }
}

/// The labels that say whom a sample is about; an empty one is left out.
type Labels<'a> = [(&'static str, &'a str); 6];

const NO_LABELS: Labels<'static> = [("", ""); 6];

/// Kubernetes' own names where there is a pod, else the cgroup and the unit.
fn labels(account: &Account) -> Labels<'_> {
    let who = &*account.who;
    let of_no_pod = who.pod.is_none() && who.pod_uid.is_none();
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    [
        ("namespace", text(&who.namespace)),
        // Without the pod's name, its UID still tells it from others.
        ("pod", who.pod.as_deref().unwrap_or(text(&who.pod_uid))),
        ("container", who.container.as_deref().unwrap_or(text(&who.container_id))),
        ("cgroup", if of_no_pod { &who.cgroup } else { "" }),
        ("unit", if of_no_pod { text(&who.unit) } else { "" }),
        ("kind", points::kind(who.kind)),
    ]
}

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

type EmitLabelled<'e> = &'e mut dyn FnMut(&Labels<'_>, &[&str], Value<'_>);

/// Writes one metric with all its points; nothing without any.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    each: impl Fn(EmitLabelled<'_>),
) -> fmt::Result {
    let mut any = false;
    each(&mut |_, _, _| any = true);
    if !any {
        return Ok(());
    }
    let base = metric.prometheus_base();
    let unit = metric.prometheus_unit().map(|unit| Unit::Other(unit.into()));
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge | Kind::UpDownCounter => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut encoder = encoder.encode_descriptor(&base, metric.description, unit.as_ref(), kind)?;
    let names: Vec<String> = metric.attributes.iter().map(|name| prometheus_name(name)).collect();
    let mut result = Ok(());
    each(&mut |labels, values, value| {
        if result.is_err() {
            return;
        }
        let labels = AllLabels { who: labels, names: &names, values };
        result = encoder.encode_family(&labels).and_then(|mut encoder| match (value, metric.kind) {
            (Value::Durations(histogram, ns), _) => {
                let (sum, count) = (ns as f64 / 1e9, histogram.count());
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets(histogram), None)
            }
            (Value::Time(ns), Kind::Counter) => encoder.encode_counter(&(ns as f64 / 1e9), NO_EXEMPLAR),
            (Value::Count(n), Kind::Counter) => encoder.encode_counter(&n, NO_EXEMPLAR),
            (Value::Time(ns), _) => encoder.encode_gauge(&(ns as f64 / 1e9)),
            (Value::Count(n), _) => encoder.encode_gauge(&n),
            (Value::Cores(cores), _) => encoder.encode_gauge(&cores),
            (Value::Level(n), _) => encoder.encode_gauge(&n),
        });
    });
    result
}

struct AllLabels<'a> {
    who: &'a Labels<'a>,
    names: &'a [String],
    values: &'a [&'a str],
}

impl EncodeLabelSet for AllLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let own = self.names.iter().map(String::as_str).zip(self.values.iter().copied());
        for label in self.who.iter().copied().chain(own).filter(|(_, value)| !value.is_empty()) {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The counts of the buckets shown, each without those below it.
fn buckets(histogram: &Log2Histogram) -> [(f64, u64); BOUNDS.len() + 1] {
    let mut buckets = [(f64::INFINITY, 0); BOUNDS.len() + 1];
    for (bucket, exponent) in buckets.iter_mut().zip(BOUNDS) {
        bucket.0 = f64::powi(2.0, exponent);
    }
    for (i, count) in histogram.counts.iter().enumerate() {
        // The upper bound of bucket i is two to the power of this.
        let exponent = i as i32 + 1 + MIN_EXPONENT;
        let shown = BOUNDS.iter().position(|bound| exponent <= *bound).unwrap_or(BOUNDS.len());
        buckets[shown].1 += count;
    }
    buckets
}
