//! `memory_pressure`: its tasks waited for memory, by the kernel's own count (PSI): for pages to be freed, or for pages to be
//! read back that had just been dropped.

use super::{Kind, Seen, at_most_all, cpu, percent, phrases, seconds, with_percent};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::memory_cause::{ABOVE, HIGH, NODE, OWN};
use crate::evidence::{MemoryNumbers, SignalEvidence};
use crate::kernel::MemoryStat;
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{CLEAR, CRITICAL, ENABLED, HOLD, Key, REPEAT, Rule, Section, WARNING, WINDOW};
use crate::signals::whisper::Whisper;
use crate::signals::window::{Growth, Held};

#[derive(Debug)]
pub struct MemoryPressure;

const COMMON: [Key; 7] = [ENABLED, WINDOW, WARNING.or(10.0), CRITICAL.or(40.0), CLEAR.or(5.0), HOLD, REPEAT];
const MIN_PRESSURE: Key =
    Key::duration("min_pressure", 0.5, "Less of that time in the window is not said. 0s to 1h.");

/// Less than this share of the window says nothing of why, percent.
const MIN_CAUSE: f64 = 1.0;

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
        let Seen { growth, sample, .. } = *seen;
        let (pressure, held, stat) = (growth.counters.memory_pressure, &growth.held, sample.memory);
        let of_the_window = |ns: u64| at_most_all(ns, growth.seconds);
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let bytes = |of: fn(&MemoryStat) -> Option<u64>| stat.as_ref().and_then(of).map(count);
        let slept = |ns: u64| held.memory.map(|_| seconds(ns));
        let reclaimed = |ns: u64| sample.reclaim.map(|_| seconds(ns));
        let cause = cause(held, stat.as_ref(), growth.seconds);
        whisper.neighbours.clear();
        if cause == Some(NODE) {
            let others = seen.growers.iter().filter(|n| !n.who.is_called_like(&sample.who));
            whisper.neighbours.extend(others.cloned());
        }
        whisper.evidence.memory = Some(MemoryNumbers {
            pressure_percent: pressure.map(|p| of_the_window(p.some)),
            pressure_full_percent: pressure.and_then(|p| p.full).map(of_the_window),
            pressure_cause: cause.map(str::to_owned),
            reclaim_own_seconds: reclaimed(held.own_reclaim),
            reclaim_node_seconds: reclaimed(held.node_reclaim),
            thread_seconds: held.memory.map(seconds),
            high_seconds: slept(held.high),
            refault_seconds: slept(held.refault),
            usage_bytes: bytes(|s| s.usage),
            limit_bytes: bytes(|s| s.limit),
            high_bytes: bytes(|s| s.high),
            working_set_bytes: bytes(|s| Some(s.usage?.saturating_sub(s.inactive_file?))),
            reclaimable_bytes: bytes(|s| s.reclaimable),
            refaults: held.refaults.map(count),
            major_faults: held.major_faults.map(count),
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

    /// ", all of its tasks at once 30 %, at its memory limit; its threads slept 3.1 s for it and reclaimed for 1.2 s"
    fn details(&self, whisper: &Whisper) -> String {
        let memory = whisper.evidence.memory();
        let reclaimed =
            memory.reclaim_own_seconds.zip(memory.reclaim_node_seconds).map(|(own, node)| own + node);
        let grew = whisper.neighbours.iter().map(|n| format!("{} ({:.0} %)", n.who.label(), n.percent));
        let grew: Vec<_> = grew.collect();
        let why = [
            memory.pressure_full_percent.map(|full| format!("all of its tasks at once {full:.0} %")),
            memory.pressure_cause.as_deref().and_then(words).map(str::to_owned),
            (!grew.is_empty()).then(|| format!("grew meanwhile: {}", grew.join(", "))),
            memory.thread_seconds.map(|s| format!("its threads slept {} for it", cpu::length(s))),
            reclaimed.map(|s| format!("they reclaimed for {}", cpu::length(s))),
        ];
        phrases(", ", why)
    }

    fn neighbours_did(&self) -> &'static str {
        "grew meanwhile"
    }

    /// "web waited for memory for 40 % of the last 10.0 s, at its memory limit"
    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        let memory = numbers.memory();
        let why = memory.pressure_cause.as_deref().and_then(words);
        let why = why.map(|words| format!(", {words},")).unwrap_or_default();
        Some(format!("{who} waited for memory{why} for {:.0} %", memory.pressure_percent?))
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        match evidence.numbers.memory().pressure_cause.as_deref() {
            Some(NODE) => Recommendation::none(
                "the node is short of memory, whatever this container's limit: look at who grew, and at memory requests \
                 that are below what is used.",
            ),
            Some(ABOVE) => Recommendation::none(
                "it is below its own memory limit: one above it was reached, its pod's. What the pod's other containers hold \
                 and its volumes in memory count there.",
            ),
            _ => advice::memory::short(evidence, node),
        }
    }
}

