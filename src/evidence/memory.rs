//! Memory.

super::field::numbers! {
"Memory evidence"
/// What the kernel said about memory within the window of a whisper. Absent is unknown, never zero.
MemoryNumbers {
    /// Share of the window in which at least one task waited for memory (PSI).
    pressure_percent: f64, "%", "kernel_gossip.memory.pressure.percent";
    /// Share of the window in which every task waited for memory (PSI).
    pressure_full_percent: f64, "%", "kernel_gossip.memory.pressure.full_percent";
    /// What it held (webhook only).
    usage_bytes: i64, "By";
    /// Its memory limit (webhook only).
    limit_bytes: i64, "By";
    /// What it held without what can be dropped (webhook only).
    working_set_bytes: i64, "By";
    /// Pages read back that it had just had to drop (webhook only).
    refaults: i64, "{page}";
    /// Resident size of the task the kernel killed.
    oom_peak_bytes: i64, "By";
    /// Tasks the kernel killed.
    oom_kills: i64, "{kill}";
}}
