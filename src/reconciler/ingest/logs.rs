//! What a message of OTLP logs leads to, whichever way it came: decoded, taken, and answered with what was refused of it.

use std::sync::Arc;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tokio::time::Instant;

use super::Intake;
use super::auth::Scope;
use super::certificate::Certified;
use super::decode::{Decoded, decode};
use crate::api::Source;
use crate::reconciler::refusal::{NotTaken, Reason};
use crate::reconciler::telemetry::Telemetry;
use crate::reconciler::write::births::{Births, OnItsWay, WRITTEN_WITHIN};

/// Largest message, after decompression. Agents and collectors split below this.
pub const MESSAGE_MAX: usize = 4 << 20;

/// Both services, over gRPC and over HTTP, are this one.
#[derive(Clone)]
pub struct Logs {
    intake: Arc<Intake>,
    births: Arc<Births>,
    telemetry: Arc<Telemetry>,
}

impl Logs {
    pub fn new(intake: Arc<Intake>, births: Arc<Births>, telemetry: Arc<Telemetry>) -> Logs {
        Logs { intake, births, telemetry }
    }

    /// Counts a message that is none.
    pub fn malformed(&self) {
        self.telemetry.refused("otlp", Reason::Malformed, 1);
    }

    /// Takes one message for a sender with this scope.
    ///
    /// # Errors
    /// Why to send all of it again.
    pub async fn take(
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
