//! Windows and rules with hysteresis: pure, no clock of their own, no I/O.

mod rules;
pub mod whisper;

pub use rules::*;

pub use whisper::*;
