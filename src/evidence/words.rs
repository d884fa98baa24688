//! The vocabulary of a signal: its kind, severity, state, and who said it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of signal an object can carry; the names of the agent's signals and the webhook's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    CpuThrottle,
    CpuContention,
    MemoryPressure,
    OomKill,
    IoPressure,
    PacketDrop,
    TcpRetransmit,
    NetworkIssue,
    SlowBirth,
}

impl SignalKind {
    pub const ALL: [SignalKind; 9] = [
        SignalKind::CpuThrottle,
        SignalKind::CpuContention,
        SignalKind::MemoryPressure,
        SignalKind::OomKill,
        SignalKind::IoPressure,
        SignalKind::PacketDrop,
        SignalKind::TcpRetransmit,
        SignalKind::NetworkIssue,
        SignalKind::SlowBirth,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            SignalKind::CpuThrottle => "cpu_throttle",
            SignalKind::CpuContention => "cpu_contention",
            SignalKind::MemoryPressure => "memory_pressure",
            SignalKind::OomKill => "oom_kill",
            SignalKind::IoPressure => "io_pressure",
            SignalKind::PacketDrop => "packet_drop",
            SignalKind::TcpRetransmit => "tcp_retransmit",
            SignalKind::NetworkIssue => "network_issue",
            SignalKind::SlowBirth => "slow_birth",
        }
    }

    /// The kind of this name, if there is one.
    pub fn parse(name: &str) -> Option<SignalKind> {
        SignalKind::ALL.into_iter().find(|k| k.as_str() == name)
    }
}

/// How bad. The order is the order of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
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

/// Whether it is being said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhisperState {
    Active,
    Resolved,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An agent of ours, which read it from the kernel of the pod's node.
    Kernel,
    /// Somebody else, through the webhook: taken on trust, never acted upon.
    Reported,
}
