//! What a host allows the watch for OOM kills, and what is loaded there.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LOSSES, OomProbe};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::Verdict;
use crate::kernel::{Hierarchy, Loss, refusal};

/// How kills are learnt of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OomHook {
    /// By the tracepoint mark_victim, which has the victim's task.
    Victim,
    /// By mark_victim, which has its pid alone, and signal_generate before it.
    SignalAndVictim,
    /// By the counts in cgroup files.
    Counts,
}

/// What to load, or to read.
#[derive(Clone, Debug)]
pub enum OomOptions {
    Watch {
        /// The victim is known by the signal sent to it.
        by_signal: bool,
    },
    Counts {
        /// The tree whose cgroups readings tell of.
        hierarchy: Hierarchy,
        /// Where the memory controller's is mounted.
        tree: PathBuf,
        /// It is cgroup v2's.
        unified: bool,
    },
}

/// OOM kills.
pub struct Oom;

impl Kind for Oom {
    type Hook = OomHook;
    type Options = OomOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = OomProbe<'obj>;

    const LOSSES: &'static [Loss] = LOSSES;
    const WITHOUT: &'static str = "OOM kills are not told";

    fn plan(facts: &Facts) -> Verdict<OomHook> {
        let Some(refusal) = refusal::of_raw(facts, &[&facts.trials.ring_buffer]) else {
            let hook = if facts.btf.mark_victim_task { OomHook::Victim } else { OomHook::SignalAndVictim };
            return Verdict::Working { hook };
        };
        let trees = &facts.cgroups;
        // Its cgroups are told of by another tree of v1, or it is that of v2 itself.
        let counted =
            trees.v1_memory.is_some() || (trees.unified.is_some() && trees.cpu == Hierarchy::Unified);
        let lost = "OOM kills are only counted, seconds later: not who was killed, at which limit, and who asked for the memory";
        Verdict::instead(refusal, counted.then_some(OomHook::Counts), lost)
    }

    fn options(facts: &Facts, hook: Option<&OomHook>, _max_cgroups: u32) -> Option<OomOptions> {
        let watch = |by_signal| Some(OomOptions::Watch { by_signal });
        match hook? {
            OomHook::Victim => watch(false),
            OomHook::SignalAndVictim => watch(true),
            OomHook::Counts => {
                let (tree, unified) = facts.cgroups.memory_mount()?;
                Some(OomOptions::Counts { hierarchy: facts.cgroups.cpu, tree: tree.to_owned(), unified })
            }
        }
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: OomOptions,
    ) -> Result<OomProbe<'obj>, LoadError> {
        Ok(OomProbe::load(&mut storage.0, options)?)
    }

    fn rehearse(options: OomOptions) -> Vec<Rehearsal> {
        Rehearsal::of_all::<Self>("OOM kills", options)
    }
}

impl Display for OomHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OomHook::Victim => "mark_victim",
            OomHook::SignalAndVictim => "signal_generate and mark_victim",
            OomHook::Counts => "counts in cgroup files",
        })
    }
}
