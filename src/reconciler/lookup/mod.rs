//! What is asked of the API server, and for how long the answer is kept: pods, nodes, the Metrics API.
//! Nothing that is written belongs here.

pub mod metrics;
pub mod metrics_api;
pub mod nodes;
pub mod pods;
pub mod ttl_cache;
