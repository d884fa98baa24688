//! What a host allows the recorder of births, and what is loaded there.

use std::fmt::{self, Display, Formatter};
use std::mem::MaybeUninit;

use serde::{Deserialize, Serialize};

use super::{Recorder, RecorderError, RecorderOptions, losses};
use crate::kernel::facts::Facts;
use crate::kernel::probe::{Kind, LoadError, ObjectStorage};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::{Shortfall, Verdict};
use crate::kernel::{Hook, Loss, refusal};

/// Which of the programs run; the plan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Typed tracepoints.
    TpBtf,
    /// Raw tracepoints, where typed ones cannot be attached.
    RawTracepoint,
    /// Typed tracepoints without the helpers that read memory (lockdown=confidentiality): no names, arguments or
    /// environment, no mounts, no writes to cgroup files, and of netfilter the replaced tables alone.
    Bare,
}

/// How births are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthsHook {
    pub entry: Entry,
    /// A pod's cgroup is known the moment it is made; else a birth is found later, by walking the trees, and what was
    /// done until then is missing.
    pub triggered: bool,
    /// An iterator over tasks is there: bytes, faults and waiting of a process that lives are known too.
    pub tally: bool,
}

/// What the start of a pod costs.
pub struct Births;

impl Kind for Births {
    type Hook = BirthsHook;
    type Options = RecorderOptions;
    type Storage = ObjectStorage;
    type Loaded<'obj> = Recorder<'obj>;

    const LOSSES: &'static [Loss] = losses::LOSSES;
    const WITHOUT: &'static str = "births without numbers";

    fn plan(facts: &Facts) -> Verdict<BirthsHook> {
        let trials = &facts.trials;
        let Some(hook) = Hook::best(facts) else {
            return Verdict::Unavailable(refusal::of(facts, &trials.tp_btf));
        };
        if !trials.ring_buffer.works() {
            return Verdict::Unavailable(refusal::of(facts, &trials.ring_buffer));
        }
        let missing = |what: &str| {
            Shortfall::new(
                format!("this kernel has no {what} tracepoint"),
                "use a kernel with it (CONFIG_TRACEPOINTS, CONFIG_HAVE_SYSCALL_TRACEPOINTS)",
            )
        };
        if !facts.btf.sys_enter {
            return Verdict::Unavailable(missing("sys_enter"));
        }
        if !facts.btf.process_tracepoints {
            return Verdict::Unavailable(missing("sched_process_fork, _exec or _exit"));
        }
        let mut how = Vec::new();
        let entry = match hook {
            Hook::TpBtf if !trials.read_kernel.works() => {
                let refusal = refusal::of(facts, &trials.read_kernel);
                let lost =
                    "no arguments, file names, mounts, writes to cgroup files or netfilter rules in a birth";
                how.push(refusal.loses(lost));
                Entry::Bare
            }
            Hook::TpBtf => Entry::TpBtf,
            Hook::RawTracepoint => Entry::RawTracepoint,
        };
        let late = Hook::of_new_cgroups(facts).err();
        let triggered = late.is_none();
        how.extend(late.map(|r| r.loses("a birth is noticed late, and what was done until then is missing")));
        if !facts.btf.sched_info {
            how.push(Shortfall::new(
                "no time waiting for a CPU: this kernel does not keep it",
                "use a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS or CONFIG_TASK_DELAY_ACCT)",
            ));
        }
        if !facts.btf.io_accounting {
            how.push(Shortfall::new(
                "no bytes read and written: this kernel does not count them",
                "use a kernel with CONFIG_TASK_XACCT",
            ));
        }
        let tally = trials.iter_task.works();
        if !tally {
            let refusal = refusal::of(facts, &trials.iter_task);
            let lost =
                "no bytes, faults and time waiting of processes that live on, such as the container's own";
            how.push(refusal.loses(lost));
        }
        Verdict::of(BirthsHook { entry, triggered, tally }, how)
    }

    fn options(facts: &Facts, hook: Option<&BirthsHook>, _max_cgroups: u32) -> Option<RecorderOptions> {
        hook.map(|hook| RecorderOptions {
            tally: hook.tally,
            ..RecorderOptions::new(hook.entry, facts.cgroups.cpu)
        })
    }

    fn load<'obj>(
        storage: &'obj mut ObjectStorage,
        options: RecorderOptions,
    ) -> Result<Recorder<'obj>, LoadError> {
        Ok(Recorder::load(&mut storage.0, options)?)
    }

    fn rehearse(options: RecorderOptions) -> Vec<Rehearsal> {
        let mut storage = MaybeUninit::uninit();
        let recorded = Recorder::load(&mut storage, options).and_then(|mut recorder| {
            recorder.start()?;
            recorder.stop(&mut Vec::new());
            Ok::<(), RecorderError>(())
        });
        vec![Rehearsal::of("births", recorded)]
    }
}

impl Display for BirthsHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.entry {
            Entry::TpBtf => "typed tracepoints, while a pod starts",
            Entry::RawTracepoint => "raw tracepoints, while a pod starts",
            Entry::Bare => "typed tracepoints that read no memory, while a pod starts",
        })
    }
}
