//! `slow_birth`: a pod's start took far longer than starts on this node do, and the phase to blame. Pure: it keeps
//! the node's own history, and has no clock.

use std::collections::{BTreeMap, VecDeque};

use super::Kind;
use crate::birth::input::length;
use crate::evidence::{BirthNumbers, Severity, SignalEvidence};
use crate::signals::rules::{CRITICAL, ENABLED, HOLD, Key, REPEAT, Rule, Section, WARNING};

#[derive(Debug)]
pub struct SlowBirth;

/// Percent of the usual.
const TIMES: (f64, f64) = (110.0, 100_000.0);
const COMMON: [Key; 5] = [
    ENABLED,
    Key::whole(WARNING.name, 300.0, TIMES, "warning <= critical. 110 to 100000."),
    Key::whole(CRITICAL.name, 1000.0, TIMES, ""),
    Key::duration(HOLD.name, 180.0, "How long after the birth it is said. 0s to 1h."),
    REPEAT,
];
const MIN_HISTORY: Key = Key::whole(
    "min_history",
    10.0,
    (3.0, 100.0),
    "Births with the phase before any is called slow. 3 to 100.",
);
const MIN_EXCESS: Key =
    Key::duration("min_excess", 2.0, "Less than this beyond the usual is not said. 0s to 1h.");

static SECTION: Section = Section {
    help: "A pod's start in which a phase took far longer than it does on this node. Percentages: of the usual, which is\n\
           the median of the last 100 births.",
    common: &COMMON,
    own: &[MIN_HISTORY, MIN_EXCESS],
};

impl Kind for SlowBirth {
    fn brief(&self) -> &'static str {
        "A phase of its start took far longer than it does on this node."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        let excess = numbers.birth.as_ref().and_then(|b| Some(b.phase_seconds? - b.usual_seconds?));
        excess.unwrap_or_default()
    }

    /// `slow birth: image took 5000 ms, usually 900 ms`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let Some(birth) = &numbers.birth else { return "slow birth".to_owned() };
        let ms = |seconds: Option<f64>| length(seconds.unwrap_or_default() * 1e3);
        let (took, usual) = (ms(birth.phase_seconds), ms(birth.usual_seconds));
        format!("slow birth: {} took {took}, usually {usual}", birth.phase.as_deref().unwrap_or_default())
    }
}

impl Slow {
    /// What a whisper carries of it.
    pub fn evidence(&self) -> SignalEvidence {
        let birth = BirthNumbers {
            phase: Some(self.phase.clone()),
            phase_seconds: Some(self.took_ms / 1e3),
            usual_seconds: Some(self.usual_ms / 1e3),
        };
        SignalEvidence { birth: Some(birth), ..SignalEvidence::default() }
    }
}

/// The phase that made a birth slow.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    pub severity: Severity,
    pub phase: String,
    pub took_ms: f64,
    pub usual_ms: f64,
}

/// How long the phases of the last births took.
#[derive(Debug, Default)]
pub struct BirthHistory {
    phases: BTreeMap<String, VecDeque<f64>>,
}

impl BirthHistory {
    /// Births remembered, of each phase.
    const KEPT: usize = 100;
    /// Names of phases remembered: there are twelve.
    const PHASES: usize = 32;
    /// What the kubelet waits for before a container is the pod's own matter (a hook, a startup probe): how long that
    /// takes other pods says nothing of it.
    const UNJUDGED: &str = "wait";

    /// Judges a birth by those before it, and remembers it; `phases`: names and lengths, ms. What is slow is remembered
    /// like the rest, so that what is slow for good becomes usual.
    pub fn judge(&mut self, rule: &Rule, phases: &[(&str, f64)]) -> Option<Slow> {
        let slow = self.compare(rule, phases);
        for (name, took_ms) in sums(phases) {
            if self.phases.len() >= Self::PHASES && !self.phases.contains_key(name) {
                continue;
            }
            let history = self.phases.entry(name.to_owned()).or_default();
            if history.len() == Self::KEPT {
                history.pop_front();
            }
            history.push_back(took_ms);
        }
        slow
    }

    /// Judges a birth by those before it. A phase that several containers went through counts as their sum. The one to
    /// blame is the one with the greatest excess.
    pub fn compare(&self, rule: &Rule, phases: &[(&str, f64)]) -> Option<Slow> {
        let mut worst: Option<Slow> = None;
        for (name, took_ms) in sums(phases) {
            let Some(history) = self.phases.get(name) else { continue };
            let known = history.len() as f64 >= rule.get(&MIN_HISTORY).max(1.0);
            let Some(usual_ms) = median(history).filter(|_| known && rule.enabled) else { continue };
            let severity = severity(rule, took_ms, usual_ms);
            let excess = |s: &Slow| s.took_ms - s.usual_ms;
            let slow = severity.map(|severity| Slow { severity, phase: name.to_owned(), took_ms, usual_ms });
            if let Some(slow) = slow.filter(|s| worst.as_ref().is_none_or(|w| excess(s) > excess(w))) {
                worst = Some(slow);
            }
        }
        worst
    }
}

