//! Windows and rules with hysteresis: pure, no clock of their own, no I/O.

mod contention;
mod culprits;
mod engine;
mod evidence;
mod history;
mod hysteresis;
pub mod naming;
mod rules;
pub mod slow_birth;
#[cfg(test)]
mod tests;
mod throttle;
pub mod whisper;
mod window;

pub use crate::evidence::{Severity, SignalKind};
pub use contention::{Contended, contended};
pub use engine::*;
pub use rules::*;
pub use slow_birth::{BirthHistory, SlowBirthRule};
pub use whisper::*;
