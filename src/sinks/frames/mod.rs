//! What one interval came to, workload by workload, for a live view: [`Frame`]s. `kernel-gossip top` shows them, records them and
//! reads them again; an agent hands them out at `/top` of its metrics port. One type on every way, so that what is replayed
//! is what was shown.
//!
//! Inside belongs what a view needs of an interval, and no more. How it looks does not.

mod frame;
mod hub;
pub mod lines;
mod maker;

pub use frame::{Active, Birth, Blamed, Frame, Row, Said, Shown, Split};
pub use hub::Frames;
