//! A group of processes that has too little memory for what it reads, on cgroup v2 and on hybrid hosts alike, and what the kernel
//! counts of its waits.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use procfs::process::Process;

use super::cgroup::{Version, cpu_tree, remove};
use super::pressure::Oracle;
use super::process::Running;

/// What it may hold, bytes, and, under a limit of v1, what it reads again and again.
const MAY_HOLD: usize = 16 << 20;
const READS: usize = 6 * MAY_HOLD;

/// Group and readers; dropping it ends them.
pub struct Squeezed {
    /// In the v2 tree, whose `memory.pressure` counts, and in the tree that limits its memory: the same, or one of v1.
    counts: PathBuf,
    limits: PathBuf,
    /// In the tree whose cgroups the scheduler knows, where that is of v1: as a container's is in all of them.
    runs: Option<PathBuf>,
    path: String,
    file: tempfile::NamedTempFile,
    readers: Option<Running>,
}

impl Squeezed {
    /// Makes the group, in which nothing runs yet; `None` where this kernel counts no pressure of groups.
    pub fn new(name: &str) -> Option<Squeezed> {
        let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("/proc/self/mountinfo").0;
        let mounted = |is: &dyn Fn(&procfs::process::MountInfo) -> bool| {
            mounts.iter().find(|m| is(m)).map(|m| m.mount_point.clone())
        };
        let v2 = mounted(&|m| m.fs_type == "cgroup2")?;
        let v1 = mounted(&|m| m.fs_type == "cgroup" && m.super_options.contains_key("memory"));
        let path = format!("/kg-test-{name}-{}", std::process::id());
        let make = |tree: &Path, limit: Option<&str>| {
            let dir = tree.join(&path[1..]);
            fs::create_dir(&dir).expect("a group");
            if let Some(limit) = limit {
                fs::write(dir.join(limit), MAY_HOLD.to_string()).expect("a limit");
            }
            dir
        };
        let (counts, limits) = match v1 {
            Some(v1) => (make(&v2, None), make(&v1, Some("memory.limit_in_bytes"))),
            None => {
                fs::write(v2.join("cgroup.subtree_control"), "+memory").expect("the memory controller");
                let dir = make(&v2, Some("memory.high"));
                (dir.clone(), dir)
            }
        };
        let runs = (cpu_tree().version == Version::V1).then(|| make(&cpu_tree().mount, None));
        // Not in the memory of a file system: what is read must be to be dropped.
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.write_all(&vec![b'x'; READS]).expect("written");
        file.as_file().sync_all().expect("on the disk");
        let squeezed = Squeezed { counts, limits, runs, path, file, readers: None };
        squeezed.counts.join("memory.pressure").exists().then_some(squeezed)
    }

    /// Its path in the trees.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Four processes begin: under a limit of v1 they drop for each other what they read; of cgroup v2 they want ever more, and are
    /// made to wait for it. (That needs no file system that drops what it holds, which a guest may not have.)
    pub fn read(&mut self) {
        let file = self.file.path().display();
        let enter = |dir: &Path| format!("echo $$ > {}/cgroup.procs && ", dir.display());
        // What was written is still held, by who wrote it: it would not be read at all.
        let forget = format!("dd if={file} iflag=nocache count=0 && ");
        let one = match self.counts == self.limits {
            true => "tail /dev/zero & ".to_owned(),
            false => format!("(while :; do cat {file} > /dev/null; done) & "),
        };
        let runs = self.runs.as_deref().map(enter).unwrap_or_default();
        let (counts, limits) = (enter(&self.counts), enter(&self.limits));
        let script = format!("{forget}{runs}{counts}{limits}{{ {} wait; }}", one.repeat(4));
        self.readers = Some(Running::start(Command::new("/bin/sh").args(["-c", &script])));
    }

    /// It is held up by memory.high, else by the limit that it has.
    pub fn by_high(&self) -> bool {
        self.counts == self.limits
    }

    /// A line of its memory.stat.
    pub fn stat(&self, line: &str) -> u64 {
        let text = fs::read_to_string(self.limits.join("memory.stat")).expect("memory.stat");
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {line}"))
    }

    /// Notes what the kernel counts, every 50 ms until [`Oracle::stop`].
    pub fn oracle(&self) -> Oracle {
        Oracle::start(self.counts.join("memory.pressure"), "some")
    }
}

impl Drop for Squeezed {
    fn drop(&mut self) {
        for dir in [&self.counts, &self.limits].into_iter().chain(&self.runs) {
            if dir.exists() {
                remove(dir).expect("the group ends");
            }
        }
    }
}
