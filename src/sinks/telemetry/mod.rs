//! The agent about itself: what it costs, what it lost, what waits. Kept once, in [`SelfStats`]; sent by
//! the OpenTelemetry SDK through the same queue as the rest, and shown on `/metrics`.
//!
//! Inside belongs what the agent says of itself; what it says of workloads does not.

mod loss;
mod sdk;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

pub use loss::Loss;
pub use sdk::start;

use super::lock;
use super::otlp::queue::{Lane, LaneSize};
use super::otlp::{OtlpSink, Outcomes};
use super::series::points::Value;
use crate::api::BirthOutcome;
use crate::attribution::{Attributed, AttributionLosses};
use crate::birth::{Certificate, Phase};
use crate::kernel::{self, Log2Histogram, ProgramCost};
use crate::names::metric::{self, Metric};

/// The agent's numbers about itself. Shared; every part writes what it knows.
#[derive(Debug, Default)]
pub struct SelfStats {
    losses: [AtomicU64; Loss::ALL.len()],
    of_probes: OfProbes,
    map_bytes: AtomicU64,
    latest: Mutex<Latest>,
    durations: Mutex<Durations>,
    /// Of births, by outcome.
    births: Mutex<BTreeMap<&'static str, Durations>>,
    /// Of the phases of those that were complete, by phase.
    phases: Mutex<BTreeMap<&'static str, Durations>>,
    /// The SDK's histograms of the same durations, by metric.
    histograms: Mutex<BTreeMap<&'static str, Histogram<f64>>>,
    otlp: OnceLock<Arc<OtlpSink>>,
}

/// What the probes lost, each reason once.
#[derive(Debug)]
struct OfProbes(Vec<(kernel::Loss, AtomicU64)>);

impl Default for OfProbes {
    fn default() -> Self {
        let mut all: Vec<(kernel::Loss, AtomicU64)> = Vec::new();
        for why in kernel::probes::losses() {
            if all.iter().all(|(known, _)| known.reason != why.reason) {
                all.push((why, AtomicU64::default()));
            }
        }
        OfProbes(all)
    }
}

/// What the last reading said.
#[derive(Debug, Default)]
struct Latest {
    at: Option<Instant>,
    programs: Vec<ProgramCost>,
    workloads: usize,
    pods: u64,
    blame_lost_ns: u64,
}

#[derive(Debug, Default)]
struct Durations {
    histogram: Log2Histogram,
    sum_ns: u64,
}

