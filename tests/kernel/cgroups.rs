//! Cgroup sampling against the files of the kernel that runs the test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::bed::cgroup::{Cgroup, Version, cpu_tree};
use crate::bed::until;
use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cgroups::{CgroupLosses, CgroupSampler, Options, Roots, SamplerOptions, Storage};
use kernel_gossip::kernel::clock;
use kernel_gossip::kernel::driver::{self, Driver, DriverOptions};
use kernel_gossip::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Reading, StatReading};

const MS: Duration = Duration::from_millis(1);

/// Every way this kernel has, and the one without BPF.
fn ways() -> Vec<SamplerOptions> {
    let iterator = cpu_tree().version == Version::V2
        && procfs::KernelVersion::current().expect("version") >= procfs::KernelVersion::new(6, 1, 0);
    let options = |iterator, tracepoints| SamplerOptions { iterator, tracepoints, max_cgroups: 1024 };
    let mut ways = vec![
        options(false, None),
        options(false, Some(Hook::TpBtf)),
        options(false, Some(Hook::RawTracepoint)),
    ];
    if iterator {
        ways.push(options(true, None));
        ways.push(options(true, Some(Hook::TpBtf)));
    }
    ways
}

struct Reader<'obj> {
    sampler: CgroupSampler<'obj>,
    changes: Vec<CgroupChange>,
    stats: Vec<StatReading>,
    losses: CgroupLosses,
}

impl<'obj> Reader<'obj> {
    fn new(storage: &'obj mut Storage, options: SamplerOptions) -> Self {
        let sampler = CgroupSampler::new(storage, Roots::find(None), options);
        assert_eq!(sampler.uses_iterator(), options.iterator, "{options:?}");
        assert_eq!(sampler.uses_tracepoints(), options.tracepoints.is_some(), "{options:?}");
        Reader { sampler, changes: Vec::new(), stats: Vec::new(), losses: CgroupLosses::default() }
    }

    fn sample(&mut self) {
        self.sample_at(clock::now());
    }

    /// A sample at any time, CLOCK_MONOTONIC in ns: what is done once in a while goes by this.
    fn sample_at(&mut self, now: u64) {
        self.changes.clear();
        self.stats.clear();
        self.sampler.sample(now, &mut self.changes, &mut self.stats);
        self.losses = self.sampler.losses();
    }

    fn stat(&mut self, cgroup: CgroupKey) -> CgroupStat {
        self.sample();
        let found = self.stats.iter().find(|s| s.cgroup == cgroup);
        found.unwrap_or_else(|| panic!("no numbers of {cgroup:?} among {}", self.stats.len())).stat
    }
}

fn key(cgroup: &Cgroup) -> CgroupKey {
    let hierarchy = match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    };
    CgroupKey { hierarchy, id: cgroup.id() }
}

/// The cgroup's numbers as its files say them now: periods, throttled periods, throttled ns, usage ns.
fn files(cgroup: &Cgroup) -> [u64; 4] {
    let usage = match cpu_tree().version {
        Version::V2 => cgroup.cpu_stat("usage_usec") * 1000,
        Version::V1 => 0, // in another tree; see below
    };
    let throttled = cgroup.throttled().as_nanos() as u64;
    [cgroup.cpu_stat("nr_periods"), cgroup.cpu_stat("nr_throttled"), throttled, usage]
}

#[test]
fn what_is_sampled_lies_between_two_looks_at_the_files() {
    let cgroup = Cgroup::new("between");
    cgroup.limit(Some(5 * MS), 10 * MS);
    let _burners = cgroup.burn(2, None);
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        reader.sample();
        for _ in 0..20 {
            sleep(10 * MS);
            let before = files(&cgroup);
            let stat = reader.stat(key(&cgroup));
            let after = files(&cgroup);
            let sampled = [stat.periods, stat.throttled_periods, stat.throttled, stat.cpu_usage];
            for (i, name) in ["periods", "throttled periods", "throttled", "usage"].into_iter().enumerate() {
                if name == "usage" && cpu_tree().version == Version::V1 {
                    continue;
                }
                let value = sampled[i].unwrap_or_else(|| panic!("{options:?}: no {name}"));
                // A file in us has dropped what is below one.
                let range = before[i]..=after[i] + 999;
                assert!(range.contains(&value), "{options:?}: {name} {value} is not within {range:?}");
            }
            assert_eq!(stat.quota, Some(5_000_000), "{options:?}");
            assert_eq!(stat.period, Some(10_000_000), "{options:?}");
        }
        assert_eq!(reader.losses, CgroupLosses::default());
    }
}

