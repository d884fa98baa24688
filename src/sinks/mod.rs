//! Where it goes: OTLP, Prometheus, a terminal, a live view. The names of all of it are in [`crate::names`].
//!
//! Inside belongs what is sent, in which form, and what becomes of it where nobody takes it. What a number means is settled
//! left of here.

pub mod birth_text;
pub mod event;
pub mod frames;
mod lock;
pub mod otlp;
pub mod prometheus;
pub mod series;
pub mod telemetry;
pub mod terminal;
#[doc(hidden)]
pub mod testdata;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::attribution::Attributed;
use crate::birth::{Certificate, UnderWay};
use crate::kernel::Instant;
use crate::signals::Whisper;
use frames::Frames;
use lock::lock;
use otlp::{OtlpConfig, OtlpError, OtlpSink, Unsent};
use prometheus::{PrometheusError, PrometheusSink};
use series::ledger::Ledger;
pub use series::{ledger, points};
use telemetry::{Loss, SelfStats};

/// Where to publish.
#[derive(Clone, Debug)]
pub struct SinksConfig {
    /// The node's name, for every Resource.
    pub node: Option<String>,
    /// `None`: no export.
    pub otlp: Option<OtlpConfig>,
    /// Where `/metrics` is served; `None`: nowhere.
    pub prometheus: Option<SocketAddr>,
    /// When the probes were loaded: none of their counters began before.
    pub started: Instant,
    /// Between two readings.
    pub interval: Duration,
}

/// Why a sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
}

/// OTLP and Prometheus, whichever are configured, over one ledger. Publishing never waits for a network.
#[derive(Debug)]
pub struct Sinks {
    ledger: Arc<Mutex<Ledger>>,
    stats: Arc<SelfStats>,
    otlp: Option<Arc<OtlpSink>>,
    telemetry: Option<SdkMeterProvider>,
    prometheus: Option<PrometheusSink>,
    frames: Arc<Frames>,
}

impl Sinks {
    /// Starts what is configured. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// A file of the OTLP configuration that cannot be used, an address that cannot be listened on.
    pub fn start(config: SinksConfig) -> Result<Self, SinkError> {
        let stats = Arc::new(SelfStats::default());
        let ledger = Ledger::new(config.started, config.otlp.is_some());
        let ledger = if config.prometheus.is_some() { ledger.scraped() } else { ledger };
        let ledger = Arc::new(Mutex::new(ledger));
        let otlp = config.otlp.map(|o| OtlpSink::start(o, config.node.clone()).map(Arc::new)).transpose()?;
        let telemetry = otlp.as_ref().map(|sink| telemetry::start(&stats, sink, config.node.as_deref()));
        // Three readings missed, and some time for a busy machine.
        let healthy_within = config.interval * 3 + Duration::from_secs(10);
        let frames = Arc::new(Frames::new(config.node.as_deref(), config.started));
        let prometheus = config
            .prometheus
            .map(|address| {
                let (ledger, stats, frames) = (ledger.clone(), stats.clone(), frames.clone());
                PrometheusSink::start(address, ledger, stats, frames, healthy_within)
            })
            .transpose()?;
        Ok(Sinks { ledger, stats, otlp, telemetry, prometheus, frames })
    }

    /// Publishes a reading: on `/metrics` at once, over OTLP when its interval has passed.
    pub fn publish(&self, reading: &Attributed) {
        self.stats.observe(reading);
        self.frames.observe(reading);
        if self.otlp.is_none() && self.prometheus.is_none() {
            return;
        }
        let mut ledger = lock(&self.ledger);
        ledger.observe(reading);
        if let Some(otlp) = &self.otlp {
            otlp.metrics(&mut ledger, reading.at);
        }
        self.stats.set_lost(Loss::DepartedDropped, ledger.dropped());
    }

    /// Publishes a whisper; `text` says it to people, in one line.
    pub fn whisper(&self, whisper: &Whisper, text: String) {
        self.frames.whisper(whisper);
        lock(&self.ledger).whisper(whisper);
        if let Some(otlp) = &self.otlp {
            otlp.whisper(whisper, text);
        }
    }

    /// Publishes a birth; `text` says it to people, in one line.
    pub fn birth(&self, birth: &Certificate, text: String) {
        self.stats.birth(birth);
        self.frames.birth(birth, &text);
        if let Some(otlp) = &self.otlp {
            otlp.birth(birth, text);
        }
    }

    /// All of a reading is published; `births` tells of those under way, if somebody looks.
    pub fn read(&self, births: impl FnOnce() -> Vec<UnderWay>) {
        self.frames.close(births);
    }

    /// Where a live view gets its frames from; `/top` has them too.
    pub fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// The agent's numbers about itself, for every part to write to.
    pub fn stats(&self) -> &Arc<SelfStats> {
        &self.stats
    }

    /// Where `/metrics` is served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.prometheus.as_ref().map(PrometheusSink::address)
    }

    /// Exports the last numbers and all that waits, and stops: within `within`, whatever happens.
    pub async fn flush(&self, within: Duration) -> Unsent {
        let Some(otlp) = &self.otlp else { return Unsent::default() };
        otlp.metrics_now(&mut lock(&self.ledger));
        let telemetry = self.telemetry.clone();
        // It waits for an answer, up to five seconds whatever it is told, and keeps nobody else waiting.
        let own = tokio::task::spawn_blocking(move || telemetry.map(|t| t.shutdown_with_timeout(within)));
        let (unsent, own) = tokio::join!(otlp.flush(within), tokio::time::timeout(within, own));
        match own {
            Ok(Ok(Some(Err(error)))) => tracing::warn!("the agent's own last numbers are not sent: {error}"),
            Err(_) => {
                tracing::warn!("the agent's own last numbers are not sent: the receiver does not answer")
            }
            Ok(_) => {}
        }
        unsent
    }
}
