//! Cgroups that have numbers and no path yet.

use foldhash::HashSet;
use std::time::Duration;

use crate::kernel::CgroupKey;
use crate::kernel::clock::Every;

/// One that was not read of for this long, and no longer than twice that, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Counts each cgroup once, in however many readings it is.
#[derive(Debug)]
pub struct Unresolved {
    count: u64,
    /// Those of the last minute, and of the one before.
    recent: HashSet<CgroupKey>,
    before: HashSet<CgroupKey>,
    turn: Every,
}

impl Default for Unresolved {
    fn default() -> Self {
        let (recent, before) = (HashSet::default(), HashSet::default());
        Unresolved { count: 0, recent, before, turn: Every::new(FORGET_AFTER) }
    }
}

impl Unresolved {
    /// Kept at a time; beyond that some may be counted again.
    const MAX: usize = 16_384;

    /// A reading begins at `now` (CLOCK_MONOTONIC, ns).
    pub fn begin(&mut self, now: u64) {
        if self.turn.due(now) {
            self.before = std::mem::take(&mut self.recent);
        }
    }

    /// The reading has numbers of this cgroup, and nobody told its path.
    pub fn note(&mut self, cgroup: CgroupKey) {
        if self.recent.len() >= Self::MAX {
            self.before = std::mem::take(&mut self.recent);
        }
        if self.recent.insert(cgroup) && !self.before.contains(&cgroup) {
            self.count += 1;
        }
    }

    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Hierarchy;

    const SECOND: u64 = 1_000_000_000;

    fn cgroup(id: u64) -> CgroupKey {
        CgroupKey { hierarchy: Hierarchy::Unified, id }
    }

    /// One burst of 1,000 short cgroups was 240,000 on 0.1.0: 2,000 a second for the two minutes until the probe
    /// forgot them.
    #[test]
    fn cgroups_are_counted_and_not_readings() {
        let mut unresolved = Unresolved::default();
        for second in 0..120 {
            unresolved.begin(second * SECOND);
            for id in 0..1000 {
                unresolved.note(cgroup(id));
                unresolved.note(cgroup(id));
            }
        }
        assert_eq!(unresolved.count(), 1000);
        // What is over takes no memory.
        (120..300).for_each(|second| unresolved.begin(second * SECOND));
        assert_eq!(unresolved.recent.len() + unresolved.before.len(), 0);
        unresolved.note(cgroup(1000));
        assert_eq!(unresolved.count(), 1001);
    }

    #[test]
    fn memory_is_bounded() {
        let mut unresolved = Unresolved::default();
        (0..100_000).for_each(|id| unresolved.note(cgroup(id)));
        assert_eq!(unresolved.count(), 100_000);
        assert!(unresolved.recent.len() + unresolved.before.len() <= 2 * Unresolved::MAX);
    }
}
