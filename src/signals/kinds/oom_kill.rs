//! `oom_kill`: the kernel killed a task of it at its memory limit. Nothing here says it yet.

use super::Kind;
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::SignalEvidence;
use crate::plain::bytes;

#[derive(Debug)]
pub struct OomKill;

impl Kind for OomKill {
    fn brief(&self) -> &'static str {
        "The kernel killed a task of it at its memory limit."
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.memory().oom_kills.unwrap_or_default() as f64
    }

    /// `OOM kill at 256.0 MiB`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        match numbers.memory().oom_peak_bytes {
            Some(peak) => format!("OOM kill at {}", bytes(peak)),
            None => "OOM kill".to_owned(),
        }
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        advice::memory::short(evidence, node)
    }
}
