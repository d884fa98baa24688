//! What the CPU probe costs, against an empty program on the same hook under the same load.
//!
//! `cargo bench --bench probe_cost` (as root; needs `perf`). Prints figures, passes no verdict: on a
//! shared machine only the ratios of one run mean much.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use kernel_gossip::kernel::baseline::Baseline;
use kernel_gossip::kernel::cpu::{CpuOptions, CpuProbe, Hook};
use kernel_gossip::kernel::{Hierarchy, ProgramCost};

#[path = "../tests/common/stats.rs"]
mod stats;
use stats::StatsEnabled;

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
    let competitors = Competitors::start();
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
    let hierarchy = if cpu_root().ends_with("cpu") { Hierarchy::V1Cpu } else { Hierarchy::Unified };
    CpuOptions { hook: Hook::TpBtf, atomics: true, hierarchy, max_cgroups: 4096 }
}

/// The tree of the cpu controller.
fn cpu_root() -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/cpu");
    if v1.is_dir() { v1.into() } else { "/sys/fs/cgroup".into() }
}

/// Busy loops, each in a cgroup of its own, all on CPU 0.
struct Competitors(Vec<(Child, PathBuf)>);

impl Competitors {
    fn start() -> Self {
        let start = |i: usize| -> io::Result<(Child, PathBuf)> {
            let cgroup = cpu_root().join(format!("kg-bench-{i}"));
            fs::create_dir_all(&cgroup)?;
            let child =
                Command::new("taskset").args(["-c", "0", "sh", "-c", "while :; do :; done"]).spawn()?;
            fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
            Ok((child, cgroup))
        };
        Competitors((0..COMPETITORS).map(|i| start(i).expect("start a competitor")).collect())
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        for (child, cgroup) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_dir(cgroup);
        }
    }
}
