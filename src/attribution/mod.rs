//! Who a cgroup is: cgroup id -> path -> container, pod, service. One [`Attributed`] per reading.
//!
//! [`paths`] says what a path is, [`tree`] keeps ids, paths and ancestors, [`bundle`] and [`pods`] bring
//! the names ([`watch`] keeps the latter), [`Attributor`] adds up the numbers. What resolves, and in
//! which order the sources are asked, is in `docs/attribution.md`.
//!
//! Inside belongs who a cgroup, a process or a network namespace is, and what is counted of it in all. What is too much of that
//! does not.

mod account;
mod args;
mod attributor;
pub mod bundle;
pub mod images;
mod known;
mod network;
pub mod paths;
pub mod pods;
pub mod processes;
pub mod tree;
mod unresolved;
pub mod watch;
pub mod workload;

pub use account::quota_cores;
pub use args::HostArgs;
pub use attributor::{AttributionOptions, Attributor};
pub use workload::*;
