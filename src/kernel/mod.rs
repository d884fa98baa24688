//! What the kernel says: one [`Reading`] per interval, in the kernel's own terms (cgroups, not pods).

pub mod baseline;
pub mod birth;
pub mod cgroups;
pub mod cost;
pub mod cpu;
pub mod driver;
pub mod facts;
pub mod hist;
#[cfg(test)]
mod other_kernels;
pub mod plan;
pub mod reading;
mod shared;

pub use hist::Log2Histogram;
pub use reading::*;
