//! Where it goes: OTLP, Prometheus, a terminal. The names of all of it are in [`names`].

pub mod event;
pub mod names;
