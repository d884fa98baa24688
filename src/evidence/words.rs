//! The vocabulary of a signal: its kind, severity, state, and who said it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every kind of signal, the one that hurts most first: its file in `src/signals/kinds`, and its type there. The one list:
/// [`SignalKind`] and the kinds themselves are made from it.
macro_rules! kinds {
    ($then:ident) => {
        $then! {
            oom_kill::OomKill,
            cpu_throttle::CpuThrottle,
            memory_pressure::MemoryPressure,
            io_pressure::IoPressure,
            cpu_contention::CpuContention,
            packet_drop::PacketDrop,
            tcp_retransmit::TcpRetransmit,
            network_issue::NetworkIssue,
            slow_birth::SlowBirth,
        }
    };
}
pub(crate) use kinds;

macro_rules! enumerate {
    ($($name:ident::$Kind:ident),* $(,)?) => {
        /// The kinds of signal, the one that hurts most first. `as_str` is the name used everywhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum SignalKind { $($Kind),* }

        impl SignalKind {
            pub const ALL: [SignalKind; [$(SignalKind::$Kind),*].len()] = [$(SignalKind::$Kind),*];

            pub fn as_str(self) -> &'static str {
                match self { $(SignalKind::$Kind => stringify!($name)),* }
            }
        }
    };
}
kinds!(enumerate);

impl SignalKind {
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
