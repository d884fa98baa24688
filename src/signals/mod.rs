//! Windows and rules with hysteresis: pure, no clock of their own, no I/O.
//!
//! Inside belongs when something is said, of whom and for how long. Who measured it does not, nor who is told.

mod culprits;
mod engine;
mod growers;
mod history;
mod hysteresis;
pub mod kinds;
pub mod naming;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod whisper;
mod window;

pub use crate::evidence::{HistoryPoint, Severity, SignalKind};
pub use engine::*;
pub use kinds::{BirthHistory, Found, Slow, found};
pub use rules::Rule;
pub use whisper::*;
