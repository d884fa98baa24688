//! When a signal is said: the keys of its section in the configuration, and the rule that they come to. `docs/signals.md`
//! gives the reasons for the defaults.

use std::time::Duration;

use super::window::nanos;

/// What a key's value is. Within a [`Rule`] each is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `true` (1) or `false` (0).
    Switch,
    /// Seconds.
    Duration,
    /// 0..=100.
    Percent,
    /// A whole number.
    Whole,
}

/// A key of a signal's section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub unit: Unit,
    pub default: f64,
    /// Least and greatest value.
    pub range: (f64, f64),
    /// What stands above it in the documented defaults, line by line; it names the range.
    pub help: &'static str,
}

const HOUR: f64 = 3600.0;

impl Key {
    /// A length of time from 0 s to an hour, seconds.
    pub const fn duration(name: &'static str, default: f64, help: &'static str) -> Key {
        Key { name, unit: Unit::Duration, default, range: (0.0, HOUR), help }
    }

    /// A percentage.
    pub const fn percent(name: &'static str, default: f64, help: &'static str) -> Key {
        Key { name, unit: Unit::Percent, default, range: (0.0, 100.0), help }
    }

    /// A whole number.
    pub const fn whole(name: &'static str, default: f64, range: (f64, f64), help: &'static str) -> Key {
        Key { name, unit: Unit::Whole, default, range, help }
    }

    const fn within(self, least: f64, most: f64) -> Key {
        Key { range: (least, most), ..self }
    }

    /// The same key with another default.
    pub const fn or(self, default: f64) -> Key {
        Key { default, ..self }
    }
}

/// Whether the signal is said at all.
pub const ENABLED: Key =
    Key { name: "enabled", unit: Unit::Switch, default: 1.0, range: (0.0, 1.0), help: "" };
/// The time the evidence is about.
pub const WINDOW: Key =
    Key::duration("window", 10.0, "The time the evidence is about. 1s to 10m, at least two intervals.")
        .within(1.0, 600.0);
pub const WARNING: Key = Key::percent("warning", 25.0, "clear < warning <= critical.");
pub const CRITICAL: Key = Key::percent("critical", 50.0, "");
/// At or below this for the hold time, the whisper is resolved.
pub const CLEAR: Key = Key::percent("clear", 10.0, "");
pub const HOLD: Key = Key::duration(
    "hold",
    30.0,
    "How long at or below `clear` until it is resolved, and below `critical` until it is a warning again.\n0s to 1h.",
);
pub const REPEAT: Key =
    Key::duration("repeat", 60.0, "How often it is said again while it lasts. 1s to 24h.")
        .within(1.0, 24.0 * HOUR);

/// The keys of every signal that is judged by windows.
pub const WINDOWED: [Key; 7] = [ENABLED, WINDOW, WARNING, CRITICAL, CLEAR, HOLD, REPEAT];

/// The section of a signal.
#[derive(Debug)]
pub struct Section {
    /// What stands above it in the documented defaults, line by line.
    pub help: &'static str,
    /// The keys that it has in common with others ([`WINDOWED`], or those of an event), and its own.
    pub common: &'static [Key],
    pub own: &'static [Key],
}

impl Section {
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.common.iter().chain(self.own)
    }

    /// It is judged by windows; else it is said of events.
    pub fn windowed(&self) -> bool {
        self.common.iter().any(|key| key.name == WINDOW.name)
    }
}

/// When one signal is said. Percentages are 0..=100 of the window, or more of what is usual for an event;
/// `clear` < `warning` <= `critical`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub enabled: bool,
    pub window: Duration,
    pub warning: f64,
    pub critical: f64,
    pub clear: f64,
    /// How long it must stay at or below `clear` to be resolved, and below `critical` to be a warning again.
    pub hold: Duration,
    /// How often it is said again while it lasts.
    pub repeat: Duration,
    /// The values of its own keys.
    pub own: Vec<(&'static str, f64)>,
}

impl Rule {
    /// The defaults of a signal, by its section; of one that the agent does not say, nothing is.
    pub fn of(section: Option<&Section>) -> Rule {
        let mut rule = Rule {
            enabled: false,
            window: Duration::ZERO,
            warning: 0.0,
            critical: 0.0,
            clear: 0.0,
            hold: Duration::ZERO,
            repeat: Duration::ZERO,
            own: Vec::new(),
        };
        for key in section.into_iter().flat_map(Section::keys) {
            rule.set(key.name, key.default);
        }
        rule
    }

    /// The value of a key: durations in seconds, a switch as 1 or 0.
    pub fn get(&self, key: &Key) -> f64 {
        match key.name {
            "enabled" => f64::from(u8::from(self.enabled)),
            "window" => self.window.as_secs_f64(),
            "warning" => self.warning,
            "critical" => self.critical,
            "clear" => self.clear,
            "hold" => self.hold.as_secs_f64(),
            "repeat" => self.repeat.as_secs_f64(),
            own => self.own.iter().find(|(name, _)| *name == own).map_or(key.default, |(_, value)| *value),
        }
    }

    /// The value of a key that is a length of time, ns.
    pub fn nanos(&self, key: &Key) -> u64 {
        nanos(seconds(self.get(key)))
    }

    /// Sets the key of this name; durations in seconds, a switch as 1 or 0.
    pub fn set(&mut self, name: &'static str, value: f64) {
        match name {
            "enabled" => self.enabled = value != 0.0,
            "window" => self.window = seconds(value),
            "warning" => self.warning = value,
            "critical" => self.critical = value,
            "clear" => self.clear = value,
            "hold" => self.hold = seconds(value),
            "repeat" => self.repeat = seconds(value),
            own => match self.own.iter_mut().find(|(known, _)| *known == own) {
                Some((_, known)) => *known = value,
                None => self.own.push((own, value)),
            },
        }
    }
}

/// So many seconds; what is none is no time at all.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
