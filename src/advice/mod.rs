//! What to do about a signal: pure, from one [`Evidence`] to one [`Recommendation`]. Which signal wants which advice its kind
//! says (`src/signals/kinds`); the reasoning is told in `docs/recommendations.md`.
//!
//! Inside belongs how much is advised, for whom, and the command for it. Whether anything is wrong does not, nor what is done
//! about it by the reconciler.

mod case;
mod command;
pub mod cpu;
pub mod memory;
pub mod network;

use std::fmt;

use crate::api::ResourceStep;
pub use case::{ContainerFacts, ContainerKind, Evidence, NodeFacts, Owner, PodFacts};
pub use command::Command;

/// A recommendation never asks for more than this many times what is set now: evidence of one
/// window does not carry further. The next window, under the new setting, says whether more is needed.
pub const MAX_FACTOR: f64 = 4.0;
/// Room above the observed demand.
pub const HEADROOM: f64 = 0.2;
/// No CPU recommendation above this, whatever the evidence: cores.
pub const MAX_CORES: f64 = 256.0;
/// A shorter window is too thin: seconds. Of 50 periods of 0.1 s, the kubelet's default.
pub const MIN_WINDOW_SECONDS: f64 = 5.0;
/// What the object's schema allows, characters.
pub const TEXT_MAX: usize = 4096;
/// No machine has more cores, no window more CPU seconds: larger numbers are nonsense.
const ABSURD: f64 = 1e6;

/// The kinds of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A higher CPU limit.
    RaiseLimit,
    /// No CPU limit: one that met the demand would restrain nothing.
    DropLimit,
    /// A higher CPU request, so that neighbours take less.
    RaiseRequest,
    /// Keep it apart from a neighbour.
    Spread,
    /// A higher memory limit.
    MemoryLimit,
    /// Nothing: the evidence is too thin, or nothing here would help. The text says which.
    None,
}

impl Kind {
    /// `raiseLimit`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::RaiseLimit => "raiseLimit",
            Kind::DropLimit => "dropLimit",
            Kind::RaiseRequest => "raiseRequest",
            Kind::Spread => "spread",
            Kind::MemoryLimit => "memoryLimit",
            Kind::None => "none",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    pub kind: Kind,
    /// What is set now, as far as it is touched.
    pub from: Option<ResourceStep>,
    /// What it should be; without the field that is to be dropped.
    pub to: Option<ResourceStep>,
    /// The reason with its numbers, then the commands, each after what it does to whom: what
    /// `status.recommendation` says. At most [`TEXT_MAX`] characters.
    pub text: String,
    /// The commands that would do it, the one that touches the least first.
    pub commands: Vec<Command>,
}

impl Recommendation {
    /// No advice, and why.
    pub fn none(reason: impl fmt::Display) -> Recommendation {
        Recommendation {
            kind: Kind::None,
            from: None,
            to: None,
            text: format!("No advice: {reason}"),
            commands: Vec::new(),
        }
    }

    fn new(
        kind: Kind,
        from: Option<ResourceStep>,
        to: Option<ResourceStep>,
        reason: String,
        commands: Vec<Command>,
    ) -> Recommendation {
        let lines: String = commands.iter().map(|c| format!("\n{}\n{}", c.effect, c.line)).collect();
        let mut text = reason;
        // It is the reason that is cut: half a command is another command.
        let room = TEXT_MAX.saturating_sub(lines.chars().count());
        if let Some((end, _)) = text.char_indices().nth(room) {
            text.truncate(end);
        }
        text.push_str(&lines);
        Recommendation { kind, from, to, text, commands }
    }
}

/// Whether a number can be a measurement: not negative, not absurd, no NaN.
fn sane(number: f64) -> bool {
    (0.0..ABSURD).contains(&number)
}

/// The window's length in seconds, if it is long enough to judge by.
fn window(evidence: &Evidence) -> Result<f64, String> {
    match evidence.numbers.window_seconds.unwrap_or(0.0) {
        window if !sane(window) => Err("the length of the window makes no sense.".into()),
        window if window < MIN_WINDOW_SECONDS => {
            Err(format!("a window of {window:.1} s is too short to judge by."))
        }
        window => Ok(window),
    }
}

/// How far the evidence carries: one window of one pod, whatever else its owner runs.
fn scope(evidence: &Evidence) -> String {
    match evidence.numbers.window_seconds {
        Some(window) if sane(window) && window > 0.0 => {
            format!(
                " This is what one pod did in {window:.0} s; look at others like it before changing them all."
            )
        }
        _ => " This is what one pod did; look at others like it before changing them all.".to_owned(),
    }
}

/// Rounds millicores up to a number a person would write: steps of 10 below 100, of 50 below 1000,
/// of 100 below 4000, else of 500.
fn round_up_milli(milli: f64) -> i64 {
    // Past the precision of a limit (one millicore) lies only rounding error.
    let milli = (milli - 1e-6).ceil().max(0.0) as i64;
    let step = match milli {
        0..100 => 10,
        100..1000 => 50,
        1000..4000 => 100,
        _ => 500,
    };
    (milli + step - 1) / step * step
}

#[cfg(test)]
mod tests;
