//! The CPU probe: loads and attaches `bpf/cpu.bpf.c`, reads its maps, and gives slots of dead
//! cgroups back.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, ProgramMut};

use super::cost;
pub use super::plan::Hook;
use super::shared::{ShareError, SharedArray, Wire};
use super::{Blame, CgroupKey, CpuCounters, CpuReading, Hierarchy, Log2Histogram, Losses, ProgramCost};

skeleton!(skel, "cpu");
use skel::types::{blame_key, cpu_state, slot_all, slot_cpu, slot_hist};
use skel::{CpuSkel, CpuSkelBuilder};

// SAFETY: integers alone, u64 first (generated from bpf/cpu.bpf.c's own BTF).
unsafe impl Wire for cpu_state {}
// SAFETY: as above.
unsafe impl Wire for slot_cpu {}
// SAFETY: as above.
unsafe impl Wire for slot_all {}
// SAFETY: as above.
unsafe impl Wire for slot_hist {}

/// Pairs of victim and culprit kept at a time, of those that have no place beside the victim's counters.
const BLAME_ENTRIES: u32 = 16 * 1024;
/// Histograms are kept per CPU up to this many, then CPUs share banks (a power of two).
const MAX_HIST_BANKS: u32 = 4;
/// What the counters of all cgroups may take, bytes, unless more cgroups than by default are asked for.
const COUNTERS_BYTES: usize = 16 << 20;
/// So many cgroups have counters whatever that takes.
const MIN_CGROUPS: u32 = 1024;
/// Up to here `max_cgroups` is a bound; what is beyond, somebody has asked for.
pub const DEFAULT_CGROUPS: u32 = 4096;
/// What `max_cgroups` may be at most.
pub const MAX_CGROUPS: u32 = 1 << 16;
/// Readings a dead cgroup's slot rests before another cgroup may have it: by then no run of the
/// old one is in any CPU's ring, so nobody is blamed for another's deeds.
const QUARANTINE_READINGS: u64 = 60;

/// How to load the probe; the plan says.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    pub hook: Hook,
    /// The kernel has BPF atomics that return a value (5.12): needed for the union of stalls over
    /// CPUs. Without it `stall_wall` is the greatest sum of one CPU, a lower bound, and
    /// `stall_full` is zero.
    pub atomics: bool,
    /// The hierarchy the scheduler's cgroups belong to.
    pub hierarchy: Hierarchy,
    /// Cgroups with tasks counted at a time; the maps are sized for them, see [`room`].
    pub max_cgroups: u32,
}

/// Histogram banks of a cgroup.
fn hist_banks(cpus: u32) -> u32 {
    cpus.next_power_of_two().min(MAX_HIST_BANKS)
}

/// How many cgroups have counters on a machine with so many possible CPUs: each takes memory for every CPU.
#[must_use]
pub fn room(max_cgroups: u32, cpus: u32) -> u32 {
    let each = size_of::<slot_cpu>() * cpus as usize
        + size_of::<slot_hist>() * hist_banks(cpus) as usize
        + size_of::<slot_all>();
    if max_cgroups > DEFAULT_CGROUPS {
        return max_cgroups;
    }
    let fit = u32::try_from(COUNTERS_BYTES / each).unwrap_or(u32::MAX);
    max_cgroups.min(fit.max(MIN_CGROUPS))
}

