//! What the probe of dropped packets loses.

use crate::kernel::loss::{Loss, Lost};

/// What was lost, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropLosses {
    /// Dropped packets for which the table had no room.
    pub drops: u64,
    /// Network namespaces, and cgroups with tasks in them, that a walk had no room for.
    pub namespaces: u64,
}

const DROPS: Loss = Loss::of_table(
    "packet_drops",
    "packets are dropped for more namespaces and reasons than the kernel's table holds: they are missing in \
     packet_drop; there is no setting for it",
);
const NAMESPACES: Loss = Loss::of_table(
    "network_namespaces",
    "there are more network namespaces than 1024, or more cgroups than agent.max_cgroups: packets of the rest have \
     no owner; raise agent.max_cgroups",
);

/// The reasons it loses something for.
pub const LOSSES: &[Loss] = &[DROPS, NAMESPACES];

impl DropLosses {
    /// By reason.
    pub fn by_reason(&self) -> [Lost; LOSSES.len()] {
        let DropLosses { drops, namespaces } = *self;
        [DROPS.lost(drops), NAMESPACES.lost(namespaces)]
    }
}
