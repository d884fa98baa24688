//! `cpu_throttle`: stopped by its own CPU limit.

use super::{Kind, Seen, cpu, percent, phrases, with_percent};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::SignalEvidence;
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{Key, Rule, Section, WINDOWED};
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

#[derive(Debug)]
pub struct CpuThrottle;

const MIN_THROTTLED: Key = Key::duration(
    "min_throttled",
    0.5,
    "Less throttled time in the window (summed over CPUs) is not said. 0s to 1h.",
);
const MIN_STALLS: Key = Key::whole("min_stalls", 3.0, (0.0, 1e6), "Nor are fewer stalls. 0 to 1000000.");

static SECTION: Section = Section {
    help: "Stopped by its own CPU limit. Percentages: throttled time (wall) of the window.",
    common: &WINDOWED,
    own: &[MIN_THROTTLED, MIN_STALLS],
};

impl Kind for CpuThrottle {
    fn brief(&self) -> &'static str {
        "The CPU quota stopped it."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let (percent, stalls) = match &growth.counters.scheduler {
            Some(s) => (percent(s.throttled_wall, growth.basis_seconds), Some(s.stalls)),
            None => (at_most(growth)?, growth.counters.throttled_periods),
        };
        let throttled = growth.counters.throttled_per_cpu()?;
        let least = rule.get(&MIN_STALLS);
        let enough = throttled >= rule.nanos(&MIN_THROTTLED) && stalls.is_none_or(|n| n as f64 >= least);
        Some(Judgement::of(rule, percent, enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        cpu::fill(whisper, seen);
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.cpu().throttled_percent.unwrap_or_default()
    }

    /// `throttled 80 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let cpu = numbers.cpu();
        match (cpu.throttled_percent, cpu.throttled_periods, cpu.periods) {
            (None, Some(throttled), Some(all)) => format!("throttled in {throttled} of {all} periods"),
            (percent, ..) => with_percent("throttled", percent),
        }
    }

    /// ": used 0.20 cores, would have used at most 1.00, limit 0.20; 99 stalls, …"
    fn details(&self, whisper: &Whisper) -> String {
        let e = whisper.evidence.cpu();
        let sum = e.throttled_seconds.filter(|_| e.throttled_percent.is_none());
        let seen = [
            e.stalls.map(|n| format!("{n} {}", if n == 1 { "stall" } else { "stalls" })),
            e.stall_p99_seconds.map(|s| format!("99 % of them within {}", cpu::length(s))),
            sum.map(|s| format!("{s:.1} s summed over CPUs")),
        ];
        cpu::cores(e, e.demand_cores) + &phrases("; ", seen)
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        let percent = numbers.cpu().throttled_percent?;
        Some(format!("{who} was refused the CPU by its own limit for {percent:.0} %"))
    }

    fn wants_a_higher_limit(&self) -> bool {
        true
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        advice::cpu::throttled(evidence, node)
    }
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
