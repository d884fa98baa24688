//! `cpu_contention`: kept off the CPU by its neighbours.

use super::hysteresis::Judgement;
use super::rules::ContentionRule;
use super::window::{Growth, nanos};

/// What the rule makes of a window; `None` without the CPU probe: only the scheduler knows who waited
/// for whom.
pub fn judge(rule: &ContentionRule, growth: &Growth) -> Option<Judgement> {
    let s = growth.counters.scheduler?;
    // Summed over threads, so several waiting at once can exceed 100.
    let percent = s.neighbour as f64 / 1e9 / growth.basis_seconds * 100.0;
    let wanted = s.run + s.neighbour;
    let share = if wanted == 0 { 0.0 } else { s.neighbour as f64 / wanted as f64 * 100.0 };
    let enough = s.neighbour >= nanos(rule.min_wait) && share >= rule.min_share;
    Some(Judgement::of(&rule.rule, percent, enough, growth.complete))
}
