//! OTLP over gRPC: metrics with a Resource per container, whispers and births as events, births as traces.
//!
//! Inside belongs what OTLP asks for: its variables, its messages, its answers. What other sinks tell as well is beside this
//! folder.

pub mod config;
mod diagnosis;
pub mod encode;
mod own;
pub mod probe;
pub mod queue;
mod sender;
mod transport;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::metrics::data::ResourceMetrics;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use config::{OtlpArgs, OtlpConfig, remarks};
use encode::{MAX_REQUEST, Requests};
use own::Own;
use queue::{Lane, LaneSize, Queue};
pub use sender::Outcomes;
use sender::{Health, Sender};
use transport::Receiver;

use super::lock;
use super::series::ledger::Ledger;
use crate::birth::Certificate;
use crate::kernel::Instant;
use crate::signals::Whisper;

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[error("OTLP receiver {endpoint}: {message}")]
pub struct OtlpError {
    endpoint: String,
    message: String,
}

/// What could not be sent before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    pub events: usize,
    pub data_points: usize,
    pub spans: usize,
}

/// The way to one or more OTLP receivers. Publishing puts encoded bytes into a bounded queue and returns;
/// tasks of the runtime it was started in send them.
#[derive(Debug)]
pub struct OtlpSink {
    config: OtlpConfig,
    node: Option<String>,
    queue: Arc<Queue>,
    /// `None`: metrics are not exported.
    own: Option<Own>,
    outcomes: [Arc<Outcomes>; Lane::COUNT],
    /// Items larger than any request may be. Cumulative.
    too_large: AtomicU64,
    /// Monotonic time from which the next export of metrics is due, ns.
    due: AtomicU64,
    senders: Mutex<Vec<JoinHandle<()>>>,
}

/// Bytes that one request may make of several items. What is on its way keeps its room in the queue: in a small one it must leave
/// some to events.
fn most_at_once(queue: usize) -> usize {
    MAX_REQUEST.min(queue / 4)
}

impl OtlpSink {
    /// Starts to send. `node`: the node's name, for every Resource. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// A certificate, key or token file that cannot be used. A receiver that cannot be reached is none.
    pub fn start(config: OtlpConfig, node: Option<String>) -> Result<Self, OtlpError> {
        let mut sink = OtlpSink {
            queue: Arc::new(Queue::new(config.queue_bytes)),
            own: None,
            outcomes: Default::default(),
            too_large: AtomicU64::new(0),
            due: AtomicU64::new(0),
            senders: Mutex::default(),
            node,
            config,
        };
        let mut known: Vec<(String, Arc<Health>)> = Vec::new();
        for (lane, signal) in [
            (Lane::Metrics, &sink.config.metrics),
            (Lane::Events, &sink.config.events),
            (Lane::Traces, &sink.config.traces),
        ] {
            let Some(signal) = signal else { continue };
            let endpoint = signal.endpoint.to_string();
            let token = sink.config.token_file.as_deref();
            let receiver = Receiver::new(lane, signal.clone(), token)
                .map_err(|message| OtlpError { endpoint: endpoint.clone(), message })?;
            let health = match known.iter().find(|(known, _)| *known == endpoint) {
                Some((_, health)) => health.clone(),
                None => {
                    if token.is_some() && signal.tls.is_none() {
                        tracing::warn!(
                            "OTLP receiver {endpoint}: the token is sent without TLS, for all on the way to read"
                        );
                    }
                    Arc::new(Health::new(endpoint.clone(), sink.queue.clone()))
                }
            };
            known.push((endpoint, health.clone()));
            if lane == Lane::Metrics {
                sink.own = Some(Own {
                    connection: receiver.connection().clone(),
                    health: health.clone(),
                    outcomes: sink.outcomes[lane as usize].clone(),
                    runtime: Handle::current(),
                });
            }
            let sender = Sender {
                lane,
                queue: sink.queue.clone(),
                receiver,
                outcomes: sink.outcomes[lane as usize].clone(),
                health,
                retry: sink.config.retry,
                most_at_once: most_at_once(sink.config.queue_bytes),
                exhausted: 0,
            };
            lock(&sink.senders).push(tokio::spawn(sender.run()));
        }
        Ok(sink)
    }

