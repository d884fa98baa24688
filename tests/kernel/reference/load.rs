//! A load: this test program itself, started again in a cgroup. Its threads begin together when told to and end by
//! themselves, so that afterwards no run, no wait and no stall is in progress.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::scene::cpus;
use crate::bed::cgroup::pin;

/// What tells this program to be a load, and which.
const ASKED: &str = "KG_LOAD";
/// What a load says of itself.
pub const THREAD: &str = "load-thread ";
pub const READY: &str = "load-ready";
pub const WORKED: &str = "load-worked";
pub const DONE: &str = "load-done";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub length_ms: u64,
    /// Where its orders come from, a byte each: the first is to begin, the second, when all have worked and no limit is in
    /// force any more, to be seen on every CPU once, so that what a stall there was is known. At its end it ends.
    pub orders: RawFd,
    pub threads: Vec<Thread>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    pub work: Work,
    /// The only CPU it may be on.
    pub cpu: Option<usize>,
    pub class: Class,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Always wants a CPU.
    Busy,
    /// Uses so much CPU time, then sleeps.
    Sleepy { work_us: u64, idle_us: u64 },
    /// Takes turns with another thread: reads a byte, works, writes one. `read` and `write` are numbers of a scenario's
    /// channels, and file descriptors once the load is started.
    Ping { read: RawFd, write: RawFd, work_us: u64, first: bool },
    /// Executes this program again, so often, and works after each time.
    Exec { times: u32, work_us: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Class {
    Fair,
    Fifo { priority: i32 },
    Deadline { runtime_us: u64, period_us: u64 },
}

/// The command that is this load.
pub fn command(load: &Load) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "kernel::reference::load::as_asked_for", "--nocapture", "--test-threads=1"]);
    command.env(ASKED, serde_json::to_string(load).expect("a load as JSON"));
    command
}

/// Is the load that this program was started as. As a test: a load comes out of its words as it went in.
#[test]
fn as_asked_for() {
    if let Ok(asked) = std::env::var(ASKED) {
        run(serde_json::from_str(&asked).expect("a load as JSON"));
        std::process::exit(0);
    }
    let ping = Work::Ping { read: 5, write: 6, work_us: 20, first: true };
    let class = Class::Deadline { runtime_us: 10_000, period_us: 100_000 };
    let load = Load { length_ms: 1, orders: 3, threads: vec![Thread { work: ping, cpu: Some(1), class }] };
    let command = command(&load);
    let (_, words) = command.get_envs().find(|(name, _)| *name == ASKED).expect("its words");
    let words = words.and_then(|words| words.to_str()).expect("UTF-8");
    assert_eq!(serde_json::from_str::<Load>(words).expect("a load"), load);
}

fn run(load: Load) {
    if let [Thread { work: Work::Exec { times, work_us }, cpu, .. }] = load.threads[..] {
        execs(load, times, work_us, cpu);
        return;
    }
    let begin = Arc::new(Barrier::new(load.threads.len() + 1));
    let length = Duration::from_millis(load.length_ms);
    let threads: Vec<_> = load
        .threads
        .into_iter()
        .enumerate()
        .map(|(i, thread)| {
            let begin = begin.clone();
            std::thread::spawn(move || {
                if let Some(cpu) = thread.cpu {
                    pin(cpu).expect("a CPU to be on");
                }
                thread.class.enter();
                println!("{THREAD}{i} {}", rustix::thread::gettid().as_raw_nonzero());
                // All are there; all begin.
                begin.wait();
                begin.wait();
                thread.work.until(Instant::now() + length);
            })
        })
        .collect();
    begin.wait();
    println!("{READY}");
    order(load.orders);
    begin.wait();
    for thread in threads {
        thread.join().expect("a thread of the load");
    }
    end(load.orders);
}

/// Has worked: is seen everywhere once, and waits to be ended.
fn end(orders: RawFd) {
    println!("{WORKED}");
    order(orders);
    for cpu in 0..cpus() {
        // A cpuset may leave out one; then nothing of this load was there.
        let _ = pin(cpu);
    }
    println!("{DONE}");
    order(orders);
}

