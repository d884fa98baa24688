//! Room given to others: the counters of a cgroup that is gone, and of one on a CPU it has long not run on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapMut};

use super::read::{Whom, add, field};
use super::room::Room;
use super::{CgroupKey, CpuCounters, CpuProbe};
use crate::kernel::Blame;

const SECOND: u64 = 1_000_000_000;
/// A cgroup that was not stalled for so long is no longer watched for gaps between its runs, ns.
const UNLIMITED_AFTER: u64 = 60 * SECOND;
/// What share of the pairs may be in use before idle ones are given to others, and how long idle: ns.
const PRESSURE: [(u32, u64); 2] = [(15, 2 * SECOND), (12, 20 * SECOND)];

/// What rests, and what was taken from where.
#[derive(Debug)]
pub(super) struct Recycling {
    /// Slots whose cgroup is gone: when they may be used again.
    dying: HashMap<u32, u64>,
    /// Pairs that nothing finds any more: when they may be used again.
    resting: HashMap<u32, u64>,
    /// By slot: what its cgroup did on CPUs whose counters others have now.
    retired: HashMap<u32, CpuCounters>,
    /// By victim and culprit: likewise.
    blamed: HashMap<(u32, u32), u64>,
    /// By pair: its switches and since when they are so many.
    idle: Vec<(u64, u64)>,
    /// Limited slots: their throttled time by the wall, and since when it is so much.
    limited: HashMap<u32, (u64, u64)>,
    used: u32,
    now: u64,
}

impl Recycling {
    pub fn new(room: &Room) -> Self {
        Recycling {
            dying: HashMap::new(),
            resting: HashMap::new(),
            retired: HashMap::new(),
            blamed: HashMap::new(),
            idle: vec![(0, 0); room.pairs as usize],
            limited: HashMap::new(),
            used: 0,
            now: 0,
        }
    }

    /// The cgroup of a slot is gone.
    pub fn is_dying(&self, slot: u32) -> bool {
        self.dying.contains_key(&slot)
    }

    /// What a slot's cgroup did on CPUs whose counters others have now.
    pub fn retired(&self, slot: u32) -> CpuCounters {
        self.retired.get(&slot).copied().unwrap_or_default()
    }

    /// A pair in use was read.
    pub fn saw(&mut self, pair: u32, switches: u64) {
        self.used += 1;
        let (seen, since) = &mut self.idle[pair as usize];
        if *seen != switches {
            (*seen, *since) = (switches, self.now);
        }
    }
}

