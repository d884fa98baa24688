//! The section `signals`: what may stand in it the kinds of signal say, each its own keys ([`Section`]).

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::Wrong;
use super::check::{Interval, choice, duration, from, line, number, percent, show};
use super::file::{Text, unknown_key};
use super::print::{self, Page, Print};
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

/// The sections, in the order in which the kinds are listed.
fn sections() -> impl Iterator<Item = (SignalKind, &'static Section)> {
    SignalKind::ALL.into_iter().filter_map(|kind| Some((kind, kind.kind().section()?)))
}

/// Checks every section: the keys in their ranges, and each rule consistent.
pub fn rules(file: &Signals, interval: &Interval, max_workloads: usize) -> Result<Rules, Wrong> {
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
        Unit::Switch => choice(name, Some(text), false, &[("true", true), ("false", false)])
            .map(|on| f64::from(u8::from(on))),
        Unit::Percent => percent(name, text),
        // Nothing that a key may be is beyond what a double counts exactly.
        Unit::Whole => number(name, Some(text), 0, least as u64..=most as u64).map(|n| n as f64),
        Unit::Duration => duration(name, Some(text), seconds(0.0), seconds(least)..=seconds(most))
            .map(|length| length.as_secs_f64()),
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

impl Print for Rules {
    const IS_SECTION: bool = true;

    fn print(&self, page: &mut Page) {
        for (kind, section) in sections() {
            page.key(kind.as_str(), section.help.lines(), Some(&(&self[kind], section)));
        }
    }
}

impl Print for (&Rule, &'static Section) {
    const IS_SECTION: bool = true;

    fn print(&self, page: &mut Page) {
        let (rule, section) = self;
        for key in section.keys() {
            let value = rule.get(key);
            let text = match key.unit {
                Unit::Switch => print::text(value != 0.0),
                Unit::Duration => print::duration(seconds(value)),
                Unit::Percent | Unit::Whole => print::text(value),
            };
            page.key(key.name, key.help.lines(), text.as_ref());
        }
    }
}
