//! `memory_pressure`: its tasks waited for memory, by the kernel's own count (PSI): for pages to be freed, or for pages to be
//! read back that had just been dropped.

use super::{Kind, Seen, at_most_all, with_percent};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::{MemoryNumbers, SignalEvidence};
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{CLEAR, CRITICAL, ENABLED, HOLD, Key, REPEAT, Rule, Section, WARNING, WINDOW};
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

#[derive(Debug)]
pub struct MemoryPressure;

const COMMON: [Key; 7] = [ENABLED, WINDOW, WARNING.or(10.0), CRITICAL.or(40.0), CLEAR.or(5.0), HOLD, REPEAT];
const MIN_PRESSURE: Key =
    Key::duration("min_pressure", 0.5, "Less of that time in the window is not said. 0s to 1h.");

static SECTION: Section = Section {
    help: "Waited for memory. Percentages: time in which at least one of its tasks did (PSI), of the window.",
    common: &COMMON,
    own: &[MIN_PRESSURE],
};

impl Kind for MemoryPressure {
    fn brief(&self) -> &'static str {
        "It waited for memory."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// `None` where the kernel counts no pressure, and of what contains others: they say it themselves.
    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let waited = growth.counters.memory_pressure.filter(|_| !growth.of_others)?.some;
        let enough = waited >= rule.nanos(&MIN_PRESSURE);
        Some(Judgement::of(rule, at_most_all(waited, growth.basis_seconds), enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        let pressure = seen.growth.counters.memory_pressure;
        let of_the_window = |ns: u64| at_most_all(ns, seen.growth.seconds);
        whisper.evidence.memory = Some(MemoryNumbers {
            pressure_percent: pressure.map(|p| of_the_window(p.some)),
            pressure_full_percent: pressure.and_then(|p| p.full).map(of_the_window),
            ..MemoryNumbers::default()
        });
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.memory().pressure_percent.unwrap_or_default()
    }

    /// `memory pressure 40 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        with_percent("memory pressure", numbers.memory().pressure_percent)
    }

    /// ", all of its tasks at once 30 %"
    fn details(&self, whisper: &Whisper) -> String {
        let full = whisper.evidence.memory().pressure_full_percent;
        full.map(|full| format!(", all of its tasks at once {full:.0} %")).unwrap_or_default()
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        Some(format!("{who} waited for memory for {:.0} %", numbers.memory().pressure_percent?))
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        advice::memory::short(evidence, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Severity, SignalKind};
    use crate::kernel::Pressure;
    use crate::signals::window::Counters;

    /// Ten seconds in which some task waited for so many ms.
    fn judged(ms: u64, complete: bool) -> Judgement {
        let memory_pressure = Some(Pressure { some: ms * 1_000_000, full: None });
        let counters = Counters { memory_pressure, ..Counters::default() };
        let growth = Growth { seconds: 10.0, basis_seconds: 10.0, complete, counters, ..Growth::default() };
        MemoryPressure
            .judge(&Rule::of(SignalKind::MemoryPressure.kind().section()), &growth)
            .expect("measured")
    }

    #[test]
    fn a_tenth_of_the_time_is_a_warning_and_two_fifths_are_critical() {
        assert_eq!(judged(990, true).level, None);
        assert_eq!(judged(1000, true).level, Some(Severity::Warning));
        assert_eq!(judged(4000, true).level, Some(Severity::Critical));
        assert!(judged(500, true).clear && !judged(510, true).clear && !judged(500, false).clear);
    }

    #[test]
    fn where_nothing_counts_pressure_there_is_no_signal() {
        let growth = Growth { seconds: 10.0, basis_seconds: 10.0, complete: true, ..Growth::default() };
        assert_eq!(
            MemoryPressure.judge(&Rule::of(SignalKind::MemoryPressure.kind().section()), &growth),
            None
        );
    }

    #[test]
    fn a_slice_does_not_repeat_what_is_below_it() {
        let memory_pressure = Some(Pressure { some: 10_000_000_000, full: None });
        let counters = Counters { memory_pressure, ..Counters::default() };
        let growth = Growth { seconds: 10.0, basis_seconds: 10.0, counters, ..Growth::default() };
        let rule = Rule::of(SignalKind::MemoryPressure.kind().section());
        assert!(MemoryPressure.judge(&rule, &growth).is_some());
        assert_eq!(MemoryPressure.judge(&rule, &Growth { of_others: true, ..growth }), None);
    }
}
