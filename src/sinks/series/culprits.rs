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

/// A neighbour the kernel no longer blames is forgotten after this, ns; as long as a workload that is gone is published,
/// so that a scrape a minute sees its end.
pub const FORGET_AFTER: u64 = 60_000_000_000;

/// One series: wait blamed on one neighbour since it was named. A container and the one that took its place are one
/// neighbour, as they bear one name.
#[derive(Clone, Debug)]
pub struct Share {
    pub who: Arc<Workload>,
    pub ns: u64,
    /// The series began, ns since the Unix epoch.
    pub since: u64,
    recent: Recent,
}

/// Growth of late, ns, older growth counting less.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    ns: f64,
    /// Monotonic time it was last brought up to date, ns.
    at: u64,
}

impl Recent {
    fn grow(&mut self, growth: u64, now: Moment) {
        if self.at != now.mono {
            self.ns *= now.decay;
            self.at = now.mono;
        }
        self.ns += growth as f64;
    }
}

/// All neighbours without a series of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    pub ns: u64,
    pub since: u64,
}

/// What the kernel blames on one cgroup.
#[derive(Debug)]
struct Pair {
    who: Arc<Workload>,
    /// The kernel's cumulative total, ns.
    total: u64,
    recent: Recent,
    /// Monotonic time it was last heard of, ns.
    heard: u64,
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
            None => self.pairs.entry(who.cgroup.clone()).or_insert_with(|| Pair {
                who: who.clone(),
                total: 0,
                recent: Recent::default(),
                heard: now.mono,
            }),
        };
        // A total that shrank is a new cgroup of the same path.
        let growth = total.checked_sub(pair.total).unwrap_or(total);
        pair.total = total;
        pair.recent.grow(growth, now);
        pair.heard = now.mono;
        let recent = pair.recent.ns;
        if !Arc::ptr_eq(&pair.who, who) {
            pair.who = who.clone();
            self.rename(who);
        }
        if growth == 0 {
            return;
        }
        if let Some(share) = self.named.iter_mut().find(|share| share.who.is_called_like(who)) {
            share.ns += growth;
            share.recent.grow(growth, now);
        } else if self.named.len() < NAMED || self.make_room(recent, now) {
            let recent = Recent { ns: recent, at: now.mono };
            self.named.push(Share { who: who.clone(), ns: growth, since: now.before, recent });
        } else {
            self.rest.get_or_insert(Rest { ns: 0, since: now.before }).ns += growth;
        }
    }

    /// The series of a neighbour of which more is known now bears its new name; where another has that already, the
    /// two are one from here on.
    fn rename(&mut self, who: &Arc<Workload>) {
        let Some(at) = self.named.iter().position(|share| share.who.cgroup == who.cgroup) else { return };
        let other = self.named.iter().enumerate();
        let other =
            other.filter(|(i, share)| *i != at && share.who.is_called_like(who)).map(|(i, _)| i).next();
        match other {
            Some(other) => {
                let Share { ns, recent, since, .. } = self.named[at];
                let into = &mut self.named[other];
                into.ns += ns;
                into.recent.ns += recent.ns;
                into.since = into.since.min(since);
                self.named.swap_remove(at);
            }
            None => self.named[at].who = who.clone(),
        }
    }

    /// Ends the series of the named neighbour that grows least, if a newcomer grows clearly more.
    fn make_room(&mut self, newcomer: f64, now: Moment) -> bool {
        if now.mono.saturating_sub(self.replaced) < REPLACE_EVERY {
            return false;
        }
        let least = self.named.iter().enumerate().min_by(|a, b| a.1.recent.ns.total_cmp(&b.1.recent.ns));
        let Some((i, share)) = least else { return false };
        if share.recent.ns * CLEARLY_MORE > newcomer {
            return false;
        }
        self.named.swap_remove(i);
        self.replaced = now.mono;
        true
    }

    /// Forgets those the kernel has not blamed for long.
    pub fn forget(&mut self, now: Moment) {
        let before = self.pairs.len();
        self.pairs.retain(|_, pair| now.mono.saturating_sub(pair.heard) <= FORGET_AFTER);
        if self.pairs.len() < before {
            let pairs = &self.pairs;
            self.named.retain(|share| pairs.values().any(|pair| pair.who.is_called_like(&share.who)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::testdata::{container, second};

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
        // The one it replaced starts over when it is named again; meanwhile it counts with the rest.
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

    /// A container that was started again has the names of the one before: to a reader of names they are one.
    #[test]
    fn a_neighbour_and_its_successor_are_one_series_that_only_grows() {
        let old = container("default", "noisy", "main");
        let mut new = Workload::clone(&old);
        new.cgroup += "-again";
        // At first only its path is known.
        let unnamed = Workload { namespace: None, pod: None, pod_uid: None, container: None, ..new.clone() };
        let (new, unnamed) = (Arc::new(new), Arc::new(unnamed));
        let mut culprits = Culprits::default();
        culprits.record(&old, 5000, moment(1));
        culprits.record(&unnamed, 300, moment(2));
        assert_eq!(culprits.named().len(), 2);
        let mut before = 0;
        for (s, total) in [(3, 300), (4, 1300), (100, 2300)] {
            culprits.record(&new, total, moment(s));
            culprits.forget(moment(s));
            assert_eq!(culprits.named().len(), 1, "{s}: {:?}", culprits.named());
            assert_eq!(published(&culprits), 5000 + total);
            assert!(published(&culprits) >= before);
            before = published(&culprits);
        }
        assert_eq!(culprits.named()[0].since, second(1000), "since the first of them");
    }
}
