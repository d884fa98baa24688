//! From a level that may flap to transitions that do not.

use super::rules::Rule;
use super::whisper::Transition;
use super::window::nanos;
use crate::evidence::Severity;

/// What a rule makes of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The threshold it reached, with evidence enough.
    pub level: Option<Severity>,
    /// At or below the clearing threshold over a whole window, or too little evidence to speak of.
    pub clear: bool,
}

impl Judgement {
    /// Compares a percentage with a rule's thresholds. `enough`: there is the evidence the rule wants
    /// at least; `complete`: a whole window is known.
    pub fn of(rule: &Rule, percent: f64, enough: bool, complete: bool) -> Self {
        let level = match percent {
            _ if !enough => None,
            p if p >= rule.critical => Some(Severity::Critical),
            p if p >= rule.warning => Some(Severity::Warning),
            _ => None,
        };
        Judgement { level, clear: complete && (percent <= rule.clear || !enough) }
    }
}

/// The state of one signal of one workload.
///
/// It starts and grows worse at once. It is resolved after being clear, and a warning again after being
/// below critical, for the hold time without a break: so whatever the input does there are, in any
/// hold time, at most one start, one worsening, one easing and one resolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hysteresis {
    active: Option<Active>,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    severity: Severity,
    said_ns: u64,
    clear_since: Option<u64>,
    not_critical_since: Option<u64>,
}

impl Hysteresis {
    /// The severity while active.
    pub fn severity(&self) -> Option<Severity> {
        self.active.map(|a| a.severity)
    }

    /// Takes the judgement at a moment (ns of a monotonic clock) and says what is to be said, if anything.
    pub fn step(&mut self, rule: &Rule, now_ns: u64, judgement: Judgement) -> Option<Transition> {
        let Some(active) = &mut self.active else {
            let severity = judgement.level?;
            self.active =
                Some(Active { severity, said_ns: now_ns, clear_since: None, not_critical_since: None });
            return Some(Transition::Started);
        };
        let held = |since: Option<u64>| since.is_some_and(|s| now_ns.saturating_sub(s) >= nanos(rule.hold));
        let begin = |since: Option<u64>, holds: bool| holds.then(|| since.unwrap_or(now_ns));
        active.clear_since = begin(active.clear_since, judgement.clear);
        let critical = judgement.level == Some(Severity::Critical);
        active.not_critical_since = begin(active.not_critical_since, !critical);

        if held(active.clear_since) {
            self.active = None;
            return Some(Transition::Resolved);
        }
        let severity = match active.severity {
            Severity::Warning if critical => Severity::Critical,
            // Not on the way to be resolved: that is said soon enough.
            Severity::Critical if !judgement.clear && held(active.not_critical_since) => Severity::Warning,
            same => same,
        };
        let transition = if severity != active.severity {
            Transition::Changed
        } else if now_ns.saturating_sub(active.said_ns) >= nanos(rule.repeat) {
            Transition::Repeated
        } else {
            return None;
        };
        active.severity = severity;
        active.said_ns = now_ns;
        Some(transition)
    }

    /// The workload is gone: whatever is active is resolved.
    pub fn end(&mut self) -> Option<Transition> {
        self.active.take().map(|_| Transition::Resolved)
    }
}
