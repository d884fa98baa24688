//! The reconciler on a real cluster: what agents and others say becomes objects, through every fault a
//! cluster has. The runtimes have several threads, so that what a test serves itself (a proxy, a road to the API
//! server) goes on while it waits for `kubectl`.

mod auth;
mod conflicts;
mod faults;
mod life;
mod replicas;
mod rights;
mod sudden;
