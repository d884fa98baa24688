//! What comes in, in one process: what is taken, what is refused and how, and what hostile input does.

mod fuzz;
mod http;
mod otlp;
mod webhook;

use jiff::Timestamp;

/// The moment at which everything here is said.
fn now() -> Timestamp {
    "2026-11-21T06:00:00.5Z".parse().unwrap()
}
