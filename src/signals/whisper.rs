//! The types of a [`Whisper`]: a signal that crossed its threshold for one workload.

use std::sync::Arc;

use crate::attribution::Workload;
use crate::kernel::Instant;

/// The kinds of signal; `as_str` is the name used everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignalType {
    CpuThrottle,
    CpuContention,
}

impl SignalType {
    pub const ALL: [SignalType; 2] = [SignalType::CpuThrottle, SignalType::CpuContention];

    pub fn as_str(self) -> &'static str {
        match self {
            SignalType::CpuThrottle => "cpu_throttle",
            SignalType::CpuContention => "cpu_contention",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Why a whisper is said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Crossed the warning or critical threshold.
    Started,
    /// The severity changed while active.
    Changed,
    /// Still active; said again every repeat interval (one minute).
    Repeated,
    /// Below the clearing threshold for the hold time, or the workload is gone.
    Resolved,
}

impl Transition {
    pub fn as_str(self) -> &'static str {
        match self {
            Transition::Started => "started",
            Transition::Changed => "changed",
            Transition::Repeated => "repeated",
            Transition::Resolved => "resolved",
        }
    }
}

/// A workload that ran while the victim waited, and its share of the window.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub who: Arc<Workload>,
    /// Its share of the time in which at least one thread waited, in percent of the window, 0..=100.
    pub percent: f64,
}

/// What the kernel said over the window, in the terms of the design: all measured, none inferred.
/// Times in seconds within the window; `None` is unknown, never zero.
#[derive(Clone, Debug, Default)]
pub struct CpuEvidence {
    /// Throttled time, wall / window, 0..=100.
    pub throttled_percent: Option<f64>,
    /// The part of the window in which every CPU it wanted was throttled, 0..=100.
    pub throttled_full_percent: Option<f64>,
    /// Throttled time, per CPU (what cpu.stat reports).
    pub throttled_seconds: Option<f64>,
    /// Stalls that ended in the window.
    pub stalls: Option<u64>,
    /// Upper bound of the bucket that holds the 99th percentile of the stalls' lengths, seconds.
    pub stall_p99_seconds: Option<f64>,
    /// Enforcement periods in the window, and those in which it was throttled.
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    /// CPU used / window, cores.
    pub usage_cores: Option<f64>,
    /// What it would have used without its limit, at most: (CPU used + throttled time per CPU) / window, cores; no more
    /// than its threads waited for CPUs, nor than the machine has.
    pub demand_cores: Option<f64>,
    /// The CPU limit that binds, cores; `None` if unlimited.
    pub limit_cores: Option<f64>,
    /// CPU request, cores, as the API has it.
    pub request_cores: Option<f64>,
    /// Run-queue wait, and its split.
    pub wait_seconds: Option<f64>,
    pub wait_throttle_seconds: Option<f64>,
    pub wait_neighbour_seconds: Option<f64>,
    pub wait_own_seconds: Option<f64>,
    pub wait_unattributed_seconds: Option<f64>,
    /// Time in which at least one thread waited for a neighbour on a CPU, summed over CPUs; `None` where the kernel
    /// cannot tell, and `wait_neighbour_seconds`, a sum over threads, is all there is.
    pub contended_seconds: Option<f64>,
    /// Cores that the neighbours took from it, at most: bounded by its limit and the machine's CPUs.
    pub lost_cores: Option<f64>,
    /// Those who ran meanwhile, the greatest share first; at most five.
    pub neighbours: Vec<Neighbour>,
}

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

/// A signal that crossed its threshold for one workload; active until it clears.
#[derive(Clone, Debug)]
pub struct Whisper {
    pub signal: SignalType,
    pub severity: Severity,
    pub transition: Transition,
    pub who: Arc<Workload>,
    /// When it started (the reading that crossed), and when it is said.
    pub since: Instant,
    pub at: Instant,
    /// Length of the window the evidence is about, seconds (as measured, not as configured).
    pub window_seconds: f64,
    pub evidence: CpuEvidence,
    /// The last two minutes at most, oldest first.
    pub history: Vec<HistoryPoint>,
}

impl Whisper {
    /// Active until resolved.
    pub fn active(&self) -> bool {
        self.transition != Transition::Resolved
    }
}
