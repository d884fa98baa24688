//! From what a host allows to what runs there: pure, so that it is tested over the recorded facts of
//! many hosts (`tests/fixtures/hosts/`).

mod refusal;
mod summary;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::facts::{CgroupVersion, Configuration, Facts, Pressure, Root};
use super::recorder::Entry;
use super::{Hierarchy, Hook};

/// What becomes of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict<H> {
    /// It does all it can do anywhere.
    Working { hook: H },
    /// It runs, but not as well as it could.
    Degraded { hook: H, how: Vec<Shortfall> },
    /// It does not run.
    Unavailable(Shortfall),
}

/// Something that is less than it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// What is missing, and why.
    pub why: String,
    /// Why alone: the same for all that is missing for the same reason.
    pub cause: String,
    /// What the owner of the host can do about it.
    pub what_to_do: String,
}

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

/// How cgroups are sampled, and how new ones are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupsHook {
    /// By an iterator over the cgroup v2 tree; else from files.
    pub iterator: bool,
    /// By tracepoints; `None`: by walking the trees at each sample.
    pub tracepoints: Option<Hook>,
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

/// Whom names are asked of, besides the container runtime's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesHook {
    pub configuration: Configuration,
    /// The API server's version; `None` while it does not answer.
    pub version: Option<String>,
}

/// What runs on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Run-queue wait and its parts, stalls, neighbours.
    pub cpu: Verdict<CpuHook>,
    /// The kernel's own numbers of each cgroup: CPU time, throttling, pressure.
    pub cgroups: Verdict<CgroupsHook>,
    /// What the start of a pod costs.
    pub births: Verdict<BirthsHook>,
    /// Pods' owners, labels and limits from the API server.
    pub kubernetes: Verdict<KubernetesHook>,
}

/// What runs on a host with these facts.
pub fn plan(facts: &Facts) -> Plan {
    Plan { cpu: cpu(facts), cgroups: cgroups(facts), births: births(facts), kubernetes: kubernetes(facts) }
}

impl Plan {
    /// The agent has something to read: the least is cgroup files. What the scheduler says of cgroups is without them
    /// about nobody.
    pub fn runs(&self) -> bool {
        self.cgroups.hook().is_some()
    }
}

impl<H> Verdict<H> {
    /// How the probe runs; `None` if it does not.
    pub fn hook(&self) -> Option<&H> {
        match self {
            Verdict::Working { hook } | Verdict::Degraded { hook, .. } => Some(hook),
            Verdict::Unavailable(_) => None,
        }
    }

    /// All that is less than it could be.
    pub fn shortfalls(&self) -> &[Shortfall] {
        match self {
            Verdict::Working { .. } => &[],
            Verdict::Degraded { how, .. } => how,
            Verdict::Unavailable(shortfall) => std::slice::from_ref(shortfall),
        }
    }

    fn of(hook: H, how: Vec<Shortfall>) -> Self {
        if how.is_empty() { Verdict::Working { hook } } else { Verdict::Degraded { hook, how } }
    }
}

impl Shortfall {
    fn new(why: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        let why = why.into();
        Shortfall { cause: why.clone(), why, what_to_do: what_to_do.into() }
    }

    /// What is lost by it, for the same cause.
    fn loses(self, what: &str) -> Self {
        Shortfall { why: format!("{what}: {}", self.cause), ..self }
    }
}

fn cpu(facts: &Facts) -> Verdict<CpuHook> {
    let Some(hook) = hook(facts) else {
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

/// The best entry there is for programs that read scheduler and cgroup types. Raw tracepoints are given
/// untyped pointers, which only the helper can read.
fn hook(facts: &Facts) -> Option<Hook> {
    let trials = &facts.trials;
    if facts.btf.error.is_some() || refusal::locked_memory(facts).is_some() {
        None
    } else if trials.tp_btf.works() {
        Some(Hook::TpBtf)
    } else if trials.raw_tracepoint.works() && trials.read_kernel.works() {
        Some(Hook::RawTracepoint)
    } else {
        None
    }
}

/// How new cgroups are told of at once, or why they are not.
fn tracepoints(facts: &Facts) -> Result<Hook, Shortfall> {
    let trials = &facts.trials;
    // The path is read through a pointer that has no type.
    match hook(facts).filter(|_| trials.read_kernel.works()) {
        None => Err(refusal::of(facts, &trials.read_kernel)),
        Some(_) if !trials.ring_buffer.works() => Err(refusal::of(facts, &trials.ring_buffer)),
        Some(_) if !facts.btf.cgroup_tracepoints => Err(Shortfall::new(
            "this kernel has no cgroup tracepoints",
            "use a kernel with them (CONFIG_TRACEPOINTS)",
        )),
        Some(hook) => Ok(hook),
    }
}

fn cgroups(facts: &Facts) -> Verdict<CgroupsHook> {
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
    let reads = hook(facts).is_some() && trials.read_kernel.works();

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

    let tracepoints = tracepoints(facts)
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

fn births(facts: &Facts) -> Verdict<BirthsHook> {
    let trials = &facts.trials;
    let Some(hook) = hook(facts) else {
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
    let late = tracepoints(facts).err();
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
        let lost = "no bytes, faults and time waiting of processes that live on, such as the container's own";
        how.push(refusal.loses(lost));
    }
    Verdict::of(BirthsHook { entry, triggered, tally }, how)
}

fn kubernetes(facts: &Facts) -> Verdict<KubernetesHook> {
    let Some(configuration) = facts.kubernetes.configuration else {
        return Verdict::Unavailable(Shortfall::new(
            "no kubeconfig and no service account",
            "nothing, unless this is a Kubernetes node: then set KUBECONFIG or run in a pod",
        ));
    };
    let hook = KubernetesHook { configuration, version: facts.kubernetes.version.clone() };
    let how = facts.kubernetes.error.as_ref().map(|error| {
        let why = format!("names come from the container runtime alone, without owners and limits: {error}");
        Shortfall::new(why, "make the API server reachable from here; the agent goes on asking")
    });
    Verdict::of(hook, how.into_iter().collect())
}

impl Display for CpuHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "scheduler's {}", self.hook)
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

impl Display for BirthsHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.entry {
            Entry::TpBtf => "typed tracepoints, while a pod starts",
            Entry::RawTracepoint => "raw tracepoints, while a pod starts",
            Entry::Bare => "typed tracepoints that read no memory, while a pod starts",
        })
    }
}

impl Display for KubernetesHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.configuration {
            Configuration::Kubeconfig => "kubeconfig",
            Configuration::ServiceAccount => "service account",
        })?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, ", API server {version}"))
    }
}
