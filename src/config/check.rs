//! From the file's text to a [`Config`]: every value in its range, and the rules consistent.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;

use super::file::{self, Text, valid_are};
use super::{Agent, Births, Config, Kubernetes, Sinks, Wrong, signals};
use crate::attribution::watch::{NODE_NAME_MAX, valid_node_name};
use crate::birth::Options;
use crate::sinks::prometheus;
use crate::sinks::terminal::Output;

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const NAME_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const SETTLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const WAIT: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3600);
const CGROUPS: RangeInclusive<u32> = 64..=65536;
const PERCENT: RangeInclusive<f64> = 0.0..=100.0;

// The words of a choice, as the file has them.
pub const KUBERNETES: [(&str, Kubernetes); 3] =
    [("auto", Kubernetes::Auto), ("on", Kubernetes::On), ("off", Kubernetes::Off)];
pub const OUTPUTS: [(&str, Option<Output>); 3] =
    [("text", Some(Output::Text)), ("json", Some(Output::Json)), ("none", Some(Output::None))];

/// The agent's interval, which every window is measured by, and where it stands.
pub struct Interval {
    pub value: Duration,
    pub line: Option<u64>,
}

pub fn config(file: file::File) -> Result<Config, Wrong> {
    let agent_text = file.agent.unwrap_or_default();
    let interval_line = line(agent_text.interval.as_ref());
    let agent = agent(agent_text)?;
    let interval = Interval { value: agent.interval, line: interval_line };
    let signals = file.signals.unwrap_or_default();
    let rules = signals::rules(&signals, &interval, agent.max_cgroups as usize)?;
    let sinks = sinks(file.sinks.unwrap_or_default())?;
    let births = births(file.births.unwrap_or_default())?;
    Ok(Config { agent, rules, sinks, births })
}

fn births(f: file::Births) -> Result<Births, Wrong> {
    let d = Births::default();
    Ok(Births {
        enabled: choice("enabled", f.enabled.as_ref(), d.enabled, &[("true", true), ("false", false)])?,
        options: Options {
            settle: duration("settle", f.settle.as_ref(), d.options.settle, SETTLE)?,
            wait: duration("wait", f.wait.as_ref(), d.options.wait, WAIT)?,
            images: d.options.images,
        },
    })
}

fn agent(f: file::Agent) -> Result<Agent, Wrong> {
    let d = Agent::default();
    Ok(Agent {
        interval: duration("interval", f.interval.as_ref(), d.interval, INTERVAL)?,
        max_cgroups: number("max_cgroups", f.max_cgroups.as_ref(), d.max_cgroups, CGROUPS)?,
        node: f.node.as_ref().map(node).transpose()?,
        kubernetes: choice("kubernetes", f.kubernetes.as_ref(), d.kubernetes, &KUBERNETES)?,
        name_wait: duration("name_wait", f.name_wait.as_ref(), d.name_wait, NAME_WAIT)?,
        runtime_roots: f.runtime_roots.iter().flatten().map(runtime_root).collect::<Result<_, _>>()?,
    })
}

fn node(text: &Text) -> Result<String, Wrong> {
    valid_node_name(text.value.as_str())
        .map_err(|_| bad("node", text, format!("a node's name is 1 to {NODE_NAME_MAX} of a-z 0-9 - .")))
}

fn runtime_root(text: &Text) -> Result<PathBuf, Wrong> {
    match PathBuf::from(&text.value) {
        path if path.is_absolute() && !text.value.contains('\0') => Ok(path),
        _ => Err(bad("runtime_roots", text, "absolute directories are wanted, such as /run/containerd")),
    }
}

fn sinks(f: file::Sinks) -> Result<Sinks, Wrong> {
    Ok(Sinks {
        terminal: choice("terminal", f.terminal.as_ref(), None, &OUTPUTS)?,
        prometheus: match &f.prometheus {
            None => None,
            Some(t) => Some(prometheus::address(&t.value).map_err(|_| {
                bad("prometheus", t, "an address and port is wanted, such as 127.0.0.1:9464 or :9464")
            })?),
        },
    })
}

pub fn duration(
    key: &str,
    text: Option<&Text>,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Wrong> {
    let Some(text) = text else { return Ok(default) };
    let parsed = text.value.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.filter(|d| range.contains(d)).ok_or_else(|| {
        let (least, most) = (show(*range.start()), show(*range.end()));
        bad(
            key,
            text,
            format!("a duration with its unit is wanted, such as 500ms, 10s or 1m: {least} to {most}"),
        )
    })
}

pub fn percent(key: &str, text: &Text) -> Result<f64, Wrong> {
    let number = text.value.strip_suffix('%').unwrap_or(&text.value).trim_end();
    let parsed = number.parse::<f64>().ok().filter(|n| PERCENT.contains(n));
    parsed.ok_or_else(|| bad(key, text, "a percentage from 0 to 100 is wanted"))
}

pub fn number<N>(key: &str, text: Option<&Text>, default: N, range: RangeInclusive<N>) -> Result<N, Wrong>
where
    N: std::str::FromStr + PartialOrd + Display,
{
    let Some(text) = text else { return Ok(default) };
    text.value.parse::<N>().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        bad(key, text, format!("a whole number from {} to {} is wanted", range.start(), range.end()))
    })
}

pub fn choice<T: Copy>(key: &str, text: Option<&Text>, default: T, valid: &[(&str, T)]) -> Result<T, Wrong> {
    let Some(text) = text else { return Ok(default) };
    match valid.iter().find(|(word, _)| *word == text.value) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = valid.iter().map(|(word, _)| *word).collect();
            Err(bad(key, text, format!("unknown{}", valid_are(&text.value, &words))))
        }
    }
}

/// `key` has this value, and what is wanted instead.
fn bad(key: &str, text: &Text, wanted: impl Display) -> Wrong {
    /// Enough of a value to know it again.
    const SHOWN: usize = 60;
    let mut value: String = text.value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.value.chars().count() > SHOWN {
        value.push('…');
    }
    Wrong { line: line(Some(text)), message: format!("`{key}: {value}`: {wanted}") }
}

pub fn line(text: Option<&Text>) -> Option<u64> {
    text.map(|t| t.referenced.line()).filter(|n| *n > 0)
}

/// A value for a message, and whether it stands in the file.
pub fn from(text: Option<&Text>, value: impl Display) -> String {
    if text.is_some() { value.to_string() } else { format!("default {value}") }
}

/// As it would be written in the file.
pub fn show(d: Duration) -> String {
    SignedDuration::try_from(d).map_or_else(|_| format!("{d:?}"), |d| format!("{d:#}"))
}