/// In v1 the usage is in the tree of cpuacct, where the test has no group: the root's grows with the load.
#[test]
fn usage_is_found_in_the_tree_of_cpuacct() {
    if cpu_tree().version == Version::V2 {
        println!("cgroup v2: one tree");
        return;
    }
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        let root = fs::metadata(&cpu_tree().mount).expect("the root").ino();
        let root = CgroupKey { hierarchy: Hierarchy::V1Cpu, id: root };
        let first = reader.stat(root).cpu_usage;
        assert!(first.is_some(), "{options:?}");
        let load = Cgroup::new("load");
        let _burner = load.burn(1, None);
        until("usage of the root", || (reader.stat(root).cpu_usage > first).then_some(()));
    }
}

/// Pressure is in the v2 tree; its totals only grow and never pass what the file says next.
#[test]
fn pressure_lies_between_two_looks_at_the_file() {
    let roots = Roots::find(None);
    let Some(unified) = roots.unified() else {
        println!("no v2 tree");
        return;
    };
    let dir = unified.join(format!("kg-test-psi-{}", std::process::id()));
    fs::create_dir(&dir).expect("a group");
    if !dir.join("cpu.pressure").exists() {
        println!("no PSI");
        fs::remove_dir(&dir).expect("remove");
        return;
    }
    // Two loops on one CPU: one of them waits always.
    let mut loops: Vec<_> = (0..2)
        .map(|_| {
            let mut command = std::process::Command::new("taskset");
            let child =
                command.args(["-c", "0", "sh", "-c", "while :; do :; done"]).spawn().expect("taskset");
            fs::write(dir.join("cgroup.procs"), child.id().to_string()).expect("move");
            child
        })
        .collect();
    let id = fs::metadata(&dir).expect("the group").ino();
    let failed = std::panic::catch_unwind(|| {
        let file = || total(&dir.join("cpu.pressure"));
        until("pressure", || (file() > 100_000_000).then_some(()));
        for options in ways() {
            let mut storage = Storage::default();
            let mut reader = Reader::new(&mut storage, options);
            let before = file();
            let stat = reader.stat(CgroupKey { hierarchy: Hierarchy::Unified, id });
            let after = file();
            let some = stat.cpu_pressure.unwrap_or_else(|| panic!("{options:?}: no pressure")).some;
            assert!((before..=after + 999).contains(&some), "{options:?}: {before} {some} {after}");
        }
    });
    for child in &mut loops {
        child.kill().and_then(|()| child.wait()).expect("end of a loop");
    }
    fs::remove_dir(&dir).expect("remove");
    assert!(failed.is_ok());
}

/// `total=` of the line "some", ns.
fn total(path: &Path) -> u64 {
    let text = fs::read_to_string(path).expect("pressure");
    let total = text.lines().next().and_then(|line| line.rsplit_once("total="));
    total.and_then(|(_, us)| us.parse::<u64>().ok()).expect("total=") * 1000
}

#[test]
fn cgroups_come_and_go() {
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        let old = Cgroup::new("old");
        reader.sample();
        let present = |reader: &Reader, cgroup: &Cgroup| {
            let want = CgroupChange::Present { cgroup: key(cgroup), path: cgroup.path() };
            reader.changes.iter().filter(|change| **change == want).count()
        };
        assert_eq!(present(&reader, &old), 1, "{options:?}: what was there at the start");
        reader.sample();
        assert_eq!(present(&reader, &old), 0, "{options:?}: said once");

        let new = old.child("new");
        reader.sample();
        assert_eq!(present(&reader, &new), 1, "{options:?}: known with the next reading");
        let gone = CgroupChange::Gone { cgroup: key(&new) };
        drop(new);
        reader.sample();
        assert_eq!(reader.changes.iter().filter(|c| **c == gone).count(), 1, "{options:?}");
        reader.sample();
        assert!(!reader.changes.contains(&gone), "{options:?}: said once");
    }
}

