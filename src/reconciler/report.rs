//! What comes in: a [`Report`], one signal of one container, said by an agent or by others. What the API server knows of its
//! pod is [`PodFacts`]. Plain data; everything right of here reads these.

use jiff::Timestamp;

use crate::api::{Severity, SignalEvidence, SignalKind, Source};
use crate::evidence::HistoryPoint;

pub use crate::advice::{ContainerFacts, ContainerKind, Evidence, NodeFacts, Owner, PodFacts};

/// One signal of one container of one pod, checked and bounded, not yet believed to exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub source: Source,
    pub namespace: String,
    pub pod: String,
    /// As the sender has it; the webhook does not know it.
    pub uid: Option<String>,
    /// Empty for the pod as a whole.
    pub container: String,
    pub kind: SignalKind,
    pub severity: Severity,
    /// False: it is over.
    pub active: bool,
    /// When it started: with UID, container and kind the whisper's identity.
    pub since: Timestamp,
    /// When it was said.
    pub at: Timestamp,
    /// The numbers; `neighbours` in here is empty, see the field below.
    pub numbers: SignalEvidence,
    /// Who ran meanwhile, the greatest share first, with the namespaces that decide who may read them.
    pub neighbours: Vec<NamedNeighbour>,
    /// Cumulative samples of the container, oldest first, times strictly rising, at most two minutes.
    pub history: Vec<HistoryPoint>,
}

/// A workload that ran while the pod waited.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedNeighbour {
    pub name: String,
    /// Empty where it is no pod, or unknown.
    pub namespace: String,
    pub pod: String,
    /// Wait blamed on it, percent of the window.
    pub percent: f64,
}
