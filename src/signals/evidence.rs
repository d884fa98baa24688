//! From a window's growth to the numbers a whisper carries.

use super::contention;
use super::whisper::Neighbour;
use super::window::{Growth, Window};
use crate::attribution::{Sample, quota_cores};
use crate::evidence::{CpuNumbers, SignalEvidence};

/// The CPU limit that binds, cores; `None` if there is none, or none is known.
fn limit_cores(sample: &Sample) -> Option<f64> {
    sample.quota_cores.or(quota_cores(&sample.stat)).or(sample.who.cpu_limit)
}

/// The cores it can use at most on a machine with so many CPUs (0: unknown).
pub fn usable_cores(cpus: u32, sample: &Sample) -> Option<f64> {
    let cpus = (cpus > 0).then(|| f64::from(cpus));
    limit_cores(sample).into_iter().chain(cpus).reduce(f64::min)
}

/// What it would have used without a limit, at most, cores: what was used and what was refused. A CPU is refused until
/// the end of a period, however little was left to do there; no more is wanted than there were threads that waited for
/// a CPU, nor than there are CPUs.
fn demand_cores(growth: &Growth, cpus: u32) -> Option<f64> {
    let c = &growth.counters;
    let cores = |ns: u64| ns as f64 / 1e9 / growth.seconds;
    let (used, throttled) = (c.used()?, c.throttled_per_cpu()?);
    let refused = c.scheduler.map_or(throttled, |s| throttled.min(s.wait));
    let demand = cores(used) + cores(refused);
    // More than all CPUs cannot be used; that more was is a matter of when counters are read.
    Some(if cpus > 0 { demand.min(f64::from(cpus)).max(cores(used)) } else { demand })
}

/// Fills in those who ran meanwhile, the greatest share first.
pub fn neighbours(out: &mut Vec<Neighbour>, window: &Window, growth: &Growth) {
    window.top_culprits(growth, out);
    let of_the_time = contention::of_the_time(growth);
    out.iter_mut().for_each(|n| n.percent = (n.percent * of_the_time).min(100.0));
}

/// Fills in every number that is known.
pub fn fill(out: &mut SignalEvidence, window: &Window, growth: &Growth, sample: &Sample, cpus: u32) {
    let c = &growth.counters;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let cores = |ns: u64| seconds(ns) / growth.seconds;
    // A stall is counted when it ends: one that began before the window can exceed it.
    let percent = |ns: u64| (cores(ns) * 100.0).min(100.0);
    let s = c.scheduler.as_ref();
    let throttled = c.throttled_per_cpu();
    let enforced = sample.stat.quota.is_some() || c.periods.is_some_and(|n| n > 0);

    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    out.window_seconds = Some(growth.seconds);
    out.cpu = Some(CpuNumbers {
        throttled_percent: s.map(|s| percent(s.stall_wall)),
        throttled_full_percent: s.map(|s| percent(s.stall_full)),
        throttled_seconds: throttled.map(seconds),
        stalls: s.map(|s| count(s.stalls)),
        stall_p99_seconds: sample
            .cpu
            .as_ref()
            .and_then(|cpu| window.stalls(growth, &cpu.stall_histogram).quantile(0.99)),
        // A cgroup without a quota of its own has no periods to speak of.
        periods: c.periods.filter(|_| enforced).map(count),
        throttled_periods: c.throttled_periods.filter(|_| enforced).map(count),
        usage_cores: c.used().map(cores),
        demand_cores: demand_cores(growth, cpus),
        limit_cores: limit_cores(sample),
        request_cores: sample.who.cpu_request,
        wait_seconds: s.map(|s| seconds(s.wait)),
        wait_throttle_seconds: s.map(|s| seconds(s.throttle)),
        wait_neighbour_seconds: s.map(|s| seconds(s.neighbour)),
        wait_own_seconds: s.map(|s| seconds(s.own)),
        wait_unattributed_seconds: s.map(|s| seconds(s.unattributed)),
        contended_seconds: contention::contended_seconds(growth),
        lost_cores: contention::lost_cores(growth),
        reported_usage_cores: None,
    });
}
