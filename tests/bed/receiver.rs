//! A real OTLP/gRPC receiver in the test's own process, which answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::PATIENCE;

/// What arrived.
#[derive(Debug)]
pub enum Export {
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// A request, and how it was answered.
#[derive(Debug)]
pub struct Arrived {
    pub at: Instant,
    pub metadata: MetadataMap,
    pub said: Export,
    /// The code of the answer; `None`: accepted.
    pub refused: Option<tonic::Code>,
}

impl Arrived {
    pub fn records(&self) -> Vec<LogRecord> {
        match &self.said {
            Export::Logs(logs) => logs
                .resource_logs
                .iter()
                .flat_map(|r| &r.scope_logs)
                .flat_map(|s| s.log_records.clone())
                .collect(),
            Export::Metrics(_) => Vec::new(),
        }
    }

    pub fn metrics(&self) -> Vec<Metric> {
        match &self.said {
            Export::Metrics(metrics) => metrics
                .resource_metrics
                .iter()
                .flat_map(|r| &r.scope_metrics)
                .flat_map(|s| s.metrics.clone())
                .collect(),
            Export::Logs(_) => Vec::new(),
        }
    }
}

/// How to answer a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Refuse(Status),
    /// Accept all but so many, for this reason.
    Partly(i64, &'static str),
    /// Never answer.
    Silence,
}

/// A running receiver. What is not told otherwise is accepted.
pub struct Receiver {
    pub address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Receiver {
        Receiver::start_on(([127, 0, 0, 1], 0).into(), None).await
    }

    pub async fn start_on(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Receiver {
        let listener = TcpListener::bind(address).await.expect("a port");
        Receiver::start_listening(listener, tls)
    }

    pub fn start_listening(listener: TcpListener, tls: Option<ServerTlsConfig>) -> Receiver {
        let address = listener.local_addr().expect("its address");
        let (sender, arrived) = mpsc::unbounded_channel();
        let answers = Arc::<Mutex<VecDeque<Answer>>>::default();
        let service = Service { answers: answers.clone(), arrived: sender };
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("TLS");
        }
        let gzip = CompressionEncoding::Gzip;
        let router = server
            .add_service(LogsServiceServer::new(service.clone()).accept_compressed(gzip))
            .add_service(MetricsServiceServer::new(service).accept_compressed(gzip));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serve");
        });
        Receiver { address, answers, arrived, server }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next requests like this.
    pub fn answer(&self, next: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(next);
    }

    /// Listens no more; the address is free.
    pub async fn stop(mut self) {
        self.server.abort();
        // The error says that it was aborted.
        let _ = (&mut self.server).await;
    }

    /// The next request that arrives.
    pub async fn next(&mut self) -> Arrived {
        tokio::time::timeout(PATIENCE, self.arrived.recv())
            .await
            .expect("a request")
            .expect("the receiver runs")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Service {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    arrived: mpsc::UnboundedSender<Arrived>,
}

impl Service {
    /// Notes a request; what was rejected of it.
    async fn take(&self, metadata: &MetadataMap, said: Export) -> Result<Option<(i64, String)>, Status> {
        let answer = self.answers.lock().unwrap().pop_front();
        let (result, refused) = match &answer {
            Some(Answer::Refuse(status)) => (Err(status.clone()), Some(status.code())),
            Some(Answer::Partly(rejected, why)) => (Ok(Some((*rejected, (*why).to_owned()))), None),
            Some(Answer::Silence) | None => (Ok(None), None),
        };
        let arrived = Arrived { at: Instant::now(), metadata: metadata.clone(), said, refused };
        // Nobody listens any more once the test ends.
        let _ = self.arrived.send(arrived);
        if matches!(answer, Some(Answer::Silence)) {
            std::future::pending::<()>().await;
        }
        result
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, said) = request.into_parts();
        let rejected = self.take(&metadata, Export::Metrics(said)).await?;
        let partial_success = rejected.map(|(rejected_data_points, error_message)| {
            ExportMetricsPartialSuccess { rejected_data_points, error_message }
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let (metadata, _, said) = request.into_parts();
        let rejected = self.take(&metadata, Export::Logs(said)).await?;
        let partial_success = rejected.map(|(rejected_log_records, error_message)| {
            ExportLogsPartialSuccess { rejected_log_records, error_message }
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}
