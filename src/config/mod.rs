//! The one configuration file: see `docs/configuration.md`.

mod file;
mod page;
mod signals;
#[cfg(test)]
mod tests;
mod values;

use std::io::Read;
use std::path::Path;

pub use file::{Agent, Births, Kubernetes, Sinks};
use file::{AgentText, BirthsText, SinksText};
use signals::Interval;

use crate::birth;
use crate::signals::Rules;

/// More than this is no configuration file, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The whole configuration, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub agent: Agent,
    pub rules: Rules,
    pub sinks: Sinks,
    pub births: Births,
}

/// Why a file was refused: one line, `file:line: what is wrong and what is right`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", .line.map(|n| format!(":{n}")).unwrap_or_default())]
pub struct ConfigError {
    pub file: String,
    /// Counted from 1; `None` where the whole file is meant.
    pub line: Option<u64>,
    pub message: String,
}

/// The defaults as a file, with the help of every key: parses to [`Config::default`]. `kernel-gossip config` prints it,
/// docs/default.yaml holds it.
pub fn default_yaml() -> String {
    page::yaml(&Config::default())
}

/// The schema of a file, for editors: what is not as it says, [`Config::parse`] refuses or nobody writes.
/// `kernel-gossip config --schema` prints it, docs/config.schema.json holds it.
pub fn schema() -> String {
    page::schema()
}

impl Config {
    /// Reads and checks a file. What it does not set has its default.
    ///
    /// # Errors
    /// The file cannot be read, is no YAML, or has an unknown key or a bad value.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        let refuse = |message: String| ConfigError { file: file.clone(), line: None, message };
        let cannot = |e: std::io::Error| refuse(format!("cannot be read: {e}"));
        let mut bytes = Vec::new();
        // One byte more than allowed is read, to tell; the size a device or pipe reports means nothing.
        let source = std::fs::File::open(path).map_err(cannot)?;
        source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refuse(format!("is larger than {MAX_BYTES} bytes: not a configuration file")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
            ConfigError { file: file.clone(), line: Some(line), message: "is not UTF-8 text".into() }
        })?;
        Config::parse(&file, text)
    }

    /// Checks the text of a file; `file` is the name its errors bear.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        let read = file::read(text).and_then(|written| Config::of(&written));
        read.map_err(|e| ConfigError { file: file.into(), line: e.line, message: e.message })
    }

    fn of(file: &file::File) -> Result<Config, Wrong> {
        let text = file.agent.as_ref();
        let agent = text.map_or_else(|| Ok(Agent::default()), AgentText::read)?;
        let line = values::line(text.and_then(|text| text.interval.as_ref()));
        let interval = Interval { value: agent.interval, line };
        let rules = signals::rules(file.signals.as_ref(), &interval, agent.max_cgroups as usize)?;
        let sinks = file.sinks.as_ref().map_or_else(|| Ok(Sinks::default()), SinksText::read)?;
        let births = file.births.as_ref().map_or_else(|| Ok(Births::default()), BirthsText::read)?;
        Ok(Config { agent, rules, sinks, births })
    }
}

impl Births {
    /// How births are watched.
    pub fn options(&self) -> birth::Options {
        birth::Options { settle: self.settle, wait: self.wait, ..birth::Options::default() }
    }
}

/// What is wrong, before it is known in which file.
#[derive(Debug)]
pub struct Wrong {
    line: Option<u64>,
    message: String,
}
