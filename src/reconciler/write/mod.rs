//! How objects get into the API server: a bounded queue, its writers, what was written before, and certificates.
//! What to write is settled in [`desired`](super::desired).
//!
//! Inside belongs the order and the rate of writes, and what becomes of those that fail. What is to be written does not.

pub mod births;
pub mod queue;
pub mod store;
pub mod writer;
