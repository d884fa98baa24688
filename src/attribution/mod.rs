//! Who a cgroup is: cgroup id -> path -> container, pod, service. One [`Attributed`] per reading.

pub mod workload;

pub use workload::*;
