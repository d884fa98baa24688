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
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tokio::time::Instant;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_types::{ErrorDetails, StatusExt};

use super::auth::{Denied, Gatekeeper, Scope};
use super::certificate::Certified;
use super::decode::{Decoded, decode};
use super::refusal::Reason;
use super::{Intake, NotTaken, otlp_http};
use crate::api::Source;
use crate::reconciler::births::{Births, OnItsWay, WRITTEN_WITHIN};
use crate::reconciler::serve::VerifiedPeer;
use crate::reconciler::telemetry::Telemetry;

/// Largest message, after decompression. Agents and collectors split below this.
pub const MESSAGE_MAX: usize = 4 << 20;
/// RBAC paths: to speak for any pod (a collector), or for those of the token's own node (an agent).
pub const PATHS: [&str; 2] = ["/otlp/cluster", "/otlp/node"];
/// When a sender that was told to come again should do so.
const RETRY: Duration = Duration::from_secs(1);

/// The service, behind authentication.
pub fn router(
    intake: Arc<Intake>,
    births: Arc<Births>,
    gatekeeper: Arc<Gatekeeper>,
    telemetry: Arc<Telemetry>,
) -> Router {
    let logs = Logs { intake, births, telemetry: telemetry.clone() };
    let service = LogsServiceServer::new(logs.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MESSAGE_MAX);
    tonic::service::Routes::new(service)
        .into_axum_router()
        .merge(otlp_http::router(logs))
        .layer(middleware::from_fn_with_state((gatekeeper, telemetry), admit))
}

/// Before a byte of the message is read: a verified client certificate, or a token.
async fn admit(
    State((gatekeeper, telemetry)): State<(Arc<Gatekeeper>, Arc<Telemetry>)>,
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
        None => gatekeeper.admit(request.headers(), &PATHS).await,
    };
    match scope {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(denied) => {
            telemetry.denied("otlp", denied);
            if request.uri().path() == otlp_http::PATH {
                return otlp_http::turned_away(denied);
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

/// Both services are this one.
#[derive(Clone)]
pub(super) struct Logs {
    intake: Arc<Intake>,
    births: Arc<Births>,
    telemetry: Arc<Telemetry>,
}

impl Logs {
    /// Counts a message that is none.
    pub(super) fn malformed(&self) {
        self.telemetry.refused("otlp", Reason::Malformed, 1);
    }

    /// Takes one message for a sender with this scope.
    ///
    /// # Errors
    /// Why to send all of it again.
    pub(super) async fn take(
        &self,
        message: ExportLogsServiceRequest,
        scope: &Scope,
    ) -> Result<ExportLogsServiceResponse, String> {
        let mut decoded = Decoded::default();
        let now = Timestamp::now();
        for logs in &message.resource_logs {
            decode(logs, now, &mut decoded);
        }
        drop(message);
        let Decoded { reports, births, mut refused, left_out, ignored, unread } = decoded;
        self.telemetry.ignored(ignored);
        match self.intake.take(reports, scope).await {
            Ok(more) => refused.extend(more),
            Err(NotTaken::Refused(refusal)) => refused.push(refusal),
            Err(later) => return Err(later.to_string()),
        }
        let mut on_their_way = Vec::new();
        for certified in births {
            match self.birth(&certified, scope).await {
                Ok(birth) => {
                    on_their_way.extend(birth);
                    self.telemetry.taken(Source::Kernel);
                }
                Err(NotTaken::Refused(refusal)) => {
                    refused.push(refusal);
                    continue;
                }
                Err(later) => return Err(later.to_string()),
            }
        }
        let by = Instant::now() + WRITTEN_WITHIN;
        for birth in on_their_way {
            birth.written(by).await.map_err(|later| later.to_string())?;
        }
        refused.iter().for_each(|r| self.telemetry.refused("otlp", r.reason, 1));
        self.telemetry.refused("otlp", Reason::TooMuch, unread);
        self.telemetry.refused("otlp", Reason::LeftOut, left_out.len() as u64);
        let rejected = refused.len() as u64 + unread;
        let first = match (refused.first(), left_out.first()) {
            (Some(refused), _) => Some(refused.to_string()),
            (None, _) if unread > 0 => Some("too many log records in one request".to_owned()),
            // Nothing was rejected: a warning, as the specification has it.
            (None, Some(wrong)) => Some(format!("taken without what is wrong of it: {wrong}")),
            (None, None) => None,
        };
        let partial = first.map(|error_message| ExportLogsPartialSuccess {
            rejected_log_records: i64::try_from(rejected).unwrap_or(i64::MAX),
            error_message,
        });
        if let Some(partial) = &partial {
            tracing::debug!(rejected, error = partial.error_message, "OTLP log records refused");
        }
        Ok(ExportLogsServiceResponse { partial_success: partial })
    }

    async fn birth(&self, certified: &Certified, scope: &Scope) -> Result<Option<OnItsWay>, NotTaken> {
        let pod = self.intake.pod(&certified.namespace, &certified.pod, Some(&certified.uid)).await?;
        pod.may_be_told_of(scope)?;
        self.births.certified(certified, &pod).await
    }
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
