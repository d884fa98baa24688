//! The reconciler on a real cluster: what agents and others say becomes objects, through every fault a
//! cluster has. The runtimes have several threads, so that what a test serves itself (a proxy, a road to the API
//! server) goes on while it waits for `kubectl`.

mod auth;
mod bed;
#[path = "../common/mod.rs"]
mod common;
mod conflicts;
mod faults;
mod life;
mod metrics;
#[path = "../rbac/mod.rs"]
mod rbac;
#[path = "../manifests/render.rs"]
mod render;
mod replicas;
mod rights;
mod speed;
mod sudden;
