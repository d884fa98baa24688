//! The CPU probe: loads and attaches `bpf/cpu.bpf.c` (here), reads its maps (`read`), and gives the room of what is gone or
//! idle to others (`recycle`).
//!
//! Inside belongs what is about these maps alone; what a wait is split into is decided in `bpf/`, what is done with it right of here.

mod losses;
mod plan;
mod read;
mod recycle;
mod room;

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, ProgramMut};
use tracing::debug;

use crate::kernel::cpus::Possible;
use crate::kernel::probe::{Probe, walk};
use crate::kernel::shared::{ShareError, SharedArray, Wire};
use crate::kernel::{CgroupKey, CpuCounters, Hierarchy, Hook, Lost, ProgramCost, Reading};
use crate::kernel::{clock, cost};
pub use losses::CpuLosses;
pub use plan::{Cpu, CpuHook, ThrottleClock};
pub use room::{DEFAULT_CGROUPS, MAX_CGROUPS, Room};

skeleton!(skel, "cpu");
use skel::types::{blame_key, cpu_state, pair, slot_all};
use skel::{CpuSkel, CpuSkelBuilder};

// SAFETY: integers alone, u64 first (generated from bpf/cpu.bpf.c's own BTF).
unsafe impl Wire for cpu_state {}
// SAFETY: as above.
unsafe impl Wire for pair {}
// SAFETY: as above.
unsafe impl Wire for slot_all {}
// SAFETY: as above, u32s.
unsafe impl Wire for blame_key {}

impl Probe for CpuProbe<'_> {
    fn read(&mut self, reading: &mut Reading) {
        self.read(&mut reading.cpu, &mut reading.blame);
        reading.blame_lost_ns = self.losses().blame_ns();
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        out.extend(self.losses().by_reason());
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        self.costs(out);
    }

    fn forget(&mut self, cgroup: CgroupKey) {
        self.forget(cgroup);
    }
}

/// Pairs of victim and culprit kept at a time, of those that have no place beside the victim's counters.
const BLAME_ENTRIES: u32 = 16 * 1024;
/// How long the counters of a cgroup that is gone rest before another may have them: by then no wait is under way during
/// which it ran, so nobody is blamed for another's deeds.
pub const REST: Duration = Duration::from_secs(20);

/// How to load the probe; the plan says.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    pub hook: Hook,
    /// The kernel has BPF atomics that return a value (5.12): needed for the union of stalls over
    /// CPUs. Without it `throttled_wall` is the greatest sum of one CPU, a lower bound, and
    /// `throttled_full` is zero.
    pub atomics: bool,
    /// An iterator over tasks may be used: who is on a CPU already is known, also if it never leaves it.
    pub prime: bool,
    /// What tasks sleep for is counted: always, but where its cost is measured.
    pub sleeps: bool,
    /// The kernel marks who sleeps for memory (PSI is on).
    pub memory_marked: bool,
    /// The hierarchy the scheduler's cgroups belong to.
    pub hierarchy: Hierarchy,
    /// Cgroups with tasks counted at a time; the maps are sized for them, see [`Room`].
    pub max_cgroups: u32,
    /// [`REST`], but for tests.
    pub rest: Duration,
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
    cpus: SharedArray<cpu_state>,
    slots: SharedArray<slot_all>,
    pairs: SharedArray<pair>,
    pair_of_whom: SharedArray<u64>,
    /// By CPU: the run in progress.
    runs: Vec<read::Run>,
    /// When the last reading was, CLOCK_MONOTONIC in ns; before the first one, when the probe was loaded.
    last_read: u64,
    /// By slot: where in the reading under way its cgroup is, and the longest of its CPUs' stalls.
    places: Vec<(u32, u64)>,
    /// By slot: the run time last told, with what is known of runs in progress.
    told_run: Vec<u64>,
    recycling: recycle::Recycling,
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
        let cpus = Possible::read().map_err(|error| bpf("count the CPUs")(error.into()))?;
        let room = Room::of(options.max_cgroups, cpus.end());
        let mut open = CpuSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        for (map, entries) in [
            (&mut open.maps.cpus, room.cpus),
            (&mut open.maps.pairs, room.pairs),
            (&mut open.maps.pair_of_whom, room.pairs),
            (&mut open.maps.pair_of, room.pairs),
            (&mut open.maps.free_pairs, room.pairs),
            (&mut open.maps.slots, room.slots),
            (&mut open.maps.slot_of_cgroup, room.slots),
            (&mut open.maps.free_slots, room.slots),
            (&mut open.maps.blame, BLAME_ENTRIES),
        ] {
            map.set_max_entries(entries).map_err(bpf("size a map"))?;
        }
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.with_sleeps = u8::from(options.sleeps);
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
        programs.prime.set_autoload(options.prime);
        let skel = open.load().map_err(bpf("load the programs"))?;
        // The lowest are popped first: those in use stay side by side.
        for (map, entries) in [(&skel.maps.free_slots, room.slots), (&skel.maps.free_pairs, room.pairs)] {
            for entry in (1..entries).rev() {
                map.update(&[], &entry.to_ne_bytes(), MapFlags::ANY)
                    .map_err(bpf("fill a list of free entries"))?;
            }
        }
        let mut probe = CpuProbe {
            cpus: SharedArray::new(&skel.maps.cpus)?,
            slots: SharedArray::new(&skel.maps.slots)?,
            pairs: SharedArray::new(&skel.maps.pairs)?,
            pair_of_whom: SharedArray::new(&skel.maps.pair_of_whom)?,
            skel,
            links: Vec::new(),
            names: Vec::new(),
            options,
            runs: vec![read::Run::default(); room.cpus as usize],
            last_read: clock::now(),
            places: vec![(0, 0); room.slots as usize],
            told_run: vec![0; room.slots as usize],
            recycling: recycle::Recycling::new(&room),
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
        if options.prime {
            probe.prime();
        }
        Ok(probe)
    }

    /// Looks who is on a CPU already. Without it nothing is wrong, but for a task that does not leave its CPU.
    fn prime(&self) {
        let run = || {
            let link = self.skel.progs.prime.attach().map_err(std::io::Error::other)?;
            walk(&link)
        };
        if let Err(error) = run() {
            debug!("cpu probe: who is on a CPU already is not known: {error}");
        }
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

    fn key(&self, id: u64) -> CgroupKey {
        CgroupKey { hierarchy: self.options.hierarchy, id }
    }

    /// Appends what the programs cost so far (zero unless `kernel.bpf_stats_enabled` is set).
    pub fn costs(&self, out: &mut Vec<ProgramCost>) {
        for (program, name) in self.programs().into_iter().zip(&self.names) {
            out.extend(cost::of(program, name));
        }
    }
}
