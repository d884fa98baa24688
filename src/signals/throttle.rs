//! `cpu_throttle`: stopped by its own CPU limit.

use super::hysteresis::Judgement;
use super::rules::ThrottleRule;
use super::window::{Growth, nanos};

/// What the rule makes of a window; `None` where nothing measured throttling.
pub fn judge(rule: &ThrottleRule, growth: &Growth) -> Option<Judgement> {
    let (percent, stalls) = match &growth.counters.scheduler {
        Some(s) => (percent(s.stall_wall, growth.basis_seconds), Some(s.stalls)),
        None => (at_most(growth)?, growth.counters.throttled_periods),
    };
    let throttled = growth.counters.throttled_per_cpu()?;
    let enough = throttled >= nanos(rule.min_throttled) && stalls.is_none_or(|n| n >= rule.min_stalls);
    Some(Judgement::of(&rule.rule, percent, enough, growth.complete))
}

/// Without the CPU probe the wall time is unknown, but two things bound it from above: it is no more
/// than the sum over CPUs, and no more than the periods that saw any throttling at all. The lesser of
/// the two is judged: it may overstate on several CPUs and never understates.
fn at_most(growth: &Growth) -> Option<f64> {
    let by_time = percent(growth.counters.throttled?, growth.basis_seconds);
    let by_periods = match (growth.counters.throttled_periods, growth.counters.periods) {
        (Some(_), Some(0)) => Some(0.0),
        (Some(throttled), Some(all)) => Some(throttled as f64 / all as f64 * 100.0),
        _ => None,
    };
    Some(by_periods.map_or(by_time, |p| p.min(by_time)))
}

fn percent(ns: u64, seconds: f64) -> f64 {
    ns as f64 / 1e9 / seconds * 100.0
}
