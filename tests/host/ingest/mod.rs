//! What comes in, in one process: what is taken, what is refused and how, and what hostile input does.

mod downstream;
mod fuzz;
mod http;
mod otlp;
mod webhook;

pub use downstream::Downstream;
use jiff::Timestamp;

/// The moment at which everything here is said.
pub fn now() -> Timestamp {
    "2026-11-21T06:00:00.5Z".parse().unwrap()
}
