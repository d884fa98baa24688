//! Processes that want memory, page by page, and groups that have too little of it: what the kernel does to them, and its own word
//! on it.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use procfs::process::Process;

use super::cgroup::remove;

pub const MIB: u64 = 1 << 20;

/// A group in the memory controller's tree. Dropping it kills what runs in it and removes it, with the groups below.
pub struct Group {
    mount: PathBuf,
    dir: PathBuf,
    /// It is cgroup v2's.
    pub unified: bool,
}

impl Group {
    /// Makes a group right under the root, named after the test and made unique.
    pub fn new(name: &str) -> Group {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("/proc/self/mountinfo").0;
        let v1 = mounts.iter().find(|m| m.fs_type == "cgroup" && m.super_options.contains_key("memory"));
        let v2 = || mounts.iter().find(|m| m.fs_type == "cgroup2");
        let mount = v1.or_else(v2).expect("a tree with the memory controller").mount_point.clone();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Group::make(
            mount.clone(),
            &mount,
            v1.is_none(),
            &format!("kg-test-{name}-{}-{number}", std::process::id()),
        )
    }

    /// Makes a group below this one. No process may be in this one (cgroup v2).
    pub fn child(&self, name: &str) -> Group {
        Group::make(self.mount.clone(), &self.dir, self.unified, name)
    }

    fn make(mount: PathBuf, parent: &Path, unified: bool, name: &str) -> Group {
        if unified {
            fs::write(parent.join("cgroup.subtree_control"), "+memory").expect("the memory controller");
        }
        let dir = parent.join(name);
        fs::create_dir(&dir).expect("a group");
        Group { mount, dir, unified }
    }

    /// Its path in the tree: `/kg-test-…`.
    pub fn path(&self) -> String {
        format!("/{}", self.dir.strip_prefix(&self.mount).expect("below the mount").display())
    }

    /// It may hold so much from now on, bytes.
    pub fn limit(&self, bytes: u64) {
        let file = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        self.write(file, &bytes.to_string());
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: &str) {
        fs::write(self.dir.join(file), value).unwrap_or_else(|e| panic!("{value} to {file}: {e}"));
    }

    /// Processes of its own that the kernel says it killed for lack of memory.
    pub fn kills(&self) -> u64 {
        let file = if self.unified { "memory.events.local" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.dir.join(file)).expect("the count");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("oom_kill").trim().parse().expect("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.dir.exists() {
            let removed = remove(&self.dir);
            assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.dir.display());
        }
    }
}

/// A process that holds as much memory as it is told. Dropping it kills it.
pub struct Eater {
    pub pid: i32,
    orders: PipeWriter,
    done: PipeReader,
    /// Pages that it has touched, as itself counts: shared with it.
    eaten: &'static AtomicU64,
    ended: bool,
}

/// The name it gives itself.
pub const EATER: &str = "kg-eater";
/// The user it is.
pub const USER: u32 = 4242;
/// The most it can hold, bytes.
const ROOM: usize = 1 << 30;

impl Eater {
    /// Starts one in a group, as user [`USER`].
    pub fn start(group: &Group) -> Eater {
        Eater::clone_into(group, 0)
    }

    /// The same as the first process of a new PID namespace, as that of a container is.
    pub fn first_of_a_namespace(group: &Group) -> Eater {
        Eater::clone_into(group, libc::CLONE_NEWPID)
    }

    fn clone_into(group: &Group, flags: libc::c_int) -> Eater {
        let procs = File::options().write(true).open(group.dir.join("cgroup.procs")).expect("cgroup.procs");
        let (take, orders) = std::io::pipe().expect("a pipe");
        let (mut done, tell) = std::io::pipe().expect("a pipe");
        let map = |len: usize, kind: libc::c_int| {
            // SAFETY: a new mapping, of no file.
            let at = unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(
                    std::ptr::null_mut(),
                    len,
                    protection,
                    kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>()
        };
        let (room, shared) = (map(ROOM, libc::MAP_PRIVATE), map(4096, libc::MAP_SHARED));
        // SAFETY: a mapping of this process's, never unmapped, all zeroes.
        let eaten: &'static AtomicU64 = unsafe { &*shared.cast::<AtomicU64>() };
        // SAFETY: as fork() does; what the child calls until it ends are system calls alone, without allocation.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) } as i32;
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            eat(procs.as_raw_fd(), take.as_raw_fd(), tell.as_raw_fd(), room, eaten);
        }
        // SAFETY: the mapping made above, which nothing refers to in this process.
        unsafe { libc::munmap(room.cast(), ROOM) };
        drop((take, tell));
        done.read_exact(&mut [0]).expect("it is there");
        Eater { pid, orders, done, eaten, ended: false }
    }

    /// Tells it to hold so much more, bytes.
    pub fn eat(&mut self, bytes: u64) {
        self.orders.write_all(&(bytes / page()).to_ne_bytes()).expect("it takes orders");
    }

    /// The same; waits until it does.
    pub fn hold(&mut self, bytes: u64) {
        self.eat(bytes);
        self.done.read_exact(&mut [0]).expect("it holds them");
    }

    /// Bytes of anonymous memory, exactly, and what it has eaten of it: /proc/PID/smaps_rollup.
    pub fn anonymous(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).expect("smaps_rollup");
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("Anonymous");
        line.trim().strip_suffix(" kB").expect("kB").trim().parse::<u64>().expect("a number") << 10
    }

    /// What it has eaten, bytes.
    pub fn eaten(&self) -> u64 {
        self.eaten.load(Ordering::SeqCst) * page()
    }

    /// How likely it is to be killed.
    pub fn score_adj(&self, adj: i32) {
        fs::write(format!("/proc/{}/oom_score_adj", self.pid), adj.to_string()).expect("oom_score_adj");
    }

    /// Waits for its end: the signal that ended it.
    pub fn ends(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: a child of this process that nobody else waits for; the pointer is to a local.
        let ended = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(ended, self.pid);
        self.ended = true;
        libc::WTERMSIG(status)
    }
}

impl Drop for Eater {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: a child that was not waited for: its id is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.ends();
        }
    }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// The child's life, with system calls alone.
fn eat(procs: RawFd, take: RawFd, tell: RawFd, room: *mut u8, eaten: &AtomicU64) -> ! {
    let page = page() as usize;
    // SAFETY: descriptors that are open, pointers to locals and constants, and a mapping of ROOM bytes.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let name = c"kg-eater";
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        // What other tests have open is not to stay open here.
        let (procs, take, tell) = (libc::dup2(procs, 900), libc::dup2(take, 901), libc::dup2(tell, 902));
        libc::syscall(libc::SYS_close_range, 0, 899, 0);
        libc::syscall(libc::SYS_close_range, 903, u32::MAX, 0);
        libc::madvise(room.cast(), ROOM, libc::MADV_NOHUGEPAGE);
        if libc::write(procs, b"0".as_ptr().cast(), 1) != 1 || libc::syscall(libc::SYS_setuid, USER) != 0 {
            libc::_exit(2);
        }
        // A change of user took the wish away.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        libc::write(tell, b".".as_ptr().cast(), 1);
        let (mut more, mut at) = (0u64, 0);
        while libc::read(take, (&raw mut more).cast(), 8) == 8 {
            for _ in 0..more {
                room.add(at).write_volatile(1);
                at += page;
                eaten.fetch_add(1, Ordering::SeqCst);
            }
            libc::write(tell, b".".as_ptr().cast(), 1);
        }
        libc::_exit(0)
    }
}
