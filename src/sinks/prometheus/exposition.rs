//! Accounts and the agent's own numbers as Prometheus metrics.

use std::borrow::Cow;
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

use crate::bounds;
use crate::kernel::Log2Histogram;
use crate::kernel::hist::MIN_EXPONENT;
use crate::names::metric::{self, Kind, Metric, prometheus_name};
use crate::sinks::lock;
use crate::sinks::series::ledger::{Account, Ledger};
use crate::sinks::series::points::{self, SOURCES, Value};
use crate::sinks::telemetry::{SELF_SOURCES, SelfStats};

/// Upper bounds of the buckets shown, as powers of two of a second: 61 µs to 1 s, every second one of the
/// kernel's, so each is exact. What is shorter counts in the first, what is longer only in `+Inf`.
pub const BOUNDS: [i32; 8] = [-14, -12, -10, -8, -6, -4, -2, 0];

/// The same of births and their phases: 7.8 ms to 128 s. What pulls an image takes longer than a second.
const BIRTH_BOUNDS: [i32; 8] = [-7, -5, -3, -1, 1, 3, 5, 7];

/// The bounds of a metric's buckets, as powers of two of a second.
fn bounds_of(metric: &Metric) -> [i32; BOUNDS.len()] {
    let births = [&metric::BIRTH_DURATION, &metric::BIRTH_PHASE_DURATION];
    if births.contains(&metric) { BIRTH_BOUNDS } else { BOUNDS }
}

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
        let named = named(&accounts);
        SOURCES.iter().try_for_each(|source| {
            family(&mut encoder, source.metric, |emit| {
                for (labels, account) in &named {
                    (source.points)(account, &mut |values, value, _| emit(labels, values, value));
                }
            })
        })
    }
}

