//! How a BPF program is attached to a tracepoint.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// A tracepoint's entry, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Typed tracepoints: the cheapest.
    TpBtf,
    /// Raw tracepoints, where typed ones cannot be attached.
    RawTracepoint,
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::TpBtf => "typed tracepoints",
            Hook::RawTracepoint => "raw tracepoints",
        })
    }
}
