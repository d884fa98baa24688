//! The history that goes with a whisper.

/// One point of the history that goes with a whisper, so that a reader can integrate over any window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistoryPoint {
    pub unix_ns: u64,
    /// Cumulative CPU time used, ns.
    pub cpu_usage_ns: u64,
    /// Cumulative throttled time per CPU, ns.
    pub throttled_ns: u64,
    /// Cumulative throttled time, wall, ns; `None` without the CPU probe (cpu.stat has no such number).
    pub throttled_wall_ns: Option<u64>,
}