/// cgroup v1 alone lets a cgroup be renamed: it keeps its id, and those below it are elsewhere too.
#[test]
fn a_renamed_cgroup_is_told_of_with_all_below_it() {
    let Some(root) = Roots::find(None).v1_cpu().map(Path::to_path_buf) else {
        return eprintln!("not here: no cgroup v1 cpu tree");
    };
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        let name = |n: u32| format!("kg-test-rename-{}-{n}", std::process::id());
        let (old, new) = (root.join(name(1)), root.join(name(2)));
        fs::create_dir_all(old.join("below")).expect("made");
        let ids = [&old, &old.join("below")].map(|dir| fs::metadata(dir).expect("there").ino());
        reader.sample();
        fs::rename(&old, &new).expect("renamed");
        // Another takes its place.
        fs::create_dir(&old).expect("made");
        let place = fs::metadata(&old).expect("there").ino();
        reader.sample();
        let told = reader.changes.clone();
        for dir in [new.join("below"), new.clone(), old.clone()] {
            fs::remove_dir(dir).expect("removed");
        }
        let paths = [format!("/{}", name(2)), format!("/{}/below", name(2)), format!("/{}", name(1))];
        for (id, path) in [ids[0], ids[1], place].into_iter().zip(paths) {
            let cgroup = CgroupKey { hierarchy: Hierarchy::V1Cpu, id };
            let want = CgroupChange::Present { cgroup, path };
            assert_eq!(told.iter().filter(|c| **c == want).count(), 1, "{options:?}: {want:?} in {told:?}");
        }
    }
}

/// Names of any bytes: each cgroup is one of its own, with its numbers, and so are those below it.
#[test]
fn cgroups_whose_names_are_no_text_are_read_too() {
    use std::os::unix::ffi::OsStrExt;
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        reader.sample();
        let dir = |byte: u8| {
            let name = [format!("kg-test-bytes-{}-", std::process::id()).as_bytes(), &[byte]].concat();
            cpu_tree().mount.join(std::ffi::OsStr::from_bytes(&name))
        };
        // As lossy text the two are one.
        let dirs = [dir(0xfe), dir(0xff)];
        for dir in &dirs {
            fs::create_dir_all(dir.join("below")).expect("made");
        }
        let ids = dirs
            .each_ref()
            .map(|d| [d.clone(), d.join("below")].map(|d| fs::metadata(d).expect("there").ino()));
        reader.sample();
        let (changes, stats) = (reader.changes.clone(), reader.stats.clone());
        reader.sample();
        let losses = reader.losses;
        for dir in &dirs {
            fs::remove_dir(dir.join("below")).and_then(|()| fs::remove_dir(dir)).expect("removed");
        }
        let mut paths = std::collections::HashSet::new();
        let of = |id| CgroupKey {
            hierarchy: if cpu_tree().version == Version::V1 { Hierarchy::V1Cpu } else { Hierarchy::Unified },
            id,
        };
        for id in ids.into_iter().flatten() {
            let told = changes.iter().find_map(|change| match change {
                CgroupChange::Present { cgroup, path } if *cgroup == of(id) => Some(path.clone()),
                _ => None,
            });
            let path = told.unwrap_or_else(|| panic!("{options:?}: {id} is not told of"));
            assert!(path.contains("\\xf"), "{options:?}: {path}");
            assert!(paths.insert(path));
            assert!(stats.iter().any(|s| s.cgroup == of(id)), "{options:?}: no numbers of {id}");
        }
        assert_eq!((paths.len(), losses.unreadable_cgroups), (4, 0));
    }
}

/// More cgroups made and removed than the kernel's buffer holds, and nobody records births: counted all the same.
#[test]
fn lost_events_are_counted_without_births_too() {
    let mut storage = driver::Storage::default();
    let sampler = SamplerOptions { iterator: false, tracepoints: Some(Hook::TpBtf), max_cgroups: 1024 };
    let cgroups = Some(Options { roots: Roots::find(None), sampler });
    let options = DriverOptions { cgroups, ..DriverOptions::default() };
    let mut driver = Driver::start(&mut storage, options);
    let lost = |reading: &Reading| {
        let events = reading.losses.iter().find(|lost| lost.why.reason == "cgroup_event");
        events.expect("counted").total
    };
    assert_eq!(lost(driver.read()), 0);
    let parent = Cgroup::new("many");
    (0..500).for_each(|i| drop(parent.child(&format!("c{i}"))));
    let left = parent.child("left");
    let reading = driver.read();
    assert!(lost(reading) > 0);
    let found = CgroupChange::Present { cgroup: key(&left), path: left.path() };
    assert!(reading.changes.contains(&found), "the walk finds it");
}

