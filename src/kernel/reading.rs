//! The types of a [`Reading`]: plain data, cumulative counters, nanoseconds and bytes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Log2Histogram;
use super::counters::{Counter, counters};
use super::drops::{DropReason, PacketCounters};
use super::loss::Lost;

/// Which cgroup tree an id belongs to. In cgroup v1 every controller has a tree and ids of its own,
/// so an id alone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hierarchy {
    /// The cgroup v2 tree (also the `unified` tree of a hybrid host).
    Unified,
    /// The v1 tree of the `cpu` controller (`cpu,cpuacct` where they are mounted together).
    V1Cpu,
    /// The v1 tree of the `memory` controller.
    V1Memory,
}

/// A cgroup: its kernfs id (the inode number of its directory) in one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    pub hierarchy: Hierarchy,
    pub id: u64,
}

/// The moment a reading was taken, in both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant {
    /// CLOCK_MONOTONIC, ns: windows are measured in this one.
    pub mono_ns: u64,
    /// CLOCK_REALTIME, ns since the Unix epoch: what is published.
    pub unix_ns: u64,
}

counters! {
    /// What the scheduler did to a cgroup's tasks since the agent first saw the cgroup. All times in ns,
    /// summed over CPUs unless said otherwise. `wait` = `throttle + neighbour + own + unattributed`.
    pub struct CpuCounters {
        /// Time on a CPU.
        pub run: u64,
        /// Time runnable but not running (run-queue wait).
        pub wait: u64,
        /// The part of `wait` in which the run queue was throttled by a CPU quota.
        pub throttle: u64,
        /// The part of `wait` in which another cgroup ran on the CPU.
        pub neighbour: u64,
        /// The part of `wait` in which another task of the same cgroup ran on the CPU.
        pub own: u64,
        /// The rest of `wait`: nobody is to blame. The CPU was idle on its way to the task, or a real-time or deadline budget was
        /// used up.
        pub unattributed: u64,
        /// Time in which at least one thread waited on a CPU for a neighbour that ran there: per CPU the union of the
        /// neighbour waits that ended, summed over CPUs. At most `neighbour`.
        pub waited: u64,
        /// The part of `run` that interrupts took (CONFIG_IRQ_TIME_ACCOUNTING; 0 without).
        pub interrupted: u64,
        /// The part of `run` that the hypervisor took (CONFIG_PARAVIRT_TIME_ACCOUNTING; 0 without).
        pub stolen: u64,
        /// Stalls that ended: intervals in which the run queue on one CPU was throttled.
        pub stalls: u64,
        /// Throttled time, per CPU: sum of the stalls (the term of `cpu.stat`).
        pub throttled_per_cpu: u64,
        /// Throttled time, wall: union of the stalls over CPUs.
        pub throttled_wall: u64,
        /// The part of `throttled_wall` in which no CPU ran the cgroup.
        pub throttled_full: u64,
        /// Asleep for I/O, as PSI counts it: from the switch-out to the wake-up. What is also for memory is there.
        pub disk: u64,
        /// Asleep for memory, as PSI counts it, all of it; `None`: the kernel does not mark it (PSI is off). What its tasks
        /// spend on a CPU to free memory is in `run`.
        pub memory: Option<u64>,
        /// The part of `memory` in which pages were read back that had just been dropped.
        pub refault: u64,
        /// The part of `memory` within direct reclaim.
        pub reclaim_asleep: u64,
        /// The rest of `memory`: held up by memory.high, or compaction.
        pub high: u64,
        /// Switch-ins: how many waits were counted.
        pub switches: u64,
        /// Run-queue waits by length.
        pub wait_histogram: Log2Histogram,
        /// Stalls by length.
        pub stall_histogram: Log2Histogram,
    }
}

/// The CPU probe's counters of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuReading {
    pub cgroup: CgroupKey,
    pub counters: CpuCounters,
}

counters! {
    /// Direct reclaim by a cgroup's threads since the agent first saw any: the time from its beginning to its end, ns, whatever they
    /// did in between, summed over threads; and how often.
    pub struct ReclaimCounters {
        /// For a limit of its own or of a cgroup above it.
        pub own: u64,
        pub own_times: u64,
        /// Because the node was short of memory.
        pub node: u64,
        pub node_times: u64,
    }
}

/// The reclaim probe's counters of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimReading {
    pub cgroup: CgroupKey,
    pub counters: ReclaimCounters,
}

/// What the memory controller says of a cgroup and all below it, bytes and pages, as its files have it. `None`: not said here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStat {
    pub usage: Option<u64>,
    /// What Kubernetes subtracts from usage to get the working set: files' pages that were not used of late.
    pub inactive_file: Option<u64>,
    /// What could be reclaimed without swap: files' pages, and the kernel's own caches where they are told.
    pub reclaimable: Option<u64>,
    pub limit: Option<u64>,
    /// memory.high.
    pub high: Option<u64>,
    /// Pages read back that had just been dropped. Cumulative.
    pub refaults: Option<u64>,
    /// Page faults that had to read. Cumulative.
    pub major_faults: Option<u64>,
}

/// One cgroup's memory, as it was read last: of those alone that waited for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReading {
    pub cgroup: CgroupKey,
    pub stat: MemoryStat,
}

/// How long `victim` waited while `culprit` ran on the CPU it waited for. Cumulative, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blame {
    pub victim: CgroupKey,
    pub culprit: CgroupKey,
    pub ns: u64,
    /// A part that may begin again at zero; of one pair there may be several of both kinds, which add up.
    pub table: bool,
}

