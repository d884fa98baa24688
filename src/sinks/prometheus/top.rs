//! `/top?after=N`: the frames after the one of this number, as lines of JSON, which are a recording as they stand.
//! docs/top.md says why it is this.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;

use super::super::frames::lines;
use super::super::telemetry::Loss;
use super::{Answer, Shared};

#[derive(Deserialize)]
pub struct Asked {
    /// The last frame that the client has; 0: none.
    #[serde(default)]
    after: u64,
}

/// Waits for a frame, twenty seconds at most: a client that goes on asking is never taken for one that is gone.
pub async fn frames(State(shared): State<Shared>, Query(Asked { after }): Query<Asked>) -> Response {
    let frames = shared.frames.after(after).await;
    let Ok(permit) = shared.answers.clone().try_acquire_owned() else {
        shared.stats.lost(Loss::ScrapeRefused);
        let why = "others are still reading /metrics or /top\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], why).into_response();
    };
    // Milliseconds of work with 1,000 containers: not on a thread that others wait for.
    let header = shared.frames.header().clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        lines::write(&mut text, &header)?;
        frames.iter().try_for_each(|frame| lines::write(&mut text, &**frame))?;
        Ok::<_, std::io::Error>(text)
    });
    let Ok(Ok(text)) = written.await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "/top cannot be written\n").into_response();
    };
    let body = Body::from(Bytes::from_owner(Answer { text, _permit: permit }));
    ([(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")], body).into_response()
}
