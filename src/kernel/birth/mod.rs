//! What a pod's start costs: every process that is forked or execs while a recording is on.

pub mod record;

pub use record::*;
