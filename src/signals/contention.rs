//! `cpu_contention`: kept off the CPU by its neighbours. Judged by time in which at least one thread waited, and never
//! more than the workload could have used: fifty threads that queue for one CPU lost one CPU.

use super::hysteresis::Judgement;
use super::rules::ContentionRule;
use super::window::{Growth, Scheduler, nanos};

/// What uses so much of what it can use is kept off by its limit, or by the size of the machine.
const ALL_OF_IT: f64 = 0.95;

/// What the rule makes of a window; `None` without the CPU probe: only the scheduler knows who waited
/// for whom.
pub fn judge(rule: &ContentionRule, growth: &Growth) -> Option<Judgement> {
    let waited = waited(&growth.counters.scheduler?);
    let percent = share(waited, growth.seconds) * growth.seconds / growth.basis_seconds * 100.0;
    let lost = lost_cores(growth)?;
    let used = used_cores(growth);
    let share = if lost > 0.0 { lost / (used + lost) * 100.0 } else { 0.0 };
    let all_of_it = growth.usable_cores.is_some_and(|usable| used >= usable * ALL_OF_IT);
    let enough = waited >= nanos(rule.min_wait) && share >= rule.min_share && !all_of_it;
    Some(Judgement::of(&rule.rule, percent, enough, growth.complete))
}

/// Time in which at least one thread waited on a CPU on which a neighbour ran, summed over CPUs, ns. Where the kernel
/// cannot tell, as long as its threads waited together.
fn waited(s: &Scheduler) -> u64 {
    // A wait for another cgroup of its own is in the one and not in the other.
    per_cpu(s).unwrap_or(s.neighbour)
}

/// The same; `None` where the kernel cannot tell.
fn per_cpu(s: &Scheduler) -> Option<u64> {
    (s.waited > 0 || s.neighbour == 0).then_some(s.waited.min(s.neighbour))
}

/// The part of the time in which it waited: on several CPUs at once it waits no longer.
fn share(waited: u64, seconds: f64) -> f64 {
    (waited as f64 / 1e9 / seconds).min(1.0)
}

fn used_cores(growth: &Growth) -> f64 {
    growth.counters.used().unwrap_or(0) as f64 / 1e9 / growth.seconds
}

/// The cores that neighbours took from it, at most: where a thread waited it could have run, as far as limit and CPUs
/// allow. `None` without the CPU probe.
pub fn lost_cores(growth: &Growth) -> Option<f64> {
    let waited = waited(&growth.counters.scheduler?) as f64 / 1e9 / growth.seconds;
    let left = growth.usable_cores.map_or(f64::INFINITY, |usable| (usable - used_cores(growth)).max(0.0));
    Some(waited.min(left))
}

/// What the evidence says: [`CpuCounters::waited`](crate::kernel::CpuCounters::waited) in seconds, where the kernel
/// can tell.
pub fn contended_seconds(growth: &Growth) -> Option<f64> {
    Some(per_cpu(&growth.counters.scheduler?)? as f64 / 1e9)
}

/// What part of the neighbours' wait of all threads together is time in which the workload waited: by so much the
/// shares of the neighbours are less than what they kept its threads waiting together.
pub fn of_the_time(growth: &Growth) -> f64 {
    let Some(s) = growth.counters.scheduler.filter(|s| s.neighbour > 0) else { return 1.0 };
    share(waited(&s), growth.seconds) / (s.neighbour as f64 / 1e9 / growth.seconds)
}

/// How long a workload was kept off the CPU, as a person is told of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contended {
    /// Time in which at least one thread waited, percent of the window, 0..=100.
    pub percent: f64,
    /// How many waited at a time, on average; `None` where the kernel cannot tell.
    pub threads: Option<f64>,
}

/// From the evidence: time in which at least one thread waited (`None`: the kernel cannot tell), the neighbours' part of
/// the wait of all threads together, and the window, all in seconds. `None`: neither is known.
pub fn contended(waited: Option<f64>, together: Option<f64>, window: f64) -> Option<Contended> {
    let seconds = waited.or(together)?;
    let at_a_time = |(waited, all): (f64, f64)| all / waited.min(window);
    let threads = waited.zip(together).filter(|(waited, _)| *waited > 0.0).map(at_a_time);
    (window > 0.0).then(|| Contended { percent: (seconds / window * 100.0).min(100.0), threads })
}