/// The labels of each account; no two have the same. One that is gone and whose labels its successor bears is left
/// out, as the successor's series goes on from it. Of several that live (a container that is slow to end, and the one
/// started in its place) all but the newest are distinguished by their cgroup.
fn named(accounts: &[Account]) -> Vec<(Labels<'_>, &Account)> {
    let now = accounts.iter().map(|account| account.at).max();
    let (mut seen, mut named) = (HashSet::new(), Vec::with_capacity(accounts.len()));
    // Those that live come first, the newest before the others.
    for account in accounts {
        let mut labels = labels(account);
        if !seen.insert(labels.clone()) {
            labels[CGROUP].1 = bounds::name(&account.who.cgroup, bounds::NAME);
            if Some(account.at) != now || !seen.insert(labels.clone()) {
                continue;
            }
        }
        named.push((labels, account));
    }
    named
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
type Labels<'a> = [(&'static str, Cow<'a, str>); 6];

/// Where in [`Labels`] the cgroup is.
const CGROUP: usize = 3;

const NO_LABELS: Labels<'static> = [const { ("", Cow::Borrowed("")) }; 6];

/// Kubernetes' own names where there is a pod, else the cgroup and the unit; the cgroup too of what a pod has beside its
/// containers.
fn labels(account: &Account) -> Labels<'_> {
    let who = &*account.who;
    let of_no_pod = who.pod.is_none() && who.pod_uid.is_none();
    fn text(value: Option<&str>) -> Cow<'_, str> {
        bounds::name(value.unwrap_or_default(), bounds::NAME)
    }
    [
        ("namespace", text(who.namespace.as_deref())),
        // Without the pod's name, its UID still tells it from others.
        ("pod", text(who.pod.as_deref().or(who.pod_uid.as_deref()))),
        ("container", text(who.container.as_deref().or(who.container_id.as_deref()))),
        ("cgroup", text(who.told_by_path())),
        ("unit", text(who.unit.as_deref().filter(|_| of_no_pod))),
        ("kind", points::kind(who.kind).into()),
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
                encoder.encode_histogram::<NoLabelSet>(
                    sum,
                    count,
                    &buckets(histogram, bounds_of(metric)),
                    None,
                )
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
        let who = self.who.iter().map(|(name, value)| (*name, &**value));
        for label in who.chain(own).filter(|(_, value)| !value.is_empty()) {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The counts of the buckets shown, each without those below it.
fn buckets(histogram: &Log2Histogram, bounds: [i32; BOUNDS.len()]) -> [(f64, u64); BOUNDS.len() + 1] {
    let mut buckets = [(f64::INFINITY, 0); BOUNDS.len() + 1];
    for (bucket, exponent) in buckets.iter_mut().zip(bounds) {
        bucket.0 = f64::powi(2.0, exponent);
    }
    for (i, count) in histogram.counts.iter().enumerate() {
        // The upper bound of bucket i is two to the power of this.
        let exponent = i as i32 + 1 + MIN_EXPONENT;
        let shown = bounds.iter().position(|bound| exponent <= *bound).unwrap_or(bounds.len());
        buckets[shown].1 += count;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::api::BirthOutcome;
    use crate::attribution::{Workload, WorkloadKind};
    use crate::signals::{Severity, SignalKind, Transition, Whisper};
    use crate::sinks::series::culprits::NAMED;
    use crate::sinks::testdata::{birth, container, moment, reading, unit, whisper};

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
    fn a_container_has_59_series_and_two_for_each_signal() {
        let mut all = vec![container("shop", "web", "app")];
        all.extend((0..3 * NAMED).map(|i| container("batch", &format!("noisy-{i}"), "burner")));
        let mut ledger = Ledger::new(moment(0), false);
        ledger.observe(&reading(&all, 10));
        for signal in SignalKind::said() {
            for severity in [Severity::Warning, Severity::Critical] {
                let whisper = whisper(&all[0], signal, Transition::Started, 10);
                ledger.whisper(&Whisper { severity, ..whisper });
            }
        }
        let text = text(ledger);
        let web = series(&text, "namespace=\"shop\",pod=\"web\",container=\"app\",kind=\"container\"");
        assert_eq!(web.len(), 59 + 2 * SignalKind::said().count(), "{web:#?}");
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

    /// A birth of 20 s is told from one of 2 s: a quantile of what is all in +Inf would be the last bound, 1 s.
    #[test]
    fn births_have_buckets_of_their_length() {
        let stats = Arc::new(SelfStats::default());
        let mut birth = birth(Some(BirthOutcome::Complete), false);
        for ms in [1_900.0, 20_000.0, 200_000.0] {
            birth.status.kernel_stats.as_mut().expect("numbers").total_duration_ms = Some(ms);
            stats.birth(&birth);
        }
        let mut text = String::new();
        encode(&mut text, &registry(Arc::new(Mutex::new(Ledger::new(moment(0), false))), stats))
            .expect("encoded");
        let counts: Vec<&str> = series(&text, "kernel_gossip_birth_duration_seconds_bucket")
            .into_iter()
            .filter_map(|l| l.rsplit(' ').next())
            .collect();
        assert_eq!(counts, ["0", "0", "0", "0", "1", "1", "2", "2", "3"], "{text}");
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

    fn changed(who: &Workload, change: impl FnOnce(&mut Workload)) -> Arc<Workload> {
        let mut who = who.clone();
        change(&mut who);
        Arc::new(who)
    }

    /// Whatever the names are, no series is there twice, and none is left out.
    #[test]
    fn what_bears_one_name_is_told_apart() {
        let web = container("shop", "web", "app");
        let helper = |n: u32| {
            changed(&web, |who| {
                who.kind = WorkloadKind::Cgroup;
                who.cgroup = format!("/kubepods.slice/pod/crio-conmon-{n}.scope");
                (who.container, who.container_id) = (None, None);
            })
        };
        let init =
            |above: &str| changed(&unit("init.scope"), |who| who.cgroup = format!("{above}/init.scope"));
        let all = [
            web.clone(),
            // Slow to end, while the one in its place runs.
            changed(&web, |who| who.cgroup += "-again"),
            helper(1),
            helper(2),
            helper(3),
            init("/lxc/web"),
            init("/machine.slice/machine-web.scope/payload"),
        ];
        let mut ledger = Ledger::new(moment(0), false);
        ledger.observe(&reading(&all, 10));
        let text = text(ledger);
        let run = series(&text, "kernel_gossip_cpu_run_time_seconds_total");
        assert_eq!(run.len(), all.len(), "{run:#?}");
        // Of the first, five neighbours; the second is itself by another cgroup.
        let neighbours = series(&text, "kernel_gossip_cpu_neighbour_time_seconds_total");
        assert_eq!(neighbours.len(), all.len() - 1, "{neighbours:#?}");
        let labels: HashSet<_> =
            text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).collect();
        let samples = text.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(labels.iter().map(|(labels, _)| labels).collect::<HashSet<_>>().len(), samples);
    }
}