/// How old a limit may be is a time, whatever the interval between samples: on 0.1.0 it was five of these.
#[test]
fn a_limit_is_at_most_five_seconds_old() {
    let second = 1_000_000_000;
    for interval in [second / 10, second, 60 * second] {
        let cgroup = Cgroup::new("limit");
        let mut storage = Storage::default();
        let options = SamplerOptions { iterator: false, tracepoints: None, max_cgroups: 1024 };
        let mut reader = Reader::new(&mut storage, options);
        let mut now = clock::now();
        let quota = |reader: &mut Reader<'_>, now| {
            reader.sample_at(now);
            reader.stats.iter().find(|s| s.cgroup == key(&cgroup)).expect("its numbers").stat.quota
        };
        for period in [10 * MS, 20 * MS, 30 * MS] {
            cgroup.limit(Some(period / 2), period);
            let expected = Some(period.as_nanos() as u64 / 2);
            let set = now;
            while quota(&mut reader, now) != expected {
                now += interval;
                assert!(
                    now - set <= interval.max(5 * second),
                    "interval {interval} ns: still the limit before"
                );
            }
        }
    }
}

/// Directories in the v2 tree, which on a hybrid host is not the one that tests put their load in.
struct V2Groups(Vec<std::path::PathBuf>);

impl V2Groups {
    fn make(root: &Path, name: &str, number: usize) -> V2Groups {
        let dir = |i| root.join(format!("kg-test-{name}-{}-{i}", std::process::id()));
        let dirs: Vec<_> = (0..number).map(dir).collect();
        let groups = V2Groups(dirs);
        groups.0.iter().for_each(|dir| fs::create_dir(dir).expect("mkdir"));
        groups
    }

    fn key(&self, i: usize) -> CgroupKey {
        let id = fs::metadata(&self.0[i]).expect("a group").ino();
        CgroupKey { hierarchy: Hierarchy::Unified, id }
    }

    fn keys(&self) -> Vec<CgroupKey> {
        (0..self.0.len()).map(|i| self.key(i)).collect()
    }
}

