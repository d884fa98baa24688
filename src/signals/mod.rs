//! Windows and rules with hysteresis: pure, no clock of their own, no I/O.

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
