//! Who took a node's memory: of a node that is short, the workloads that grew most of late.

use std::sync::Arc;

use super::whisper::Neighbour;
use crate::attribution::Workload;
use crate::kernel::Instant;

/// Between two marks: growth is that of the last ten to twenty seconds, ns.
const MARK_EVERY: u64 = 10_000_000_000;
/// Who grew by less is not told of, bytes.
const MIN_GROWTH: u64 = 16 << 20;
/// As many are named.
const NAMED: usize = 5;

/// What a workload holds, and held at two moments before, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    now: Option<u64>,
    /// The older one first: when, and how much; `None`: it is not known, or was not yet.
    marks: [Option<(u64, u64)>; 2],
}

impl Marks {
    /// Of one that did not exist before, which began with nothing.
    pub fn of_new(at: Instant) -> Marks {
        Marks { now: None, marks: [Some((at.mono_ns, 0)); 2] }
    }

    pub fn note(&mut self, at: Instant, held: Option<u64>) {
        self.now = held;
        let Some(held) = held else { return };
        let [_, newer] = self.marks;
        if newer.is_none_or(|(noted, _)| at.mono_ns.saturating_sub(noted) >= MARK_EVERY) {
            self.marks = [newer.or(Some((at.mono_ns, held))), Some((at.mono_ns, held))];
        }
    }

    fn growth(&self) -> u64 {
        let [older, _] = self.marks;
        let grown = self.now.zip(older).map(|(now, (_, then))| now.saturating_sub(then));
        grown.unwrap_or_default()
    }
}

/// Those that grew most, each with its share of what all of them grew by, percent.
pub fn growers<'a>(all: impl Iterator<Item = (&'a Arc<Workload>, &'a Marks)>) -> Vec<Neighbour> {
    let grown = all.map(|(who, marks)| (marks.growth(), who)).filter(|(bytes, _)| *bytes >= MIN_GROWTH);
    let mut grown: Vec<_> = grown.filter(|(_, who)| !who.contains_others()).collect();
    grown.sort_by_key(|grown| std::cmp::Reverse(grown.0));
    let total: u64 = grown.iter().map(|(bytes, _)| bytes).sum();
    let named = grown.into_iter().take(NAMED);
    named
        .map(|(bytes, who)| Neighbour { who: who.clone(), percent: bytes as f64 / total as f64 * 100.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::testdata;

    const MIB: u64 = 1 << 20;

    fn at(second: u64) -> Instant {
        Instant { mono_ns: second * 1_000_000_000, unix_ns: 0 }
    }

    #[test]
    fn growth_is_that_of_the_last_ten_to_twenty_seconds() {
        let mut marks = Marks::default();
        for second in 0..=25 {
            marks.note(at(second), Some(second * MIB));
        }
        assert_eq!(marks.growth(), 15 * MIB, "since the tenth second");
        marks.note(at(26), Some(3 * MIB));
        assert_eq!(marks.growth(), 0, "it shrank");
        marks.note(at(27), None);
        assert_eq!(marks.growth(), 0, "unknown");
        let mut new = Marks::of_new(at(30));
        new.note(at(30), Some(50 * MIB));
        assert_eq!(new.growth(), 50 * MIB);
    }

    #[test]
    fn the_greatest_are_named_with_their_share() {
        let grew = |mib: u64| {
            let mut marks = Marks::of_new(at(0));
            marks.note(at(1), Some(mib * MIB));
            marks
        };
        let all: Vec<_> = [(0, 20), (1, 60), (2, 15), (3, 20)]
            .map(|(i, mib)| (testdata::unit(&format!("u{i}")), grew(mib)))
            .into();
        let told = growers(all.iter().map(|(who, marks)| (who, marks)));
        let told: Vec<_> = told.iter().map(|n| (n.who.label(), n.percent)).collect();
        assert_eq!(told, [("u1".into(), 60.0), ("u0".into(), 20.0), ("u3".into(), 20.0)]);
    }
}
