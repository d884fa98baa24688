//! `/metrics` for Prometheus, `/top` for a live view, and `/health`.
//!
//! Inside belongs the one server of the agent's. What is in the series does not.

mod exposition;
mod listener;
mod text;
mod top;

use std::fmt::{Debug, Write as _};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

pub use exposition::{BOUNDS, registry};

use super::frames::Frames;
use super::series::ledger::Ledger;
use super::telemetry::{Loss, SelfStats};
use crate::listen;
use text::Format;

/// Answers being made or read at one time: with 1,000 containers one takes some megabytes.
const ANSWERS: usize = 3;

/// Why `/metrics` cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    #[error("--prometheus {0:?}: no address: write HOST:PORT or :PORT, such as 127.0.0.1:9464 or :9464")]
    Malformed(String),
    #[error("--prometheus {0}: already in use: choose another port, or stop the program that has it")]
    InUse(SocketAddr),
    #[error("--prometheus {0}: {1}")]
    Cannot(SocketAddr, io::Error),
}

/// Reads `HOST:PORT`, where the host is an IP address, or `:PORT` for every address of the machine.
///
/// # Errors
/// The text is neither.
pub fn address(text: &str) -> Result<SocketAddr, PrometheusError> {
    let malformed = || PrometheusError::Malformed(text.into());
    match text.trim().strip_prefix(':') {
        Some(port) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().map_err(|_| malformed())?))),
        None => text.trim().replace("localhost:", "127.0.0.1:").parse().map_err(|_| malformed()),
    }
}

/// The server of `/metrics`. It stops when dropped.
#[derive(Debug)]
pub struct PrometheusSink {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl PrometheusSink {
    /// Listens and serves. `healthy_within`: a last reading older than this makes `/health` fail. Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(
        address: SocketAddr,
        ledger: Arc<Mutex<Ledger>>,
        stats: Arc<SelfStats>,
        frames: Arc<Frames>,
        healthy_within: Duration,
    ) -> Result<Self, PrometheusError> {
        let cannot = |e: io::Error| match e.kind() {
            ErrorKind::AddrInUse => PrometheusError::InUse(address),
            _ => PrometheusError::Cannot(address, e),
        };
        let listener = listen::tcp(address).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(cannot)?;
        let shared = Shared {
            registry: Arc::new(registry(ledger, stats.clone())),
            stats,
            frames,
            healthy_within,
            answers: Arc::new(Semaphore::new(ANSWERS)),
        };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/top", get(top::frames))
            .route("/health", get(health))
            .with_state(shared);
        let server = tokio::spawn(async move {
            // It ends only by being aborted: accepting goes on after an error.
            let _ = axum::serve(listener::Bounded::new(listener), router).await;
        });
        Ok(PrometheusSink { address: bound, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PrometheusSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    stats: Arc<SelfStats>,
    frames: Arc<Frames>,
    healthy_within: Duration,
    answers: Arc<Semaphore>,
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let Ok(permit) = shared.answers.clone().try_acquire_owned() else {
        shared.stats.lost(Loss::ScrapeRefused);
        let retry = [(RETRY_AFTER, "5")];
        let why = "others are still reading /metrics\n";
        return (StatusCode::SERVICE_UNAVAILABLE, retry, why).into_response();
    };
    let format = Format::of(&list(&headers, ACCEPT), &list(&headers, ACCEPT_ENCODING));
    // Some tens of milliseconds of work with 1,000 containers: not on a thread that others wait for.
    let written = tokio::task::spawn_blocking(move || format.write(&shared.registry)).await;
    let Ok(Ok(text)) = written else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "/metrics cannot be written\n").into_response();
    };
    // The permit is released when the last byte was sent or the client is gone.
    let body = Body::from(Bytes::from_owner(Answer { text, _permit: permit }));
    let mut response =
        ([(CONTENT_TYPE, format.content_type()), (VARY, "accept, accept-encoding")], body).into_response();
    if let Some(encoding) = format.content_encoding() {
        response.headers_mut().insert(CONTENT_ENCODING, encoding);
    }
    response
}

/// A header that is a list, which may come in several lines.
fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    lines.join(",")
}

struct Answer {
    text: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// 200 while readings come in; 503, with the reason, when none came for long.
async fn health(State(shared): State<Shared>) -> Response {
    match shared.stats.last_reading() {
        Some(age) if age <= shared.healthy_within => "ok\n".into_response(),
        last => {
            let mut why = String::from("no reading");
            if let Some(age) = last {
                // Writing to a String cannot fail.
                let _ = write!(why, " for {} s", age.as_secs());
            }
            why.push('\n');
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}
