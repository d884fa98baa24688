//! Cgroups of a test's own with real load in them, in cgroup v1 and v2 alike: what the kernel's own files
//! say about them is what the tests compare with.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use procfs::process::Process;

use super::{process, until};

/// The tree that the cpu controller is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub mount: PathBuf,
    pub version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The tree of the cpu controller on this machine.
pub fn cpu_tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("/proc/self/mountinfo").0;
        let tree = |version, is: &dyn Fn(&procfs::process::MountInfo) -> bool| {
            let mount = mounts.iter().find(|mount| is(mount))?.mount_point.clone();
            Some(Tree { mount, version })
        };
        tree(Version::V1, &|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("cpu"))
            .or_else(|| tree(Version::V2, &|mount| mount.fs_type == "cgroup2"))
            .expect("no cgroup tree with the cpu controller is mounted")
    })
}

/// A cgroup in the tree of the cpu controller. Dropping it kills what runs in it and removes it, with the
/// groups below.
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes a group right under the root, named after the test and made unique.
    pub fn new(name: &str) -> Cgroup {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Cgroup::make(&cpu_tree().mount, &format!("kg-test-{name}-{}-{number}", std::process::id()))
    }

    /// Makes a group at this path below the root (`kubepods/burstable/pod…`), with its missing parents,
    /// which go with the last group in them.
    pub fn at(path: &str) -> Cgroup {
        let (parents, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
        let mut dir = cpu_tree().mount.clone();
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            hand_down_cpu(&dir);
            dir.push(parent);
            match fs::create_dir(&dir) {
                Ok(()) => parents_made().push(dir.clone()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("mkdir {}: {e}", dir.display()),
            }
        }
        Cgroup::make(&dir, name)
    }

    /// Makes a group below this one. No process may be in this one (cgroup v2).
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup::make(&self.dir, name)
    }

    fn make(parent: &Path, name: &str) -> Cgroup {
        hand_down_cpu(parent);
        let dir = parent.join(name);
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
        Cgroup { dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its path in the tree: `/kg-test-…`.
    pub fn path(&self) -> String {
        format!("/{}", self.dir.strip_prefix(&cpu_tree().mount).expect("below the mount").display())
    }

    /// Its kernfs id in this tree.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.dir).expect("the group's directory").ino()
    }

    /// Limits the CPU time of the group to `quota` a `period`; `None` lifts the limit.
    pub fn limit(&self, quota: Option<Duration>, period: Duration) {
        let quota = quota.map(|quota| quota.as_micros().to_string());
        let period = period.as_micros();
        match cpu_tree().version {
            Version::V1 => {
                self.write("cpu.cfs_period_us", &period.to_string());
                self.write("cpu.cfs_quota_us", quota.as_deref().unwrap_or("-1"));
            }
            Version::V2 => self.write("cpu.max", &format!("{} {period}", quota.as_deref().unwrap_or("max"))),
        }
    }

    /// For how long the kernel says that the group was throttled by its own quota, summed over CPUs.
    pub fn throttled(&self) -> Duration {
        match cpu_tree().version {
            Version::V1 => Duration::from_nanos(self.cpu_stat("throttled_time")),
            Version::V2 => Duration::from_micros(self.cpu_stat("throttled_usec")),
        }
    }

    /// A number of `cpu.stat`, as it stands there.
    pub fn cpu_stat(&self, key: &str) -> u64 {
        let stat = self.read("cpu.stat");
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {key} in cpu.stat: {stat}")).parse().expect("a number")
    }

    /// Reads one of its files.
    pub fn read(&self, file: &str) -> String {
        let path = self.dir.join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: &str) {
        let path = self.dir.join(file);
        fs::write(&path, value).unwrap_or_else(|e| panic!("{value} to {}: {e}", path.display()));
    }

    /// Starts processes that keep a CPU busy each, in this group from their first instruction on; if `cpu` is
    /// given, all on that one.
    pub fn burn(&self, processes: usize, cpu: Option<usize>) -> Burners {
        let burner = || self.spawn(Command::new("/bin/sh").args(["-c", "while :; do :; done"]), cpu);
        Burners { children: std::iter::repeat_with(burner).take(processes).collect() }
    }

    /// Starts a program in this group; if `cpu` is given, on that one. It is the caller's to end and reap;
    /// at the latest, the kernel kills it when the calling thread ends.
    pub fn spawn(&self, command: &mut Command, cpu: Option<usize>) -> Child {
        self.enter_with(command, cpu);
        process::spawn(command.stdin(Stdio::null()))
    }

    /// Makes a command start in this group; if `cpu` is given, on that one.
    pub fn enter_with(&self, command: &mut Command, cpu: Option<usize>) {
        let procs = self.dir.join("cgroup.procs");
        let procs = File::options().write(true).open(&procs);
        let procs = procs.unwrap_or_else(|e| panic!("{}/cgroup.procs: {e}", self.dir.display()));
        // SAFETY: between fork and exec only write() on an open file and sched_setaffinity(), both
        // async-signal-safe, without allocation.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                cpu.map_or(Ok(()), pin)
            });
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.dir) {
            // A second panic while the first unwinds would hide it.
            let message = format!("cannot remove {}: {e}", self.dir.display());
            if std::thread::panicking() { eprintln!("{message}") } else { panic!("{message}") }
        }
        // Those above first were made first. One with others in it stays.
        parents_made().iter().rev().for_each(|parent| drop(fs::remove_dir(parent)));
    }
}

/// Parents that this process made.
fn parents_made() -> MutexGuard<'static, Vec<PathBuf>> {
    static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    MADE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// Busy processes. Dropping them kills them.
pub struct Burners {
    children: Vec<Child>,
}

impl Burners {
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.children.iter().map(Child::id)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.children {
            process::end(child);
        }
    }
}

/// Binds the calling thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit set for which all zeroes is the empty set; the pointer is to a local
    // of the size given.
    let bound = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In cgroup v2 a group has the cpu controller only if its parent hands it down.
fn hand_down_cpu(parent: &Path) {
    if cpu_tree().version == Version::V2 {
        let control = parent.join("cgroup.subtree_control");
        fs::write(&control, "+cpu").unwrap_or_else(|e| panic!("+cpu to {}: {e}", control.display()));
    }
}

/// Kills what runs in a group and below and removes them, deepest first.
pub fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    until(&format!("end of what runs in {}", dir.display()), || {
        for pid in fs::read_to_string(dir.join("cgroup.procs")).ok()?.lines() {
            // Id 0 (a process outside this namespace) would be the caller's own group.
            let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
            // SAFETY: kill() takes no pointer.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => None,
            done => Some(done),
        }
    })
}