impl Drop for V2Groups {
    fn drop(&mut self) {
        // One that is gone already was the test's to remove.
        self.0.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

/// More cgroups than the iterator has room for: they have no numbers, are counted, and are not taken for dead.
#[test]
fn cgroups_beyond_the_iterators_room_are_counted_and_live_on() {
    const ROOM: u32 = 4;
    let all = Roots::find(None);
    let Some(root) = all.unified() else {
        println!("no v2 tree");
        return;
    };
    if procfs::KernelVersion::current().expect("version") < procfs::KernelVersion::new(6, 1, 0) {
        println!("no cgroup iterator");
        return;
    }
    let groups = V2Groups::make(root, "room", 8);
    for tracepoints in [None, Some(Hook::TpBtf)] {
        let mut storage = Storage::default();
        let options = SamplerOptions { iterator: true, tracepoints, max_cgroups: ROOM };
        // This tree alone, as if there were no other.
        let sampler = CgroupSampler::new(&mut storage, Roots::find(Some(root)), options);
        assert!(sampler.uses_iterator());
        let mut reader =
            Reader { sampler, changes: Vec::new(), stats: Vec::new(), losses: CgroupLosses::default() };
        let keys = groups.keys();
        let (mut told, mut lost) = (0, 0);
        for _ in 0..5 {
            reader.sample();
            assert_eq!(reader.stats.len(), ROOM as usize);
            for change in &reader.changes {
                match change {
                    CgroupChange::Present { cgroup, .. } => told += usize::from(keys.contains(cgroup)),
                    CgroupChange::Gone { cgroup } => assert!(!keys.contains(cgroup), "{tracepoints:?}"),
                }
            }
            let counted = reader.losses.unreadable_cgroups - lost;
            lost = reader.losses.unreadable_cgroups;
            assert!(counted as usize >= groups.0.len() + 1 - ROOM as usize, "{counted} {tracepoints:?}");
        }
        assert_eq!(told, keys.len(), "each once: {tracepoints:?}");
    }
    // The end of one that has no numbers is told all the same.
    let mut storage = Storage::default();
    let options = SamplerOptions { iterator: true, tracepoints: None, max_cgroups: ROOM };
    let sampler = CgroupSampler::new(&mut storage, Roots::find(Some(root)), options);
    let mut reader =
        Reader { sampler, changes: Vec::new(), stats: Vec::new(), losses: CgroupLosses::default() };
    reader.sample();
    let gone = CgroupChange::Gone { cgroup: groups.key(7) };
    fs::remove_dir(&groups.0[7]).expect("rmdir");
    reader.sample();
    assert!(reader.changes.contains(&gone));
}

/// Does something without the right to read what is closed to others.
fn as_nobody<T>(what: impl FnOnce() -> T) -> T {
    // SAFETY: takes no pointer. It changes the id that the calling thread's file access goes by, and with it
    // whether modes count; back to root gives the right back.
    let be = |id| unsafe { libc::setfsuid(id) };
    be(65534);
    let result = what();
    be(0);
    result
}

/// A directory that cannot be read hides nothing but what is in it, and that is not taken for gone.
#[test]
fn a_directory_that_cannot_be_read_hides_only_what_is_in_it() {
    let (closed, open) = (Cgroup::new("closed"), Cgroup::new("open"));
    let (behind, child) = (closed.child("behind"), open.child("child"));
    let mut storage = Storage::default();
    let options = SamplerOptions { iterator: false, tracepoints: None, max_cgroups: 1024 };
    let mut reader = Reader::new(&mut storage, options);
    reader.sample();
    assert_eq!(reader.losses.unreadable_cgroups, 0);

    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(closed.dir(), mode).expect("chmod");
    let gone = |cgroup: &Cgroup| CgroupChange::Gone { cgroup: key(cgroup) };
    let (child_gone, behind_gone) = (gone(&child), gone(&behind));
    drop(child);
    let new = open.child("new");
    as_nobody(|| reader.sample());
    assert!(reader.losses.unreadable_cgroups > 0);
    assert!(reader.changes.contains(&child_gone), "{:?}", reader.changes);
    assert!(reader.changes.contains(&CgroupChange::Present { cgroup: key(&new), path: new.path() }));
    assert!(!reader.changes.contains(&behind_gone), "{:?}", reader.changes);

    let lost = reader.losses.unreadable_cgroups;
    drop(behind);
    reader.sample();
    assert!(reader.changes.contains(&behind_gone), "readable again: {:?}", reader.changes);
    assert_eq!(reader.losses.unreadable_cgroups, lost);
}

/// A path that an event has no room for is found by the walk.
#[test]
fn a_very_long_path_is_found() {
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, options);
        reader.sample();
        let names: Vec<Cgroup> = (0..4).fold(vec![Cgroup::new("long")], |mut chain, i| {
            let below = chain[chain.len() - 1].child(&format!("{}{i}", "x".repeat(200)));
            chain.push(below);
            chain
        });
        let last = names.last().expect("one");
        reader.sample();
        let want = CgroupChange::Present { cgroup: key(last), path: last.path() };
        assert!(reader.changes.contains(&want), "{options:?}");
        names.into_iter().rev().for_each(drop);
    }
}

/// The iterator against files, for as many cgroups as a full node has: figures, no verdict.
#[test]
#[ignore = "prints figures: cargo test --release --test kernel cost_of_a_sample -- --ignored --nocapture"]
fn cost_of_a_sample() {
    let parent = Cgroup::new("cost");
    let groups: Vec<Cgroup> = (0..1000).map(|i| parent.child(&format!("c{i}"))).collect();
    for options in ways() {
        let mut storage = Storage::default();
        let mut reader = Reader::new(&mut storage, SamplerOptions { max_cgroups: 4096, ..options });
        reader.sample();
        let start = std::time::Instant::now();
        for _ in 0..20 {
            reader.sample();
        }
        println!("{} cgroups, {options:?}: {:?} a sample", groups.len(), start.elapsed() / 20);
    }
}
