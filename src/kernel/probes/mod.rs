//! The probes: one module each, with what it loads, what it reads and what it loses. What two of them need is beside this
//! folder; nothing in here knows pods, workloads or another probe.

pub mod cgroups;
pub mod cpu;
pub mod recorder;
