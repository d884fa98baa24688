//! The neighbours of one workload as a bounded number of series: the greatest by name, the rest as one.

use foldhash::HashMap;
use std::sync::Arc;

use crate::attribution::Workload;

/// Neighbours of one workload with a series of their own.
pub const NAMED: usize = 8;

/// A newcomer takes the place of a named neighbour that grows less than this many times slower.
const CLEARLY_MORE: f64 = 2.0;

/// Between two such replacements for one workload, ns: this bounds how many series a day begins.
const REPLACE_EVERY: u64 = 60_000_000_000;

/// A neighbour the kernel no longer blames is forgotten after this, ns; as long as a workload that is gone.
const FORGET_AFTER: u64 = super::ledger::KEEP_DEPARTED;

/// One series: wait blamed on one neighbour since it was named.
#[derive(Clone, Debug)]
pub struct Share {
    pub who: Arc<Workload>,
    pub ns: u64,
    /// The series began, ns since the Unix epoch.
    pub since: u64,
}

/// All neighbours without a series of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    pub ns: u64,
    pub since: u64,
}

/// What the kernel blames on one neighbour.
#[derive(Debug)]
struct Pair {
    /// The kernel's cumulative total, ns.
    total: u64,
    /// Growth of late, ns, older growth counting less.
    recent: f64,
    /// Monotonic time it was last heard of, ns.
    heard: u64,
    named: bool,
}

/// The moment of a reading, and of the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub mono: u64,
    /// Unix time of the reading before: where counters first seen now can have begun.
    pub before: u64,
    /// How much of the recent growth until the reading before still counts, 0..=1.
    pub decay: f64,
}

/// The neighbours of one workload.
#[derive(Debug, Default)]
pub struct Culprits {
    pairs: HashMap<String, Pair>,
    named: Vec<Share>,
    rest: Option<Rest>,
    replaced: u64,
}

impl Culprits {
    /// The series, greatest first in no order.
    pub fn named(&self) -> &[Share] {
        &self.named
    }

    /// The rest; `None` as long as all have a series of their own.
    pub fn rest(&self) -> Option<Rest> {
        self.rest
    }

    /// Takes the kernel's total, ns, of what is blamed on `who`.
    pub fn record(&mut self, who: &Arc<Workload>, total: u64, now: Moment) {
        let pair = match self.pairs.get_mut(who.cgroup.as_str()) {
            Some(pair) => pair,
            None => self.pairs.entry(who.cgroup.clone()).or_insert(Pair {
                total: 0,
                recent: 0.0,
                heard: now.mono,
                named: false,
            }),
        };
        // A total that shrank is a new cgroup of the same path.
        let growth = total.checked_sub(pair.total).unwrap_or(total);
        pair.total = total;
        pair.recent = pair.recent * now.decay + growth as f64;
        pair.heard = now.mono;
        if pair.named {
            if let Some(share) = self.named.iter_mut().find(|s| s.who.cgroup == who.cgroup) {
                share.ns += growth;
                if !Arc::ptr_eq(&share.who, who) {
                    share.who = who.clone();
                }
            }
            return;
        }
        if growth == 0 {
            return;
        }
        let recent = pair.recent;
        if self.named.len() < NAMED || self.make_room(recent, now) {
            self.named.push(Share { who: who.clone(), ns: growth, since: now.before });
            if let Some(pair) = self.pairs.get_mut(who.cgroup.as_str()) {
                pair.named = true;
            }
        } else {
            self.rest.get_or_insert(Rest { ns: 0, since: now.before }).ns += growth;
        }
    }

    /// Ends the series of the named neighbour that grows least, if a newcomer grows clearly more.
    fn make_room(&mut self, newcomer: f64, now: Moment) -> bool {
        if now.mono.saturating_sub(self.replaced) < REPLACE_EVERY {
            return false;
        }
        let recent = |s: &Share| self.pairs.get(s.who.cgroup.as_str()).map_or(0.0, |p| p.recent);
        let least = self.named.iter().enumerate().min_by(|a, b| recent(a.1).total_cmp(&recent(b.1)));
        let Some((i, share)) = least else { return false };
        if recent(share) * CLEARLY_MORE > newcomer {
            return false;
        }
        let ended = self.named.swap_remove(i);
        if let Some(pair) = self.pairs.get_mut(ended.who.cgroup.as_str()) {
            pair.named = false;
        }
        self.replaced = now.mono;
        true
    }

