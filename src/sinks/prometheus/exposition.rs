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

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::signals::{Severity, SignalType, Transition, Whisper};
    use crate::sinks::culprits::NAMED;
    use crate::sinks::testdata::{container, moment, reading, unit, whisper};

    fn text(ledger: Ledger) -> String {
        let mut text = String::new();
        let registry = registry(Arc::new(Mutex::new(ledger)), Arc::default());
        encode(&mut text, &registry).expect("encoded");
        text
    }

    fn series<'a>(text: &'a str, labels: &str) -> Vec<&'a str> {
        text.lines().filter(|l| !l.starts_with('#') && l.contains(labels)).collect()
    }

    #[test]
    fn a_container_has_at_most_60_series() {
        let mut all = vec![container("shop", "web", "app")];
        all.extend((0..3 * NAMED).map(|i| container("batch", &format!("noisy-{i}"), "burner")));
        let mut ledger = Ledger::new(moment(0), false);
        ledger.observe(&reading(&all, 10));
        for signal in SignalType::ALL {
            for severity in [Severity::Warning, Severity::Critical] {
                let whisper = whisper(&all[0], signal, Transition::Started, 10);
                ledger.whisper(&Whisper { severity, ..whisper });
            }
        }
        let text = text(ledger);
        let web = series(&text, "namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\"");
        assert_eq!(web.len(), 54, "{web:#?}");
    }

    #[test]
    fn values_bear_names_units_and_labels() {
        let mut ledger = Ledger::new(moment(0), false);
        let all = [container("shop", "web", "app"), unit("a\"b\\.service")];
        ledger.observe(&reading(&all, 10));
        let text = text(ledger);
        for line in [
            "# TYPE kernel_gossip_cpu_run_time_seconds counter",
            "# UNIT kernel_gossip_cpu_run_time_seconds seconds",
            "kernel_gossip_cpu_run_time_seconds_total{namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\"} 2.0",
            "kernel_gossip_cpu_periods_total{namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\"} 100",
            "kernel_gossip_cpu_limit{namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\"} 0.5",
            "kernel_gossip_cpu_wait_time_seconds_total{namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\",\
             kernel_gossip_cpu_wait_cause=\"own\"} 1.0",
            "kernel_gossip_cpu_run_time_seconds_total{cgroup=\"/system.slice/a\\\"b\\\\.service\",\
             unit=\"a\\\"b\\\\.service\",kind=\"unit\"} 2.0",
            "kernel_gossip_agent_losses_total{kernel_gossip_agent_loss_reason=\"late_name\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("kernel_gossip_whisper_active"), "a metric without points is left out");
    }

    #[test]
    fn buckets_are_cumulative_and_exact() {
        let mut ledger = Ledger::new(moment(0), false);
        let mut once = reading(&[container("shop", "web", "app")], 10);
        let cpu = once.samples[0].cpu.as_mut().expect("counters");
        cpu.wait_histogram = Log2Histogram::default();
        // Below, at and above a bound, and longer than all.
        for ns in [1000, 244_140, 244_141, 999_999_999, 1_000_000_001] {
            cpu.wait_histogram.record(ns);
        }
        ledger.observe(&once);
        let text = text(ledger);
        let counts: Vec<&str> = series(&text, "le=")
            .into_iter()
            .filter(|l| l.starts_with("kernel_gossip_cpu_wait_duration_seconds_bucket"))
            .filter_map(|l| l.rsplit(' ').next())
            .collect();
        assert_eq!(counts, ["1", "2", "3", "3", "3", "3", "3", "4", "5"]);
    }

    #[test]
    fn a_container_that_was_replaced_is_shown_once() {
        let old = container("shop", "web", "app");
        let mut new = crate::attribution::Workload::clone(&old);
        new.cgroup += "-again";
        let mut ledger = Ledger::new(moment(0), false);
        ledger.observe(&reading(&[old], 10));
        ledger.observe(&reading(&[Arc::new(new)], 20));
        let text = text(ledger);
        let run = series(&text, "kernel_gossip_cpu_run_time_seconds_total");
        assert_eq!(run.len(), 1, "{run:?}");
        assert!(run[0].ends_with(" 4.0"), "the newer one: {run:?}");
    }
}
