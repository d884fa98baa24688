//! When a signal is said: the rules, with the defaults `docs/signals.md` gives the reasons for.

use std::time::Duration;

use super::slow_birth::SlowBirthRule;

/// What every rule has. Percentages are of the window, 0..=100; `clear` < `warning` <= `critical`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub enabled: bool,
    /// The time the evidence is about.
    pub window: Duration,
    pub warning: f64,
    pub critical: f64,
    /// At or below this for the hold time, the whisper is resolved.
    pub clear: f64,
    /// How long it must stay at or below `clear` to be resolved, and below `critical` to be a warning again.
    pub hold: Duration,
    /// How often it is said again while it lasts.
    pub repeat: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Rule {
            enabled: true,
            window: Duration::from_secs(10),
            warning: 25.0,
            critical: 50.0,
            clear: 10.0,
            hold: Duration::from_secs(30),
            repeat: Duration::from_secs(60),
        }
    }
}

/// `cpu_throttle`: the percentage is throttled time (wall) / window.
#[derive(Clone, Debug, PartialEq)]
pub struct ThrottleRule {
    pub rule: Rule,
    /// Less throttled time (per CPU) than this in the window is not said.
    pub min_throttled: Duration,
    /// Fewer stalls than this in the window are not said.
    pub min_stalls: u64,
}

impl Default for ThrottleRule {
    fn default() -> Self {
        ThrottleRule { rule: Rule::default(), min_throttled: Duration::from_millis(500), min_stalls: 3 }
    }
}

/// `cpu_contention`: the percentage is time in which at least one thread waited for a neighbour / window.
#[derive(Clone, Debug, PartialEq)]
pub struct ContentionRule {
    pub rule: Rule,
    /// Less of that time than this in the window (summed over CPUs) is not said.
    pub min_wait: Duration,
    /// Nor is a smaller share, in percent, of the CPU it could have used (used + taken by others, within its limit).
    pub min_share: f64,
}

impl Default for ContentionRule {
    fn default() -> Self {
        ContentionRule { rule: Rule::default(), min_wait: Duration::from_millis(500), min_share: 10.0 }
    }
}

/// All rules, and what the engine may keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub cpu_throttle: ThrottleRule,
    pub cpu_contention: ContentionRule,
    pub slow_birth: SlowBirthRule,
    /// Workloads watched at once; further ones are counted and not watched.
    pub max_workloads: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            cpu_throttle: ThrottleRule::default(),
            cpu_contention: ContentionRule::default(),
            slow_birth: SlowBirthRule::default(),
            max_workloads: 4096,
        }
    }
}
