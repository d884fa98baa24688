//! What the signals of the CPU have in common: from a window's growth to the numbers a whisper carries, and their words.

use super::cpu_contention::{contended_seconds, lost_cores, of_the_time};
use super::{Seen, percent, phrases, seconds};
use crate::attribution::{Sample, quota_cores};
use crate::evidence::CpuNumbers;
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

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

/// Fills in every number that is known of the CPU, and those who ran meanwhile.
pub fn fill(whisper: &mut Whisper, seen: &Seen<'_>) {
    let Seen { sample, growth, window, cpus, .. } = *seen;
    window.top_culprits(growth, &mut whisper.neighbours);
    let of_the_time = of_the_time(growth);
    whisper.neighbours.iter_mut().for_each(|n| n.percent = (n.percent * of_the_time).min(100.0));
    let c = &growth.counters;
    let cores = |ns: u64| seconds(ns) / growth.seconds;
    // A stall is counted when it ends: one that began before the window can exceed it.
    let percent = |ns: u64| percent(ns, growth.seconds).min(100.0);
    let s = c.scheduler.as_ref();
    let throttled = c.throttled_per_cpu();
    let enforced = sample.stat.quota.is_some() || c.periods.is_some_and(|n| n > 0);

    let taken = |ns: Option<u64>| ns.filter(|ns| *ns > 0).map(seconds);
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    whisper.evidence.cpu = Some(CpuNumbers {
        throttled_percent: s.map(|s| percent(s.throttled_wall)),
        throttled_full_percent: s.map(|s| percent(s.throttled_full)),
        throttled_seconds: throttled.map(seconds),
        stalls: s.map(|s| count(s.stalls)),
        stall_p99_seconds: sample
            .cpu
            .as_ref()
            .and_then(|cpu| window.stalls(growth, &cpu.stall_histogram).quantile(0.99)),
        // A cgroup without a quota of its own has no periods to speak of.
        periods: c.periods.filter(|_| enforced).map(count),
        throttled_periods: c.throttled_periods.filter(|_| enforced).map(count),
        period_seconds: sample.stat.period.filter(|_| enforced).map(seconds),
        usage_cores: c.used().map(cores),
        demand_cores: demand_cores(growth, cpus),
        limit_cores: limit_cores(sample),
        request_cores: sample.who.cpu_request,
        wait_seconds: s.map(|s| seconds(s.wait)),
        wait_throttle_seconds: s.map(|s| seconds(s.throttle)),
        wait_neighbour_seconds: s.map(|s| seconds(s.neighbour)),
        wait_own_seconds: s.map(|s| seconds(s.own)),
        wait_unattributed_seconds: s.map(|s| seconds(s.unattributed)),
        taken_hypervisor_seconds: taken(s.map(|s| s.stolen)),
        taken_interrupts_seconds: taken(s.map(|s| s.interrupted)),
        contended_seconds: contended_seconds(growth),
        lost_cores: lost_cores(growth),
        ..CpuNumbers::default()
    });
}

/// Less of the time on a CPU is not worth a word, seconds.
const TAKEN: f64 = 0.1;

/// ": used 0.20 cores, would have used at most 1.00, limit 0.20, the hypervisor took 0.8 s of its time on a CPU"
pub fn cores(e: &CpuNumbers, at_most: Option<f64>) -> String {
    let stolen = e.taken_hypervisor_seconds.filter(|s| *s >= TAKEN);
    let parts = [
        e.usage_cores.map(|c| format!("used {c:.2} cores")),
        at_most.map(|c| format!("would have used at most {c:.2}")),
        e.limit_cores.map(|c| format!("limit {c:.2}")),
        stolen.map(|s| format!("the hypervisor took {} of its time on a CPU", length(s))),
    ];
    phrases(": ", parts)
}

/// A length of time in the unit that suits it.
pub fn length(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}
