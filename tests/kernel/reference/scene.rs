//! A scenario played: cgroups with loads in them and what is done to them meanwhile, seen by the probe and by the recorder.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, PipeWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cpu::CpuLosses;
use kernel_gossip::kernel::{Blame, CpuCounters};
use procfs::process::Process;

use super::load::{self, Class, DONE, Load, READY, THREAD, Thread, WORKED, Work};
use super::recorder::Recorder;
use super::terms::{Exactly, Figures, figures};
use crate::bed::cgroup::{Cgroup, Version, cpu_tree};
use crate::bed::process::Running;
use crate::bed::until;
use crate::kernel::cpu::{Moment, Reader, options};

/// How often the probe is read while a scene is played.
const READ_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub groups: Vec<Group>,
    pub length_ms: u64,
    /// What is done while the loads work, and when, in ms from their beginning; in order.
    pub actions: Vec<(u64, Action)>,
}

#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The group above, which has no threads (an index below this one's).
    pub parent: Option<usize>,
    pub limit: Option<Limit>,
    /// As in cgroup v1: 1024 is one share.
    pub shares: Option<u64>,
    /// Real-time tasks may be in it, for so many µs a second (cgroup v1 with CONFIG_RT_GROUP_SCHED).
    pub realtime_us: Option<u64>,
    pub threads: Vec<Thread>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub quota_us: u64,
    pub period_us: u64,
    pub burst_us: u64,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// A thread (of a group, by its number there) is bound to another CPU.
    Move {
        group: usize,
        thread: usize,
        cpu: usize,
    },
    Limit {
        group: usize,
        limit: Option<Limit>,
    },
    /// Its directory gets another name, and its old one again (cgroup v1).
    Rename {
        group: usize,
    },
    /// The groups below lose the cpu controller, or get it (cgroup v2).
    Controller {
        group: usize,
        on: bool,
    },
}

/// A line a group.
impl Display for Scene {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ms", self.length_ms)?;
        for (i, group) in self.groups.iter().enumerate() {
            write!(f, "  group {i}")?;
            if let Some(parent) = group.parent {
                write!(f, " below {parent}")?;
            }
            if let Some(Limit { quota_us, period_us, burst_us }) = group.limit {
                write!(f, ", {quota_us}+{burst_us} us of {period_us}")?;
            }
            if let Some(shares) = group.shares {
                write!(f, ", shares {shares}")?;
            }
            if let Some(realtime) = group.realtime_us {
                write!(f, ", real-time {realtime} us")?;
            }
            for alike in group.threads.chunk_by(|a, b| a == b) {
                let Thread { work, cpu, class } = &alike[0];
                write!(f, "; {} of {work:?} {class:?}", alike.len())?;
                if let Some(cpu) = cpu {
                    write!(f, " on CPU {cpu}")?;
                }
            }
            writeln!(f)?;
        }
        for (at, action) in &self.actions {
            writeln!(f, "  at {at} ms {action:?}")?;
        }
        Ok(())
    }
}

/// What was seen.
pub struct Seen {
    pub names: Vec<(String, u64)>,
    /// What the probe said when all was over.
    pub probe: HashMap<u64, CpuCounters>,
    /// And until then, in order.
    pub meanwhile: Vec<Moment>,
    pub blame: Vec<Blame>,
    pub losses: CpuLosses,
    /// For how long the kernel says that a group was throttled by its own limit, ns.
    pub books: HashMap<u64, u64>,
    pub reference: Figures,
    pub stalls: Exactly,
}

