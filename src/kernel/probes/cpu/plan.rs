//! What a host allows the CPU probe, and what is loaded there.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{CpuOptions, CpuProbe, REST, losses};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hierarchy, Hook, Loss, refusal};

/// Which of the kernel's clocks tells how long a cgroup was throttled on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleClock {
    /// `throttled_clock_self_time`.
    Exact,
    /// `throttled_clock_pelt_time` or `throttled_clock_task_time`: runs slower with a slower CPU.
    Scaled,
    /// There is none.
    None,
}

/// How the CPU probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuHook {
    pub hook: Hook,
    pub throttle_clock: ThrottleClock,
    /// BPF atomics that return a value are there: the union of stalls over CPUs is complete.
    pub atomics: bool,
    /// The tree that the scheduler's cgroups belong to.
    pub hierarchy: Hierarchy,
}

/// Run-queue wait and its parts, stalls, neighbours.
pub struct Cpu;

impl Kind for Cpu {
    type Hook = CpuHook;
    type Options = CpuOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = CpuProbe<'obj>;

    const LOSSES: &'static [Loss] = losses::LOSSES;
    const WITHOUT: &'static str = "no run-queue wait, no stalls, no neighbours";

    fn plan(facts: &Facts) -> Verdict<CpuHook> {
        let Some(hook) = Hook::best(facts) else {
            return Verdict::Unavailable(refusal::of(facts, &facts.trials.tp_btf));
        };
        let btf = &facts.btf;
        let mut how = Vec::new();
        let throttle_clock = if btf.throttled_clock_self_time {
            ThrottleClock::Exact
        } else if btf.throttled_clock_pelt_time || btf.throttled_clock_task_time {
            how.push(Shortfall::new(
                "throttled time is some percent off: this kernel's clock for it slows down with the CPU",
                "use a kernel of 6.6 or later",
            ));
            ThrottleClock::Scaled
        } else {
            let why = "no throttled time: this kernel has no CPU quotas (CONFIG_CFS_BANDWIDTH)";
            how.push(Shortfall::new(why, "use a kernel with CPU quotas if pods have CPU limits"));
            ThrottleClock::None
        };
        let atomics = facts.trials.fetch_atomics.works();
        if !atomics {
            how.push(Shortfall::new(
                "throttled time by the wall clock is a lower bound where a cgroup is throttled on several CPUs",
                "use a kernel of 5.12 or later",
            ));
        }
        if !btf.sched_info {
            how.push(Shortfall::new(
                "no run-queue wait and no neighbours: this kernel does not say when a task became runnable",
                "use a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS or CONFIG_TASK_DELAY_ACCT)",
            ));
        } else if !btf.rq_sched_info {
            how.push(Shortfall::new(
                "what a new task waits before its first run is not counted if it is moved to another CPU meanwhile",
                "use a kernel with CONFIG_SCHEDSTATS",
            ));
        }
        if facts.cgroups.cpu_mount().is_none() {
            how.push(Shortfall::new(
                "cgroups have no names: the tree of the cpu controller is not mounted here",
                "mount the host's /sys/fs/cgroup here and name the place by --cgroup-root",
            ));
        }
        Verdict::of(CpuHook { hook, throttle_clock, atomics, hierarchy: facts.cgroups.cpu }, how)
    }

    fn options(facts: &Facts, hook: Option<&CpuHook>, max_cgroups: u32) -> Option<CpuOptions> {
        hook.map(|hook| CpuOptions {
            hook: hook.hook,
            atomics: hook.atomics,
            prime: facts.trials.iter_task.works(),
            sleeps: true,
            // What cannot be seen here may be on all the same: then it is unknown, and not zero.
            memory_marked: facts.btf.memstall && facts.pressure.is_on(),
            hierarchy: hook.hierarchy,
            max_cgroups,
            rest: REST,
        })
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: CpuOptions,
    ) -> Result<CpuProbe<'obj>, LoadError> {
        Ok(CpuProbe::load(&mut storage.0, options)?)
    }

    fn rehearse(options: CpuOptions) -> Vec<Rehearsal> {
        Rehearsal::of_all::<Self>("cpu", options)
    }
}

impl Display for CpuHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "scheduler's {}", self.hook)
    }
}
