//! What a probe is: what its module says of it ([`Kind`]), and what it does once it is loaded ([`Probe`]).

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use libbpf_rs::{Iter, Link, OpenObject};

use super::facts::Facts;
use super::rehearsal::Rehearsal;
use super::verdict::Verdict;
use super::{CgroupKey, Loss, Lost, ProgramCost, Reading};

/// A probe that could not be loaded: what the kernel refused, with its errno.
pub type LoadError = Box<dyn Error + Send + Sync>;

/// Room for one BPF object.
pub struct ObjectStorage(pub MaybeUninit<OpenObject>);

impl Default for ObjectStorage {
    fn default() -> Self {
        ObjectStorage(MaybeUninit::uninit())
    }
}

/// One kind of probe, as the list of them (`kernel/probes/mod.rs`) needs it: a type without values in its module.
pub trait Kind {
    /// How it runs on a host, in words for its owner.
    type Hook: Display;
    /// What to load.
    type Options;
    /// Room for its BPF objects, which outlives it.
    type Storage: Default;
    /// The loaded probe.
    type Loaded<'obj>: Probe;

    /// The reasons for which it loses something.
    const LOSSES: &'static [Loss];

    /// What there is not if it does not load, for the log.
    const WITHOUT: &'static str;

    /// From what a host allows to how the probe runs there: pure.
    fn plan(facts: &Facts) -> Verdict<Self::Hook>;

    /// What is to be loaded where the plan says `hook`, with room for so many cgroups; `None`: nothing.
    fn options(facts: &Facts, hook: Option<&Self::Hook>, max_cgroups: u32) -> Option<Self::Options>;

    /// Loads and attaches.
    ///
    /// # Errors
    /// What the kernel refused; nothing stays loaded.
    fn load<'obj>(
        storage: &'obj mut Self::Storage,
        options: Self::Options,
    ) -> Result<Self::Loaded<'obj>, LoadError>;

    /// Loads and attaches all that the options ask for, and lets go of it: what became of each part.
    fn rehearse(options: Self::Options) -> Vec<Rehearsal>;
}

/// A loaded probe. All of it is called on the sampler's thread, the first four once an interval. None of these allocates once
/// the vectors of the reading have their size, and none is called for each cgroup or event: a call by way of `dyn` is a few
/// nanoseconds of an interval.
pub trait Probe {
    /// Tells which cgroups came and went. Every probe is asked before any is read.
    fn find(&mut self, _reading: &mut Reading) {}

    /// Appends what it has counted.
    fn read(&mut self, reading: &mut Reading);

    /// Appends what it has lost so far.
    fn losses(&self, out: &mut Vec<Lost>);

    /// Appends what its programs cost so far (zero unless `kernel.bpf_stats_enabled` is set).
    fn costs(&self, _out: &mut Vec<ProgramCost>) {}

    /// The cgroup is gone, and was read a last time.
    fn forget(&mut self, _cgroup: CgroupKey) {}

    /// Readable when there is something to tell before the next reading; open as long as the probe lives.
    fn fd(&self) -> Option<RawFd> {
        None
    }
}

/// Runs an iterator that writes nothing to its file: one read is one walk of all there is.
///
/// # Errors
/// When the run failed.
pub(super) fn walk(iterator: &Link) -> io::Result<()> {
    let written = Iter::new(iterator).map_err(io::Error::other)?.read(&mut [0; 64])?;
    debug_assert_eq!(written, 0);
    Ok(())
}
