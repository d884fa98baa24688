//! What a host allows the probe of reclaim, and what is loaded there.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LOSSES, ReclaimProbe};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Hook, Loss, refusal};

/// How the causes of memory pressure are learnt of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReclaimHook {
    /// By the tracepoints of reclaim, and by the memory controller's files.
    Tracepoints,
    /// By the files alone.
    Files,
}

/// What to load, and to read.
#[derive(Clone, Debug)]
pub struct ReclaimOptions {
    /// The programs.
    pub programs: bool,
    /// The tree whose cgroups the scheduler knows.
    pub hierarchy: Hierarchy,
    /// The memory controller's tree: where it is mounted, and whether it is cgroup v2's.
    pub files: Option<(PathBuf, bool)>,
    /// Cgroups the table has room for.
    pub max_cgroups: u32,
}

/// What held up whoever waited for memory.
pub struct Reclaim;

impl Kind for Reclaim {
    type Hook = ReclaimHook;
    type Options = ReclaimOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = ReclaimProbe<'obj>;

    const LOSSES: &'static [Loss] = LOSSES;
    const WITHOUT: &'static str = "memory pressure has no causes";

    fn plan(facts: &Facts) -> Verdict<ReclaimHook> {
        plan(facts)
    }

    fn options(facts: &Facts, hook: Option<&ReclaimHook>, max_cgroups: u32) -> Option<ReclaimOptions> {
        Some(ReclaimOptions {
            programs: *hook? == ReclaimHook::Tracepoints,
            hierarchy: facts.cgroups.cpu,
            files: files(facts),
            max_cgroups,
        })
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: ReclaimOptions,
    ) -> Result<ReclaimProbe<'obj>, LoadError> {
        Ok(ReclaimProbe::load(&mut storage.0, options)?)
    }

    fn rehearse(options: ReclaimOptions) -> Vec<Rehearsal> {
        let mut storage = ObjectStorage::default();
        vec![Rehearsal::of("reclaim", ReclaimProbe::load(&mut storage.0, options).map(drop))]
    }
}

/// A path is the same in the tree whose pressure is counted and in the memory controller's.
fn files(facts: &Facts) -> Option<(PathBuf, bool)> {
    let trees = &facts.cgroups;
    let tree = trees.v1_memory.as_ref().or(trees.unified.as_ref())?;
    Some((tree.mount.clone(), trees.v1_memory.is_none()))
}

/// From what a host allows to how the causes are learnt of there.
fn plan(facts: &Facts) -> Verdict<ReclaimHook> {
    let trials = &facts.trials;
    // Rare enough for an entry without types, which is the same on every kernel.
    let needed = [&trials.raw_tracepoint, &trials.read_kernel];
    let refusal = match needed.into_iter().find(|trial| !trial.works()) {
        Some(refused) => Some(refusal::of(facts, refused)),
        None if Hook::best(facts).is_none() => Some(refusal::of(facts, &trials.raw_tracepoint)),
        None if !facts.btf.reclaim_tracepoints => Some(Shortfall::new(
            "this kernel does not tell of reclaim",
            "use a kernel with CONFIG_MEMCG and the tracepoints of vmscan",
        )),
        None => None,
    };
    match (refusal, files(facts)) {
        (None, Some(_)) => Verdict::Working { hook: ReclaimHook::Tracepoints },
        (None, None) => {
            let why = "no refaults and no working set beside memory pressure: the memory controller's tree is not mounted here";
            let what = "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root";
            Verdict::Degraded { hook: ReclaimHook::Tracepoints, how: vec![Shortfall::new(why, what)] }
        }
        (Some(refusal), Some(_)) => Verdict::Degraded {
            hook: ReclaimHook::Files,
            how: vec![refusal.loses("memory pressure does not say whether a limit or the node is short")],
        },
        (Some(refusal), None) => Verdict::Unavailable(refusal),
    }
}

impl Display for ReclaimHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReclaimHook::Tracepoints => "direct reclaim, and cgroup files",
            ReclaimHook::Files => "cgroup files",
        })
    }
}
