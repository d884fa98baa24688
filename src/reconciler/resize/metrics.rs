//! What remediation did, for /metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    state: String,
    reason: String,
}

/// Counters of the remediation; their labels are states and reasons, never names of pods.
#[derive(Clone, Debug, Default)]
pub struct ResizeMetrics {
    outcomes: Family<Outcome, Counter>,
    pub(super) busy: Counter,
    pub(super) errors: Counter,
    pub(super) running: Gauge,
}

impl ResizeMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kernel_gossip_remediation_transitions",
            "Transitions of remediations, by the state reached and its reason",
            self.outcomes.clone(),
        );
        registry.register(
            "kernel_gossip_remediation_deferred",
            "Reports not judged because too many pods were being remediated; judged at their next report",
            self.busy.clone(),
        );
        registry.register(
            "kernel_gossip_remediation_errors",
            "Remediations put off because the API server refused or failed",
            self.errors.clone(),
        );
        registry.register(
            "kernel_gossip_remediation_running",
            "Pods being judged or resized now",
            self.running.clone(),
        );
    }

    pub(super) fn transition(&self, r: &crate::api::Remediation) {
        let state = format!("{:?}", r.state);
        self.outcomes.get_or_create(&Outcome { state, reason: r.reason.clone() }).inc();
    }
}
