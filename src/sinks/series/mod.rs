//! What is sent as metrics, whoever asks: one account a workload with its numbers, which outlive the workload until they were
//! sent. What a format needs belongs to its own room, what a number is called to [`names`](crate::names).

pub mod culprits;
pub mod ledger;
pub mod points;
