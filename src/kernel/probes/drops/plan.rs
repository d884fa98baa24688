//! What a host allows the probe of dropped packets, and what is loaded there.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{DropProbe, DropsOptions, losses};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Hook, Loss, refusal};

/// How dropped packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsHook {
    pub hook: Hook,
    /// The tree of the cpu controller, which is walked for network namespaces.
    pub hierarchy: Hierarchy,
}

/// Packets that the kernel dropped, and why.
pub struct Drops;

impl Kind for Drops {
    type Hook = DropsHook;
    type Options = DropsOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = DropProbe<'obj>;

    const LOSSES: &'static [Loss] = losses::LOSSES;
    const WITHOUT: &'static str = "no dropped packets";

    fn plan(facts: &Facts) -> Verdict<DropsHook> {
        plan(facts)
    }

    fn options(facts: &Facts, hook: Option<&DropsHook>, max_cgroups: u32) -> Option<DropsOptions> {
        let DropsHook { hook, hierarchy } = *hook?;
        let root = facts.cgroups.cpu_mount()?.to_owned();
        let judge_unspecified = facts.kernel.at_least(6, 6);
        Some(DropsOptions { hook, root, hierarchy, judge_unspecified, max_cgroups })
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: DropsOptions,
    ) -> Result<DropProbe<'obj>, LoadError> {
        Ok(DropProbe::load(&mut storage.0, options)?)
    }

    fn rehearse(options: DropsOptions) -> Vec<Rehearsal> {
        let mut storage = ObjectStorage::default();
        vec![Rehearsal::of("drops", DropProbe::load(&mut storage.0, options).map(drop))]
    }
}

/// From what a host allows to how dropped packets are counted there.
fn plan(facts: &Facts) -> Verdict<DropsHook> {
    let trials = &facts.trials;
    let Some(hook) = Hook::best(facts).filter(|_| trials.read_kernel.works()) else {
        return Verdict::Unavailable(refusal::of(facts, &trials.read_kernel));
    };
    if !trials.iter_cgroup.works() {
        return Verdict::Unavailable(refusal::of_iterator(facts, &trials.iter_cgroup));
    }
    if !facts.btf.drop_reasons {
        return Verdict::Unavailable(Shortfall::new(
            "this kernel does not say why a packet is dropped",
            "use a kernel of 6.1 or later",
        ));
    }
    let how =
        facts.cgroups.iter().filter(|(name, tree)| !tree.whole && *name != "memory").map(|(name, _)| {
            let why = format!("only namespaces of this process's own part of the {name} tree are found");
            Shortfall::new(why, "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root")
        });
    Verdict::of(DropsHook { hook, hierarchy: facts.cgroups.cpu }, how.take(1).collect())
}

impl Display for DropsHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, namespaces by an iterator over cgroups", self.hook)
    }
}