/// The probe could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    #[error("cpu probe: cannot {step}: {source}")]
    Bpf { step: &'static str, source: libbpf_rs::Error },
    #[error("cpu probe: {0}")]
    Share(#[from] ShareError),
    #[error("cpu probe: max_cgroups {0} is too large for a BPF map: at most {MAX_CGROUPS}")]
    TooManyCgroups(u32),
}

fn bpf(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> CpuError {
    move |source| CpuError::Bpf { step, source }
}

/// The loaded probe. Detached and freed by the kernel when dropped, or when the process ends in
/// whatever way: nothing is pinned.
pub struct CpuProbe<'obj> {
    skel: CpuSkel<'obj>,
    links: Vec<Link>,
    /// Of the programs.
    names: Vec<Arc<str>>,
    options: CpuOptions,
    cpus: usize,
    banks: usize,
    cpu_states: SharedArray<cpu_state>,
    slots: SharedArray<slot_all>,
    slot_cpus: SharedArray<slot_cpu>,
    slot_hists: SharedArray<slot_hist>,
    /// Slots whose cgroup is gone, with the reading at which they may be used again.
    dying: HashMap<u32, u64>,
    readings: u64,
    blame_keys: Vec<blame_key>,
    blame_values: Vec<u64>,
    pairs_evicted: u64,
    pairs_unread: u64,
}

impl<'obj> CpuProbe<'obj> {
    /// Loads and attaches. `storage` holds the BPF object and must outlive the probe.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>, options: CpuOptions) -> Result<Self, CpuError> {
        if options.max_cgroups > MAX_CGROUPS {
            return Err(CpuError::TooManyCgroups(options.max_cgroups));
        }
        let cpus = libbpf_rs::num_possible_cpus().map_err(bpf("count the CPUs"))? as u32;
        let banks = hist_banks(cpus);
        let slots = room(options.max_cgroups, cpus) + 1; // slot 0 is never handed out

        let mut open = CpuSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.nr_cpus = cpus;
            rodata.hist_banks = banks;
        }
        for (map, entries) in [
            (&mut open.maps.cpus, cpus),
            (&mut open.maps.slot_cpus, slots * cpus),
            (&mut open.maps.slots, slots),
            (&mut open.maps.slot_hists, slots * banks),
            (&mut open.maps.slot_of_cgroup, slots),
            (&mut open.maps.free_slots, slots),
            (&mut open.maps.blame, BLAME_ENTRIES),
        ] {
            map.set_max_entries(entries).map_err(bpf("size a map"))?;
        }
        let programs = &mut open.progs;
        for program in match (options.hook, options.atomics) {
            (Hook::TpBtf, true) => [&mut programs.sched_switch_btf, &mut programs.sched_migrate_task_btf],
            (Hook::TpBtf, false) => {
                [&mut programs.sched_switch_btf_old, &mut programs.sched_migrate_task_btf_old]
            }
            (Hook::RawTracepoint, true) => {
                [&mut programs.sched_switch_raw, &mut programs.sched_migrate_task_raw]
            }
            (Hook::RawTracepoint, false) => {
                [&mut programs.sched_switch_raw_old, &mut programs.sched_migrate_task_raw_old]
            }
        } {
            program.set_autoload(true);
        }
        let skel = open.load().map_err(bpf("load the programs"))?;
        // The lowest slots are popped first: those in use stay side by side.
        for slot in (1..slots).rev() {
            skel.maps
                .free_slots
                .update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
                .map_err(bpf("fill the list of free slots"))?;
        }
        let mut probe = CpuProbe {
            cpu_states: SharedArray::new(&skel.maps.cpus)?,
            slots: SharedArray::new(&skel.maps.slots)?,
            slot_cpus: SharedArray::new(&skel.maps.slot_cpus)?,
            slot_hists: SharedArray::new(&skel.maps.slot_hists)?,
            skel,
            links: Vec::new(),
            names: Vec::new(),
            options,
            cpus: cpus as usize,
            banks: banks as usize,
            dying: HashMap::new(),
            readings: 0,
            blame_keys: vec![blame_key::default(); BLAME_ENTRIES as usize],
            blame_values: vec![0; BLAME_ENTRIES as usize],
            pairs_evicted: 0,
            pairs_unread: 0,
        };
        // Moves first: a move seen before any switch is ignored, a switch whose moves are missed is not.
        probe.names = probe.programs().map(cost::name).into();
        let [switch, migrate] = probe.programs();
        let links = [migrate.attach(), switch.attach()];
        for link in links {
            probe.links.push(link.map_err(bpf("attach to the scheduler's tracepoints"))?);
        }
        Ok(probe)
    }

    fn programs(&self) -> [&ProgramMut<'obj>; 2] {
        let p = &self.skel.progs;
        match (self.options.hook, self.options.atomics) {
            (Hook::TpBtf, true) => [&p.sched_switch_btf, &p.sched_migrate_task_btf],
            (Hook::TpBtf, false) => [&p.sched_switch_btf_old, &p.sched_migrate_task_btf_old],
            (Hook::RawTracepoint, true) => [&p.sched_switch_raw, &p.sched_migrate_task_raw],
            (Hook::RawTracepoint, false) => [&p.sched_switch_raw_old, &p.sched_migrate_task_raw_old],
        }
    }

    /// Appends the counters of every cgroup seen, and who is to blame; sets the probe's losses.
    pub fn read(&mut self, cpu: &mut Vec<CpuReading>, blame: &mut Vec<Blame>, losses: &mut Losses) {
        self.readings += 1;
        for slot in 1..self.slots.len() {
            let id = self.slots.first_word(slot);
            if id != 0 && !self.dying.contains_key(&(slot as u32)) {
                let counters = self.counters(slot, |culprit, ns| {
                    let culprit = self.slots.first_word(culprit as usize);
                    if culprit != 0 {
                        let (victim, culprit) = (self.key(id), self.key(culprit));
                        blame.push(Blame { victim, culprit, ns, table: false });
                    }
                });
                cpu.push(CpuReading { cgroup: self.key(id), counters });
            }
        }
        self.read_blame(blame);
        losses.slots_exhausted = 0;
        losses.blame_dropped_ns = 0;
        losses.switches_missed = 0;
        losses.stalls_unjoined = self.stalls_unjoined();
        losses.pairs_evicted = self.pairs_evicted;
        losses.pairs_unread = self.pairs_unread;
        for i in 0..self.cpus {
            let state = self.cpu_states.get(i);
            losses.slots_exhausted += state.losses.slots_exhausted;
            losses.blame_dropped_ns += state.losses.blame_dropped;
            losses.switches_missed += state.losses.switches_missed;
        }
        self.recycle();
    }

    fn stalls_unjoined(&self) -> u64 {
        self.skel.maps.bss_data.as_deref().map_or(0, |data| {
            // SAFETY: a whole, aligned u64 of a mapping that lives as long as `self`; BPF writes it meanwhile.
            unsafe { (&raw const data.stalls_unjoined).read_volatile() }
        })
    }

    fn key(&self, id: u64) -> CgroupKey {
        CgroupKey { hierarchy: self.options.hierarchy, id }
    }

    /// Tells of the neighbours with a place beside the counters, by slot and ns; of one that has several, several times.
    fn counters(&self, slot: usize, mut blamed: impl FnMut(u32, u64)) -> CpuCounters {
        let mut sum = CpuCounters::default();
        let mut longest = 0;
        for cpu in 0..self.cpus {
            let one = self.slot_cpus.get(slot * self.cpus + cpu);
            sum.run += one.run;
            sum.wait += one.wait;
            sum.throttle += one.throttle;
            sum.neighbour += one.neighbour;
            sum.own += one.own;
            sum.switches += one.switches;
            sum.stalls += one.stalls;
            sum.stall_sum += one.stall_sum;
            longest = longest.max(one.stall_sum);
            for (&culprit, &ns) in one.culprits.iter().zip(&one.blamed) {
                if culprit != 0 {
                    blamed(culprit, ns);
                }
            }
        }
        sum.unattributed = sum.wait.saturating_sub(sum.throttle + sum.neighbour + sum.own);
        let all = self.slots.get(slot);
        sum.stall_wall = if self.options.atomics { all.stall_wall } else { longest };
        sum.stall_full = all.stall_full;
        for bank in 0..self.banks {
            let hist = self.slot_hists.get(slot * self.banks + bank);
            sum.wait_histogram.add(&Log2Histogram { counts: hist.wait });
            sum.stall_histogram.add(&Log2Histogram { counts: hist.stall });
        }
        sum
    }

    /// Reads the blame table, a system call for all of it.
    fn read_blame(&mut self, out: &mut Vec<Blame>) {
        let mut position = 0u32; // where a hash map's batches go on
        let mut found = 0usize;
        loop {
            let mut count = BLAME_ENTRIES - found as u32;
            if count == 0 {
                break;
            }
            let first = found == 0;
            // SAFETY: keys and values have room for `count` entries past `found`; the map's key and
            // value sizes are those of blame_key and u64; `position` is the kernel's own cursor.
            let result = unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.skel.maps.blame.as_fd().as_raw_fd(),
                    if first { std::ptr::null_mut() } else { (&raw mut position).cast() },
                    (&raw mut position).cast(),
                    self.blame_keys[found..].as_mut_ptr().cast(),
                    self.blame_values[found..].as_mut_ptr().cast(),
                    &raw mut count,
                    std::ptr::null(),
                )
            };
            found += count as usize;
            let last = result == -libc::ENOENT;
            self.pairs_unread += u64::from(result != 0 && !last);
            if result != 0 || count == 0 {
                break;
            }
        }
        for (key, ns) in self.blame_keys[..found].iter().zip(&self.blame_values) {
            let victim = self.slots.first_word(key.victim as usize);
            let culprit = self.slots.first_word(key.culprit as usize);
            if victim != 0 && culprit != 0 && !self.dying.contains_key(&key.victim) {
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
    fn forget_blame(&self, found: usize, which: impl Fn(&blame_key, u64) -> bool) -> u64 {
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

    /// The cgroup is gone: after this its counters are no longer read, and its slot is given back
    /// once nothing can refer to it.
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
        self.dying.insert(u32::from_ne_bytes(slot), self.readings + QUARANTINE_READINGS);
    }

    /// Clears slots that have rested long enough and lets them be used again.
    fn recycle(&mut self) {
        let due: Vec<u32> =
            self.dying.iter().filter(|(_, at)| **at <= self.readings).map(|(s, _)| *s).collect();
        if due.is_empty() {
            return;
        }
        let found = self.blame_keys.len();
        self.forget_blame(found, |key, _| due.contains(&key.victim) || due.contains(&key.culprit));
        self.free_places(&due);
        for slot in due {
            if self.clear(slot).is_ok() {
                self.dying.remove(&slot);
            }
        }
    }

    /// Frees the places beside their victims' counters that these have, and lets no CPU take a cgroup for one of them.
    fn free_places(&self, due: &[u32]) {
        for cpu in 0..self.cpus {
            let known = self.cpu_states.get(cpu).known;
            let state = self.cpu_states.at(cpu);
            // SAFETY: as below; a program that finds no slot here looks it up.
            unsafe {
                for (i, _) in known.iter().enumerate().filter(|(_, k)| due.contains(&k.slot)) {
                    AtomicU32::from_ptr(&raw mut (*state).known[i].slot).store(0, Ordering::Relaxed);
                }
                let last = AtomicU32::from_ptr(&raw mut (*state).cgroup_slot);
                if due.contains(&last.load(Ordering::Relaxed)) {
                    last.store(0, Ordering::Relaxed);
                }
            }
        }
        for slot in (1..self.slots.len()).filter(|&slot| self.slots.first_word(slot) != 0) {
            for cpu in 0..self.cpus {
                let at = slot * self.cpus + cpu;
                let culprits = self.slot_cpus.get(at).culprits;
                for (place, _) in culprits.iter().enumerate().filter(|(_, culprit)| due.contains(culprit)) {
                    let one = self.slot_cpus.at(at);
                    // SAFETY: within the mapping, and aligned as the kernel aligns array values, to 8 bytes. A program adds to
                    // the sum only where a culprit runs, which these do not, and takes a place once it is free, which it is last.
                    unsafe {
                        AtomicU64::from_ptr(&raw mut (*one).blamed[place]).store(0, Ordering::Relaxed);
                        AtomicU32::from_ptr(&raw mut (*one).culprits[place]).store(0, Ordering::Release);
                    }
                }
            }
        }
    }

    fn clear(&self, slot: u32) -> libbpf_rs::Result<()> {
        let maps = &self.skel.maps;
        let zero = |map: &libbpf_rs::MapMut<'_>, first: u32, count: usize| {
            let value = vec![0; map.value_size() as usize];
            (first..first + count as u32)
                .try_for_each(|i| map.update(&i.to_ne_bytes(), &value, MapFlags::ANY))
        };
        zero(&maps.slot_cpus, slot * self.cpus as u32, self.cpus)?;
        zero(&maps.slot_hists, slot * self.banks as u32, self.banks)?;
        zero(&maps.slots, slot, 1)?;
        maps.free_slots.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
    }

    /// Appends what the programs cost so far (zero unless `kernel.bpf_stats_enabled` is set).
    pub fn costs(&self, out: &mut Vec<ProgramCost>) {
        for (program, name) in self.programs().into_iter().zip(&self.names) {
            out.extend(cost::of(program, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fit_their_memory_where_cpus_are_many() {
        for (cpus, cgroups) in
            [(1, 4096), (2, 4096), (8, 3591), (16, 2319), (32, 1358), (64, 1024), (256, 1024)]
        {
            assert_eq!(room(DEFAULT_CGROUPS, cpus), cgroups, "{cpus} CPUs");
        }
        assert_eq!(room(64, 256), 64);
        assert_eq!(room(MAX_CGROUPS, 256), MAX_CGROUPS, "as asked for");
    }
}