/// Another thread than the first executes this program: it gets the first one's pid, while it runs.
fn execs(mut load: Load, times: u32, work_us: u64, cpu: Option<usize>) {
    const AGAIN: &str = "KG_LOAD_AGAIN";
    if std::env::var_os(AGAIN).is_none() {
        if let Some(cpu) = cpu {
            pin(cpu).expect("a CPU to be on");
        }
        println!("{READY}");
        order(load.orders);
    }
    spin(Duration::from_micros(work_us));
    if times == 0 {
        end(load.orders);
        return;
    }
    load.threads[0].work = Work::Exec { times: times - 1, work_us };
    let execed = std::thread::spawn(move || command(&load).env(AGAIN, "").exec());
    panic!("exec: {}", execed.join().expect("the thread"));
}

/// Waits for an order; none comes any more when this load is not wanted any more.
fn order(orders: RawFd) {
    if read(orders).is_none() {
        std::process::exit(0);
    }
}

fn read(fd: RawFd) -> Option<u8> {
    let mut byte = 0u8;
    // SAFETY: the pointer is to a local of one byte.
    match unsafe { libc::read(fd, (&raw mut byte).cast(), 1) } {
        1 => Some(byte),
        _ => None,
    }
}

fn write(fd: RawFd, byte: u8) {
    // SAFETY: the pointer is to a local of one byte.
    unsafe { libc::write(fd, (&raw const byte).cast(), 1) };
}

/// CPU time of the calling thread.
fn used() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the type that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Uses so much CPU time.
fn spin(work: Duration) {
    let end = used() + work;
    while used() < end {}
}

impl Work {
    fn until(&self, end: Instant) {
        match *self {
            Work::Busy => while Instant::now() < end {},
            Work::Sleepy { work_us, idle_us } => {
                while Instant::now() < end {
                    spin(Duration::from_micros(work_us));
                    std::thread::sleep(Duration::from_micros(idle_us));
                }
            }
            Work::Ping { read: from, write: to, work_us, first } => {
                const GO_ON: u8 = 0;
                const END: u8 = 1;
                if first {
                    write(to, GO_ON);
                }
                // Whoever is over first says so with its last byte.
                while read(from) == Some(GO_ON) {
                    if work_us > 0 {
                        spin(Duration::from_micros(work_us));
                    }
                    let over = Instant::now() >= end;
                    write(to, if over { END } else { GO_ON });
                    if over {
                        break;
                    }
                }
            }
            Work::Exec { .. } => unreachable!("a load of its own"),
        }
    }
}

impl Class {
    fn enter(self) {
        match self {
            Class::Fair => {}
            Class::Fifo { priority } => {
                let param = libc::sched_param { sched_priority: priority };
                // SAFETY: the pointer is to a local of the type that the call takes; 0 is the calling thread.
                let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) };
                assert_eq!(set, 0, "SCHED_FIFO: {}", std::io::Error::last_os_error());
            }
            Class::Deadline { runtime_us, period_us } => {
                /// `struct sched_attr`, its first version.
                #[repr(C)]
                struct Attributes {
                    size: u32,
                    policy: u32,
                    flags: u64,
                    nice: i32,
                    priority: u32,
                    runtime: u64,
                    deadline: u64,
                    period: u64,
                }
                let attributes = Attributes {
                    size: size_of::<Attributes>() as u32,
                    policy: 6,
                    flags: 0,
                    nice: 0,
                    priority: 0,
                    runtime: runtime_us * 1000,
                    deadline: period_us * 1000,
                    period: period_us * 1000,
                };
                // SAFETY: the pointer is to a local of the size that it says; 0 is the calling thread.
                let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
                assert_eq!(set, 0, "SCHED_DEADLINE: {}", std::io::Error::last_os_error());
            }
        }
    }
}
