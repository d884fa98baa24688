//! The cluster's half: what agents and others report becomes Kubernetes objects.

pub mod nodes;
pub mod quantity;
pub mod recommend;
pub mod report;
pub mod resize;
