//! What the kernel says: one [`Reading`] per interval, in the kernel's own terms (cgroups, not pods).

pub mod facts;
pub mod hist;
pub mod plan;
pub mod reading;

pub use hist::Log2Histogram;
pub use reading::*;
