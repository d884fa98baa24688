//! What a host allows the sampling of cgroups, and what is loaded there.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{CgroupSampler, Roots, SamplerOptions, Storage, losses, try_iterator, try_tracepoints};
use crate::kernel::facts::{CgroupVersion, Facts, Pressure, Root};
use crate::kernel::probe::{Kind, LoadError};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Hook, Loss, refusal};

/// How cgroups are sampled, and how new ones are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupsHook {
    /// By an iterator over the cgroup v2 tree; else from files.
    pub iterator: bool,
    /// By tracepoints; `None`: by walking the trees at each sample.
    pub tracepoints: Option<Hook>,
}

/// The kernel's own numbers of each cgroup: CPU time, throttling, pressure.
pub struct Cgroups;

/// What to sample, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub roots: Roots,
    pub sampler: SamplerOptions,
}

impl Kind for Cgroups {
    type Hook = CgroupsHook;
    type Options = Options;
    type Storage = Storage;
    type Loaded<'obj> = CgroupSampler<'obj>;

    const LOSSES: &'static [Loss] = losses::LOSSES;
    const WITHOUT: &'static str = "no cgroups";

    fn plan(facts: &Facts) -> Verdict<CgroupsHook> {
        let (trees, trials) = (&facts.cgroups, &facts.trials);
        if trees.version() == CgroupVersion::None {
            let (why, what_to_do) = match &trees.root {
                None => (
                    "no cgroup tree is mounted here".to_owned(),
                    "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root",
                ),
                Some(Root { named, error: Some(error) }) => (
                    format!("--cgroup-root {}: {error}", named.display()),
                    "name the place where cgroup trees are mounted",
                ),
                Some(Root { named, error: None }) => (
                    format!("no cgroup tree is mounted at --cgroup-root {} or below it", named.display()),
                    "mount the host's /sys/fs/cgroup there, or name the place where it is",
                ),
            };
            return Verdict::Unavailable(Shortfall::new(why, what_to_do));
        }
        let mut how = Vec::new();
        // Both read kernel memory through pointers that have no type.
        let reads = Hook::best(facts).is_some() && trials.read_kernel.works();

        let iterator = trees.cpu == Hierarchy::Unified && reads && trials.rstat_flush.works();
        if trees.cpu != Hierarchy::Unified {
            how.push(Shortfall::new(
                "files are read, some for each cgroup: the cpu controller is in a cgroup v1 tree",
                "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)",
            ));
        } else if !iterator {
            let refused = if reads { &trials.rstat_flush } else { &trials.read_kernel };
            how.push(refusal::of_iterator(facts, refused).loses("files are read, some for each cgroup"));
        }

        let tracepoints = Hook::of_new_cgroups(facts)
            .map_err(|refusal| {
                how.push(refusal.loses("a cgroup that lives for less than an interval is not seen"));
            })
            .ok();

        for (name, tree) in trees.iter().filter(|(_, tree)| !tree.whole) {
            let why = format!("only this process's own part of the {name} tree is seen");
            let what_to_do =
                format!("mount the host's {} here and name the place by --cgroup-root", tree.mount.display());
            how.push(Shortfall::new(why, what_to_do));
        }
        match &facts.pressure {
            Pressure::Works => {}
            Pressure::Off => how.push(Shortfall::new(
                "no pressure (PSI): it is off, or not built into this kernel",
                "boot with psi=1, or use a kernel with CONFIG_PSI",
            )),
            Pressure::NoTree => how.push(Shortfall::new(
                "no pressure (PSI): it is in the cgroup v2 tree, which is not mounted here",
                "mount it too (mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)",
            )),
            Pressure::Unreadable(e) => {
                how.push(Shortfall::new(format!("no pressure (PSI): {e}"), "let cpu.pressure be read"));
            }
        }
        Verdict::of(CgroupsHook { iterator, tracepoints }, how)
    }

    /// Files remain where there is nothing else.
    fn options(facts: &Facts, hook: Option<&CgroupsHook>, max_cgroups: u32) -> Option<Options> {
        let iterator = hook.is_some_and(|hook| hook.iterator);
        let tracepoints = hook.and_then(|hook| hook.tracepoints);
        let sampler = SamplerOptions { iterator, tracepoints, max_cgroups };
        Some(Options { roots: Roots::from(&facts.cgroups), sampler })
    }

    fn load<'obj>(storage: &'obj mut Storage, options: Options) -> Result<CgroupSampler<'obj>, LoadError> {
        Ok(CgroupSampler::new(storage, options.roots, options.sampler))
    }

    fn rehearse(options: Options) -> Vec<Rehearsal> {
        let iterator = try_iterator(&options.roots, options.sampler);
        let tracepoints = try_tracepoints(options.sampler);
        let iterator = iterator.map(|outcome| Rehearsal::of("cgroup iterator", outcome));
        iterator
            .into_iter()
            .chain(tracepoints.map(|outcome| Rehearsal::of("cgroup tracepoints", outcome)))
            .collect()
    }
}

impl Display for CgroupsHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.iterator { "iterator" } else { "files" })?;
        match self.tracepoints {
            Some(hook) => write!(f, ", new ones by {hook}"),
            None => f.write_str(", new ones by walking the trees"),
        }
    }
}
