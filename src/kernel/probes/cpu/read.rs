//! A reading: the counters of every cgroup, added up over the CPUs it ran on, and who is to blame.

use libbpf_rs::MapCore;

use super::skel::types::{blame_key, cpu_state, pair};
use super::{BLAME_ENTRIES, CpuLosses, CpuProbe, SharedArray};
use crate::kernel::batch;
use crate::kernel::clock;
use crate::kernel::{Blame, Counter, CpuCounters, CpuReading, Log2Histogram};

/// A field of an entry that BPF programs write meanwhile.
macro_rules! field {
    ($array:expr, $entry:expr, $field:ident) => {
        // SAFETY: within a mapping, and aligned as the kernel aligns array values; volatile, as BPF programs write meanwhile.
        unsafe { (&raw const (*$array.at($entry)).$field).read_volatile() }
    };
}
pub(super) use field;

/// Tries to read the counters of a cgroup on a CPU and the run in progress there at one moment.
const TRIES: usize = 4;

/// Whose counters a pair's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whom {
    pub slot: u32,
    pub cpu: u32,
}

impl Whom {
    /// `None`: the pair is free.
    pub fn of(word: u64) -> Option<Whom> {
        Some(Whom { slot: (word >> 32) as u32, cpu: (word as u32).checked_sub(1)? })
    }
}

impl CpuProbe<'_> {
    /// Appends the counters of every cgroup seen, and who is to blame.
    pub fn read(&mut self, cpu: &mut Vec<CpuReading>, blame: &mut Vec<Blame>) {
        let now = clock::now();
        self.see_runs(now);
        let first = cpu.len();
        self.places.fill((0, 0));
        for number in 1..self.pairs.len() {
            let Some(whom) = Whom::of(self.pair_of_whom.get(number)) else {
                continue;
            };
            let id = self.slots.first_word(whom.slot as usize);
            if id == 0 || self.recycling.is_dying(whom.slot) {
                continue;
            }
            let victim = self.key(id);
            let one = self.pair_now(number as u32, whom.cpu as usize, now);
            let (place, longest) = &mut self.places[whom.slot as usize];
            if *place == 0 {
                let counters = self.recycling.retired(whom.slot);
                cpu.push(CpuReading { cgroup: victim, counters });
                *place = (cpu.len() - first) as u32;
            }
            let sum = &mut cpu[first + *place as usize - 1].counters;
            add(sum, &one);
            *longest = (*longest).max(one.throttled_per_cpu);
            self.recycling.saw(number as u32, one.switches);
            for (&culprit, &ns) in one.culprits.iter().zip(&one.blamed) {
                let culprit = self.slots.first_word(culprit as usize);
                if culprit != 0 {
                    blame.push(Blame { victim, culprit: self.key(culprit), ns, table: false });
                }
            }
        }
        for (slot, &(place, longest)) in self.places.iter().enumerate().filter(|(_, (place, _))| *place != 0)
        {
            let sum = &mut cpu[first + place as usize - 1].counters;
            sum.unattributed = sum.wait.saturating_sub(sum.throttle + sum.neighbour + sum.own);
            sum.disk = field!(self.slots, slot, disk);
            sum.refault = field!(self.slots, slot, refault);
            sum.reclaim_asleep = field!(self.slots, slot, reclaim);
            sum.high = field!(self.slots, slot, high);
            let memory = sum.refault + sum.reclaim_asleep + sum.high;
            sum.memory = self.options.memory_marked.then_some(memory);
            // The queues' clock may be slower by parts in a million: what was told once stays.
            sum.run = sum.run.max(self.told_run[slot]);
            self.told_run[slot] = sum.run;
            sum.throttled_full = field!(self.slots, slot, throttled_full);
            sum.throttled_wall =
                if self.options.atomics { field!(self.slots, slot, throttled_wall) } else { longest };
            sum.stall_histogram = Log2Histogram { counts: field!(self.slots, slot, stall_lengths) };
        }
        self.retired_blame(blame);
        self.read_blame(blame);
        self.recycle(now);
    }

    /// Takes note of the runs in progress. The queues' clock is no other's and cannot be asked, but it is one for all CPUs, and on
    /// the one that reads a run began just now: the latest beginning is the time by that clock, or a little less. From there on
    /// CLOCK_MONOTONIC, which may go at another pace (in a guest), says how long a run has gone on.
    fn see_runs(&mut self, now: u64) {
        let begun = |cpu| running(&self.cpus, cpu).start;
        let latest = (0..self.cpus.len()).map(begun).max().unwrap_or_default();
        // One that was not there at the last reading began after it.
        let most = now.saturating_sub(self.last_read);
        for (cpu, run) in self.runs.iter_mut().enumerate() {
            let start = running(&self.cpus, cpu).start;
            if run.start != start {
                *run = Run { start, seen: now, before: latest.saturating_sub(start).min(most) };
            }
        }
        self.last_read = now;
    }

    /// What was lost so far.
    pub fn losses(&self) -> CpuLosses {
        let mut losses = CpuLosses {
            pairs_evicted: self.pairs_evicted,
            pairs_unread: self.pairs_unread,
            ..CpuLosses::default()
        };
        for i in 0..self.cpus.len() {
            let lost = field!(self.cpus, i, losses);
            losses.slots_exhausted += lost.slots_exhausted;
            losses.blame_dropped_ns += lost.blame_dropped;
            losses.blame_unnamed_ns += lost.blame_unnamed;
            losses.switches_missed += lost.switches_missed;
            losses.stalls_unjoined += lost.stalls_unjoined;
            losses.sleeps_lost += lost.sleeps_lost;
        }
        losses
    }

    /// The counters of a pair with the run in progress on its CPU, as far as it is known. What it lacks comes with its end.
    pub(super) fn pair_now(&self, number: u32, cpu: usize, now: u64) -> pair {
        for _ in 0..TRIES {
            let before = running(&self.cpus, cpu);
            let mut one = self.pairs.get(number as usize);
            if running(&self.cpus, cpu) == before {
                let run = self.runs[cpu];
                if before.pair == number && before.start == run.start {
                    one.run += run.before + now.saturating_sub(run.seen);
                }
                return one;
            }
        }
        self.pairs.get(number as usize)
    }

    /// Reads the blame table.
    fn read_blame(&mut self, out: &mut Vec<Blame>) {
        let read = batch::read(&self.skel.maps.blame, &mut self.blame_keys, &mut self.blame_values);
        let found = read.entries;
        self.pairs_unread += u64::from(!read.whole);
        for (key, ns) in self.blame_keys[..found].iter().zip(&self.blame_values) {
            let victim = self.slots.first_word(key.victim as usize);
            let culprit = self.slots.first_word(key.culprit as usize);
            if victim != 0 && culprit != 0 && !self.recycling.is_dying(key.victim) {
                let (victim, culprit) = (self.key(victim), self.key(culprit));
                out.push(Blame { victim, culprit, ns: *ns, table: true });
            }
        }
        // Room for new pairs: the least of the old ones go. A pair that comes back starts from zero.
        if found > BLAME_ENTRIES as usize * 3 / 4 {
            let mut sorted = self.blame_values[..found].to_vec();
            let (_, median, _) = sorted.select_nth_unstable(found / 2);
            let median = *median;
            self.pairs_evicted += self.forget_blame(found, |_, ns| ns <= median);
        }
    }

    /// Deletes pairs among the `found` last read; how many. Failing is harmless: the table stays fuller.
    pub(super) fn forget_blame(&self, found: usize, which: impl Fn(&blame_key, u64) -> bool) -> u64 {
        let mut forgotten = 0;
        for (key, ns) in self.blame_keys[..found].iter().zip(&self.blame_values) {
            if which(key, *ns) {
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&key.victim.to_ne_bytes());
                bytes[4..].copy_from_slice(&key.culprit.to_ne_bytes());
                forgotten += u64::from(self.skel.maps.blame.delete(&bytes).is_ok());
            }
        }
        forgotten
    }
}

