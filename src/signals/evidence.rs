//! From a window's growth to the [`CpuEvidence`] a whisper carries.

use super::whisper::CpuEvidence;
use super::window::{Growth, Window};
use crate::attribution::{Sample, quota_cores};

/// Fills in every field that is known, reusing the list of neighbours.
pub fn fill(out: &mut CpuEvidence, window: &Window, growth: &Growth, sample: &Sample) {
    let c = &growth.counters;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let cores = |ns: u64| seconds(ns) / growth.seconds;
    // A stall is counted when it ends: one that began before the window can exceed it.
    let percent = |ns: u64| (cores(ns) * 100.0).min(100.0);
    let s = c.scheduler.as_ref();
    let throttled = c.throttled_per_cpu();
    let enforced = sample.stat.quota.is_some() || c.periods.is_some_and(|n| n > 0);

    let mut neighbours = std::mem::take(&mut out.neighbours);
    window.top_culprits(growth, &mut neighbours);
    *out = CpuEvidence {
        throttled_percent: s.map(|s| percent(s.stall_wall)),
        throttled_full_percent: s.map(|s| percent(s.stall_full)),
        throttled_seconds: throttled.map(seconds),
        stalls: s.map(|s| s.stalls),
        stall_p99_seconds: sample
            .cpu
            .as_ref()
            .and_then(|cpu| window.stalls(growth, &cpu.stall_histogram).quantile(0.99)),
        // A cgroup without a quota of its own has no periods to speak of.
        periods: c.periods.filter(|_| enforced),
        throttled_periods: c.throttled_periods.filter(|_| enforced),
        usage_cores: c.used().map(cores),
        demand_cores: c.used().zip(throttled).map(|(used, throttled)| cores(used + throttled)),
        limit_cores: sample.quota_cores.or(quota_cores(&sample.stat)).or(sample.who.cpu_limit),
        request_cores: sample.who.cpu_request,
        wait_seconds: s.map(|s| seconds(s.wait)),
        wait_throttle_seconds: s.map(|s| seconds(s.throttle)),
        wait_neighbour_seconds: s.map(|s| seconds(s.neighbour)),
        wait_own_seconds: s.map(|s| seconds(s.own)),
        wait_unattributed_seconds: s.map(|s| seconds(s.unattributed)),
        neighbours,
    };
}