impl CpuProbe<'_> {
    /// Appends the blame that was beside counters others have now.
    pub(super) fn retired_blame(&self, out: &mut Vec<Blame>) {
        for (&(victim, culprit), &ns) in &self.recycling.blamed {
            let ids = [victim, culprit].map(|slot| self.slots.first_word(slot as usize));
            if !ids.contains(&0) && !self.recycling.is_dying(victim) {
                let [victim, culprit] = ids.map(|id| self.key(id));
                out.push(Blame { victim, culprit, ns, table: false });
            }
        }
    }

    /// The cgroup is gone: after this its counters are no longer read, and they are given to others
    /// once nothing can refer to them.
    pub fn forget(&mut self, cgroup: CgroupKey) {
        if cgroup.hierarchy != self.options.hierarchy {
            return;
        }
        let key = cgroup.id.to_ne_bytes();
        let map = &self.skel.maps.slot_of_cgroup;
        let Ok(Some(slot)) = map.lookup(&key, MapFlags::ANY) else {
            return; // it never had a task
        };
        let Ok(slot) = <[u8; 4]>::try_from(slot.as_slice()) else {
            return;
        };
        let _ = map.delete(&key);
        let slot = u32::from_ne_bytes(slot);
        let due = self.recycling.now + self.options.rest.as_nanos() as u64;
        self.recycling.dying.insert(slot, due);
        for number in 1..self.pair_of_whom.len() as u32 {
            if let Some(whom) = self.whom(number).filter(|whom| whom.slot == slot) {
                self.rest(number, whom, due);
            }
        }
    }

    fn whom(&self, pair: u32) -> Option<Whom> {
        Whom::of(self.pair_of_whom.get(pair as usize))
    }

    /// Lets nothing find a pair any more.
    fn rest(&mut self, number: u32, whom: Whom, due: u64) {
        let id = self.slots.first_word(whom.slot as usize);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&id.to_ne_bytes());
        key[8..12].copy_from_slice(&whom.cpu.to_ne_bytes());
        let _ = self.skel.maps.pair_of.delete(&key);
        let cpu = self.cpus.at(whom.cpu as usize);
        // SAFETY: within the mapping, and aligned as the kernel aligns array values. A program that finds no pair here
        // looks for it.
        let forget = |place: *mut u32| unsafe {
            let _ =
                AtomicU32::from_ptr(place).compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
        };
        for i in 0..field!(self.cpus, whom.cpu as usize, known).len() {
            // SAFETY: as above.
            forget(unsafe { &raw mut (*cpu).known[i].pair });
        }
        // SAFETY: as above.
        forget(unsafe { &raw mut (*cpu).last.pair });
        self.recycling.resting.insert(number, due);
    }

    /// Gives what has rested to others, and lets rest what is idle if there is little room. `now`: CLOCK_MONOTONIC, ns.
    pub(super) fn recycle(&mut self, now: u64) {
        self.recycling.now = now;
        let used = std::mem::take(&mut self.recycling.used);
        let due = |(&entry, &at): (&u32, &u64)| (at <= now).then_some(entry);
        let pairs: Vec<u32> = self.recycling.resting.iter().filter_map(due).collect();
        let slots: HashSet<u32> = self.recycling.dying.iter().filter_map(due).collect();
        for number in pairs {
            self.release(number, now);
        }
        if !slots.is_empty() {
            self.release_slots(&slots);
        }
        self.let_idle_rest(used, now);
        self.unlimit(now);
    }

    fn let_idle_rest(&mut self, used: u32, now: u64) {
        let room = self.pairs.len() as u32;
        let Some(&(_, idle)) = PRESSURE.iter().find(|(sixteenths, _)| used > room / 16 * sixteenths) else {
            return;
        };
        for number in 1..room {
            let (_, since) = self.recycling.idle[number as usize];
            if now.saturating_sub(since) < idle || self.recycling.resting.contains_key(&number) {
                continue;
            }
            let Some(whom) = self.whom(number).filter(|whom| !self.recycling.is_dying(whom.slot)) else {
                continue;
            };
            if field!(self.cpus, whom.cpu as usize, pair) != number {
                // Nothing is in its history that matters: two seconds for a program that has it in hand.
                self.rest(number, whom, now + 2 * SECOND);
            }
        }
    }

    /// Takes over what a pair has counted, and lets others have it.
    fn release(&mut self, number: u32, now: u64) {
        self.recycling.resting.remove(&number);
        let Some(whom) = self.whom(number) else {
            return;
        };
        if !self.recycling.is_dying(whom.slot) {
            let one = self.pair_now(number, whom.cpu as usize, now);
            add(self.recycling.retired.entry(whom.slot).or_default(), &one);
            for (&culprit, &ns) in one.culprits.iter().zip(&one.blamed).filter(|(culprit, _)| **culprit != 0)
            {
                *self.recycling.blamed.entry((whom.slot, culprit)).or_default() += ns;
            }
        }
        self.recycling.idle[number as usize] = (0, now);
        let maps = &self.skel.maps;
        let free = zero(&maps.pair_of_whom, number)
            .and_then(|()| zero(&maps.pairs, number))
            .and_then(|()| maps.free_pairs.update(&[], &number.to_ne_bytes(), MapFlags::ANY));
        if let Err(error) = free {
            tracing::debug!("cpu probe: the counters of a cgroup on a CPU stay unused: {error}");
        }
    }

    fn release_slots(&mut self, due: &HashSet<u32>) {
        let found = self.blame_keys.len();
        self.forget_blame(found, |key, _| due.contains(&key.victim) || due.contains(&key.culprit));
        self.free_places(due);
        self.recycling.retired.retain(|slot, _| !due.contains(slot));
        self.recycling.blamed.retain(|(victim, culprit), _| !due.contains(victim) && !due.contains(culprit));
        self.recycling.limited.retain(|slot, _| !due.contains(slot));
        for &slot in due {
            let maps = &self.skel.maps;
            let free = zero(&maps.slots, slot)
                .and_then(|()| maps.free_slots.update(&[], &slot.to_ne_bytes(), MapFlags::ANY));
            if free.is_ok() {
                self.told_run[slot as usize] = 0;
                self.recycling.dying.remove(&slot);
            }
        }
    }

    /// Frees the places beside their victims' counters that these have.
    fn free_places(&self, due: &HashSet<u32>) {
        for number in (1..self.pairs.len()).filter(|&n| self.pair_of_whom.get(n) != 0) {
            let culprits = field!(self.pairs, number, culprits);
            for (place, _) in culprits.iter().enumerate().filter(|(_, culprit)| due.contains(culprit)) {
                let one = self.pairs.at(number);
                // SAFETY: within the mapping, and aligned as the kernel aligns array values, to 8 bytes. A program adds to
                // the sum only where a culprit runs, which these do not, and takes a place once it is free, which it is last.
                unsafe {
                    AtomicU64::from_ptr(&raw mut (*one).blamed[place]).store(0, Ordering::Relaxed);
                    AtomicU32::from_ptr(&raw mut (*one).culprits[place]).store(0, Ordering::Release);
                }
            }
        }
    }

    /// Whether any CPU runs a cgroup is kept track of only while it is stalled now and then: that takes a line of memory which
    /// all CPUs write.
    fn unlimit(&mut self, now: u64) {
        for slot in 1..self.places.len() as u32 {
            if self.places[slot as usize].0 == 0 || field!(self.slots, slot as usize, limited) == 0 {
                continue;
            }
            let wall = field!(self.slots, slot as usize, throttled_wall);
            let (seen, since) = self.recycling.limited.entry(slot).or_insert((wall, now));
            if *seen != wall {
                (*seen, *since) = (wall, now);
            } else if now.saturating_sub(*since) > UNLIMITED_AFTER {
                self.recycling.limited.remove(&slot);
                // SAFETY: as in `rest`; a program sets it with the next stall.
                let limited =
                    unsafe { AtomicU32::from_ptr(&raw mut (*self.slots.at(slot as usize)).limited) };
                limited.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn zero(map: &MapMut<'_>, entry: u32) -> libbpf_rs::Result<()> {
    let value = vec![0; map.value_size() as usize];
    map.update(&entry.to_ne_bytes(), &value, MapFlags::ANY)
}
