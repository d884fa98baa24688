//! What an HTTP caller gets whose request is not taken now. How an error is written is its protocol's own: `say`.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use crate::reconciler::refusal::Denied;

/// A caller who is not let in.
pub(super) fn reject(denied: Denied, say: impl FnOnce(StatusCode, String) -> Response) -> Response {
    match denied {
        Denied::NoToken | Denied::BadToken => say(StatusCode::UNAUTHORIZED, denied.to_string()),
        Denied::NotAllowed => say(StatusCode::FORBIDDEN, denied.to_string()),
        Denied::Busy => again(denied.to_string(), say),
    }
}

/// Nothing is wrong with the request: send it again.
pub(super) fn again(why: String, say: impl FnOnce(StatusCode, String) -> Response) -> Response {
    let mut response = say(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
