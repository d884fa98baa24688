//! What a certificate is made from, and the words and lengths that all its parts are told in. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::story::{Container, Story};
use crate::api::{BirthFailure, BirthOutcome, MissingPart};
use crate::attribution::pods::PodRecord;
use crate::kernel::Instant;
use crate::kernel::recorder::End;
pub use crate::plain::clipped;

/// Phases of one certificate; of more the shortest are left out, and that is told.
pub const PHASES_MAX: usize = 128;

/// What a certificate is made from. Times are ms after `zero`.
#[derive(Debug)]
pub struct Input<'a> {
    pub story: &'a Story,
    pub zero: Instant,
    /// The birth was over, CLOCK_MONOTONIC, ns.
    pub until_ns: u64,
    pub record: Option<&'a PodRecord>,
    /// When the agent first heard of the pod having a node, and of its being Ready.
    pub heard_of: Option<f64>,
    pub heard_ready: Option<f64>,
    pub outcome: BirthOutcome,
    pub failure: Option<BirthFailure>,
    pub missing: Vec<MissingPart>,
    pub coverage: Coverage,
    /// How long a container that is Ready may take to listen.
    pub settle: Duration,
}

/// What the recorder tells here. What it does not has no number, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// It runs at all: what it does not tell was not done.
    pub programs: bool,
    /// Writes to cgroup files, and changes to netfilter other than of whole tables.
    pub writes: bool,
    /// Time waiting for a CPU.
    pub waits: bool,
    /// Bytes read and written.
    pub bytes: bool,
    /// Nothing was lost while it went on: what was counted is all there was. Else there are no totals.
    pub whole: bool,
}

impl Coverage {
    pub const ALL: Coverage =
        Coverage { programs: true, writes: true, waits: true, bytes: true, whole: true };
    pub const NOTHING: Coverage =
        Coverage { programs: false, writes: false, waits: false, bytes: false, whole: false };
}

/// The containers that are reported: where there is an API server, each is told by its name, or not yet (it may be the next
/// try of one that failed, made a moment ago).
pub fn told<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a Container> {
    let named = input.record.is_some();
    input.story.containers().filter(move |c| !named || c.named.name.is_some())
}

/// How it failed, if it did.
pub fn failed(how: End) -> Option<String> {
    match how {
        End::Exit(0) | End::Exec | End::Stopped | End::Unknown => None,
        how => Some(end(how)),
    }
}

pub fn end(how: End) -> String {
    match how {
        End::Exit(code) => format!("exit status {code}"),
        End::Signal(signal) => format!("killed by signal {signal}"),
        End::Exec | End::Stopped => "still running".into(),
        End::Unknown => "how was not seen".into(),
    }
}

/// What a container is called.
pub fn display(container: &Container) -> String {
    match &container.named.name {
        Some(name) => name.clone(),
        None if container.named.sandbox => "sandbox".into(),
        None => container.id.chars().take(12).collect(),
    }
}

/// A length of time for people.
pub fn length(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

/// Milliseconds after the zero of a birth.
pub fn since(zero: Instant, ns: u64) -> f64 {
    (i128::from(ns) - i128::from(zero.mono_ns)) as f64 / 1e6
}

pub fn wall(unix_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX)
}

/// Microseconds are enough for people, and shorter.
pub fn tidy(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

pub fn ms(ns: u64) -> f64 {
    tidy(ns as f64 / 1e6)
}

pub fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
