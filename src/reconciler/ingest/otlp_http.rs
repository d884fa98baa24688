//! The same service over HTTP, as protobuf: a collector's bearer-token extension refuses to send its token by
//! gRPC without TLS, not so by HTTP.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use tower_http::decompression::RequestDecompressionLayer;

use super::answer;
use super::auth::Scope;
use super::logs::{Logs, MESSAGE_MAX};
use crate::reconciler::refusal::Denied;

/// As the OTLP specification has it.
pub const PATH: &str = "/v1/logs";
/// Longest a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// `POST /v1/logs`. Who calls is settled around it, as for gRPC.
pub(super) fn router(logs: Logs) -> Router {
    Router::new()
        .route(PATH, post(export))
        // The limit holds for what was decompressed.
        .layer(RequestDecompressionLayer::new())
        .layer(DefaultBodyLimit::max(MESSAGE_MAX))
        .with_state(logs)
}

async fn export(
    State(logs): State<Logs>,
    scope: Option<Extension<Scope>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let Some(Extension(scope)) = scope else { return reject(Denied::NoToken) };
    if headers.get(CONTENT_TYPE) != Some(&PROTOBUF) {
        logs.malformed();
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type: must be application/x-protobuf");
    }
    let body = match tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Err(_elapsed) => return refused(StatusCode::REQUEST_TIMEOUT, "body: took longer than 10 s"),
        Ok(Err(error)) => {
            logs.malformed();
            return refused(
                error.status(),
                format!("body: {} (at most {MESSAGE_MAX} bytes)", error.body_text()),
            );
        }
    };
    let message = match ExportLogsServiceRequest::decode(body) {
        Ok(message) => message,
        Err(error) => {
            logs.malformed();
            return refused(StatusCode::BAD_REQUEST, format!("body: no OTLP logs: {error}"));
        }
    };
    match logs.take(message, &scope).await {
        Ok(taken) => ([(CONTENT_TYPE, PROTOBUF)], taken.encode_to_vec()).into_response(),
        Err(later) => answer::again(later, refused),
    }
}

/// What a caller gets who is not let in.
pub(super) fn reject(denied: Denied) -> Response {
    answer::reject(denied, refused)
}

/// An error as OTLP has it over HTTP: a `google.rpc.Status`.
fn refused(status: StatusCode, why: impl Into<String>) -> Response {
    let body = tonic_types::Status { code: 0, message: why.into(), details: Vec::new() };
    (status, [(CONTENT_TYPE, PROTOBUF)], body.encode_to_vec()).into_response()
}
