//! What held up whoever waited for memory, by the kernel's own count of pressure, and of what its files say.

use std::fs;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernel_gossip::kernel::probe::{ObjectStorage, Probe};
use kernel_gossip::kernel::reclaim::{ReclaimOptions, ReclaimProbe};
use kernel_gossip::kernel::{
    CgroupChange, CgroupKey, CgroupStat, CpuCounters, Hierarchy, Hook, MemoryStat, Pressure, Reading,
    ReclaimCounters, StatReading,
};
use procfs::process::Process;

use super::ledger::Counted;
use crate::bed::cgroup::{Version, cpu_tree, remove};
use crate::bed::hungry::MIB;
use crate::bed::{emulated, until};
use crate::kernel::cpu::{Reader, alone, options, seconds};

/// A group whose pressure is counted, with a place in the memory controller's tree: its own in cgroup v1.
struct Limited {
    counted: Counted,
    memory: PathBuf,
    tree: PathBuf,
    own: bool,
}

impl Limited {
    fn new(name: &str) -> Option<Limited> {
        let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("mountinfo").0;
        let v1 = mounts.iter().find(|m| m.fs_type == "cgroup" && m.super_options.contains_key("memory"));
        let counted = Counted::new(name)?;
        let (tree, own) = match v1 {
            Some(v1) => (v1.mount_point.clone(), true),
            None => (cpu_tree().mount.clone(), false),
        };
        let memory = tree.join(counted.cgroup.dir().file_name().expect("a name"));
        match own {
            true => fs::create_dir(&memory).expect("a group"),
            false => {
                fs::write(tree.join("cgroup.subtree_control"), "+memory").expect("the memory controller")
            }
        }
        Some(Limited { counted, memory, tree, own })
    }

    fn write(&self, file: &str, bytes: u64) {
        fs::write(self.memory.join(file), bytes.to_string()).expect(file);
    }

