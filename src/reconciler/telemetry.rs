//! The reconciler's own numbers, on `/metrics` of METRICS_PORT.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::refusal::{Denied, Reason};
use super::report::Verdict;
use crate::api::Source;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BySource {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByVerdict {
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    ingest: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByResult {
    object: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByEnd {
    end: &'static str,
}

/// Counters and gauges; cheap to touch from anywhere.
#[derive(Default)]
pub struct Telemetry {
    reports: Family<BySource, Counter>,
    verdicts: Family<ByVerdict, Counter>,
    ignored: Counter,
    refused: Family<ByReason, Counter>,
    denied: Family<ByReason, Counter>,
    writes: Family<ByResult, Counter>,
    write_seconds: Option<Histogram>,
    bad_objects: Counter,
    put_back: Counter,
    cases_dropped: Counter,
    connections: Family<ByEnd, Counter>,
    /// Entries waiting for a writer or being written.
    pub queue_length: Gauge,
    /// Pods that have an object, or should.
    pub pods: Gauge,
    /// Signals active now.
    pub active: Gauge,
    /// 1 while this replica leads.
    pub leading: Gauge,
    resident: Gauge,
}

impl Telemetry {
    /// All of it, registered under `kernel_gossip_reconciler`.
    pub fn register(registry: &mut Registry) -> Arc<Telemetry> {
        // 1 ms to 16 s.
        let histogram = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let t = Telemetry { write_seconds: Some(histogram.clone()), ..Telemetry::default() };
        let r = registry.sub_registry_with_prefix("kernel_gossip_reconciler");
        r.register("reports", "Reports taken, by who said them", t.reports.clone());
        r.register("verdicts", "What the reports taken did to the desired state", t.verdicts.clone());
        r.register("ignored", "OTLP log records that are no whisper of a pod", t.ignored.clone());
        r.register("refused", "Reports refused, by way in and reason", t.refused.clone());
        r.register("denied", "Callers turned away, by way in and reason", t.denied.clone());
        r.register("writes", "Writes to the API server, by object and result", t.writes.clone());
        r.register_with_unit("write", "How long a write took", Unit::Seconds, histogram);
        r.register("bad_objects", "Objects in the API that cannot be read", t.bad_objects.clone());
        r.register("put_back", "Writes the full queue did not take at once", t.put_back.clone());
        r.register("cases_dropped", "Cases the remediation had no room for", t.cases_dropped.clone());
        r.register("connections", "Connections by how they were dealt with", t.connections.clone());
        r.register("queue_length", "Objects waiting to be written", t.queue_length.clone());
        r.register("pods", "Pods that have a whisper", t.pods.clone());
        r.register("active_signals", "Signals active now", t.active.clone());
        r.register("leading", "1 while this replica leads", t.leading.clone());
        r.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, t.resident.clone());
        for verdict in Verdict::ALL {
            drop(t.verdicts.get_or_create(&ByVerdict { verdict: verdict.as_str() }));
        }
        for ingest in ["otlp", "webhook"] {
            for reason in Reason::ALL {
                drop(t.refused.get_or_create(&ByReason { ingest, reason: reason.as_str() }));
            }
        }
        Arc::new(t)
    }

    pub(super) fn taken(&self, source: Source) {
        let source = match source {
            Source::Kernel => "kernel",
            Source::Reported => "reported",
        };
        self.reports.get_or_create(&BySource { source }).inc();
    }

    pub(super) fn verdict(&self, verdict: Verdict) {
        self.verdicts.get_or_create(&ByVerdict { verdict: verdict.as_str() }).inc();
    }

    pub(super) fn ignored(&self, n: u64) {
        self.ignored.inc_by(n);
    }

    pub(super) fn refused(&self, ingest: &'static str, reason: Reason, n: u64) {
        self.refused.get_or_create(&ByReason { ingest, reason: reason.as_str() }).inc_by(n);
    }

    pub(super) fn denied(&self, ingest: &'static str, denied: Denied) {
        let reason = match denied {
            Denied::NoToken => "no_token",
            Denied::BadToken => "bad_token",
            Denied::NotAllowed => "not_allowed",
            Denied::Busy => "busy",
        };
        self.denied.get_or_create(&ByReason { ingest, reason }).inc();
    }

    pub(super) fn written(&self, object: &'static str, result: &'static str, took: Duration) {
        self.writes.get_or_create(&ByResult { object, result }).inc();
        if let Some(h) = &self.write_seconds {
            h.observe(took.as_secs_f64());
        }
    }

    pub(super) fn bad_object(&self) {
        self.bad_objects.inc();
    }

    pub(super) fn put_back(&self) {
        self.put_back.inc();
    }

    pub(super) fn case_dropped(&self) {
        self.cases_dropped.inc();
    }

    /// How a connection was dealt with: `served`, `forwarded`, `refused`.
    pub(super) fn connection(&self, end: &'static str) {
        self.connections.get_or_create(&ByEnd { end }).inc();
    }

    /// Samples resident memory.
    pub fn sample_memory(&self) {
        let statm = procfs::process::Process::myself().and_then(|p| p.statm());
        if let Ok(statm) = statm {
            let bytes = statm.resident.saturating_mul(procfs::page_size());
            self.resident.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}
