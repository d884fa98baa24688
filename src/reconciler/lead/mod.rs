//! Which replica does the work, and how the others reach it: the lease, ports, TLS, health.
//! Nothing about signals or objects belongs here.

pub mod health;
pub mod leader;
pub mod serve;
pub mod tls;
