//! What a recording of births lacks.

use serde::{Deserialize, Serialize};

use crate::kernel::loss::{Loss, Lost};

/// What a recorder lost, cumulative since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthLosses {
    /// Segments nothing is known of because there was no room for them.
    pub segments: u64,
    /// Events that did not fit the ring buffer.
    pub events: u64,
    /// Cgroups that were made and not kept, because there were too many or their path too long.
    pub cgroups: u64,
}

impl BirthLosses {
    /// Nothing was lost.
    pub fn none(&self) -> bool {
        *self == BirthLosses::default()
    }
}

const BIRTH_SEGMENTS: Loss = Loss::of_table(
    "birth_segments",
    "more processes than the kernel's table holds took part in pods' starts: the certificates of these \
     starts say that they lack some; there is no setting for it",
);
const BIRTH_EVENTS: Loss = Loss::new("birth_events");

/// The reasons it loses something for.
pub const LOSSES: &[Loss] = &[BIRTH_SEGMENTS, BIRTH_EVENTS];

impl BirthLosses {
    /// By reason; of cgroups whoever samples them tells.
    pub fn by_reason(&self) -> [Lost; LOSSES.len()] {
        let BirthLosses { segments, events, cgroups: _ } = *self;
        [BIRTH_SEGMENTS.lost(segments), BIRTH_EVENTS.lost(events)]
    }
}
