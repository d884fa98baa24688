//! The JSON webhook: what others (Pixie scripts, eBPF tools) saw of a pod. Taken on trust, marked as
//! reported, never acted upon. The fields are told in `docs/webhook.md`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use jiff::Timestamp;

use super::auth::{Authorizer, Scope};
use super::{Intake, NotTaken, answer};
use crate::reconciler::lead::health::Health;
use crate::reconciler::refusal::Reason;
use crate::reconciler::telemetry::Telemetry;
use crate::reconciler::write::births::Births;

pub mod event;

pub use event::{Event, Via};

/// Largest body: a timeline of 512 steps fits.
pub const BODY_MAX: usize = 256 << 10;
/// Longest a request may take, body and answer.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// What the handlers need.
#[derive(Clone)]
pub struct Webhook {
    pub intake: Arc<Intake>,
    pub births: Arc<Births>,
    /// `None`: anybody may report.
    pub authorizer: Option<Arc<Authorizer>>,
    pub health: Arc<Health>,
    pub telemetry: Arc<Telemetry>,
}

/// `POST /webhook/{pixie,ebpf}`, `GET /health`, `GET /ready`.
pub fn router(webhook: Webhook) -> Router {
    Router::new()
        .route("/webhook/{via}", post(receive))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .layer(middleware::from_fn(in_time))
        .with_state(webhook)
}

async fn ready(State(w): State<Webhook>) -> Response {
    match w.health.not_ready() {
        None => "ready\n".into_response(),
        Some(why) => line(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// A body that trickles in holds a connection, not for long.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => line(StatusCode::REQUEST_TIMEOUT, "the request took longer than 10 s"),
    }
}

async fn receive(
    State(w): State<Webhook>,
    Path(via): Path<String>,
    headers: HeaderMap,
    body: Request,
) -> Response {
    let Some(via) = Via::parse(&via) else {
        return line(StatusCode::NOT_FOUND, "there are /webhook/pixie and /webhook/ebpf");
    };
    // Who calls is settled before a byte of the body is read.
    if let Some(authorizer) = &w.authorizer
        && let Err(denied) = authorizer.authorize(&headers, &[via.path()]).await
    {
        w.telemetry.denied("webhook", denied);
        return answer::reject(denied, line);
    }
    let json = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(is_json);
    if !json {
        w.telemetry.refused("webhook", Reason::Malformed, 1);
        return line(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type: must be application/json");
    }
    let body = match Bytes::from_request(body, &()).await {
        Ok(body) => body,
        Err(e) => {
            w.telemetry.refused("webhook", Reason::TooMuch, 1);
            let why = format!("body: {} (at most {BODY_MAX} bytes)", e.body_text());
            return line(e.status(), why);
        }
    };
    match take(&w, &body).await {
        Ok(()) => line(StatusCode::ACCEPTED, "accepted"),
        Err(later @ NotTaken::Later(_)) => answer::again(later.to_string(), line),
        Err(NotTaken::Refused(refusal)) => {
            w.telemetry.refused("webhook", refusal.reason, 1);
            let status = match refusal.reason {
                Reason::Malformed => StatusCode::BAD_REQUEST,
                Reason::NoSuchPod => StatusCode::NOT_FOUND,
                Reason::TooMuch => StatusCode::PAYLOAD_TOO_LARGE,
                Reason::OtherNode | Reason::OtherNamespace => StatusCode::FORBIDDEN,
                Reason::BadField | Reason::UnknownSignal | Reason::NoSuchContainer | Reason::LeftOut => {
                    StatusCode::UNPROCESSABLE_ENTITY
                }
            };
            line(status, refusal.to_string())
        }
    }
}

async fn take(w: &Webhook, body: &[u8]) -> Result<(), NotTaken> {
    match event::parse(body, Timestamp::now())? {
        Event::Report(report) => {
            let refused = w.intake.take(vec![*report], &Scope::Cluster).await?;
            refused.into_iter().next().map_or(Ok(()), |r| Err(r.into()))
        }
        Event::Birth(birth) => {
            let pod = w.intake.pod(&birth.namespace, &birth.pod, None).await?;
            w.births.reported(&birth, &pod).await
        }
    }
}

/// `application/json`, with or without parameters.
fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json"))
}

/// An answer of one line.
fn line(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text: String = text.into().replace(['\n', '\r'], " ");
    text.push('\n');
    (status, text).into_response()
}
