//! What a host allows the probe of reclaim, and what is loaded there.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LOSSES, ReclaimProbe};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Loss, refusal};

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
        let refusal = refusal::of_raw(facts, &[]).or_else(|| {
            let why = "this kernel does not tell of reclaim";
            let what = "use a kernel with CONFIG_MEMCG and the tracepoints of vmscan";
            (!facts.btf.reclaim_tracepoints).then(|| Shortfall::new(why, what))
        });
        let files = facts.cgroups.memory_mount().map(|_| ReclaimHook::Files);
        if let Some(refusal) = refusal {
            let lost = "memory pressure does not say whether a limit or the node is short";
            return Verdict::instead(refusal, files, lost);
        }
        let no_files = files.is_none().then(|| {
            let why = "no refaults and no working set beside memory pressure: the memory controller's tree is not mounted here";
            Shortfall::new(why, "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root")
        });
        Verdict::of(ReclaimHook::Tracepoints, no_files.into_iter().collect())
    }

    fn options(facts: &Facts, hook: Option<&ReclaimHook>, max_cgroups: u32) -> Option<ReclaimOptions> {
        Some(ReclaimOptions {
            programs: *hook? == ReclaimHook::Tracepoints,
            hierarchy: facts.cgroups.cpu,
            // A path is the same in the tree whose pressure is counted and in this one.
            files: facts.cgroups.memory_mount().map(|(mount, unified)| (mount.to_owned(), unified)),
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
        Rehearsal::of_all::<Self>("reclaim", options)
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
