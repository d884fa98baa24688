//! The cluster's half: what agents and others report becomes Kubernetes objects.

pub mod report;
