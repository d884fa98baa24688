//! What the recorder tells: plain data, in the kernel's own terms (processes and cgroups, not pods). Times
//! are CLOCK_MONOTONIC, ns, the clock of [`Instant::mono_ns`](crate::kernel::Instant).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::Hierarchy;

/// Names one [`Segment`] of a recorder's life; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentId(pub u64);

/// One thing that happened, in the order it was recorded. A segment is begun before anything else is told of it;
/// records of different processes may be some microseconds out of order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Began(Segment),
    Ended(Ended),
    CgroupMade(CgroupMade),
    CgroupWrite(CgroupWrite),
    Listen(Listen),
}

impl Record {
    /// When it happened.
    pub fn at_ns(&self) -> u64 {
        match self {
            Record::Began(r) => r.start_ns,
            Record::Ended(r) => r.at_ns,
            Record::CgroupMade(r) => r.by.at_ns,
            Record::CgroupWrite(r) => r.by.at_ns,
            Record::Listen(r) => r.by.at_ns,
        }
    }
}

/// One program's life in one process, as known when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub id: SegmentId,
    /// Begun by fork: the segment that forked it. By exec: the one before, of the same process. `None`: that
    /// process was there before the recording began.
    pub parent: Option<SegmentId>,
    pub begun: Begun,
    pub start_ns: u64,
    /// Process id in the host's namespace.
    pub tgid: u32,
    /// The process that forked this one (also when begun by exec), in the host's namespace.
    pub parent_tgid: u32,
    /// The name of the process, at most 15 bytes (a fork: of the parent, until it execs).
    pub comm: String,
    /// Begun by exec: the path given to execve, as the caller wrote it (`/proc/self/exe`, `/opt/cni/bin/bridge`).
    /// `None`: begun otherwise, or not readable here.
    pub exe: Option<String>,
    /// Begun by exec: the last component of the executable file's own name (`runc`, `memfd:runc_cloned:…`).
    pub file: Option<String>,
    /// Begun by exec: the arguments, with the first.
    pub args: Vec<String>,
    /// The arguments were longer than there is room for; those there are may end with half a one.
    pub args_cut: bool,
    /// Begun by exec: the variables of the environment that were asked for, no others.
    pub env: BTreeMap<String, String>,
    /// The environment was longer than there is room for: its end was looked at.
    pub env_cut: bool,
    /// Begun by exec: the real user, as the host's own user namespace numbers it: who chose the arguments and the
    /// environment, of a set-uid program too.
    #[serde(default)]
    pub uid: Option<u32>,
    pub place: Place,
}

/// How a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    /// A new process, running its parent's program until it execs.
    Fork,
    /// The process runs a new program.
    Exec,
}

/// Where a process is, at one moment. Namespaces are inode numbers as in `/proc/<pid>/ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The cgroup's kernfs id in [`Place::hierarchy`]: the tree of the cpu controller.
    pub cgroup: Option<u64>,
    pub hierarchy: Option<Hierarchy>,
    /// `None`: not readable here, or the process had given them up.
    pub namespaces: Option<Namespaces>,
    /// Mounts in its mount namespace, but for those that its root is mounted on: as many as `/proc/<pid>/mountinfo`
    /// lists, unless it was left in a corner of the tree (by chroot, or an initramfs that was not moved away).
    pub mounts: Option<u32>,
}

/// Inode numbers; 0 where the kernel has no such namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespaces {
    pub mnt: u32,
    pub uts: u32,
    pub ipc: u32,
    /// That of the process itself (`ns/pid`).
    pub pid: u32,
    /// That of its children to come (`ns/pid_for_children`).
    pub pid_for_children: u32,
    pub net: u32,
    pub cgroup: u32,
    pub time: u32,
    pub user: u32,
}

/// A segment is over: all it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub segment: SegmentId,
    pub tgid: u32,
    pub at_ns: u64,
    pub how: End,
    /// At the end, before an exec or exit took anything away.
    pub place: Place,
    pub counters: Counters,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The process went on with another program: the next segment.
    Exec,
    /// The process exited with this code.
    Exit(u8),
    /// This signal killed the process.
    Signal(u8),
    /// It was followed no longer while it lived; the counters are up to then, and there is no place.
    Stopped,
    /// It ended, and the event that says how was lost.
    Unknown,
}

/// What all threads of a segment did in its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// System calls by number, those of this machine's own ABI. Calls that seccomp refused are not among them.
    pub syscalls: BTreeMap<u32, u64>,
    /// System calls of another ABI (32-bit programs), or of numbers this table has no room for.
    pub foreign_syscalls: u64,
    /// Time on a CPU, ns, with the interrupts that came then and what a hypervisor took.
    pub run_ns: u64,
    /// Time runnable and not on a CPU, ns, as the kernel keeps it; 0 without CONFIG_SCHED_INFO. Its clock is some microseconds
    /// behind at each switch, so with `run_ns` it may exceed the time that passed.
    pub wait_ns: u64,
    /// Bytes by read-like calls, whatever they read from (`rchar` of `/proc/<pid>/io`).
    pub read_bytes: u64,
    /// Bytes by write-like calls (`wchar`).
    pub written_bytes: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    /// Processes forked (threads are not).
    pub forks: u64,
    /// Threads begun, the first not counted.
    pub threads: u64,
    /// Changes to netfilter: batches and single changes sent by netlink, and tables replaced by
    /// IPT_SO_SET_REPLACE or IP6T_SO_SET_REPLACE.
    pub netfilter_changes: u64,
}

impl Counters {
    /// System calls, all together.
    pub fn total_syscalls(&self) -> u64 {
        self.syscalls.values().sum::<u64>() + self.foreign_syscalls
    }
}

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    pub at_ns: u64,
    /// `None`: a process that was there before the recording began, or had no room.
    pub segment: Option<SegmentId>,
    pub tgid: u32,
    pub comm: String,
}

/// A cgroup was made. Told whether or not a recording is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMade {
    #[serde(flatten)]
    pub by: By,
    /// The tree's number, as in /proc/cgroups; 0 is v2. All trees are told of, also those that are not sampled.
    pub hierarchy_id: u32,
    /// kernfs id within that tree.
    pub cgroup: u64,
    /// Relative to the tree's root.
    pub path: String,
    /// Whose the directory is of the pod that the path lies in, where the reader looked: who may make pods there.
    #[serde(default)]
    pub owner: Option<u32>,
}

/// A write to a file of a cgroup was asked for, by write(2) or one of its kin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupWrite {
    #[serde(flatten)]
    pub by: By,
    /// The tree's number, as in /proc/cgroups; 0 is v2.
    pub hierarchy_id: u32,
    /// kernfs id of the cgroup, within that tree.
    pub cgroup: u64,
    /// `cpu.max`, `cgroup.procs`.
    pub file: String,
}

/// A TCP socket began to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    #[serde(flatten)]
    pub by: By,
    pub family: Family,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4,
    Ipv6,
}