/// The cause, as the end of a sentence.
fn words(cause: &str) -> Option<&'static str> {
    match cause {
        OWN => Some("at its memory limit"),
        HIGH => Some("held up by memory.high"),
        ABOVE => Some("at a limit above its own"),
        NODE => Some("as the node was short of it"),
        _ => None,
    }
}

/// What held it up: whichever took most of its threads' time, if that is worth a word.
fn cause(held: &Held, stat: Option<&MemoryStat>, window: f64) -> Option<&'static str> {
    let (own, node, high) = (held.own_reclaim, held.node_reclaim, held.high);
    if percent(own.max(node).max(high), window) < MIN_CAUSE {
        return None;
    }
    if node > own + high {
        return Some(NODE);
    }
    let at = |bound: Option<u64>| {
        let (usage, bound) = stat.and_then(|s| s.usage).zip(bound)?;
        Some(usage.saturating_add(bound / 16) >= bound)
    };
    let (at_limit, at_high) = (at(stat.and_then(|s| s.limit)), at(stat.and_then(|s| s.high)));
    Some(match (at_limit, at_high) {
        // Reclaim for memory.high is of the same kind as for a limit; the sleep is its alone.
        _ if high > own => HIGH,
        (Some(true), _) => OWN,
        (_, Some(true)) => HIGH,
        // It has a limit and is below it, or is known to have none.
        _ if stat.is_some_and(|s| s.usage.is_some()) => ABOVE,
        _ => OWN,
    })
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
    fn what_took_most_of_its_threads_time_is_the_cause() {
        const MS: u64 = 1_000_000;
        const MIB: u64 = 1 << 20;
        let held = |own, node, high| Held {
            own_reclaim: own * MS,
            node_reclaim: node * MS,
            high: high * MS,
            ..Held::default()
        };
        let stat = |usage, limit, high| MemoryStat {
            usage: Some(usage * MIB),
            limit,
            high,
            ..MemoryStat::default()
        };
        let limited = stat(127, Some(128 * MIB), None);
        for (expected, held, stat) in [
            (None, held(99, 99, 99), Some(limited)),
            (Some(OWN), held(900, 100, 0), Some(limited)),
            (Some(OWN), held(900, 100, 0), None),
            (Some(NODE), held(100, 900, 0), Some(limited)),
            (Some(HIGH), held(100, 0, 900), Some(stat(64, None, Some(64 * MIB)))),
            // What memory.high makes it reclaim, before it is put to sleep.
            (Some(HIGH), held(900, 0, 100), Some(stat(64, Some(128 * MIB), Some(64 * MIB)))),
            (Some(ABOVE), held(900, 0, 0), Some(stat(64, Some(128 * MIB), None))),
            (Some(ABOVE), held(900, 0, 0), Some(stat(64, None, None))),
        ] {
            assert_eq!(cause(&held, stat.as_ref(), 10.0), expected, "{held:?} {stat:?}");
        }
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
