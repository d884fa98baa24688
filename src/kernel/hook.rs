//! How a BPF program is attached to a tracepoint.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::refusal;
use super::verdict::Shortfall;

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

impl Hook {
    /// The best entry there is for programs that read scheduler and cgroup types. Raw tracepoints are given
    /// untyped pointers, which only the helper can read.
    pub fn best(facts: &Facts) -> Option<Hook> {
        let trials = &facts.trials;
        if facts.btf.error.is_some() || refusal::locked_memory(facts).is_some() {
            None
        } else if trials.tp_btf.works() {
            Some(Hook::TpBtf)
        } else if trials.raw_tracepoint.works() && trials.read_kernel.works() {
            Some(Hook::RawTracepoint)
        } else {
            None
        }
    }

    /// How new cgroups are reported at once.
    ///
    /// # Errors
    /// Why they are not.
    pub fn of_new_cgroups(facts: &Facts) -> Result<Hook, Shortfall> {
        let trials = &facts.trials;
        // The path is read through a pointer that has no type.
        match Hook::best(facts).filter(|_| trials.read_kernel.works()) {
            None => Err(refusal::of(facts, &trials.read_kernel)),
            Some(_) if !trials.ring_buffer.works() => Err(refusal::of(facts, &trials.ring_buffer)),
            Some(_) if !facts.btf.cgroup_tracepoints => Err(Shortfall::new(
                "this kernel has no cgroup tracepoints",
                "use a kernel with them (CONFIG_TRACEPOINTS)",
            )),
            Some(hook) => Ok(hook),
        }
    }
}
