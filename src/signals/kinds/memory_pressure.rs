//! `memory_pressure`: its tasks waited for memory. Only others report it so far.

use super::{Kind, with_percent};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::SignalEvidence;

#[derive(Debug)]
pub struct MemoryPressure;

impl Kind for MemoryPressure {
    fn brief(&self) -> &'static str {
        "It waited for memory."
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.memory().pressure_percent.unwrap_or_default()
    }

    /// `memory pressure 40 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        with_percent("memory pressure", numbers.memory().pressure_percent)
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        advice::memory::short(evidence, node)
    }
}
