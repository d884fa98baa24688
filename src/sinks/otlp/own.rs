//! The agent's own telemetry, by the package opentelemetry-otlp: over the connection that all metrics take, with their
//! headers, token and timeout. It needs no queue: what the SDK collects is cumulative, so that the next export says again
//! what a failed one did.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, RetryPolicy, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;
use tonic::{Code, Request, Status};

use super::queue::Lane;
use super::sender::{Health, Outcomes};
use super::transport::Connection;

/// The way of the agent's own metrics.
#[derive(Debug)]
pub struct Own {
    pub connection: Arc<Connection>,
    pub health: Arc<Health>,
    pub outcomes: Arc<Outcomes>,
    /// The connection's; the SDK exports on a thread of its own.
    pub runtime: Handle,
}

impl Own {
    /// Sends what the SDK collected, once; how it ended is told and counted with all other metrics.
    pub async fn export(&self, metrics: &ResourceMetrics) {
        let exporter = {
            // A connection is made where it lives.
            let _entered = self.runtime.enter();
            self.exporter()
        };
        let ended = match exporter {
            Ok(exporter) => exporter.export(metrics).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let Err(error) = ended else {
            self.outcomes.delivered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.outcomes.retried.fetch_add(1, Ordering::Relaxed);
        // The package says the code by its name, and nothing of the answer.
        let away = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
        match away.into_iter().find(|code| error.contains(&format!("gRPC code: {code:?}"))) {
            Some(code) => {
                self.connection.lost();
                self.health.unreachable(Lane::Metrics, &Status::new(code, error));
            }
            None => self.health.refused(Lane::Metrics, &Status::unknown(error)),
        }
    }

    /// It holds no more than the connection as it is now, which another may have replaced by the next time.
    fn exporter(&self) -> Result<MetricExporter, ExporterBuildError> {
        let unusable = |why| ExporterBuildError::InternalFailure(why);
        let channel = self.connection.channel().map_err(unusable)?;
        let (connection, timeout) = (self.connection.clone(), self.connection.signal().timeout);
        let metadata = move |mut request: Request<()>| {
            // In place of what the package reads from the environment itself: flags go before variables.
            *request.metadata_mut() = connection.metadata();
            request.set_timeout(timeout);
            Ok(request)
        };
        MetricExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_interceptor(metadata)
            .with_timeout(timeout)
            .with_retry_policy(RetryPolicy::disabled())
            .with_temporality(Temporality::Cumulative)
            .build()
    }
}
