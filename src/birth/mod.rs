//! The start of a pod, from the kubelet's mkdir of its cgroup to Ready: what was done for it, by whom, and what it
//! cost. Pure but for [`run`]: records and the API's word go in, a [`Certificate`] comes out.
//!
//! [`hints`] (what a program says of itself), [`places`] (where that is believed) -> [`kin`] (whose it is) -> [`log`] ->
//! [`story`] (one pod's part of it, container by container) -> [`certificate`]; [`watch`] says when a birth begins and ends.
//!
//! Inside belongs what the start of a pod was made of. How a process is recorded does not, nor what a start that took long is
//! called.

pub mod certificate;
pub mod failure;
pub mod hints;
pub mod input;
pub mod kin;
pub mod log;
pub mod moment;
mod numbers;
mod owners;
mod phases;
pub mod places;
pub mod run;
pub mod story;
#[cfg(test)]
pub mod testdata;
#[cfg(test)]
mod tests;
mod timeline;
pub mod watch;

pub use certificate::{Certificate, Process};
pub use run::Watcher;
pub use story::{Phase, Subject};
pub use watch::{Births, Options, UnderWay};
