//! The probe against the reference.

mod progress;
mod random;
mod shapes;
