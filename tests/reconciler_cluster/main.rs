//! The reconciler on a real cluster: what agents and others say becomes objects, through every fault a
//! cluster has.

mod auth;
mod bed;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod life;
mod metrics;
mod replicas;
mod speed;
