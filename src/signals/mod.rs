//! Windows and rules with hysteresis: pure, no clock of their own, no I/O.

pub mod whisper;

pub use whisper::*;
