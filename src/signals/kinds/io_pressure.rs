//! `io_pressure`: it stood still because every task of it that was not asleep waited for I/O, by the kernel's own count (PSI).

use super::{Kind, Seen, at_most_all, cpu, phrases, seconds, with_percent};
use crate::evidence::{IoNumbers, SignalEvidence};
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{Key, Rule, Section, WINDOWED};
use crate::signals::whisper::Whisper;
use crate::signals::window::Growth;

#[derive(Debug)]
pub struct IoPressure;

const MIN_PRESSURE: Key =
    Key::duration("min_pressure", 1.0, "Less of that time in the window is not said. 0s to 1h.");

static SECTION: Section = Section {
    help: "Stood still for I/O. Percentages: time in which every task that could have run waited for it (PSI), of the window.",
    common: &WINDOWED,
    own: &[MIN_PRESSURE],
};

impl Kind for IoPressure {
    fn brief(&self) -> &'static str {
        "It stood still for I/O."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// `None` where the kernel counts no pressure, and of what contains others: they say it themselves.
    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let stood = growth.counters.io_pressure.filter(|_| !growth.of_others)?.full?;
        let enough = stood >= rule.nanos(&MIN_PRESSURE);
        Some(Judgement::of(rule, at_most_all(stood, growth.basis_seconds), enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        let pressure = seen.growth.counters.io_pressure;
        let of_the_window = |ns: u64| at_most_all(ns, seen.growth.seconds);
        whisper.evidence.io = Some(IoNumbers {
            pressure_percent: pressure.map(|p| of_the_window(p.some)),
            pressure_full_percent: pressure.and_then(|p| p.full).map(of_the_window),
            thread_seconds: seen.growth.held.disk.map(seconds),
        });
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        full(numbers).unwrap_or_default()
    }

    /// `stood still for I/O 40 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        with_percent("stood still for I/O", full(numbers))
    }

    /// ", at least one of its tasks waited 70 %, its threads slept 9.1 s for it"
    fn details(&self, whisper: &Whisper) -> String {
        let Some(io) = &whisper.evidence.io else { return String::new() };
        phrases(
            ", ",
            [
                io.pressure_percent.map(|some| format!("at least one of its tasks waited {some:.0} %")),
                io.thread_seconds.map(|s| format!("its threads slept {} for it", cpu::length(s))),
            ],
        )
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        Some(format!("{who} stood still for I/O for {:.0} %", full(numbers)?))
    }
}

fn full(numbers: &SignalEvidence) -> Option<f64> {
    numbers.io.as_ref()?.pressure_full_percent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Severity;
    use crate::kernel::Pressure;
    use crate::signals::window::Counters;

    /// Ten seconds with this pressure, ms of some and full.
    fn growth(some: u64, full: Option<u64>) -> Growth {
        let ns = |ms: u64| ms * 1_000_000;
        let io_pressure = Some(Pressure { some: ns(some), full: full.map(ns) });
        let counters = Counters { io_pressure, ..Counters::default() };
        Growth { seconds: 10.0, basis_seconds: 10.0, complete: true, counters, ..Growth::default() }
    }

    fn judged(growth: &Growth) -> Option<Judgement> {
        IoPressure.judge(&Rule::of(IoPressure.section()), growth)
    }

    #[test]
    fn it_is_judged_by_the_time_in_which_nothing_of_it_went_on() {
        let level = |full| judged(&growth(10_000, Some(full))).expect("measured").level;
        assert_eq!(level(2400), None, "one of its tasks always waited, and others went on");
        assert_eq!(level(2500), Some(Severity::Warning));
        assert_eq!(level(5000), Some(Severity::Critical));
    }

    #[test]
    fn what_is_not_measured_is_not_judged_nor_what_contains_others() {
        assert_eq!(judged(&Growth::default()), None);
        assert_eq!(judged(&growth(10_000, None)), None);
        assert_eq!(judged(&Growth { of_others: true, ..growth(10_000, Some(10_000)) }), None);
    }
}
