//! The signals on captured and on generated series.

mod captured;
mod engine;
mod hysteresis;
mod life;
mod naming;
mod window;

use std::sync::Arc;

use super::{Engine, Rules, SignalKind, Transition, Whisper};
use crate::attribution::{Attributed, NamedBlame, Sample, Workload, WorkloadKind};
use crate::kernel::{CgroupStat, CpuCounters, Instant};

const SECOND: u64 = 1_000_000_000;
/// A boot some days ago, on a day in 2026.
const BOOT: Instant = Instant { mono_ns: 300_000 * SECOND, unix_ns: 1_795_000_000 * SECOND };

fn at(ns: u64) -> Instant {
    Instant { mono_ns: BOOT.mono_ns + ns, unix_ns: BOOT.unix_ns + ns }
}

fn workload(kind: WorkloadKind, path: &str) -> Arc<Workload> {
    Arc::new(Workload {
        kind,
        cgroup: path.into(),
        namespace: None,
        pod: None,
        pod_uid: None,
        container: None,
        container_id: None,
        owner: None,
        unit: None,
        cpu_limit: None,
        cpu_request: None,
        confirmed: false,
    })
}

pub(super) fn container(path: &str) -> Arc<Workload> {
    workload(WorkloadKind::Container, path)
}

fn sample(who: &Arc<Workload>, cpu: Option<CpuCounters>, stat: CgroupStat) -> Sample {
    Sample {
        who: who.clone(),
        cpu,
        stat,
        quota_cores: None,
        network: None,
        reclaim: None,
        memory: None,
        last: false,
    }
}

fn reading(ns: u64, samples: Vec<Sample>, blame: Vec<NamedBlame>) -> Attributed {
    Attributed { at: at(ns), samples, blame, ..Default::default() }
}

/// What a thread under a quota looks like that was stopped `percent` of the `ns` since it began.
fn stopped(percent: f64, ns: u64) -> CpuCounters {
    let stalled = (ns as f64 * percent / 100.0) as u64;
    let mut counters = CpuCounters {
        run: ns - stalled,
        wait: stalled,
        throttle: stalled,
        stalls: ns / (SECOND / 10),
        throttled_per_cpu: stalled,
        throttled_wall: stalled,
        throttled_full: stalled,
        ..Default::default()
    };
    counters.stall_histogram.counts[20] = counters.stalls;
    counters
}

/// The kinds of transition, signal by signal, in the order they were said.
fn said(whispers: &[Whisper]) -> Vec<(SignalKind, Transition)> {
    whispers.iter().map(|w| (w.signal, w.transition)).collect()
}

fn step(engine: &mut Engine, attributed: &Attributed) -> Vec<Whisper> {
    let mut out = Vec::new();
    engine.step(attributed, &mut out);
    out
}

fn engine() -> Engine {
    Engine::new(&Rules::default())
}
