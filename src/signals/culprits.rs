//! Who kept one workload from the CPU, over the same slots as its [`super::window::Window`].

use foldhash::HashMap;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::whisper::Neighbour;
use crate::attribution::Workload;

/// Samples kept per window, of culprits as of counters. With the spacing of [`Window::advance`](super::window::Window::advance)
/// they always reach back one whole window, whatever the interval.
pub const SLOTS: usize = 16;

/// Culprits kept per workload; further ones are counted by the caller. The kernel's own table of
/// victims and culprits is bounded too; this only keeps one victim from taking all memory.
const MAX: usize = 512;

/// Culprits a whisper names.
const NAMED: usize = 5;

/// A workload as a key: what names it is its cgroup's path, whatever else becomes known of it.
#[derive(Clone, Debug)]
pub struct ByPath(pub Arc<Workload>);

impl Borrow<str> for ByPath {
    fn borrow(&self) -> &str {
        &self.0.cgroup
    }
}

impl Hash for ByPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.cgroup.hash(state);
    }
}

impl PartialEq for ByPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.cgroup == other.0.cgroup
    }
}

impl Eq for ByPath {}

#[derive(Debug)]
struct Culprit {
    who: Arc<Workload>,
    /// The total now, and at each slot, ns.
    total: u64,
    at_slot: [u64; SLOTS],
    /// Marks since it was last heard of.
    silent: usize,
}

#[derive(Debug, Default)]
pub struct Culprits {
    by_path: HashMap<ByPath, Culprit>,
}

impl Culprits {
    /// Takes the total, ns, blamed on `who` so far. False if there is no room for it.
    ///
    /// One not heard of before is taken to begin at zero if all of `total` fits in what the victim
    /// waited since the last mark (`fresh`), else at `total`: what it did before is unknown.
    pub fn record(&mut self, who: &Arc<Workload>, total: u64, fresh: u64) -> bool {
        if let Some(known) = self.by_path.get_mut(who.cgroup.as_str()) {
            if !Arc::ptr_eq(&known.who, who) {
                known.who = who.clone();
            }
            if total < known.total {
                known.at_slot = [total; SLOTS];
            }
            known.total = total;
            known.silent = 0;
            return true;
        }
        if self.by_path.len() >= MAX {
            return false;
        }
        let start = if total <= fresh { 0 } else { total };
        let culprit = Culprit { who: who.clone(), total, at_slot: [start; SLOTS], silent: 0 };
        self.by_path.insert(ByPath(who.clone()), culprit);
        true
    }

    /// The window keeps a sample at `slot`; those not heard of for a whole window are forgotten.
    pub fn mark(&mut self, slot: usize) {
        self.by_path.retain(|_, culprit| {
            culprit.at_slot[slot] = culprit.total;
            culprit.silent += 1;
            culprit.silent <= SLOTS
        });
    }

    /// Fills in those blamed most since `slot`, in percent of `seconds`.
    pub fn top(&self, slot: usize, seconds: f64, out: &mut Vec<Neighbour>) {
        out.clear();
        for culprit in self.by_path.values() {
            let ns = culprit.total - culprit.at_slot[slot];
            let percent = ns as f64 / 1e9 / seconds * 100.0;
            let rank = out.partition_point(|n| n.percent >= percent);
            if ns > 0 && rank < NAMED {
                out.truncate(NAMED - 1);
                out.insert(rank, Neighbour { who: culprit.who.clone(), percent });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::tests::container;

    fn share(culprits: &Culprits, slot: usize) -> Vec<f64> {
        let mut out = Vec::new();
        culprits.top(slot, 1.0, &mut out);
        out.iter().map(|n| n.percent).collect()
    }

    #[test]
    fn a_total_that_shrank_counts_from_there() {
        let mut culprits = Culprits::default();
        let who = container("/a");
        culprits.record(&who, 900_000_000, 0);
        culprits.mark(0);
        culprits.record(&who, 100_000_000, 0);
        assert!(share(&culprits, 0).is_empty());
        culprits.record(&who, 300_000_000, 0);
        assert_eq!(share(&culprits, 0), [20.0]);
    }

    #[test]
    fn those_not_heard_of_are_forgotten_and_their_number_is_bounded() {
        let mut culprits = Culprits::default();
        let all: Vec<_> = (0..=MAX).map(|i| container(&format!("/{i}"))).collect();
        let kept = all.iter().filter(|who| culprits.record(who, 1, 1)).count();
        assert_eq!(kept, MAX);
        for slot in 0..SLOTS {
            culprits.mark(slot);
            culprits.record(&all[0], 1, 0);
        }
        assert_eq!(culprits.by_path.len(), MAX, "not yet");
        culprits.mark(0);
        assert_eq!(culprits.by_path.len(), 1, "a whole window later");
    }
}
