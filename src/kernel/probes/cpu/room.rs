//! How much the CPU probe can count at a time, and what that takes.

use super::skel::types::{cpu_state, pair, slot_all};

/// Up to here `max_cgroups` is a bound; what is beyond, somebody has asked for.
pub const DEFAULT_CGROUPS: u32 = 4096;
/// What `max_cgroups` may be at most.
pub const MAX_CGROUPS: u32 = 1 << 16;
/// Pairs of cgroup and CPU, unless more cgroups than by default are asked for: 9 MB. Fewer where there are fewer CPUs.
const PAIRS: u32 = 12 * 1024;

/// Entries of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Cgroups, and one that is never handed out.
    pub slots: u32,
    /// Cgroups on CPUs they ran on lately, and one that is never handed out.
    pub pairs: u32,
    /// The highest possible CPU's number, and one.
    pub cpus: u32,
}

impl Room {
    /// For so many cgroups on CPUs numbered below `cpus`. A cgroup has counters for the CPUs it ran on lately: the room for
    /// these does not grow with how many CPUs there could be.
    #[must_use]
    pub fn of(max_cgroups: u32, cpus: u32) -> Room {
        let usual = u64::from(PAIRS).max(u64::from(max_cgroups) * PAIRS as u64 / DEFAULT_CGROUPS as u64);
        let most = u64::from(max_cgroups) * u64::from(cpus);
        Room { slots: max_cgroups + 1, pairs: most.min(usual) as u32 + 1, cpus }
    }

    /// What the counters take, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots as usize * size_of::<slot_all>()
            + self.pairs as usize * size_of::<pair>()
            + self.cpus as usize * size_of::<cpu_state>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fit_their_memory_on_every_machine() {
        for (cpus, pairs) in [(1, 4096), (2, 8192), (3, 12288), (16, 12288), (512, 12288), (4096, 12288)] {
            let room = Room::of(DEFAULT_CGROUPS, cpus);
            assert_eq!((room.slots, room.pairs), (4097, pairs + 1), "{cpus} CPUs");
        }
        assert_eq!(Room::of(64, 256).pairs, 12289);
        assert_eq!(Room::of(64, 2).pairs, 129);
        assert_eq!(Room::of(MAX_CGROUPS, 256).pairs, 16 * 12288 + 1, "as asked for");
        let large = Room::of(DEFAULT_CGROUPS, 128).bytes();
        // With what does not depend on either, 20 MB: tests/kernel/measured/possible.rs asks the kernel.
        assert!(large < 15_500_000, "{large} bytes, for 1,000 cgroups on 128 CPUs");
    }
}
