//! What the sampling of cgroups loses.

use crate::kernel::loss::{Loss, Lost};

/// What was lost, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLosses {
    /// Cgroups made or removed of which the kernel could not tell at once; the trees are walked for them.
    pub cgroup_events: u64,
    /// Cgroups that could not be read (file or iterator error), other than by having died.
    pub unreadable_cgroups: u64,
    /// Cgroups that were made and not told of, because too many waited or their path was too long: a birth lacks them.
    pub made: u64,
}

const CGROUP_EVENT: Loss = Loss::new("cgroup_event");
const UNREADABLE_CGROUP: Loss = Loss::new("unreadable_cgroup");
/// As what the recorder's own buffer had no room for.
const BIRTH_EVENTS: Loss = Loss::new("birth_events");

/// The reasons it loses something for.
pub const LOSSES: &[Loss] = &[CGROUP_EVENT, UNREADABLE_CGROUP, BIRTH_EVENTS];

impl CgroupLosses {
    /// By reason.
    pub fn by_reason(&self) -> [Lost; LOSSES.len()] {
        let CgroupLosses { cgroup_events, unreadable_cgroups, made } = *self;
        [
            CGROUP_EVENT.lost(cgroup_events),
            UNREADABLE_CGROUP.lost(unreadable_cgroups),
            BIRTH_EVENTS.lost(made),
        ]
    }
}
