//! What threads slept for: by the kernel's own count of pressure, which is exact of one task on one CPU.

use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel_gossip::kernel::cpu::{CpuOptions, CpuProbe};
use kernel_gossip::kernel::{CpuCounters, Hook};
use procfs::process::Process;

use crate::bed::cgroup::{Cgroup, Version, cpu_tree, pin, remove};
use crate::bed::stats::StatsEnabled;
use crate::bed::{emulated, until};
use crate::kernel::cpu::{Reader, alone, options, seconds};

/// A group in the cpu controller's tree and in that in which the kernel counts pressure, which are one in cgroup v2.
pub struct Counted {
    pub cgroup: Cgroup,
    counts: PathBuf,
    own: bool,
}

impl Counted {
    /// `None` where this kernel counts no pressure of groups.
    pub fn new(name: &str) -> Option<Counted> {
        let cgroup = Cgroup::new(name);
        let own = cpu_tree().version == Version::V1;
        let counts = match own {
            true => {
                let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("mountinfo").0;
                let unified = mounts.iter().find(|m| m.fs_type == "cgroup2")?.mount_point.clone();
                let counts = unified.join(cgroup.dir().file_name().expect("a name"));
                fs::create_dir(&counts).expect("a group");
                counts
            }
            false => cgroup.dir().to_owned(),
        };
        let counted = Counted { cgroup, counts, own };
        counted.counts.join("io.pressure").exists().then_some(counted)
    }

    /// Makes a command start in both, on this CPU.
    pub fn enter_with(&self, command: &mut Command, cpu: usize) {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.counts.display());
        let inner: Vec<_> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(Into::into).collect();
        let inner: Vec<std::ffi::OsString> = inner;
        *command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).args(inner);
        self.cgroup.enter_with(command, Some(cpu));
    }

    /// For how long some task of it waited, s.
    pub fn pressure(&self, resource: &str) -> f64 {
        let text = fs::read_to_string(self.counts.join(format!("{resource}.pressure"))).expect("pressure");
        let total = text.lines().find(|l| l.starts_with("some")).and_then(|l| l.rsplit_once("total="));
        total.expect("a total").1.trim().parse::<f64>().expect("a number") / 1e6
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.own {
            let removed = remove(&self.counts);
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

fn file(bytes: usize) -> tempfile::NamedTempFile {
    // Not in the memory of a file system.
    let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
    file.write_all(&vec![b'x'; bytes]).expect("written");
    file.as_file().sync_all().expect("on the disk");
    file
}

/// One that reads 4 KiB at a time past the page cache, for ever.
pub fn reader_of(file: &Path) -> Command {
    let one = format!("dd if={} of=/dev/null bs=4k iflag=direct 2> /dev/null", file.display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("while {one}; do :; done")]);
    command
}

/// Within 2 %, or 10 ms: a sleep under way is not counted yet.
#[track_caller]
pub fn same(what: &str, ours: f64, theirs: f64) {
    println!("{what}: {ours:.3} s, the kernel's count {theirs:.3} s");
    assert!((ours - theirs).abs() <= (theirs * 0.02).max(0.01), "{what}: {ours} of {theirs}");
}

#[test]
fn time_asleep_for_a_disk_is_what_the_kernel_counts_as_pressure() {
    if emulated() {
        // There it takes minutes, beside another guest longer than a test waits.
        println!("an emulated CPU: not measured");
        return;
    }
    let _alone = alone();
    let Some(group) = Counted::new("disk") else {
        println!("a kernel that counts no pressure");
        return;
    };
    let file = file(16 << 20);
    for hook in [Hook::TpBtf, Hook::RawTracepoint] {
        let mut storage = MaybeUninit::uninit();
        let mut reader = Reader::new(&mut storage, options(hook));
        let mut command = reader_of(file.path());
        group.enter_with(&mut command, 0);
        let at_first = group.pressure("io");
        let mut child = command.stdin(std::process::Stdio::null()).spawn().expect("a reader");
        let end = Instant::now() + Duration::from_secs(15);
        let read = || group.pressure("io") - at_first;
        until("it reads", || (read() > 0.05 || Instant::now() > end).then_some(()));
        if read() == 0.0 {
            // A guest's file systems are its host's: who waits for one of those does not wait for a disk to the kernel.
            println!("no disk below /var/tmp");
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        let (counted, before) = (group.pressure("io"), reader.of(&group.cgroup));
        until("two seconds of it", || (group.pressure("io") - counted > 2.0).then_some(()));
        let (theirs, after) = (group.pressure("io") - counted, reader.of(&group.cgroup));
        let _ = child.kill();
        let _ = child.wait();
        until("its end", || group.cgroup.read("cgroup.procs").is_empty().then_some(()));
        same(&format!("asleep for a disk ({hook})"), seconds(after.disk - before.disk), theirs);
        let spent = |of: fn(&CpuCounters) -> u64| seconds(of(&after) - of(&before));
        println!("  ran {:.3} s, waited {:.3} s", spent(|c| c.run), spent(|c| c.wait));
        assert_eq!(after.memory, before.memory, "nothing for memory");
        assert_eq!(reader.losses.sleeps_lost, 0);
    }
}

/// So many words there and back between two threads of a CPU each: two switches a word.
fn ping_pong(words: usize) {
    let (mut take, mut give) = std::io::pipe().expect("a pipe");
    let (mut back, mut answer) = std::io::pipe().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(0).expect("pinned");
            let mut word = [0];
            while take.read(&mut word).expect("read") == 1 {
                answer.write_all(&word).expect("written");
            }
        });
        scope.spawn(move || {
            pin(0).expect("pinned");
            for _ in 0..words {
                give.write_all(&[1]).expect("written");
                back.read_exact(&mut [0]).expect("read");
            }
        });
    });
}

