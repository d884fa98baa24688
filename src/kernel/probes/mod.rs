//! The probes: one module each, with its plan, what it loads, what it reads and what it loses. What two of them need is beside
//! this folder; nothing in here knows pods, workloads or another probe.

pub mod cgroups;
pub mod cpu;
pub mod drops;
pub mod oom;
pub mod reclaim;
pub mod recorder;

use super::{Kind, Loss};

/// Writes what `$each` makes of the list of probes: their name in the plan, and their [`Kind`]. They are
/// planned, told of, loaded and read in this order.
macro_rules! probes {
    ($each:ident) => {
        $each! {
            cpu: $crate::kernel::probes::cpu::Cpu,
            cgroups: $crate::kernel::probes::cgroups::Cgroups,
            births: $crate::kernel::probes::recorder::Births,
            oom: $crate::kernel::probes::oom::Oom,
            reclaim: $crate::kernel::probes::reclaim::Reclaim,
            drops: $crate::kernel::probes::drops::Drops,
        }
    };
}
pub(crate) use probes;

macro_rules! losses {
    ($($field:ident: $probe:ty,)+) => {
        /// The reasons for which any probe loses something, loaded or not. Some of two probes are the same.
        pub fn losses() -> impl Iterator<Item = Loss> {
            [$(<$probe>::LOSSES),+].into_iter().flatten().copied()
        }
    };
}
probes!(losses);