/// CPUs of this machine that are online, whatever this thread may use of them.
pub fn cpus() -> usize {
    // SAFETY: sysconf() takes no pointer.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).expect("CPUs")
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Limit {
    /// Of whole milliseconds, without a burst.
    pub fn ms(quota: u64, period: u64) -> Option<Limit> {
        Some(Limit { quota_us: quota * 1000, period_us: period * 1000, burst_us: 0 })
    }
}

impl Group {
    pub fn of(threads: Vec<Thread>) -> Group {
        Group { threads, ..Group::default() }
    }

    pub fn limit(self, quota_ms: u64, period_ms: u64) -> Group {
        Group { limit: Limit::ms(quota_ms, period_ms), ..self }
    }

    pub fn shares(self, shares: u64) -> Group {
        Group { shares: Some(shares), ..self }
    }
}

/// A thread of the fair class.
pub fn thread(work: Work, cpu: impl Into<Option<usize>>) -> Thread {
    Thread { work, cpu: cpu.into(), class: Class::Fair }
}

/// So many busy threads.
pub fn busy(count: usize, cpu: impl Into<Option<usize>>) -> Vec<Thread> {
    vec![thread(Work::Busy, cpu); count]
}

/// Plays a scenario. What the recorder had no room for makes it play it again.
///
/// # Panics
/// When the trace is not whole three times.
pub fn play(scene: &Scene) -> Seen {
    for _ in 0..3 {
        match once(scene) {
            Ok(seen) => return seen,
            Err(lost) => println!("{lost} records had no room: once more"),
        }
    }
    panic!("the recorder lost records three times");
}

/// A load that works.
pub struct Player {
    running: Running,
    orders: PipeWriter,
    tids: HashMap<usize, i32>,
}

/// The cgroups of a scene, the last one removed first.
struct Groups(Vec<Cgroup>);

impl Drop for Groups {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

fn once(scene: &Scene) -> Result<Seen, u64> {
    let mut groups = Groups(Vec::new());
    for (i, group) in scene.groups.iter().enumerate() {
        let made = match group.parent {
            Some(parent) => groups.0[parent].child(&format!("below{i}")),
            None => Cgroup::new(&format!("scene{i}")),
        };
        prepare(&made, group);
        groups.0.push(made);
    }
    let groups = &groups.0;
    let names: Vec<_> = groups.iter().map(|group| (group.path(), group.id())).collect();

    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
    let recorder = Recorder::start(&names.iter().map(|(_, id)| *id).collect::<Vec<_>>());

    let mut channels = Channels::default();
    let mut players: HashMap<usize, Player> = HashMap::new();
    for (i, group) in scene.groups.iter().enumerate().filter(|(_, group)| !group.threads.is_empty()) {
        players.insert(i, Player::start(&groups[i], group, scene.length_ms, &mut channels));
    }
    drop(channels);
    for player in players.values_mut() {
        player.ready();
    }
    for (cgroup, group) in groups.iter().zip(&scene.groups) {
        if let Some(limit) = group.limit {
            set_limit(cgroup, Some(limit));
        }
    }
    for player in players.values_mut() {
        player.order();
    }
    let begun = Instant::now();
    let mut meanwhile = vec![reader.moment()];
    let mut wait_until = |at: u64| {
        while let Some(left) = (begun + ms(at)).checked_duration_since(Instant::now()) {
            sleep(left.min(READ_EVERY));
            meanwhile.push(reader.moment());
        }
    };
    for (at, action) in &scene.actions {
        wait_until(*at);
        action.take(groups, &players);
    }
    wait_until(scene.length_ms);
    for player in players.values_mut() {
        player.running.says(WORKED);
    }
    for cgroup in groups {
        set_limit(cgroup, None);
    }
    for player in players.values_mut() {
        player.order();
        player.running.says(DONE);
    }
    for player in players.values() {
        player.until_asleep();
    }
    let last = reader.moment();
    let probe = last.of.clone();
    meanwhile.push(last);
    let books = groups.iter().map(|group| (group.id(), group.throttled().as_nanos() as u64)).collect();
    let trace = recorder.stop();
    drop(players);
    if trace.lost > 0 {
        return Err(trace.lost);
    }
    let reference = figures(&trace.events, trace.stalls);
    let (blame, losses) = (reader.blame.clone(), reader.losses);
    Ok(Seen { names, probe, meanwhile, blame, losses, books, reference, stalls: trace.stalls })
}

/// Both ends of each channel that two groups share.
#[derive(Default)]
pub struct Channels(HashMap<RawFd, (RawFd, RawFd)>);

impl Channels {
    /// The file descriptors of a channel: to read from, to write to.
    fn get(&mut self, number: RawFd) -> (RawFd, RawFd) {
        *self.0.entry(number).or_insert_with(|| {
            let (from, to) = io::pipe().expect("a pipe");
            (from.into_raw_fd(), to.into_raw_fd())
        })
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        for (from, to) in self.0.values() {
            // SAFETY: these are this one's own, and nobody uses them after this.
            unsafe {
                libc::close(*from);
                libc::close(*to);
            }
        }
    }
}

impl Player {
    pub fn start(cgroup: &Cgroup, group: &Group, length_ms: u64, channels: &mut Channels) -> Player {
        let (orders, give) = io::pipe().expect("a pipe");
        let mut handed = vec![orders.as_raw_fd()];
        let threads = group.threads.iter().cloned().map(|mut thread| {
            if let Work::Ping { read, write, .. } = &mut thread.work {
                (*read, *write) = (channels.get(*read).0, channels.get(*write).1);
                handed.extend([*read, *write]);
            }
            thread
        });
        let load = Load { length_ms, orders: orders.as_raw_fd(), threads: threads.collect() };
        let mut command = load::command(&load);
        cgroup.enter_with(&mut command, None);
        hand_down(&mut command, handed);
        let running = Running::start(&mut command);
        Player { running, orders: give, tids: HashMap::new() }
    }

    /// Waits until all of its threads are there.
    pub fn ready(&mut self) {
        self.running.says(READY);
        let thread = |text: &str| {
            let (_, words) = text.split_once(THREAD)?;
            let (number, tid) = words.split_once(' ')?;
            Some((number.parse().ok()?, tid.parse().ok()?))
        };
        self.tids = self.running.lines().iter().filter_map(|line| thread(&line.text)).collect();
    }

    /// Tells it to go on.
    pub fn order(&mut self) {
        self.orders.write_all(b"o").expect("an order");
    }

    /// Until none of its threads wants a CPU.
    fn until_asleep(&self) {
        let process = Process::new(self.running.pid() as i32).expect("the load");
        until("a load that sleeps", || {
            let tasks = process.tasks().ok()?;
            let mut states = tasks.filter_map(|task| Some(task.ok()?.stat().ok()?.state));
            states.all(|state| state == 'S').then_some(())
        });
    }
}

/// These file descriptors stay open in the program.
fn hand_down(command: &mut Command, descriptors: Vec<RawFd>) {
    // SAFETY: between fork and exec only fcntl(), which is async-signal-safe and takes no pointer here.
    unsafe {
        command.pre_exec(move || {
            let kept = descriptors.iter().all(|fd| libc::fcntl(*fd, libc::F_SETFD, 0) == 0);
            if kept { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

/// Its shares and budgets; its limit is set once its load is there.
pub fn prepare(cgroup: &Cgroup, group: &Group) {
    if let Some(shares) = group.shares {
        match cpu_tree().version {
            Version::V1 => cgroup.write("cpu.shares", &shares.to_string()),
            Version::V2 => cgroup.write("cpu.weight", &(shares * 100 / 1024).clamp(1, 10_000).to_string()),
        }
    }
    // Where real-time groups have budgets of their own, a new one has none.
    if let Some(realtime) = group.realtime_us
        && cgroup.dir().join("cpu.rt_runtime_us").exists()
    {
        cgroup.write("cpu.rt_runtime_us", &realtime.to_string());
    }
}

/// Limits a group, or lifts its limit. What the kernel refuses (in cgroup v1 a limit above the parent's) is left as it is.
fn set_limit(cgroup: &Cgroup, limit: Option<Limit>) {
    let set = |file: &str, value: String| match fs::write(cgroup.dir().join(file), &value) {
        Err(e) if e.raw_os_error() != Some(libc::EINVAL) => {
            panic!("{value} to {file} of {}: {e}", cgroup.path())
        }
        _ => {}
    };
    let burst = match cpu_tree().version {
        Version::V1 => "cpu.cfs_burst_us",
        Version::V2 => "cpu.max.burst",
    };
    let bursts = cgroup.dir().join(burst).exists(); // 5.14
    if bursts {
        set(burst, "0".into());
    }
    match (cpu_tree().version, limit) {
        (Version::V1, None) => set("cpu.cfs_quota_us", "-1".into()),
        (Version::V1, Some(limit)) => {
            set("cpu.cfs_quota_us", "-1".into());
            set("cpu.cfs_period_us", limit.period_us.to_string());
            set("cpu.cfs_quota_us", limit.quota_us.to_string());
        }
        (Version::V2, None) => set("cpu.max", "max".into()),
        (Version::V2, Some(limit)) => set("cpu.max", format!("{} {}", limit.quota_us, limit.period_us)),
    }
    if let Some(limit) = limit.filter(|limit| bursts && limit.burst_us > 0) {
        set(burst, limit.burst_us.to_string());
    }
}

impl Action {
    fn take(&self, groups: &[Cgroup], players: &HashMap<usize, Player>) {
        match *self {
            Action::Move { group, thread, cpu } => {
                let tid = players[&group].tids[&thread];
                // One that has ended is not moved.
                let _ = bind(tid, cpu);
            }
            Action::Limit { group, limit } => set_limit(&groups[group], limit),
            Action::Rename { group } if cpu_tree().version == Version::V1 => {
                let dir = groups[group].dir();
                let mut other = dir.as_os_str().to_owned();
                other.push("-renamed");
                fs::rename(dir, &other).expect("another name");
                fs::rename(&other, dir).expect("the old name");
            }
            Action::Controller { group, on } if cpu_tree().version == Version::V2 => {
                groups[group].write("cgroup.subtree_control", if on { "+cpu" } else { "-cpu" });
            }
            Action::Rename { .. } | Action::Controller { .. } => {}
        }
    }
}

/// Binds a thread to one CPU.
fn bind(tid: i32, cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit set for which all zeroes is the empty set; the pointer is to a local of the size
    // given.
    let bound = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(tid, size_of_val(&set), &set)
    };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
