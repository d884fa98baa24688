//! Kills by the kernel for lack of memory, the moment they happen: who was killed, at which limit, and who asked for the memory
//! (`bpf/oom.bpf.c`). Without BPF the counts in cgroup files remain ([`counts`]): that something was killed, and nothing of it.
//!
//! Inside belongs what the kernel says of a kill; which pod that is about, `attribution` says.

mod counts;
mod kill;
mod plan;
mod watch;

use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Duration;

use libbpf_rs::OpenObject;

pub use counts::Counts;
pub use kill::{Asker, Kill, Limit, Place, Sizes, Victim};
pub use plan::{Oom, OomHook, OomOptions};
pub use watch::{OomError, Watch};

use crate::kernel::probe::Probe;
use crate::kernel::{CgroupKey, Loss, Lost, ProgramCost, Reading, clock};

const OOM_EVENTS: Loss = Loss::new("oom_events");

/// The reasons it loses something for.
pub const LOSSES: &[Loss] = &[OOM_EVENTS];

/// How kills are learnt of here.
pub enum OomProbe<'obj> {
    /// By programs: each kill, at once.
    Watch(Box<Watch<'obj>>),
    /// From files: that there were some.
    Counts(Counts),
}

impl<'obj> OomProbe<'obj> {
    /// Loads and attaches what the options ask for.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>, options: OomOptions) -> Result<Self, OomError> {
        Ok(match options {
            OomOptions::Watch { by_signal } => OomProbe::Watch(Box::new(Watch::load(storage, by_signal)?)),
            OomOptions::Counts { hierarchy, tree, unified } => {
                OomProbe::Counts(Counts::new(hierarchy, tree, unified))
            }
        })
    }

    /// Appends the kills since the last call, in their order.
    pub fn take(&mut self, out: &mut Vec<Kill>) {
        match self {
            OomProbe::Watch(watch) => watch.take(clock::now(), out),
            OomProbe::Counts(counts) => counts.take(out),
        }
    }

    /// How long until [`take`](Self::take) has something to give though nothing more happens: the last victim of a group
    /// is told by there being no further one.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            OomProbe::Watch(watch) => watch.patience(clock::now()),
            OomProbe::Counts(_) => None,
        }
    }
}

impl Probe for OomProbe<'_> {
    fn read(&mut self, reading: &mut Reading) {
        if let OomProbe::Counts(counts) = self {
            counts.read(reading);
        }
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        if let OomProbe::Watch(watch) = self {
            out.push(OOM_EVENTS.lost(watch.lost()));
        }
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        if let OomProbe::Watch(watch) = self {
            watch.costs(out);
        }
    }

    fn forget(&mut self, cgroup: CgroupKey) {
        if let OomProbe::Counts(counts) = self {
            counts.forget(cgroup);
        }
    }

    fn fd(&self) -> Option<RawFd> {
        match self {
            OomProbe::Watch(watch) => Some(watch.fd()),
            OomProbe::Counts(_) => None,
        }
    }
}
