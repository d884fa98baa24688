//! The OTLP logs service: whispers and births from agents, directly or through a collector. Over gRPC here, over HTTP on
//! the same port in [`super::otlp_http`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_types::{ErrorDetails, StatusExt};

use super::auth::{Authorizer, Scope};
use super::logs::Logs;
pub use super::logs::MESSAGE_MAX;
use super::{Intake, otlp_http};
use crate::reconciler::lead::serve::VerifiedPeer;
use crate::reconciler::refusal::{Denied, Reason};
use crate::reconciler::telemetry::Telemetry;
use crate::reconciler::write::births::Births;

/// RBAC paths: to speak for any pod (a collector), or for those of the token's own node (an agent).
pub const PATHS: [&str; 2] = ["/otlp/cluster", "/otlp/node"];
/// When a sender that was told to come again should do so.
const RETRY: Duration = Duration::from_secs(1);

/// The service, behind authentication.
pub fn router(
    intake: Arc<Intake>,
    births: Arc<Births>,
    authorizer: Arc<Authorizer>,
    telemetry: Arc<Telemetry>,
) -> Router {
    let logs = Logs::new(intake, births, telemetry.clone());
    let service = LogsServiceServer::new(logs.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MESSAGE_MAX);
    tonic::service::Routes::new(service)
        .into_axum_router()
        .merge(otlp_http::router(logs))
        .layer(middleware::from_fn_with_state((authorizer, telemetry), authorize))
}

/// Before a byte of the message is read: a verified client certificate, or a token.
async fn authorize(
    State((authorizer, telemetry)): State<(Arc<Authorizer>, Arc<Telemetry>)>,
    mut request: Request,
    next: Next,
) -> Response {
    if !is_served(&request) {
        // The gRPC service would answer 200 with a header that says it has no such method: to a sender over HTTP that
        // its data were taken.
        telemetry.refused("otlp", Reason::Malformed, 1);
        let why = "logs alone are taken here: POST /v1/logs, or OTLP over gRPC\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    let scope = match request.extensions().get::<VerifiedPeer>() {
        Some(VerifiedPeer) => Ok(Scope::Cluster),
        None => authorizer.authorize(request.headers(), &PATHS).await,
    };
    match scope {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(denied) => {
            telemetry.denied("otlp", denied);
            if request.uri().path() == otlp_http::PATH {
                return otlp_http::reject(denied);
            }
            let status = match denied {
                Denied::NoToken | Denied::BadToken => Status::unauthenticated(denied.to_string()),
                Denied::NotAllowed => Status::permission_denied(denied.to_string()),
                Denied::Busy => again(denied.to_string()),
            };
            status.into_http()
        }
    }
}

/// It is for one of the two services: OTLP logs over HTTP, or anything over gRPC, which answers for itself.
fn is_served(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    request.uri().path() == otlp_http::PATH || kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

#[tonic::async_trait]
impl LogsService for Logs {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        // Put there by `admit`; without it nobody was let in.
        let scope = request.extensions().get::<Scope>().cloned();
        let scope = scope.ok_or_else(|| Status::unauthenticated(Denied::NoToken.to_string()))?;
        self.take(request.into_inner(), &scope).await.map(tonic::Response::new).map_err(again)
    }
}

/// Nothing is wrong with the request: send it again.
fn again(why: String) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY));
    Status::with_error_details(tonic::Code::Unavailable, why, details)
}
