//! What recording births costs: figures, no verdict. `cargo test --test budget birth -- --ignored --nocapture`

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bed::births::options;
use crate::bed::bundle::Bundle;
use crate::bed::measure::median;
use crate::bed::stats::StatsEnabled;
use kernel_gossip::kernel::ProgramCost;
use kernel_gossip::kernel::cost::map_memory;
use kernel_gossip::kernel::recorder::{Entry, Recorder};

const ROUNDS: usize = 15;
/// Of what takes milliseconds: what others do on the machine is in a few of so many.
const SHORT_ROUNDS: usize = 151;

/// Runs `work` off and on in turn, each first as often as the other; the medians.
fn off_and_on(
    recorder: &mut Recorder<'_>,
    rounds: usize,
    mut work: impl FnMut() -> Duration,
) -> (Duration, Duration) {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    let mut records = Vec::new();
    for round in 0..rounds {
        if round % 2 == 0 {
            off.push(work());
        }
        recorder.start().expect("start");
        on.push(work());
        recorder.stop(&mut records);
        records.clear();
        if round % 2 == 1 {
            off.push(work());
        }
    }
    (median(off), median(on))
}

/// CPU time of this thread: what it waits for a CPU is not in it.
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn told(what: &str, (off, on): (Duration, Duration), each: u32) {
    let ns = |time: Duration| time.as_nanos() as f64 / f64::from(each);
    println!(
        "{what}: off {:.0} ns, on {:.0} ns each: +{:.0} ns, ratio {:.3}",
        ns(off),
        ns(on),
        ns(on) - ns(off),
        ns(on) / ns(off)
    );
}

const CALLS: u32 = 20_000;

/// How much CPU time a loop of system calls takes, in this process or in one forked for it (which is a segment).
fn calls(number: libc::c_long, forked: bool) -> Duration {
    let run = |fd: i32| {
        let start = cpu_time();
        for _ in 0..CALLS {
            // SAFETY: /dev/null, one byte; getppid takes no arguments.
            unsafe { libc::syscall(number, fd, c"x".as_ptr(), 1) };
        }
        cpu_time() - start
    };
    // SAFETY: a path that ends with NUL.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) };
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors; the child makes system calls alone, and ends without unwinding.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let mut ns = 0u64;
        if !forked {
            ns = run(null).as_nanos() as u64;
        } else {
            let child = libc::fork();
            if child == 0 {
                let ns = run(null).as_nanos() as u64;
                libc::write(pipe[1], (&raw const ns).cast(), 8);
                libc::_exit(0);
            }
            assert_eq!(libc::read(pipe[0], (&raw mut ns).cast(), 8), 8);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        for fd in [pipe[0], pipe[1], null] {
            libc::close(fd);
        }
        Duration::from_nanos(ns)
    }
}

#[test]
#[ignore = "a measurement; needs runc, busybox and perf"]
fn cost_of_a_recording() {
    let mut storage = MaybeUninit::uninit();
    let start = Instant::now();
    let mut recorder = Recorder::load(&mut storage, options(Entry::TpBtf)).expect("load");
    println!("load: {:?}; maps: {} KiB", start.elapsed(), map_memory() / 1024);

    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        recorder.start().expect("start");
        starts.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        recorder.stop(&mut Vec::new());
        stops.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("start, worst: {:?}; median {:?}", starts.iter().max(), median(starts.clone()));
    println!("stop, worst: {:?}; median {:?}", stops.iter().max(), median(stops.clone()));

    for (what, number, forked) in [
        ("getppid, not recorded", libc::SYS_getppid, false),
        ("getppid, recorded", libc::SYS_getppid, true),
        ("write to /dev/null, not recorded", libc::SYS_write, false),
        ("write to /dev/null, recorded", libc::SYS_write, true),
    ] {
        told(what, off_and_on(&mut recorder, SHORT_ROUNDS, || calls(number, forked)), CALLS);
    }

    const RUNS: u32 = 100;
    let exec = || {
        let start = Instant::now();
        for _ in 0..RUNS {
            assert!(Command::new("/bin/true").status().expect("true").success());
        }
        start.elapsed()
    };
    told("/bin/true", off_and_on(&mut recorder, ROUNDS, exec), RUNS);
    let pipe = || {
        let start = Instant::now();
        let mut perf = Command::new("perf");
        perf.args(["bench", "sched", "pipe", "-l", "50000"]).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(perf.status().expect("perf").success());
        start.elapsed()
    };
    told("perf bench sched pipe, a round trip", off_and_on(&mut recorder, ROUNDS, pipe), 50_000);
    let container = || {
        let bundle = Bundle::new(&["true"]);
        let start = Instant::now();
        assert!(Command::new("sh").args(["-c", &bundle.start()]).status().expect("sh").success());
        start.elapsed()
    };
    told("runc create and start", off_and_on(&mut recorder, ROUNDS, container), 1);
    // Not what it waits for a CPU on a busy machine.
    let used = || {
        let before = children_cpu();
        container();
        children_cpu() - before
    };
    told("runc create and start, CPU time", off_and_on(&mut recorder, 5 * ROUNDS, used), 1);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average at the end: {}", load.trim());

    let _stats = StatsEnabled::new();
    let before = costs(&recorder);
    recorder.start().expect("start");
    container();
    calls(libc::SYS_getppid, true);
    pipe();
    recorder.stop(&mut Vec::new());
    for (before, after) in before.iter().zip(costs(&recorder)) {
        let runs = after.runs - before.runs;
        let ns = (after.run_time - before.run_time).as_nanos() as f64 / runs.max(1) as f64;
        println!("{}: {ns:.0} ns a run, {runs} runs", after.name);
    }
    println!("lost: {:?}", recorder.losses());
}

/// CPU time of all children that were waited for, and theirs.
fn children_cpu() -> Duration {
    // SAFETY: all zeroes is a value of this plain struct, and the pointer is to a whole one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn costs(recorder: &Recorder<'_>) -> Vec<ProgramCost> {
    let mut costs = Vec::new();
    recorder.costs(&mut costs);
    costs
}