    /// Forgets those the kernel has not blamed for long.
    pub fn forget(&mut self, now: Moment) {
        self.pairs.retain(|_, pair| now.mono.saturating_sub(pair.heard) <= FORGET_AFTER);
        self.named.retain(|share| self.pairs.contains_key(share.who.cgroup.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{container, second};
    use super::*;

    fn moment(s: u64) -> Moment {
        Moment { mono: second(s), before: second(1000 + s - 1), decay: 0.9 }
    }

    fn neighbours(n: usize) -> Vec<Arc<Workload>> {
        (0..n).map(|i| container("default", &format!("noisy-{i}"), "main")).collect()
    }

    fn published(culprits: &Culprits) -> u64 {
        culprits.named().iter().map(|s| s.ns).sum::<u64>() + culprits.rest().map_or(0, |r| r.ns)
    }

    #[test]
    fn the_first_have_a_series_each_and_the_rest_one_together() {
        let all = neighbours(NAMED + 3);
        let mut culprits = Culprits::default();
        for s in 1..10 {
            for who in &all {
                culprits.record(who, s * 1000, moment(s));
            }
        }
        assert_eq!(culprits.named().len(), NAMED);
        assert_eq!(culprits.rest().map(|r| (r.ns, r.since)), Some((3 * 9000, second(1000))));
        assert_eq!(published(&culprits), (NAMED as u64 + 3) * 9000, "nothing is lost");
    }

    #[test]
    fn a_newcomer_that_takes_clearly_more_is_named_and_nothing_shrinks() {
        let all = neighbours(NAMED + 1);
        let mut culprits = Culprits::default();
        for s in 100..110 {
            for who in &all[..NAMED] {
                culprits.record(who, (s - 99) * 1000, moment(s));
            }
        }
        culprits.record(&all[NAMED], 1_000_000, moment(110));
        let newcomer = culprits.named().iter().find(|s| Arc::ptr_eq(&s.who, &all[NAMED])).expect("named");
        assert_eq!((newcomer.ns, newcomer.since), (1_000_000, second(1109)));
        assert_eq!(culprits.named().len(), NAMED);
        assert!(culprits.rest().is_none());
        // The one it replaced begins anew when it is named again; meanwhile it counts with the rest.
        let gone = all[..NAMED].iter().find(|w| !culprits.named().iter().any(|s| Arc::ptr_eq(&s.who, w)));
        culprits.record(gone.expect("one gave way"), 11_000, moment(111));
        assert_eq!(culprits.rest().map(|r| r.ns), Some(1000));
    }

    #[test]
    fn replacements_are_rare() {
        let all = neighbours(NAMED + 20);
        let mut culprits = Culprits::default();
        for s in 100..160 {
            for (i, who) in all.iter().enumerate() {
                // Whoever is not named grows a hundred times faster in this second.
                let fast = !culprits.named().iter().any(|n| n.who.cgroup == who.cgroup);
                let total = culprits.pairs.get(who.cgroup.as_str()).map_or(0, |p| p.total);
                culprits.record(who, total + if fast { 100_000 } else { 1000 + i as u64 }, moment(s));
            }
        }
        let begun: Vec<_> = culprits.named().iter().filter(|s| s.since > second(1099)).collect();
        assert!(begun.len() <= 2, "{} series began within a minute", begun.len());
    }

    #[test]
    fn a_restarted_neighbour_counts_from_zero_and_a_silent_one_is_forgotten() {
        let all = neighbours(2);
        let mut culprits = Culprits::default();
        culprits.record(&all[0], 5000, moment(1));
        culprits.record(&all[0], 300, moment(2));
        culprits.record(&all[1], 1, moment(2));
        assert_eq!(culprits.named()[0].ns, 5300);
        let late = Moment { mono: second(2) + FORGET_AFTER, ..moment(2) };
        culprits.record(&all[1], 2, late);
        culprits.forget(Moment { mono: late.mono + 1, ..late });
        assert_eq!(culprits.named().len(), 1);
        assert_eq!(culprits.named()[0].who.pod.as_deref(), Some("noisy-1"));
    }
}
