//! What the CPU probe costs, against an empty program on the same hook under the same load.
//!
//! `cargo bench --bench probe_cost` (as root; needs `perf`). Prints figures, passes no verdict: on a
//! shared machine only the ratios of one run mean much.
#![allow(clippy::unwrap_used, reason = "a panic is how a bench fails")]

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::baseline::Baseline;
use kernel_gossip::kernel::cpu::{CpuOptions, CpuProbe, REST};
use kernel_gossip::kernel::{Hierarchy, ProgramCost};

#[path = "../tests/bed/mod.rs"]
mod bed;
use bed::cgroup::{Burners, Cgroup, Version, cpu_tree};
use bed::stats::StatsEnabled;

const COMPETITORS: usize = 8;
const ROUNDS: usize = 5;

fn main() {
    let _stats = StatsEnabled::new();
    println!("{:<44} {:>9} {:>9} {:>7} {:>10}", "load", "empty ns", "ours ns", "ratio", "switches");
    compare("perf bench sched pipe", || {
        pipe();
    });
    compare("perf bench sched messaging -t -g 5 (200 threads)", || {
        perf(&["messaging", "-t", "-g", "5", "-l", "2000"]);
    });
    let competitors = competitors();
    let (ours, _) = compare("8 competing cgroups pinned on one CPU", || sleep(Duration::from_secs(5)));
    println!("{:<44} {:.4} % of that CPU", "", ours.run_time.as_secs_f64() / 5.0 * 100.0);
    drop(competitors);
    slowdown();
}

/// Runs a load with both programs attached; returns what ours and the empty one cost.
fn compare(name: &str, load: impl FnOnce()) -> (ProgramCost, ProgramCost) {
    let mut storage = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let baseline = Baseline::load(&mut storage.0).expect("load the empty program");
    let probe = CpuProbe::load(&mut storage.1, options()).expect("load the probe");
    load();
    let mut costs = Vec::new();
    probe.costs(&mut costs);
    let empty = baseline.cost().expect("read the cost");
    let ours = costs.swap_remove(0);
    let mean = |c: &ProgramCost| c.run_time.as_nanos() as f64 / c.runs.max(1) as f64;
    println!(
        "{name:<44} {:>9.1} {:>9.1} {:>7.2} {:>10}",
        mean(&empty),
        mean(&ours),
        mean(&ours) / mean(&empty),
        ours.runs
    );
    (ours, empty)
}

/// The same pipe benchmark with the probe attached and not, in alternating rounds.
fn slowdown() {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(pipe());
        let mut storage = MaybeUninit::uninit();
        let probe = CpuProbe::load(&mut storage, options()).expect("load the probe");
        on.push(pipe());
        drop(probe);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    println!(
        "perf bench sched pipe, probe on / off, medians of {ROUNDS} alternating rounds: {:.3}",
        median(&mut on) / median(&mut off)
    );
}

fn pipe() -> Duration {
    perf(&["pipe", "-l", "200000"])
}

fn perf(arguments: &[&str]) -> Duration {
    let start = Instant::now();
    let status = Command::new("perf")
        .args(["bench", "sched"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("perf (Debian: apt-get install linux-perf)");
    assert!(status.success(), "perf bench sched {arguments:?}");
    start.elapsed()
}

fn options() -> CpuOptions {
    let hierarchy = match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    };
    CpuOptions { hook: Hook::TpBtf, atomics: true, prime: true, hierarchy, max_cgroups: 4096, rest: REST }
}

/// Busy loops, each in a cgroup of its own, all on CPU 0. They end with this, or with the program.
fn competitors() -> Vec<(Burners, Cgroup)> {
    let competitor = || {
        let cgroup = Cgroup::new("bench");
        (cgroup.burn(1, Some(0)), cgroup)
    };
    std::iter::repeat_with(competitor).take(COMPETITORS).collect()
}