/// The run in progress on a CPU.
fn running(cpus: &SharedArray<cpu_state>, cpu: usize) -> Running {
    let start = field!(cpus, cpu, start);
    if start != 0 {
        return Running { start, pair: field!(cpus, cpu, pair) };
    }
    Running { start: field!(cpus, cpu, primed_start), pair: field!(cpus, cpu, primed_pair) }
}

/// What a reading first saw of a run in progress, ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// By the queues' clock.
    start: u64,
    /// By CLOCK_MONOTONIC.
    seen: u64,
    /// How long it had gone on then.
    before: u64,
}

/// A run in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    start: u64,
    /// 0: nobody's that is known.
    pair: u32,
}

/// Adds what a cgroup did on one CPU.
pub(super) fn add(sum: &mut CpuCounters, one: &pair) {
    sum.run += one.run;
    sum.wait += one.wait;
    sum.throttle += one.throttle;
    sum.neighbour += one.neighbour;
    sum.own += one.own;
    sum.switches += one.switches;
    sum.stalls += one.stalls;
    sum.throttled_per_cpu += one.throttled_per_cpu;
    sum.waited += one.waited;
    sum.interrupted += one.taken.saturating_sub(one.stolen);
    sum.stolen += one.stolen;
    sum.wait_histogram.add(&Log2Histogram { counts: one.waits });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_whose_counters_they_are() {
        assert_eq!(Whom::of(0), None);
        assert_eq!(Whom::of(7 << 32 | 1), Some(Whom { slot: 7, cpu: 0 }));
        assert_eq!(Whom::of(4096 << 32 | 512), Some(Whom { slot: 4096, cpu: 511 }));
    }
}
