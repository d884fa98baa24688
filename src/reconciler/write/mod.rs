//! How objects get into the API server: a bounded queue, its writers, what was written before, and certificates.
//! What to write is settled in [`desired`](super::desired).

pub mod births;
pub mod queue;
pub mod store;
pub mod writer;