    /// Begins a script in it, on CPU 0.
    fn start(&self, script: &str) -> Child {
        let script = format!("echo $$ > {}/cgroup.procs && {script}", self.memory.display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]);
        self.counted.enter_with(&mut command, 0);
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell")
    }

    fn key(&self) -> CgroupKey {
        let hierarchy = match cpu_tree().version {
            Version::V1 => Hierarchy::V1Cpu,
            Version::V2 => Hierarchy::Unified,
        };
        CgroupKey { hierarchy, id: self.counted.cgroup.id() }
    }

    fn end(&self, child: &mut Child) {
        let _ = child.kill();
        let _ = child.wait();
        until("its end", || {
            let pids = self.counted.cgroup.read("cgroup.procs");
            for pid in pids.lines().filter_map(|pid| pid.parse::<i32>().ok()) {
                // SAFETY: kill() takes no pointer.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            pids.is_empty().then_some(())
        });
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.own {
            let removed = remove(&self.memory);
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

/// Both probes, for one group.
struct Both<'obj> {
    cpu: Reader<'obj>,
    reclaim: ReclaimProbe<'obj>,
    key: CgroupKey,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    cpu: CpuCounters,
    reclaim: ReclaimCounters,
}

impl<'obj> Both<'obj> {
    fn new(
        cpu: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
        reclaim: &'obj mut ObjectStorage,
        of: &Limited,
    ) -> Self {
        let files = Some((of.tree.clone(), !of.own));
        let all = ReclaimOptions { programs: true, hierarchy: of.key().hierarchy, files, max_cgroups: 256 };
        let reclaim = ReclaimProbe::load(&mut reclaim.0, all).unwrap_or_else(|e| panic!("{e}"));
        Both { cpu: Reader::new(cpu, options(Hook::TpBtf)), reclaim, key: of.key() }
    }

    fn read(&mut self) -> Said {
        let mut reading = Reading::default();
        self.reclaim.read(&mut reading);
        let reclaim = reading.reclaim.iter().find(|r| r.cgroup == self.key).map(|r| r.counters);
        let cpu = self.cpu.read().get(&self.key.id).copied().unwrap_or_default();
        Said { cpu, reclaim: reclaim.unwrap_or_default() }
    }

    /// What the files say of it, after so much pressure.
    fn memory(&mut self, of: &Limited, pressure: u64) -> Option<MemoryStat> {
        let path = format!("/{}", of.memory.strip_prefix(&of.tree).expect("below").display());
        let memory_pressure = Some(Pressure { some: pressure, full: None });
        let stat =
            StatReading { cgroup: self.key, stat: CgroupStat { memory_pressure, ..CgroupStat::default() } };
        let mut reading = Reading {
            changes: vec![CgroupChange::Present { cgroup: self.key, path }],
            stats: vec![stat],
            ..Reading::default()
        };
        self.reclaim.read(&mut reading);
        reading.memory.first().map(|m| m.stat)
    }
}

/// What threads reclaimed and slept is what the kernel counts: no less than 2 % less, and no more than with what they waited for a CPU
/// once there was memory, which is part of pressure.
#[track_caller]
fn is_pressure(what: &str, before: &Said, after: &Said, pressure: f64) {
    let of = |said: &Said| {
        let asleep = said.cpu.memory.expect("marked") - said.cpu.reclaim_asleep;
        seconds(said.reclaim.own + said.reclaim.node + asleep)
    };
    let (ours, waited) = (of(after) - of(before), seconds(after.cpu.wait - before.cpu.wait));
    println!(
        "{what}: reclaimed and slept {ours:.3} s, the kernel's pressure {pressure:.3} s; waited for a CPU {waited:.3} s"
    );
    println!("  {:?}\n  {:?}", after.reclaim, after.cpu.memory.map(seconds));
    assert!(ours * 0.98 <= pressure && pressure <= (ours + waited) * 1.02, "{what}");
}

const HOLDS: u64 = 16 * MIB;

/// A file past what it may hold, which nobody holds any more.
fn file(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..bytes >> 20 {
        std::io::Write::write_all(&mut file.as_file(), &piece).expect("written");
    }
    file.as_file().sync_all().expect("on the disk");
    let dropped = Command::new("dd")
        .args([&format!("if={}", file.path().display()), "iflag=nocache", "count=0"])
        .stderr(Stdio::null())
        .status();
    assert!(dropped.is_ok_and(|status| status.success()));
    file
}

#[test]
fn reclaim_for_a_limit_and_refaults_are_what_the_kernel_counts() {
    if emulated() {
        // There it takes minutes, beside another guest longer than a test waits.
        println!("an emulated CPU: not measured");
        return;
    }
    let _alone = alone();
    let Some(group) = Limited::new("limit") else {
        println!("a kernel that counts no pressure");
        return;
    };
    group.write(if group.own { "memory.limit_in_bytes" } else { "memory.max" }, HOLDS);
    let file = file(6 * HOLDS);
    let mut storage = (MaybeUninit::uninit(), ObjectStorage::default());
    let mut both = Both::new(&mut storage.0, &mut storage.1, &group);
    assert_eq!(both.memory(&group, 0), None, "it has not waited yet");
    let mut child = group.start(&format!("while :; do cat {} > /dev/null; done", file.path().display()));
    let end = Instant::now() + Duration::from_secs(15);
    until("pressure", || (group.counted.pressure("memory") > 0.05 || Instant::now() > end).then_some(()));
    if group.counted.pressure("memory") == 0.0 {
        // A guest's file system may keep the file's pages with whoever wrote them.
        println!("what is read is nobody's to drop below /var/tmp");
        return group.end(&mut child);
    }
    let (counted, before) = (group.counted.pressure("memory"), both.read());
    let enough = if emulated() { 0.5 } else { 1.0 };
    until("pressure", || (group.counted.pressure("memory") - counted > enough).then_some(()));
    let (pressure, after) = (group.counted.pressure("memory") - counted, both.read());
    group.end(&mut child);
    is_pressure("its limit", &before, &after, pressure);
    assert_eq!(after.reclaim.node, before.reclaim.node, "the node is not short");
    let stat = both.memory(&group, 1_000_000_000).expect("read");
    let text = fs::read_to_string(group.memory.join("memory.stat")).expect("memory.stat");
    let line = |name: &str| -> u64 {
        let prefix = if group.own { "total_" } else { "" };
        let line = text.lines().find_map(|l| l.strip_prefix(prefix)?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    };
    let refaults = line("workingset_refault_anon") + line("workingset_refault_file");
    println!("  {} refaults, the file's {refaults}; {stat:?}", stat.refaults.expect("told"));
    assert!(refaults > 1000, "it reads again what it had to drop");
    assert_eq!((stat.refaults, stat.major_faults), (Some(refaults), Some(line("pgmajfault"))));
    assert_eq!((stat.limit, stat.high), (Some(HOLDS), None));
}

#[test]
fn what_memory_high_holds_up_is_what_the_kernel_counts() {
    if emulated() {
        // There it takes minutes, beside another guest longer than a test waits.
        println!("an emulated CPU: not measured");
        return;
    }
    let _alone = alone();
    let Some(group) = Limited::new("high").filter(|group| !group.own) else {
        println!("cgroup v1 has no memory.high");
        return;
    };
    group.write("memory.high", HOLDS);
    let mut storage = (MaybeUninit::uninit(), ObjectStorage::default());
    let mut both = Both::new(&mut storage.0, &mut storage.1, &group);
    let mut child = group.start("exec tail /dev/zero");
    // Each is of two seconds at most, and told when it ends.
    until("sleep", || (both.read().cpu.high > 1_000_000_000).then_some(()));
    let mark = |both: &mut Both<'_>| {
        let high = both.read().cpu.high;
        until("the end of a sleep", || (both.read().cpu.high != high).then_some(()));
        (group.counted.pressure("memory"), both.read())
    };
    let (counted, before) = mark(&mut both);
    until("three sleeps", || (group.counted.pressure("memory") - counted > 6.0).then_some(()));
    let (pressure, after) = mark(&mut both);
    group.end(&mut child);
    let high = seconds(after.cpu.high - before.cpu.high);
    let pressure = pressure - counted;
    println!("memory.high: asleep {high:.3} s of {pressure:.3} s");
    // From the end of a sleep to the reading of the file the next may have begun: 20 ms between two looks, and the reading.
    let late = 0.1;
    let of =
        |said: &Said| seconds(said.reclaim.own + said.cpu.memory.expect("marked") - said.cpu.reclaim_asleep);
    let ours = of(&after) - of(&before);
    println!("  with reclaim {ours:.3} s; {:?}", after.reclaim);
    assert!((ours - pressure).abs() <= pressure * 0.02 + late, "{ours} of {pressure}");
    assert!(high > ours * 0.8, "it slept, rather than reclaimed: there was nothing to reclaim");
}