/// Of the two programs, each of them first in half of them.
const ROUNDS: usize = 10;

/// The switch program with and without it, both attached at once, each of them first once: what runs second finds the task's memory
/// at hand.
#[test]
fn cost_of_what_threads_sleep_for_in_a_switch() {
    let _alone = alone();
    let _stats = StatsEnabled::new();
    let group = Counted::new("cost");
    let file = file(4 << 20);
    let words = if emulated() { 1_000 } else { 40_000 };
    for hook in [Hook::TpBtf, Hook::RawTracepoint] {
        let mut ratios = Vec::new();
        for (load, with_disk) in
            [("two threads that wake each other", false), ("and one that reads a disk", true)]
        {
            let child = group.as_ref().filter(|_| with_disk).map(|group| {
                let mut command = reader_of(file.path());
                group.enter_with(&mut command, 0);
                command.stdin(std::process::Stdio::null()).spawn().expect("a reader")
            });
            let mut means = [Vec::new(), Vec::new()];
            for first in [true, false].into_iter().cycle().take(ROUNDS) {
                let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
                let [one, other] = &mut storage;
                let load = |storage, sleeps| {
                    CpuProbe::load(storage, CpuOptions { sleeps, ..options(hook) }).expect("load the probe")
                };
                let probes = [(first, load(one, first)), (!first, load(other, !first))];
                ping_pong(words);
                for (sleeps, probe) in &probes {
                    let mut costs = Vec::new();
                    probe.costs(&mut costs);
                    let cost = &costs[0];
                    means[usize::from(*sleeps)]
                        .push(cost.run_time.as_nanos() as f64 / cost.runs.max(1) as f64);
                }
            }
            if let Some(mut child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
            let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
            let (without, with) = (mean(&means[0]), mean(&means[1]));
            println!(
                "{hook}, {load}: {without:.1} ns without, {with:.1} ns with: {:.3} times",
                with / without
            );
            ratios.push(with / without);
        }
        // By raw tracepoints each look is a call: 1.09 times.
        if !emulated() && hook == Hook::TpBtf {
            assert!(ratios.iter().all(|ratio| *ratio <= 1.08), "{hook}: {ratios:?}");
        }
    }
}