fn sums<'a>(phases: &[(&'a str, f64)]) -> BTreeMap<&'a str, f64> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let judged = |(name, ms): &&(&str, f64)| *name != BirthHistory::UNJUDGED && ms.is_finite() && *ms >= 0.0;
    for (name, ms) in phases.iter().filter(judged) {
        *sums.entry(name).or_default() += ms;
    }
    sums
}

fn severity(rule: &Rule, took_ms: f64, usual_ms: f64) -> Option<Severity> {
    if took_ms - usual_ms < rule.get(&MIN_EXCESS) * 1e3 {
        return None;
    }
    // What usually takes no time at all is slow by its excess alone.
    match took_ms / usual_ms.max(1e-3) * 100.0 {
        percent if percent >= rule.critical => Some(Severity::Critical),
        percent if percent >= rule.warning => Some(Severity::Warning),
        _ => None,
    }
}

fn median(history: &VecDeque<f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = history.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule::of(SlowBirth.section())
    }

    fn usual(n: usize) -> BirthHistory {
        let mut history = BirthHistory::default();
        for _ in 0..n {
            assert_eq!(history.judge(&rule(), &[("sandbox", 100.0), ("image", 900.0)]), None);
        }
        history
    }

    #[test]
    fn the_phase_to_blame_is_named_against_the_nodes_own_history() {
        let rule = rule();
        let slow = usual(10).judge(&rule, &[("sandbox", 1900.0), ("image", 5000.0)]);
        let expected =
            Slow { severity: Severity::Warning, phase: "image".into(), took_ms: 5000.0, usual_ms: 900.0 };
        assert_eq!(slow, Some(expected), "the sandbox is 19 times slower, but by less than 2 s");
        let slow = usual(10).judge(&rule, &[("sandbox", 3000.0), ("image", 4000.0)]).expect("slow");
        assert_eq!((slow.phase.as_str(), slow.severity), ("image", Severity::Warning));
        let slow = usual(10).judge(&rule, &[("sandbox", 9000.0), ("image", 4000.0)]).expect("slow");
        assert_eq!((slow.phase.as_str(), slow.severity), ("sandbox", Severity::Critical));
        let of_two = usual(10).judge(&rule, &[("image", 2000.0), ("image", 2000.0)]).expect("slow");
        assert_eq!(of_two.took_ms, 4000.0, "two containers");
    }

    #[test]
    fn what_is_waited_for_is_the_pods_own() {
        let (mut history, rule) = (BirthHistory::default(), rule());
        for _ in 0..20 {
            assert_eq!(history.judge(&rule, &[("wait", 170.0)]), None);
        }
        assert_eq!(history.judge(&rule, &[("wait", 5064.0)]), None, "a hook that sleeps");
    }

    #[test]
    fn nothing_is_slow_before_there_is_a_history() {
        let rule = rule();
        assert_eq!(usual(9).judge(&rule, &[("image", 60_000.0)]), None);
        assert!(usual(10).judge(&rule, &[("image", 60_000.0)]).is_some());
        let off = Rule { enabled: false, ..rule };
        assert_eq!(usual(10).judge(&off, &[("image", 60_000.0)]), None);
    }

    #[test]
    fn what_is_only_compared_is_not_remembered() {
        let (history, rule) = (usual(10), rule());
        for _ in 0..100 {
            assert!(history.compare(&rule, &[("image", 300_000.0)]).is_some());
        }
    }

    #[test]
    fn what_is_slow_for_good_becomes_usual() {
        let (mut history, rule) = (usual(100), rule());
        let said = (0..100).filter(|_| history.judge(&rule, &[("image", 5000.0)]).is_some()).count();
        assert!((45..=55).contains(&said), "{said}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_judged(lengths in proptest::collection::vec(proptest::num::f64::ANY, 0..200)) {
            let (mut history, rule) = (BirthHistory::default(), rule());
            for ms in lengths {
                if let Some(slow) = history.judge(&rule, &[("image", ms)]) {
                    proptest::prop_assert!(slow.took_ms >= 3.0 * slow.usual_ms && slow.took_ms - slow.usual_ms >= 2000.0);
                }
            }
        }
    }
}
