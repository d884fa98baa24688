//! A cgroup's numbers from its files, through descriptors that are kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::{Roots, name, parse};
use crate::kernel::clock::Every;
use crate::kernel::{CgroupKey, CgroupStat, Hierarchy};

/// Limits and pressure change slowly and cost the most to read.
const SLOW_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for a file that was not there (a controller that was off).
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// Descriptors left to the rest of the program.
const RESERVE: u64 = 256;
/// No file read here is longer.
const LONGEST: usize = 4096;

/// How many descriptors may be kept open, and a buffer to read into.
pub struct Descriptors {
    free: u64,
    buffer: Box<[u8; LONGEST]>,
}

impl Descriptors {
    /// As many as RLIMIT_NOFILE (raised to its hard limit) allows.
    pub fn for_this_process() -> Self {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls are given a pointer to a whole rlimit.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
                libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            }
        }
        Descriptors {
            free: limit.rlim_cur.saturating_sub(RESERVE).min(16 * 1024),
            buffer: Box::new([0; LONGEST]),
        }
    }

    /// Closes what a cgroup held.
    pub fn give_back(&mut self, files: &mut CgroupFiles) {
        self.free += files.kept.iter_mut().filter_map(Option::take).count() as u64;
    }

    fn read(&mut self, kept: &mut Option<File>, dir: &Path, path: &str, file_name: &str) -> io::Result<&str> {
        let opened;
        let file = match kept {
            Some(file) => &*file,
            None => {
                let file = File::open(name::below(dir, path).join(file_name))?;
                if self.free > 0 {
                    self.free -= 1;
                    kept.insert(file)
                } else {
                    opened = file;
                    &opened
                }
            }
        };
        let length = file.read_at(&mut self.buffer[..], 0)?;
        std::str::from_utf8(&self.buffer[..length]).map_err(io::Error::other)
    }
}

/// The open files of one cgroup in one tree, and the numbers last read from the slow ones.
pub struct CgroupFiles {
    kept: [Option<File>; 5],
    slow: CgroupStat,
    /// The kernel or the root of the tree has no such file.
    absent: [bool; 5],
    slow_due: Every,
    look_again: Every,
}

impl CgroupFiles {
    /// None opened yet. Cgroups take turns with what is not read each time.
    pub fn new(cgroup: CgroupKey) -> Self {
        CgroupFiles {
            kept: Default::default(),
            slow: CgroupStat::default(),
            absent: [false; 5],
            slow_due: Every::spread(SLOW_EVERY, cgroup.id),
            look_again: Every::spread(LOOK_AGAIN_EVERY, cgroup.id),
        }
    }

    /// Reads the numbers this tree has of the cgroup at `now` (CLOCK_MONOTONIC, ns).
    ///
    /// # Errors
    /// When a file cannot be read; ENOENT and ENODEV mean that the cgroup is gone.
    pub fn read(
        &mut self,
        descriptors: &mut Descriptors,
        roots: &Roots,
        cgroup: CgroupKey,
        path: &str,
        now: u64,
    ) -> io::Result<CgroupStat> {
        if self.look_again.due(now) {
            self.absent = [false; 5];
        }
        let slow = self.slow_due.due(now);
        match cgroup.hierarchy {
            Hierarchy::V1Cpu => self.read_v1(descriptors, roots, path, slow),
            Hierarchy::Unified => self.read_v2(descriptors, roots, path, slow),
            Hierarchy::V1Memory => Ok(CgroupStat::default()),
        }
    }

    fn read_v1(
        &mut self,
        fds: &mut Descriptors,
        roots: &Roots,
        path: &str,
        slow: bool,
    ) -> io::Result<CgroupStat> {
        let Some(dir) = roots.v1_cpu() else {
            return Ok(CgroupStat::default());
        };
        if slow {
            self.slow.quota = self.optional(fds, 2, dir, path, "cpu.cfs_quota_us")?.and_then(parse::micros);
            self.slow.period = self.optional(fds, 3, dir, path, "cpu.cfs_period_us")?.and_then(parse::micros);
        }
        let mut stat = self.slow;
        if let Some(text) = self.optional(fds, 0, dir, path, "cpu.stat")? {
            parse::cpu_stat(text, &mut stat);
        }
        if let Some(dir) = roots.v1_cpuacct() {
            stat.cpu_usage = self.optional(fds, 1, dir, path, "cpuacct.usage")?.and_then(parse::number);
        }
        Ok(stat)
    }

    fn read_v2(
        &mut self,
        fds: &mut Descriptors,
        roots: &Roots,
        path: &str,
        slow: bool,
    ) -> io::Result<CgroupStat> {
        let Some(dir) = roots.unified() else {
            return Ok(CgroupStat::default());
        };
        if slow {
            self.slow.cpu_pressure =
                self.optional(fds, 1, dir, path, "cpu.pressure")?.and_then(parse::pressure);
            self.slow.memory_pressure =
                self.optional(fds, 2, dir, path, "memory.pressure")?.and_then(parse::pressure);
            self.slow.io_pressure =
                self.optional(fds, 3, dir, path, "io.pressure")?.and_then(parse::pressure);
        }
        if roots.v1_cpu().is_some() {
            return Ok(self.slow); // hybrid: CPU numbers are the v1 tree's
        }
        if slow {
            let mut limit = CgroupStat::default();
            if let Some(text) = self.optional(fds, 4, dir, path, "cpu.max")? {
                parse::cpu_max(text, &mut limit);
            }
            (self.slow.quota, self.slow.period) = (limit.quota, limit.period);
        }
        let mut stat = self.slow;
        if let Some(text) = self.optional(fds, 0, dir, path, "cpu.stat")? {
            parse::cpu_stat(text, &mut stat);
        }
        Ok(stat)
    }

    /// A file that not every kernel, controller set or root has. Missing, it is not looked for again
    /// for a while; EOPNOTSUPP is pressure switched off.
    fn optional<'d>(
        &mut self,
        fds: &'d mut Descriptors,
        slot: usize,
        dir: &Path,
        path: &str,
        name: &str,
    ) -> io::Result<Option<&'d str>> {
        if self.absent[slot] {
            return Ok(None);
        }
        match fds.read(&mut self.kept[slot], dir, path, name) {
            Ok(text) => Ok(Some(text)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
                self.absent[slot] = true;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}
