//! The section `signals`: what may stand in it the kinds of signal say, each its own keys ([`Section`]).

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::Wrong;
use super::file::unknown_key;
use super::page::Entry;
use super::values::{self, Switch, Text, Values, duration, line, number, percent, show};
use crate::evidence::SignalKind;
use crate::signals::Rules;
use crate::signals::rules::{CLEAR, CRITICAL, Key, Rule, Section, Unit, WARNING, WINDOW, seconds};

/// What is written of each signal, by the name of its section.
pub type Signals = Entries<Entries<Text>>;

/// A section whose keys are not known here: each as it is written, with what stands behind it.
#[derive(Debug)]
pub struct Entries<T>(Vec<(Text, Option<T>)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Entries(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Vec<(Text, Option<T>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(All(PhantomData)).map(Entries)
    }
}

impl<T> Entries<T> {
    /// What stands behind the key of this name.
    fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key.value == name).and_then(|(_, value)| value.as_ref())
    }

    /// Refuses a key that has none of these names.
    fn known(&self, names: &[&str]) -> Result<(), Wrong> {
        match self.0.iter().find(|(key, _)| !names.contains(&key.value.as_str())) {
            None => Ok(()),
            Some((key, _)) => Err(Wrong { line: line(Some(key)), message: unknown_key(&key.value, names) }),
        }
    }
}

/// The agent's interval, which every window is measured by, and where it stands.
pub struct Interval {
    pub value: Duration,
    pub line: Option<u64>,
}

/// The sections, in the order in which the kinds are listed.
fn sections() -> impl Iterator<Item = (SignalKind, &'static Section)> {
    SignalKind::ALL.into_iter().filter_map(|kind| Some((kind, kind.kind().section()?)))
}

/// Checks every section: the keys in their ranges, and each rule consistent.
pub fn rules(file: Option<&Signals>, interval: &Interval, max_workloads: usize) -> Result<Rules, Wrong> {
    let none = Signals::default();
    let file = file.unwrap_or(&none);
    file.known(&sections().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>())?;
    let mut rules = Rules { max_workloads, ..Rules::default() };
    for (kind, section) in sections() {
        if let Some(written) = file.get(kind.as_str()) {
            written.known(&section.keys().map(|key| key.name).collect::<Vec<_>>())?;
            for key in section.keys() {
                if let Some(text) = written.get(key.name) {
                    rules[kind].set(key.name, value(key, text)?);
                }
            }
        }
        consistent(&rules[kind], section, file.get(kind.as_str()).unwrap_or(&Entries::default()), interval)?;
    }
    Ok(rules)
}

/// The value of a key, in its range.
fn value(key: &Key, text: &Text) -> Result<f64, Wrong> {
    let (name, (least, most)) = (key.name, key.range);
    match key.unit {
        Unit::Switch => Switch::read(name, text).map(|on| f64::from(u8::from(on))),
        Unit::Percent => percent(name, text),
        // Nothing that a key may be is beyond what a double counts exactly.
        Unit::Whole => number(name, text, least as u64..=most as u64).map(|n| n as f64),
        Unit::Duration => {
            duration(name, text, seconds(least)..=seconds(most)).map(|length| length.as_secs_f64())
        }
    }
}

/// The defaults agree with each other, so where two keys do not, one of them is in the file.
fn consistent(
    rule: &Rule,
    section: &Section,
    written: &Entries<Text>,
    interval: &Interval,
) -> Result<(), Wrong> {
    let [window, warning, critical, clear] =
        [&WINDOW, &WARNING, &CRITICAL, &CLEAR].map(|key| written.get(key.name));
    if section.windowed() && rule.clear >= rule.warning {
        let (below, above) = (from(clear, rule.clear), from(warning, rule.warning));
        let message = format!("`clear` ({below}) must be below `warning` ({above})");
        return Err(Wrong { line: line(clear.or(warning)), message });
    }
    if rule.warning > rule.critical {
        let (below, above) = (from(warning, rule.warning), from(critical, rule.critical));
        let message = format!("`warning` ({below}) must not be above `critical` ({above})");
        return Err(Wrong { line: line(warning.or(critical)), message });
    }
    if section.windowed() && rule.window < interval.value * 2 {
        let message = format!(
            "`window` ({}) must be at least two of the agent's `interval` ({})",
            from(window, show(rule.window)),
            show(interval.value)
        );
        return Err(Wrong { line: line(window).or(interval.line), message });
    }
    Ok(())
}

/// A value for a message, and whether it stands in the file.
fn from(text: Option<&Text>, value: impl Display) -> String {
    if text.is_some() { value.to_string() } else { format!("default {value}") }
}

/// The sections as they stand, for [`super::page`].
pub fn entries(rules: &Rules) -> Vec<Entry> {
    let of_a_kind = |(kind, section): (SignalKind, &'static Section)| {
        let keys = section.keys().map(|key| entry(key, rules[kind].get(key))).collect();
        Entry::section(kind.as_str(), &lines(section.help), keys)
    };
    sections().map(of_a_kind).collect()
}

fn entry(key: &Key, value: f64) -> Entry {
    let (least, most) = key.range;
    let (written, schema) = match key.unit {
        Unit::Switch => (Switch::write(&(value != 0.0)), Switch::schema()),
        Unit::Duration => (Some(show(seconds(value))), values::duration_schema()),
        Unit::Percent => (Some(value.to_string()), values::percent_schema()),
        Unit::Whole => (Some(value.to_string()), values::number_schema(least as u64, most as u64)),
    };
    Entry::value(key.name, &lines(key.help), written, schema)
}

fn lines(help: &'static str) -> Vec<&'static str> {
    help.lines().collect()
}
