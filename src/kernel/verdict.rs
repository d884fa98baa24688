//! What a plan says of one probe, or of anything else that may run here or not.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// What becomes of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict<H> {
    /// It does all it can do anywhere.
    Working { hook: H },
    /// It runs, but not as well as it could.
    Degraded { hook: H, how: Vec<Shortfall> },
    /// It does not run.
    Unavailable(Shortfall),
}

/// Something that is less than it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// What is missing, and why.
    pub why: String,
    /// Why alone: the same for all that is missing for the same reason.
    pub cause: String,
    /// What the owner of the host can do about it.
    pub what_to_do: String,
}

/// A verdict, whatever the hook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned<'p> {
    pub probe: &'static str,
    /// How it runs, in words; `None`: it does not.
    pub hook: Option<String>,
    /// All that is less than it could be.
    pub shortfalls: &'p [Shortfall],
}

impl<H> Verdict<H> {
    /// How the probe runs; `None` if it does not.
    pub fn hook(&self) -> Option<&H> {
        match self {
            Verdict::Working { hook } | Verdict::Degraded { hook, .. } => Some(hook),
            Verdict::Unavailable(_) => None,
        }
    }

    /// All that is less than it could be.
    pub fn shortfalls(&self) -> &[Shortfall] {
        match self {
            Verdict::Working { .. } => &[],
            Verdict::Degraded { how, .. } => how,
            Verdict::Unavailable(shortfall) => std::slice::from_ref(shortfall),
        }
    }

    /// What is left where the better way is refused: `hook`, at the price of what is `lost`; without one nothing.
    pub fn instead(refusal: Shortfall, hook: Option<H>, lost: &str) -> Self {
        match hook {
            Some(hook) => Verdict::Degraded { hook, how: vec![refusal.loses(lost)] },
            None => Verdict::Unavailable(refusal),
        }
    }

    /// Degraded if anything is lacking.
    pub fn of(hook: H, how: Vec<Shortfall>) -> Self {
        if how.is_empty() { Verdict::Working { hook } } else { Verdict::Degraded { hook, how } }
    }
}

impl<H: Display> Verdict<H> {
    /// The same for who tells of it, by the probe's name.
    pub fn planned(&self, probe: &'static str) -> Planned<'_> {
        Planned { probe, hook: self.hook().map(H::to_string), shortfalls: self.shortfalls() }
    }
}

impl Shortfall {
    /// What is missing, and what the owner of the host can do about it.
    pub fn new(why: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        let why = why.into();
        Shortfall { cause: why.clone(), why, what_to_do: what_to_do.into() }
    }

    /// What is lost by it, for the same cause.
    pub fn loses(self, what: &str) -> Self {
        Shortfall { why: format!("{what}: {}", self.cause), ..self }
    }
}
