//! A [`Config`] as the text of a file, with the help of every key.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use serde_saphyr::{Location, Spanned};

use super::Config;
use super::check::{KUBERNETES, OUTPUTS, show};
use super::file::{Agent, Births, Sinks, Text};

const HEAD: &str = "\
# Kernel Gossip's configuration, with every key at its default. Leave out what you do not change.
# Durations have a unit: 500ms, 10s, 1m. Percentages are 0 to 100. `null` is \"not set\".
";

pub fn yaml(config: &Config) -> String {
    let mut page = Page { text: HEAD.into(), depth: 0, said: HashSet::new() };
    config.print(&mut page);
    page.text
}

/// What stands behind a key.
pub trait Print {
    const IS_SECTION: bool = false;
    fn print(&self, page: &mut Page);
}

pub struct Page {
    text: String,
    depth: usize,
    /// Keys with their help: what rules have in common is explained at the first.
    said: HashSet<(&'static str, Vec<&'static str>)>,
}

impl Page {
    pub fn key<T: Print>(
        &mut self,
        key: &'static str,
        help: impl IntoIterator<Item = &'static str>,
        value: Option<&T>,
    ) {
        if T::IS_SECTION && !self.text.ends_with(":\n") {
            self.text.push('\n');
        }
        let indent = "  ".repeat(self.depth);
        let help: Vec<_> = help.into_iter().map(str::trim).collect();
        if self.said.insert((key, help.clone())) {
            help.iter().for_each(|line| self.text += &format!("{indent}# {line}\n"));
        }
        self.text += &format!("{indent}{key}:");
        match value {
            None => self.text += " null\n",
            Some(section) if T::IS_SECTION => {
                self.text.push('\n');
                self.depth += 1;
                section.print(self);
                self.depth -= 1;
            }
            Some(value) => {
                self.text.push(' ');
                value.print(self);
                self.text.push('\n');
            }
        }
    }
}

impl Print for Text {
    fn print(&self, page: &mut Page) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if self.value.chars().all(plain) {
            page.text += &self.value;
        } else {
            // Doubled is the only escape that single quotes know and need.
            page.text += &format!("'{}'", self.value.replace('\'', "''"));
        }
    }
}

impl Print for Vec<Text> {
    fn print(&self, page: &mut Page) {
        page.text.push('[');
        for (n, item) in self.iter().enumerate() {
            page.text += if n == 0 { "" } else { ", " };
            item.print(page);
        }
        page.text.push(']');
    }
}

/// The sections of the file, each as it is written.
impl Print for Config {
    const IS_SECTION: bool = true;

    fn print(&self, page: &mut Page) {
        let Config { agent, rules, sinks, births } = self;
        let agent = Agent {
            interval: duration(agent.interval),
            max_cgroups: text(agent.max_cgroups),
            node: agent.node.as_ref().and_then(text),
            kubernetes: word(agent.kubernetes, &KUBERNETES),
            name_wait: duration(agent.name_wait),
            runtime_roots: agent.runtime_roots.iter().map(|root| text(root.display())).collect(),
        };
        let sinks =
            Sinks { terminal: word(sinks.terminal, &OUTPUTS), prometheus: sinks.prometheus.and_then(text) };
        let births = Births {
            enabled: text(births.enabled),
            settle: duration(births.options.settle),
            wait: duration(births.options.wait),
        };
        page.key("agent", [], Some(&agent));
        page.key("signals", [], Some(rules));
        page.key("sinks", [], Some(&sinks));
        page.key("births", [], Some(&births));
    }
}

pub fn text(value: impl Display) -> Option<Text> {
    Some(Spanned::new(value.to_string(), Location::UNKNOWN, Location::UNKNOWN))
}

pub fn duration(value: Duration) -> Option<Text> {
    text(show(value))
}

/// The word for a value, if there is one.
fn word<T: PartialEq>(value: T, words: &[(&str, T)]) -> Option<Text> {
    words.iter().find(|(_, meant)| *meant == value).and_then(|(word, _)| text(word))
}
