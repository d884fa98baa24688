//! The types of a [`Whisper`]: a signal that crossed its threshold for one workload.

use std::sync::Arc;

use crate::attribution::Workload;
use crate::evidence::{HistoryPoint, Severity, SignalEvidence, SignalKind};
use crate::kernel::Instant;

/// Why a whisper is said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Crossed the warning or critical threshold.
    Started,
    /// The severity changed while active.
    Changed,
    /// Still active; said again every repeat interval (one minute).
    Repeated,
    /// Below the clearing threshold for the hold time, or the workload is gone.
    Resolved,
}

impl Transition {
    pub fn as_str(self) -> &'static str {
        match self {
            Transition::Started => "started",
            Transition::Changed => "changed",
            Transition::Repeated => "repeated",
            Transition::Resolved => "resolved",
        }
    }
}

/// A workload that ran while the victim waited, and its share of the window; or that grew while the node was short of memory, and its
/// share of what all grew by.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub who: Arc<Workload>,
    /// Its share of the time in which at least one thread waited, in percent of the window; of growth, of all of it. 0..=100.
    pub percent: f64,
}

/// A signal that crossed its threshold for one workload; active until it clears.
#[derive(Clone, Debug)]
pub struct Whisper {
    pub signal: SignalKind,
    pub severity: Severity,
    pub transition: Transition,
    pub who: Arc<Workload>,
    /// When it started (the reading that crossed), and when it is said.
    pub since: Instant,
    pub at: Instant,
    /// Without the neighbours, which are workloads here: see the next.
    pub evidence: SignalEvidence,
    /// Those who ran, or grew, meanwhile, the greatest share first; at most five.
    pub neighbours: Vec<Neighbour>,
    /// The last two minutes at most, oldest first.
    pub history: Vec<HistoryPoint>,
}

impl Whisper {
    /// Length of the window the evidence is about, seconds (as measured, not as configured); 0 without one.
    pub fn window_seconds(&self) -> f64 {
        self.evidence.window_seconds.unwrap_or_default()
    }

    /// Active until resolved.
    pub fn active(&self) -> bool {
        self.transition != Transition::Resolved
    }
}
