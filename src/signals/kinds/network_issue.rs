//! `network_issue`: packets dropped or sent again, as others report it.

use super::Kind;
use crate::evidence::SignalEvidence;

#[derive(Debug)]
pub struct NetworkIssue;

impl Kind for NetworkIssue {
    fn brief(&self) -> &'static str {
        "Packets of it were dropped, or sent again."
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.network.as_ref().and_then(|n| n.drop_percent).unwrap_or_default()
    }

    /// `packets dropped 1.5 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let network = numbers.network.clone().unwrap_or_default();
        match (network.drop_percent, network.dropped_packets, network.retransmit_percent) {
            (Some(p), ..) => format!("packets dropped {p:.1} %"),
            (None, Some(n), _) => format!("{n} packets dropped"),
            (None, None, Some(p)) => format!("retransmitted {p:.1} %"),
            _ => "network issue".to_owned(),
        }
    }
}
