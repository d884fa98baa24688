//! What a host allows the probe of dropped packets, and what is loaded there.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{DropProbe, DropsError, DropsOptions, TaskWalk, TaskWalkOptions, losses};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage, Probe};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Hook, Loss, Lost, ProgramCost, Reading, refusal};

/// How dropped packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsHook {
    /// Where packets are told of one by one, with the reason; `None`: namespaces' counters alone are read.
    pub hook: Option<Hook>,
    /// The tree of the cpu controller, by which network namespaces are given to workloads.
    pub hierarchy: Hierarchy,
}

/// What to load.
#[derive(Clone, Debug)]
pub enum NetworkOptions {
    Packets(DropsOptions),
    Counters(TaskWalkOptions),
}

/// What is loaded.
pub enum NetworkProbe<'obj> {
    Packets(Box<DropProbe<'obj>>),
    Counters(Box<TaskWalk<'obj>>),
}

impl<'obj> NetworkProbe<'obj> {
    /// Loads and attaches. `storage` holds the BPF object and must outlive the probe.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(storage: &'obj mut ObjectStorage, options: NetworkOptions) -> Result<Self, DropsError> {
        Ok(match options {
            NetworkOptions::Packets(options) => {
                NetworkProbe::Packets(Box::new(DropProbe::load(&mut storage.0, options)?))
            }
            NetworkOptions::Counters(options) => {
                NetworkProbe::Counters(Box::new(TaskWalk::load(&mut storage.0, options)?))
            }
        })
    }

    fn loaded(&self) -> &(dyn Probe + 'obj) {
        match self {
            NetworkProbe::Packets(probe) => &**probe,
            NetworkProbe::Counters(probe) => &**probe,
        }
    }
}

impl Probe for NetworkProbe<'_> {
    fn read(&mut self, reading: &mut Reading) {
        match self {
            NetworkProbe::Packets(probe) => Probe::read(&mut **probe, reading),
            NetworkProbe::Counters(probe) => probe.read(reading),
        }
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        self.loaded().losses(out);
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        self.loaded().costs(out);
    }
}

/// Packets that the kernel dropped, and why.
pub struct Drops;

impl Kind for Drops {
    type Hook = DropsHook;
    type Options = NetworkOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = NetworkProbe<'obj>;

    const LOSSES: &'static [Loss] = losses::LOSSES;
    const WITHOUT: &'static str = "no dropped packets";

    fn plan(facts: &Facts) -> Verdict<DropsHook> {
        let trials = &facts.trials;
        let Some(hook) = Hook::best(facts).filter(|_| trials.read_kernel.works()) else {
            return Verdict::Unavailable(refusal::of(facts, &trials.read_kernel));
        };
        let no_packets = if !trials.iter_cgroup.works() {
            Some(refusal::of_iterator(facts, &trials.iter_cgroup))
        } else if !facts.btf.drop_reasons {
            Some(Shortfall::new(
                "this kernel does not say why a packet is dropped",
                "use a kernel of 6.1 or later",
            ))
        } else {
            None
        };
        if let Some(no_packets) = no_packets {
            // What its programs are made of is what these kernels have.
            let counters = trials.raw_tracepoint.works();
            let hook = counters.then_some(DropsHook { hook: None, hierarchy: facts.cgroups.cpu });
            let lost = "only refused connections, full socket buffers and retransmits are counted, not what rules and queues drop";
            return Verdict::instead(no_packets, hook, lost);
        }
        let how =
            facts.cgroups.iter().filter(|(name, tree)| !tree.whole && *name != "memory").map(|(name, _)| {
                let why = format!("only namespaces of this process's own part of the {name} tree are found");
                Shortfall::new(
                    why,
                    "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root",
                )
            });
        Verdict::of(DropsHook { hook: Some(hook), hierarchy: facts.cgroups.cpu }, how.take(1).collect())
    }

    fn options(facts: &Facts, hook: Option<&DropsHook>, max_cgroups: u32) -> Option<NetworkOptions> {
        let DropsHook { hook, hierarchy } = *hook?;
        let Some(hook) = hook else {
            return Some(NetworkOptions::Counters(TaskWalkOptions { hierarchy }));
        };
        let root = facts.cgroups.cpu_mount()?.to_owned();
        let judge_unspecified = facts.kernel.at_least(6, 6);
        let options = DropsOptions { hook, root, hierarchy, judge_unspecified, max_cgroups };
        Some(NetworkOptions::Packets(options))
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: NetworkOptions,
    ) -> Result<NetworkProbe<'obj>, LoadError> {
        Ok(NetworkProbe::load(storage, options)?)
    }

    fn rehearse(options: NetworkOptions) -> Vec<Rehearsal> {
        Rehearsal::of_all::<Self>("drops", options)
    }
}

impl Display for DropsHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.hook {
            Some(hook) => write!(f, "{hook}, namespaces by an iterator over cgroups"),
            None => write!(f, "namespaces' own counters, by a walk over processes"),
        }
    }
}