impl Durations {
    fn record(&mut self, time: Duration) {
        let ns = nanos(time);
        self.histogram.record(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

impl SelfStats {
    /// Notes what a reading says about the agent.
    pub fn observe(&self, reading: &Attributed) {
        for (why, count) in &self.of_probes.0 {
            let of_reason = reading.losses.iter().filter(|lost| lost.why.reason == why.reason);
            let total = of_reason.map(|lost| lost.total).sum();
            if count.swap(total, Ordering::Relaxed) == 0 && total > 0 {
                Self::tell(why.reason, why.advice);
            }
        }
        // Taken apart by name, so that a loss that is added cannot be forgotten here.
        let AttributionLosses {
            unknown_shapes,
            unresolved_ids,
            bundles_missed,
            cgroups_dropped,
            pairs_dropped,
            pods_known,
        } = reading.attribution;
        for (loss, total) in [
            (Loss::UnknownPath, unknown_shapes),
            (Loss::UnresolvedCgroup, unresolved_ids),
            (Loss::BundleMissed, bundles_missed),
            (Loss::CgroupDropped, cgroups_dropped),
            (Loss::PairDropped, pairs_dropped),
        ] {
            self.set_lost(loss, total);
        }
        let mut latest = lock(&self.latest);
        latest.at = Some(Instant::now());
        latest.programs.clone_from(&reading.programs);
        latest.workloads = reading.samples.len();
        latest.pods = pods_known;
        latest.blame_lost_ns = reading.blame_lost_ns;
    }

    /// Notes how long a reading took, from the kernel to the sinks.
    pub fn reading_took(&self, time: Duration) {
        lock(&self.durations).record(time);
        self.record(&metric::AGENT_READING_DURATION, time, &[]);
    }

    /// Notes how long a birth and its phases took.
    pub fn birth(&self, birth: &Certificate) {
        if birth.restart {
            return;
        }
        let length = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        let status = &birth.status;
        if let Some(outcome) = status.outcome
            && let Some(ms) = status.kernel_stats.as_ref().and_then(|s| s.total_duration_ms)
        {
            lock(&self.births).entry(outcome.as_str()).or_default().record(length(ms));
            self.record(&metric::BIRTH_DURATION, length(ms), &[outcome.as_str()]);
        }
        if status.outcome != Some(BirthOutcome::Complete) {
            return;
        }
        for phase in &status.phases {
            // Only names of the agent's own: there are as many series as phases.
            let Some(name) = Phase::ALL.iter().map(|p| p.as_str()).find(|name| *name == phase.name) else {
                continue;
            };
            lock(&self.phases).entry(name).or_default().record(length(phase.duration_ms));
            self.record(&metric::BIRTH_PHASE_DURATION, length(phase.duration_ms), &[name]);
        }
    }

    /// Tells the SDK's histogram of it, if there is one.
    fn record(&self, metric: &Metric, time: Duration, values: &[&'static str]) {
        if let Some(histogram) = lock(&self.histograms).get(metric.name) {
            let names = metric.attributes.iter();
            let attributes: Vec<_> = names.zip(values).map(|(name, v)| KeyValue::new(*name, *v)).collect();
            histogram.record(time.as_secs_f64(), &attributes);
        }
    }

    /// Notes how much kernel memory the BPF maps take.
    pub fn set_map_bytes(&self, bytes: u64) {
        self.map_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets what was lost for this reason so far. The first time that it is a full table's, the log says so.
    pub fn set_lost(&self, why: Loss, total: u64) {
        let before = self.losses[why as usize].swap(total, Ordering::Relaxed);
        if before == 0 && total > 0 {
            Self::tell(why.as_str(), why.advice());
        }
    }

    /// Counts one more loss; the log, likewise.
    pub fn lost(&self, why: Loss) {
        if self.losses[why as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            Self::tell(why.as_str(), why.advice());
        }
    }

    fn tell(reason: &str, advice: Option<&str>) {
        if let Some(advice) = advice {
            tracing::warn!(
                "{advice} (said once; counted in kernel_gossip_agent_losses_total, reason=\"{reason}\")"
            );
        }
    }

    /// How long ago the last reading was; `None` before the first.
    pub fn last_reading(&self) -> Option<Duration> {
        lock(&self.latest).at.map(|at| at.elapsed())
    }

    /// From now on the sink's queue and outcomes are part of the numbers.
    pub fn watch(&self, otlp: Arc<OtlpSink>) {
        // Set once: there is one sink.
        let _ = self.otlp.set(otlp);
    }

    /// What was lost so far, by reason.
    fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        if let Some(otlp) = self.otlp.get() {
            for (lane, [dropped, refused, rejected]) in [
                (Lane::Metrics, [Loss::MetricsQueueFull, Loss::MetricsRefused, Loss::MetricsRejected]),
                (Lane::Events, [Loss::EventsQueueFull, Loss::EventsRefused, Loss::EventsRejected]),
                (Lane::Traces, [Loss::TracesQueueFull, Loss::TracesRefused, Loss::TracesRejected]),
            ] {
                let outcomes = otlp.outcomes(lane);
                self.set_lost(dropped, otlp.waiting(lane).dropped);
                self.set_lost(refused, outcomes.refused_items.load(Ordering::Relaxed));
                self.set_lost(rejected, outcomes.rejected_items.load(Ordering::Relaxed));
            }
            self.set_lost(Loss::TooLarge, otlp.too_large());
        }
        let own = Loss::ALL.into_iter().map(|loss| (loss.as_str(), &self.losses[loss as usize]));
        let all = self.of_probes.0.iter().map(|(why, count)| (why.reason, count)).chain(own);
        all.map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

/// Receives each point: the values of its attributes, in the order of [`Metric::attributes`], and its value.
pub type Emit<'e> = &'e mut dyn FnMut(&[&str], Value<'_>);

/// How one of the agent's own metrics is read.
pub struct SelfSource {
    pub metric: &'static Metric,
    pub points: fn(&SelfStats, Emit<'_>),
}

/// Every one of the agent's own metrics.
pub static SELF_SOURCES: [SelfSource; metric::AGENT.len()] = [
    SelfSource {
        metric: &metric::AGENT_BPF_RUN_TIME,
        points: |stats, emit| programs(stats, emit, |p| Value::Time(nanos(p.run_time))),
    },
    SelfSource {
        metric: &metric::AGENT_BPF_RUNS,
        points: |stats, emit| programs(stats, emit, |p| Value::Count(p.runs)),
    },
    SelfSource {
        metric: &metric::AGENT_BPF_MAP_SIZE,
        points: |stats, emit| emit(&[], level(stats.map_bytes.load(Ordering::Relaxed))),
    },
    SelfSource {
        metric: &metric::AGENT_LOSSES,
        points: |stats, emit| {
            stats.losses().for_each(|(reason, total)| emit(&[reason], Value::Count(total)));
        },
    },
    SelfSource {
        metric: &metric::AGENT_BLAME_LOST_TIME,
        points: |stats, emit| emit(&[], Value::Time(lock(&stats.latest).blame_lost_ns)),
    },
    SelfSource {
        metric: &metric::AGENT_READING_DURATION,
        points: |stats, emit| {
            let durations = lock(&stats.durations);
            emit(&[], Value::Durations(&durations.histogram, durations.sum_ns));
        },
    },
    SelfSource {
        metric: &metric::AGENT_WORKLOAD_KNOWN,
        points: |stats, emit| emit(&[], level(lock(&stats.latest).workloads as u64)),
    },
    SelfSource {
        metric: &metric::AGENT_POD_KNOWN,
        points: |stats, emit| emit(&[], level(lock(&stats.latest).pods)),
    },
    SelfSource {
        metric: &metric::AGENT_QUEUE_SIZE,
        points: |stats, emit| lanes(stats, |kind, waiting, _| emit(&[kind], level(waiting.bytes as u64))),
    },
    SelfSource {
        metric: &metric::AGENT_QUEUE_LENGTH,
        points: |stats, emit| lanes(stats, |kind, waiting, _| emit(&[kind], level(waiting.items as u64))),
    },
    SelfSource { metric: &metric::AGENT_EXPORTS, points: exports },
    SelfSource {
        metric: &metric::AGENT_EXPORTED_ITEMS,
        points: |stats, emit| {
            lanes(stats, |kind, _, outcomes| {
                emit(&[kind], Value::Count(outcomes.delivered_items.load(Ordering::Relaxed)));
            });
        },
    },
    SelfSource { metric: &metric::BIRTH_DURATION, points: |stats, emit| by_name(&stats.births, emit) },
    SelfSource { metric: &metric::BIRTH_PHASE_DURATION, points: |stats, emit| by_name(&stats.phases, emit) },
    SelfSource {
        metric: &metric::AGENT_MEMORY,
        points: |_, emit| {
            if let Some(bytes) = resident_memory() {
                emit(&[], level(bytes));
            }
        },
    },
];

fn by_name(all: &Mutex<BTreeMap<&'static str, Durations>>, emit: Emit<'_>) {
    for (name, durations) in lock(all).iter() {
        emit(&[name], Value::Durations(&durations.histogram, durations.sum_ns));
    }
}

fn programs(stats: &SelfStats, emit: Emit<'_>, value: fn(&ProgramCost) -> Value<'static>) {
    for program in &lock(&stats.latest).programs {
        emit(&[&program.name], value(program));
    }
}

/// Nothing without an exporter.
fn lanes(stats: &SelfStats, mut each: impl FnMut(&str, LaneSize, &Outcomes)) {
    if let Some(otlp) = stats.otlp.get() {
        Lane::ALL.into_iter().for_each(|lane| each(lane.as_str(), otlp.waiting(lane), otlp.outcomes(lane)));
    }
}

fn exports(stats: &SelfStats, emit: Emit<'_>) {
    lanes(stats, |kind, _, outcomes| {
        for (outcome, count) in [
            ("delivered", &outcomes.delivered),
            ("retried", &outcomes.retried),
            ("refused", &outcomes.refused),
        ] {
            emit(&[kind, outcome], Value::Count(count.load(Ordering::Relaxed)));
        }
    });
}

fn level(n: u64) -> Value<'static> {
    Value::Level(i64::try_from(n).unwrap_or(i64::MAX))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes of memory this process has resident; `None` if /proc does not say.
fn resident_memory() -> Option<u64> {
    let pages = procfs::process::Process::myself().ok()?.statm().ok()?.resident;
    Some(pages * procfs::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cgroups::CgroupLosses;
    use crate::kernel::cpu::CpuLosses;
    use crate::kernel::recorder::BirthLosses;

    /// Two probes may lose something for the same reason.
    #[test]
    fn losses_of_one_reason_add_up() {
        let stats = SelfStats::default();
        let mut reading = Attributed::default();
        reading.losses.extend(CgroupLosses { made: 2, ..CgroupLosses::default() }.by_reason());
        reading.losses.extend(BirthLosses { events: 5, ..BirthLosses::default() }.by_reason());
        stats.observe(&reading);
        let told: Vec<_> = stats.losses().filter(|(reason, _)| *reason == "birth_events").collect();
        assert_eq!(told, [("birth_events", 7)]);
    }

    /// Some losses are counted elsewhere than in a reading.
    #[test]
    fn a_reading_sets_back_no_count_that_is_not_its_own() {
        let stats = SelfStats::default();
        let elsewhere = [Loss::LateName, Loss::TerminalDropped, Loss::SampleUntracked, Loss::BirthDropped];
        elsewhere.iter().for_each(|loss| stats.set_lost(*loss, 3));
        stats.observe(&Attributed::default());
        for (reason, total) in stats.losses() {
            let is_elsewhere = elsewhere.iter().any(|loss| loss.as_str() == reason);
            assert_eq!(total, if is_elsewhere { 3 } else { 0 }, "{reason}");
        }
    }

    #[test]
    fn a_table_that_is_full_says_so_once_with_what_to_set() {
        crate::testlog::keep();
        let said = |reason: &str| {
            let lines = crate::testlog::lines_of_this_thread();
            lines.into_iter().filter(|l| l.contains(&format!("reason=\"{reason}\""))).collect::<Vec<_>>()
        };
        let stats = SelfStats::default();
        let mut reading = Attributed::default();
        stats.observe(&reading);
        assert_eq!(said("slots_exhausted"), [""; 0]);
        let lost =
            |slots, pairs| CpuLosses { slots_exhausted: slots, pairs_evicted: pairs, ..CpuLosses::default() };
        reading.losses = lost(877, 8192).by_reason().to_vec();
        stats.observe(&reading);
        reading.losses = lost(73_118, 8192).by_reason().to_vec();
        stats.observe(&reading);
        let slots = said("slots_exhausted");
        assert!(slots.len() == 1 && slots[0].contains("raise `agent.max_cgroups`"), "{slots:?}");
        assert_eq!(said("pair_evicted").len(), 1);
        // Losses that are no full table's are counted alone.
        reading.losses = CpuLosses { switches_missed: 5, ..CpuLosses::default() }.by_reason().to_vec();
        stats.observe(&reading);
        assert_eq!(said("switch_missed"), [""; 0]);
        (0..3).for_each(|_| stats.lost(Loss::BirthDropped));
        assert_eq!(said("birth_dropped").len(), 1);
    }
}