/// Pressure stall totals of one resource, ns, as in the `total=` fields of a PSI file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub some: u64,
    /// `None` where the kernel has no `full` line (cpu, before 5.13).
    pub full: Option<u64>,
}

impl Counter for Pressure {
    fn add(&mut self, other: &Self) {
        self.some.add(&other.some);
        self.full.add(&other.full);
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        let some = self.some.checked_sub(earlier.some)?;
        let full = match (self.full, earlier.full) {
            // The kernel adds up the two a moment apart: by microseconds `full` may be ahead.
            (Some(now), Some(then)) => Some(now.checked_sub(then)?.min(some)),
            _ => None,
        };
        Some(Pressure { some, full })
    }

    fn growth(&self, earlier: &Self) -> Self {
        let some = self.some.growth(&earlier.some);
        Pressure { some, full: self.full.growth(&earlier.full).map(|full| full.min(some)) }
    }
}

/// What the kernel keeps for a cgroup by itself; the same numbers as its files. `None`: this
/// hierarchy or kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStat {
    /// CPU time used, ns (v2 `cpu.stat` usage_usec, v1 cpuacct.usage).
    pub cpu_usage: Option<u64>,
    /// `cpu.stat` nr_periods.
    pub periods: Option<u64>,
    /// `cpu.stat` nr_throttled.
    pub throttled_periods: Option<u64>,
    /// `cpu.stat` throttled time, ns: only on the cgroup that has the quota.
    pub throttled: Option<u64>,
    /// CPU quota, ns per period; `None` is unlimited or unknown.
    pub quota: Option<u64>,
    /// CPU period, ns.
    pub period: Option<u64>,
    /// What it and all below it hold, bytes: where the cgroup iterator runs.
    pub memory_usage: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// One cgroup as sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatReading {
    pub cgroup: CgroupKey,
    pub stat: CgroupStat,
}

/// A network namespace, by its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceReading {
    pub namespace: u64,
    /// Drops left out: a packet's owner is not always the namespace that drops it.
    pub counters: PacketCounters,
    /// Packets dropped in it since the table of connections (conntrack) was full, whoever's they were.
    pub conntrack_full: u64,
    /// No single packet is told of: what was dropped is what the counters have.
    pub counted_only: bool,
}

/// Packets dropped for one reason, cumulative. Of the same there may be several, which add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReading {
    /// Where they were dropped.
    pub namespace: u64,
    /// The namespace sent them; else they were for it.
    pub out: bool,
    /// They are not in what the namespace counts as sent.
    pub uncounted: bool,
    /// The other namespace that sent them (true) or that they were for, of packets on their way through.
    pub other: Option<(u64, bool)>,
    /// Of the socket that sent them or that they were for, in the unified tree.
    pub cgroup: Option<CgroupKey>,
    pub reason: DropReason,
    /// A rule or conntrack dropped them, and conntrack had not taken them in: it may have had no room.
    pub untracked: bool,
    /// The reason says that they were lost. Before 6.6 too many places give none: what has none is told, and not judged.
    pub a_loss: bool,
    pub packets: u64,
}

/// A change in the set of cgroups, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupChange {
    /// A cgroup exists, under this path relative to its hierarchy's root (`/kubepods/…`).
    Present { cgroup: CgroupKey, path: String },
    /// A cgroup is gone. Its counters stay in readings until they were read a last time.
    Gone { cgroup: CgroupKey },
}

/// The cost of one loaded BPF program, when `kernel.bpf_stats_enabled` is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Shared: it is told with every reading.
    pub name: Arc<str>,
    pub run_time: Duration,
    pub runs: u64,
}

/// What the kernel said at one moment. The vectors are reused from reading to reading; their order
/// is not defined.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub at: Instant,
    /// CPUs of the machine that are online; 0: unknown.
    pub cpus: u32,
    pub changes: Vec<CgroupChange>,
    pub cpu: Vec<CpuReading>,
    pub blame: Vec<Blame>,
    pub stats: Vec<StatReading>,
    /// Of those that ever reclaimed.
    pub reclaim: Vec<ReclaimReading>,
    pub memory: Vec<MemoryReading>,
    pub namespaces: Vec<NamespaceReading>,
    pub drops: Vec<DropReading>,
    /// Namespaces and cgroups with tasks in them; nothing in most readings.
    pub members: Vec<(u64, CgroupKey)>,
    /// What was lost so far; of one reason there may be several, which add up.
    pub losses: Vec<Lost>,
    /// Blame that has no name, ns: it did not fit its table, or the history no longer has it.
    pub blame_lost_ns: u64,
    pub programs: Vec<ProgramCost>,
}

impl Reading {
    /// Empties what probes append to, which keeps its room. By name: a vector that is not in here does not compile.
    pub(super) fn clear(&mut self) {
        let Reading {
            at: _,
            cpus: _,
            changes,
            cpu,
            blame,
            stats,
            reclaim,
            memory,
            namespaces,
            drops,
            members,
            losses,
            blame_lost_ns: _,
            programs,
        } = self;
        changes.clear();
        cpu.clear();
        blame.clear();
        stats.clear();
        reclaim.clear();
        memory.clear();
        namespaces.clear();
        drops.clear();
        members.clear();
        losses.clear();
        programs.clear();
    }
}
