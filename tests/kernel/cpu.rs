//! The CPU probe against the kernel that runs the test: cpu.stat and known workloads are the oracle.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bed::cgroup::{Cgroup, Version, cpu_tree};
use crate::bed::until;
use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cpu::{CpuError, CpuLosses, CpuOptions, CpuProbe, REST};
use kernel_gossip::kernel::{Blame, CgroupKey, CpuCounters, CpuReading, Hierarchy};
use procfs::KernelVersion;

const MS: Duration = Duration::from_millis(1);

/// The loads of two tests at once would be each other's neighbours.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

pub fn kernel() -> KernelVersion {
    KernelVersion::current().expect("the kernel's version")
}

pub fn options(hook: Hook) -> CpuOptions {
    let hierarchy = match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    };
    CpuOptions {
        hook,
        atomics: kernel() >= KernelVersion::new(5, 12, 0),
        prime: true,
        sleeps: true,
        memory_marked: true,
        hierarchy,
        max_cgroups: 256,
        rest: REST,
    }
}

/// Reads the probe by cgroup.
pub struct Reader<'obj> {
    pub probe: CpuProbe<'obj>,
    pub cpu: Vec<CpuReading>,
    pub blame: Vec<Blame>,
    pub losses: CpuLosses,
}

impl<'obj> Reader<'obj> {
    pub fn new(storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>, options: CpuOptions) -> Self {
        let probe = CpuProbe::load(storage, options).expect("load the probe");
        Reader { probe, cpu: Vec::new(), blame: Vec::new(), losses: CpuLosses::default() }
    }

    pub fn read(&mut self) -> HashMap<u64, CpuCounters> {
        self.cpu.clear();
        self.blame.clear();
        self.probe.read(&mut self.cpu, &mut self.blame);
        self.losses = self.probe.losses();
        self.cpu.iter().map(|r| (r.cgroup.id, r.counters)).collect()
    }

    pub fn moment(&mut self) -> Moment {
        let began = Instant::now();
        let of = self.read();
        Moment { of, missed: self.losses.switches_missed, taken: began..=Instant::now() }
    }

    pub fn of(&mut self, cgroup: &Cgroup) -> CpuCounters {
        self.read().get(&cgroup.id()).copied().unwrap_or_default()
    }

    pub fn blamed(&self, victim: &Cgroup, culprit: &Cgroup) -> u64 {
        let pair = (victim.id(), culprit.id());
        self.blame.iter().filter(|b| (b.victim.id, b.culprit.id) == pair).map(|b| b.ns).sum()
    }
}

/// One reading.
pub struct Moment {
    pub of: HashMap<u64, CpuCounters>,
    /// Switches that the kernel did not tell of, until then.
    pub missed: u64,
    /// From when to when it took.
    pub taken: RangeInclusive<Instant>,
}

impl Moment {
    /// The time that passed since another, s: at least and at most.
    pub fn since(&self, first: &Moment) -> RangeInclusive<f64> {
        (*self.taken.start() - *first.taken.end()).as_secs_f64()
            ..=(*self.taken.end() - *first.taken.start()).as_secs_f64()
    }
}

pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A cgroup that dies while stalled leaves its last counters, then its slot to another.
#[test]
fn the_slot_of_a_dead_cgroup_is_used_again_from_zero() {
    let _alone = alone();
    let mut storage = MaybeUninit::uninit();
    let mut options = options(Hook::TpBtf);
    options.max_cgroups = 64; // what else this machine runs takes some
    options.rest = Duration::ZERO;
    let mut reader = Reader::new(&mut storage, options);
    let (doomed, neighbour) = (Cgroup::new("doomed"), Cgroup::new("neighbour"));
    doomed.limit(Some(50 * MS), 500 * MS);
    let burner = doomed.burn(1, Some(0));
    let _waits = neighbour.burn(1, Some(0));
    until("its first stall", || (reader.of(&doomed).stalls > 0).then_some(()));
    until("blame", || {
        reader.read();
        (reader.blamed(&neighbour, &doomed) > 0).then_some(())
    });
    let id = doomed.id();
    drop(burner);
    drop(doomed);
    // A wait during which it ran may still be under way, and these readings are not a second apart as an agent's are.
    let seen = reader.of(&neighbour).switches;
    until("the neighbour's turn", || (reader.of(&neighbour).switches >= seen + 2).then_some(()));
    let last = reader.read()[&id];
    assert!(last.run > 0 && last.throttled_per_cpu > 0);
    reader.probe.forget(CgroupKey { hierarchy: options.hierarchy, id });
    assert!(!reader.read().contains_key(&id));
    reader.read();
    let fresh = Cgroup::new("fresh");
    let _burner = fresh.burn(1, Some(0));
    let counters = until("the fresh one", || reader.read().get(&fresh.id()).copied());
    assert_eq!((counters.stalls, counters.throttled_per_cpu, counters.throttle), (0, 0, 0));
    assert!(!reader.read().contains_key(&id), "the dead one has no slot");
    // Nobody has waited longer for it than it ran; and there is a place for it beside the counters.
    let beside = until("blame", || {
        reader.read();
        let of = |b: &&Blame| (b.victim.id, b.culprit.id) == (neighbour.id(), fresh.id());
        reader.blame.iter().find(of).copied()
    });
    assert!(!beside.table && beside.ns <= reader.of(&fresh).run, "{beside:?}");
}

#[test]
fn cgroups_beyond_the_slots_are_counted_as_lost() {
    let _alone = alone();
    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, CpuOptions { max_cgroups: 2, ..options(Hook::TpBtf) });
    let groups: Vec<Cgroup> = (0..4).map(|i| Cgroup::new(&format!("beyond{i}"))).collect();
    let _burners: Vec<_> = groups.iter().map(|g| g.burn(1, Some(0))).collect();
    until("a loss", || {
        let seen = reader.read().len();
        assert!(seen <= 2);
        (reader.losses.slots_exhausted > 0).then_some(())
    });
}

#[test]
fn more_cgroups_than_a_map_holds_are_refused() {
    let mut storage = MaybeUninit::uninit();
    let asked = CpuOptions { max_cgroups: u32::MAX, ..options(Hook::TpBtf) };
    match CpuProbe::load(&mut storage, asked) {
        Err(error @ CpuError::TooManyCgroups(_)) => println!("{error}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("maps of terabytes"),
    }
}
