//! Who a cgroup is: cgroup id -> path -> container, pod, service. One [`Attributed`] per reading.

pub mod bundle;
pub mod paths;
pub mod pods;
pub mod quantity;
pub mod watch;
pub mod workload;

pub use workload::*;
