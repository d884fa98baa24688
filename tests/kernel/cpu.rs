//! The CPU probe against the kernel that runs the test: cpu.stat and known workloads are the oracle.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bed::cgroup::{Cgroup, Version, cpu_tree};
use crate::bed::until;
use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cpu::{CpuError, CpuLosses, CpuOptions, CpuProbe, DEFAULT_CGROUPS, REST};
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
    assert!(last.run > 0 && last.stall_sum > 0);
    reader.probe.forget(CgroupKey { hierarchy: options.hierarchy, id });
    assert!(!reader.read().contains_key(&id));
    reader.read();
    let fresh = Cgroup::new("fresh");
    let _burner = fresh.burn(1, Some(0));
    let counters = until("the fresh one", || reader.read().get(&fresh.id()).copied());
    assert_eq!((counters.stalls, counters.stall_sum, counters.throttle), (0, 0, 0));
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

/// With this list of possible CPUs, as far as this thread sees.
fn with_possible_cpus<T: Send>(list: &str, run: impl FnOnce() -> T + Send) -> T {
    let file = std::env::temp_dir().join(format!("kg-possible-{}-{}", std::process::id(), list.len()));
    std::fs::write(&file, format!("{list}\n")).expect("the list");
    let path = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).expect("no NUL");
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = std::ptr::null();
            let done = |what: &str, result: libc::c_int| {
                assert_eq!(result, 0, "{what}: {}", std::io::Error::last_os_error());
            };
            // SAFETY: strings that end with NUL; the mounts are of this thread's own namespace.
            unsafe {
                done("unshare", libc::unshare(libc::CLONE_NEWNS));
                let private = libc::MS_REC | libc::MS_PRIVATE;
                done("make private", libc::mount(none, c"/".as_ptr(), none, private, none.cast()));
                let possible = c"/sys/devices/system/cpu/possible".as_ptr();
                done("bind", libc::mount(path.as_ptr(), possible, none, libc::MS_BIND, none.cast()));
            }
            run()
        });
        thread.join().expect("the thread")
    });
    std::fs::remove_file(file).expect("the list is there");
    result
}

/// What the BPF maps of this process take, bytes, by the kernel's count.
fn maps_take() -> u64 {
    let fds = std::fs::read_dir("/proc/self/fdinfo").expect("fdinfo").flatten();
    let of = |text: String| -> Option<(u64, u64)> {
        let number = |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        number("map_type:")?;
        Some((number("map_id:")?, number("memlock:")?))
    };
    let maps = fds.filter_map(|fd| of(std::fs::read_to_string(fd.path()).ok()?));
    maps.collect::<HashMap<_, _>>().values().sum()
}

/// A machine may have many CPUs that it could have, and numbers that are left out.
#[test]
fn every_number_of_possible_cpus_is_counted_right() {
    let _alone = alone();
    for (list, most) in [("0-127", Some(20_000_000)), ("0-511", None), ("0-3,8-4095", None)] {
        with_possible_cpus(list, || {
            let cgroup = Cgroup::new("many");
            let before = maps_take();
            let mut storage = MaybeUninit::uninit();
            let options = CpuOptions { max_cgroups: DEFAULT_CGROUPS, ..options(Hook::TpBtf) };
            let mut reader = Reader::new(&mut storage, options);
            let maps = maps_take() - before;
            let burners = cgroup.burn(1, Some(0));
            until("half a second of it", || (reader.of(&cgroup).run > 500_000_000).then_some(()));
            let pid = burners.pids().next().expect("one");
            // The kernel's own count of it, before and after.
            let told = || {
                let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
                text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("its run time")
            };
            let (least, ours, most_run) = (told(), reader.of(&cgroup).run, told());
            println!(
                "{list}: the maps take {maps} bytes; ran {:.3} s of {:.3} to {:.3}",
                seconds(ours),
                seconds(least),
                seconds(most_run)
            );
            // A run in progress is not whole, and one that ended by a switch not told of is taken to go on.
            assert!(ours + 50_000_000 >= least && ours <= most_run + 50_000_000, "{list}");
            assert_eq!(reader.losses.slots_exhausted, 0);
            assert!(most.is_none_or(|most| maps <= most), "{list}: {maps} bytes");
        });
    }
}