    /// Exports the metrics of all workloads if an interval has passed since the last time.
    pub fn metrics(&self, ledger: &mut Ledger, now: Instant) {
        if now.mono_ns >= self.due.load(Ordering::Relaxed) {
            let interval = u64::try_from(self.config.interval.as_nanos()).unwrap_or(u64::MAX);
            self.due.store(now.mono_ns.saturating_add(interval), Ordering::Relaxed);
            self.metrics_now(ledger);
        }
    }

    /// Exports the metrics of all workloads.
    pub fn metrics_now(&self, ledger: &mut Ledger) {
        if self.config.metrics.is_none() {
            return;
        }
        let mut requests = Requests::new(most_at_once(self.config.queue_bytes));
        ledger.export(|account| {
            if let Some(metrics) = encode::workload_metrics(account, self.node.as_deref()) {
                requests.metrics(metrics);
            }
        });
        self.push(Lane::Metrics, requests);
    }

    /// Sends metrics of the SDK's, past the queue. On any thread.
    pub async fn own_metrics(&self, metrics: &ResourceMetrics) {
        if let Some(own) = &self.own {
            own.export(metrics).await;
        }
    }

    /// Exports a whisper; `text` says it to people.
    pub fn whisper(&self, whisper: &Whisper, text: String) {
        if self.config.events.is_none() {
            return;
        }
        let mut requests = Requests::new(MAX_REQUEST);
        requests.event(encode::whisper_event(whisper, text, self.node.as_deref(), unix_now()));
        self.push(Lane::Events, requests);
    }

    /// Exports a birth: as an event, and as a trace unless it is about a restart; `text` says it to people.
    pub fn birth(&self, birth: &Certificate, text: String) {
        let node = self.node.as_deref();
        if self.config.events.is_some() {
            let mut requests = Requests::new(MAX_REQUEST);
            requests.event(encode::birth_event(birth, text, node, unix_now()));
            self.push(Lane::Events, requests);
        }
        if self.config.traces.is_some()
            && let Some(spans) = encode::trace::birth(birth, node)
        {
            let mut requests = Requests::new(MAX_REQUEST);
            requests.spans(spans);
            self.push(Lane::Traces, requests);
        }
    }

    fn push(&self, lane: Lane, requests: Requests) {
        let (full, too_large) = requests.finish();
        self.too_large.fetch_add(too_large as u64, Ordering::Relaxed);
        for request in full {
            self.queue.push(lane, request);
        }
    }

    /// Between two exports of metrics.
    pub fn interval(&self) -> Duration {
        self.config.interval
    }

    /// What waits in a lane, and what it dropped.
    pub fn waiting(&self, lane: Lane) -> LaneSize {
        self.queue.size(lane)
    }

    /// What became of a lane's requests.
    pub fn outcomes(&self, lane: Lane) -> &Outcomes {
        &self.outcomes[lane as usize]
    }

    /// Items that were larger than any request may be. Cumulative.
    pub fn too_large(&self) -> u64 {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Sends what waits, each request tried once more, and stops: within `within`, whatever happens.
    pub async fn flush(&self, within: Duration) -> Unsent {
        self.queue.drain();
        let senders = std::mem::take(&mut *lock(&self.senders));
        let stop: Vec<_> = senders.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(within, futures::future::join_all(senders)).await.is_err() {
            stop.iter().for_each(tokio::task::AbortHandle::abort);
        }
        let [data_points, events, spans] = Lane::ALL.map(|lane| self.queue.size(lane).items);
        if data_points + events + spans > 0 {
            tracing::warn!(
                "OTLP: {events} events, {data_points} data points and {spans} spans were not delivered before the end"
            );
        }
        Unsent { events, data_points, spans }
    }
}

/// Now, ns since the Unix epoch.
fn unix_now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
