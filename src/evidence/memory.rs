//! Memory.

/// What held it up, as `pressure_cause` says it.
pub mod cause {
    pub const OWN: &str = "own";
    pub const HIGH: &str = "high";
    pub const ABOVE: &str = "above";
    pub const NODE: &str = "node";
}

super::field::numbers! {
"Memory evidence"
/// What the kernel said about memory within the window of a whisper. Absent is unknown, never zero.
MemoryNumbers {
    /// Share of the window in which at least one task waited for memory (PSI).
    pressure_percent: f64, "%", "kernel_gossip.memory.pressure.percent";
    /// Share of the window in which every task waited for memory (PSI).
    pressure_full_percent: f64, "%", "kernel_gossip.memory.pressure.full_percent";
    /// What held it up: `own` (its memory limit), `high` (memory.high), `above` (a limit above it: its pod's), or `node` (the node
    /// is short of memory).
    pressure_cause: String, "", "kernel_gossip.memory.cause";
    /// Time its threads were in direct reclaim for a limit, all together.
    reclaim_own_seconds: f64, "s", "kernel_gossip.memory.reclaim.own";
    /// Time its threads were in direct reclaim because the node was short of memory, all together.
    reclaim_node_seconds: f64, "s", "kernel_gossip.memory.reclaim.node";
    /// Time its threads slept for memory, all together, as PSI counts it.
    thread_seconds: f64, "s", "kernel_gossip.memory.thread.time";
    /// The part of that in which memory.high, or compaction, held them up.
    high_seconds: f64, "s", "kernel_gossip.memory.thread.high";
    /// The part of that in which pages were read back that it had just had to drop.
    refault_seconds: f64, "s", "kernel_gossip.memory.thread.refault";
    /// What it held.
    usage_bytes: i64, "By", "kernel_gossip.memory.usage";
    /// Its memory limit; of an OOM kill the one that was hit.
    limit_bytes: i64, "By", "kernel_gossip.memory.limit";
    /// Its memory.high.
    high_bytes: i64, "By", "kernel_gossip.memory.high";
    /// What it held as Kubernetes counts it: without files' pages that were not used of late.
    working_set_bytes: i64, "By", "kernel_gossip.memory.working_set";
    /// What of it could be reclaimed without swap: files' pages, and the kernel's own caches where they are told (cgroup v2).
    reclaimable_bytes: i64, "By", "kernel_gossip.memory.reclaimable";
    /// Pages read back that it had just had to drop.
    refaults: i64, "{page}", "kernel_gossip.memory.refaults";
    /// Page faults that had to read.
    major_faults: i64, "{fault}", "kernel_gossip.memory.faults";
    /// Resident size of the process the kernel killed, of several the largest.
    oom_peak_bytes: i64, "By", "kernel_gossip.memory.oom.resident";
    /// Processes the kernel killed for lack of memory, since the whisper began.
    oom_kills: i64, "{kill}", "kernel_gossip.memory.oom.kills";
    /// What was too small: `own` (the limit of the workload), `pod`, `node`, or the path of a cgroup above.
    oom_limit: String, "", "kernel_gossip.memory.oom.limit";
    /// Who was killed, name and PID on the node; of several the largest first.
    oom_victims: String, "", "kernel_gossip.memory.oom.victims";
    /// What ended with it: `container` (it was its first process) or `process` (the container lives on).
    oom_ended: String, "", "kernel_gossip.memory.oom.ended";
    /// User of the largest process that was killed, as the node counts users.
    oom_uid: i64, "{uid}", "kernel_gossip.memory.oom.uid";
    /// Its `oom_score_adj`, -1000 to 1000.
    oom_score_adj: i64, "{adj}", "kernel_gossip.memory.oom.score_adj";
    /// The part of its resident size that is no file's.
    oom_anon_bytes: i64, "By", "kernel_gossip.memory.oom.anonymous";
    /// The part of its resident size that is of files.
    oom_file_bytes: i64, "By", "kernel_gossip.memory.oom.file";
    /// The part of its resident size that is shared memory and tmpfs.
    oom_shmem_bytes: i64, "By", "kernel_gossip.memory.oom.shmem";
    /// What it had swapped out.
    oom_swap_bytes: i64, "By", "kernel_gossip.memory.oom.swap";
    /// Who asked for the memory: name and PID on the node, and whose it is where it is not the victim's.
    oom_asked_by: String, "", "kernel_gossip.memory.oom.asked_by";
    /// Who set the limit below what was held, where that was the reason: name and PID on the node.
    oom_lowered_by: String, "", "kernel_gossip.memory.oom.lowered_by";
}}
