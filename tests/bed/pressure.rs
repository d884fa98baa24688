//! What the kernel counts of a group's waits (PSI), moment by moment; and a group whose one process waits for a disk.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use procfs::process::Process;

use super::cgroup::remove;
use super::process::Running;

/// What is read again and again, past the memory that could hold it, bytes.
const READS: usize = 16 << 20;

/// Group and reader in the v2 tree, whose `io.pressure` counts; dropping it ends them.
pub struct Reading {
    dir: PathBuf,
    path: String,
    file: tempfile::NamedTempFile,
    reader: Option<Running>,
}

impl Reading {
    /// Makes the group, in which nothing runs yet; `None` where this kernel counts no pressure of groups.
    pub fn new(name: &str) -> Option<Reading> {
        let mounts = Process::myself().and_then(|me| me.mountinfo()).expect("/proc/self/mountinfo").0;
        let v2 = mounts.iter().find(|m| m.fs_type == "cgroup2")?.mount_point.clone();
        let path = format!("/kg-test-{name}-{}", std::process::id());
        let dir = v2.join(&path[1..]);
        fs::create_dir(&dir).expect("a group");
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.write_all(&vec![b'x'; READS]).expect("written");
        file.as_file().sync_all().expect("on the disk");
        let reading = Reading { dir, path, file, reader: None };
        reading.dir.join("io.pressure").exists().then_some(reading)
    }

    /// Its path in the tree.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One process begins to read, 4 KiB at a time: it waits for each.
    pub fn read(&mut self) {
        let (dir, file) = (self.dir.display(), self.file.path().display());
        let one = format!("dd if={file} of=/dev/null bs=4k iflag=direct 2> /dev/null");
        let script = format!("echo $$ > {dir}/cgroup.procs && while {one}; do :; done");
        self.reader = Some(Running::start(Command::new("/bin/sh").args(["-c", &script])));
    }

    /// Notes for how long nothing of it went on, every 50 ms until [`Oracle::stop`].
    pub fn oracle(&self) -> Oracle {
        Oracle::start(self.dir.join("io.pressure"), "full")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        remove(&self.dir).expect("the group ends");
    }
}

/// What the kernel counted, moment by moment.
pub struct Oracle {
    stop: Sender<()>,
    notes: JoinHandle<Vec<(f64, f64)>>,
}

impl Oracle {
    /// Notes the total of this line (`some`, `full`) of a pressure file, every 50 ms.
    pub fn start(file: PathBuf, line: &'static str) -> Oracle {
        let (stop, stopped) = channel::<()>();
        let notes = std::thread::spawn(move || {
            let mut notes = Vec::new();
            while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
                let text = fs::read_to_string(&file).expect("a pressure file");
                notes.push((now.as_secs_f64(), total(&text, line)));
            }
            notes
        });
        Oracle { stop, notes }
    }

    /// The notes: Unix time and pressure so far, seconds.
    pub fn stop(self) -> Vec<(f64, f64)> {
        drop(self.stop);
        self.notes.join().expect("noted")
    }
}

/// The least and the greatest share, percent, of any window of so many seconds that ends in these moments.
pub fn shares(notes: &[(f64, f64)], window: f64, ends: std::ops::RangeInclusive<f64>) -> (f64, f64) {
    let at = |time: f64| notes[notes.partition_point(|(noted, _)| *noted < time).min(notes.len() - 1)].1;
    let all = notes.iter().filter(|(time, _)| ends.contains(time));
    let shares = all.map(|(end, total)| (total - at(end - window)) / window * 100.0);
    shares.fold((f64::INFINITY, 0.0), |(least, most), share| (share.min(least), share.max(most)))
}

/// The time so far that a line of a pressure file tells, seconds.
fn total(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name)).expect("a line of this name");
    let total: f64 = line.rsplit_once("total=").expect("a total").1.parse().expect("a number");
    total / 1e6
}
