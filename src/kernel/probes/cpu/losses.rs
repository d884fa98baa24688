//! What the CPU probe loses.

use crate::kernel::loss::{Loss, Lost};

/// What was lost, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLosses {
    /// Switches not counted because every slot for cgroups was taken.
    pub slots_exhausted: u64,
    /// Blame (ns) not recorded because the table of victim and culprit was full.
    pub blame_dropped_ns: u64,
    /// Blame (ns) on neighbours whose names the history of who ran no longer has.
    pub blame_unnamed_ns: u64,
    /// Switches from one task to another that the kernel did not tell of; where two follow each other, a wait and a run are
    /// in no figure. Expected to be 0; some kernels of virtual machines leave some out.
    pub switches_missed: u64,
    /// Stalls that are not in the time by the wall, because other CPUs ended stalls of the cgroup at that moment.
    pub stalls_unjoined: u64,
    /// Sleeps for memory or a disk that are in no figure, as two tasks that slept at once had one place in the table.
    pub sleeps_lost: u64,
    /// Pairs of victim and culprit taken out of the kernel's table to make room: they begin again at zero.
    pub pairs_evicted: u64,
    /// Readings in which not all pairs of victim and culprit could be read.
    pub pairs_unread: u64,
}

const SLOTS_EXHAUSTED: Loss = Loss::of_table(
    "slots_exhausted",
    "more cgroups run than the CPU probe has counters for, the others have no wait, stalls and \
     neighbours: raise `agent.max_cgroups`",
);
const SWITCH_MISSED: Loss = Loss::new("switch_missed");
const STALL_UNJOINED: Loss = Loss::new("stall_unjoined");
const SLEEP_LOST: Loss = Loss::new("sleep_lost");
const PAIR_EVICTED: Loss = Loss::of_table(
    "pair_evicted",
    "more pairs of cgroups keep each other waiting than the kernel's table holds, those with the least \
     wait begin again at zero: neighbours with little wait may go unnamed; there is no setting for it",
);
const PAIR_UNREAD: Loss = Loss::new("pair_unread");

/// The reasons it loses something for.
pub const LOSSES: &[Loss] =
    &[SLOTS_EXHAUSTED, SWITCH_MISSED, STALL_UNJOINED, SLEEP_LOST, PAIR_EVICTED, PAIR_UNREAD];

impl CpuLosses {
    /// By reason.
    pub fn by_reason(&self) -> [Lost; LOSSES.len()] {
        // Taken apart by name, so that a loss that is added cannot be forgotten here.
        let CpuLosses {
            slots_exhausted,
            blame_dropped_ns: _, // times, not counts: see `blame_ns`
            blame_unnamed_ns: _,
            switches_missed,
            stalls_unjoined,
            sleeps_lost,
            pairs_evicted,
            pairs_unread,
        } = *self;
        [
            SLOTS_EXHAUSTED.lost(slots_exhausted),
            SWITCH_MISSED.lost(switches_missed),
            STALL_UNJOINED.lost(stalls_unjoined),
            SLEEP_LOST.lost(sleeps_lost),
            PAIR_EVICTED.lost(pairs_evicted),
            PAIR_UNREAD.lost(pairs_unread),
        ]
    }

    /// Blame that has no name, ns.
    pub fn blame_ns(&self) -> u64 {
        self.blame_dropped_ns + self.blame_unnamed_ns
    }
}
