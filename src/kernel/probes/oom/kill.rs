//! What the kernel says of a kill.

/// One decision of the kernel to free memory by killing: one process, or a group of them as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// CLOCK_MONOTONIC, ns: of the first victim.
    pub at_ns: u64,
    /// Where the victim was; of a group, the cgroup that was killed as one.
    pub place: Place,
    /// Who was killed; nobody is named where kills are only counted.
    pub victims: Vec<Victim>,
    /// How many were.
    pub kills: u64,
    /// They were killed as one (`memory.oom.group`).
    pub group: bool,
    pub limit: Limit,
    /// Who asked for the memory; `None` where kills are only counted.
    pub asker: Option<Asker>,
}

/// A cgroup, as well as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its path in the memory controller's tree; `None` where that is longer than there is room for.
    pub path: Option<String>,
    /// Its kernfs id by the cpu controller; 0: unknown.
    pub cpu: u64,
    /// Its kernfs id in the v2 tree; 0: unknown.
    pub unified: u64,
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// In the host's PID namespace.
    pub tgid: u32,
    pub comm: String,
    /// In the host's user namespace.
    pub uid: u32,
    /// -1000 to 1000.
    pub score_adj: i32,
    pub sizes: Sizes,
    /// Its container ends with it: the first process of a PID namespace. `None`: it is in the host's, where that says nothing.
    pub first: Option<bool>,
}

/// What a process held, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub swap: u64,
}

impl Sizes {
    /// Resident: all but what was swapped out.
    pub fn resident(&self) -> u64 {
        self.anon + self.file + self.shmem
    }
}

/// What was too small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A cgroup's: that of the victim or of one above it.
    Cgroup {
        /// In the memory controller's tree.
        path: Option<String>,
        /// Bytes held there, and allowed.
        used: u64,
        max: u64,
        /// It is the limit of memory and swap together (cgroup v1).
        with_swap: bool,
    },
    /// The node's memory.
    Node,
    /// The kill was only counted.
    Unknown,
}

/// Who asked for the memory that was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub tgid: u32,
    pub comm: String,
    pub place: Place,
    /// A thread of the kernel's, on behalf of the cgroup.
    pub kernel: bool,
    /// It asked for nothing: it set the limit below what was held.
    pub lowered: bool,
}
