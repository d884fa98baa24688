//! What things may cost, and what they do cost: allocations and memory with a verdict, time as printed figures
//! (`cost…`, ignored: `scripts/bench`).
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bed;
mod budget {
    mod agent;
    mod attribution;
    mod birth;
    mod signals;
    mod top;
}
