//! What the memory controller's files say of a cgroup: read of those alone whose pressure grew, as the kernel has to sum
//! memory.stat up over CPUs and everything below for whoever reads it.

use std::fs;
use std::path::PathBuf;

use foldhash::HashMap;

use crate::kernel::cgroups::name;
use crate::kernel::{CgroupChange, CgroupKey, MemoryReading, MemoryStat, Reading, StatReading};

/// Less pressure in an interval is not asked about, ns.
const PRESSED: u64 = 1_000_000;
/// Cgroups whose files are read in one reading: three or four files of some 20 µs each.
const MOST: usize = 128;
/// A limit of v1 beyond this is none: the kernel's is the greatest number of pages.
const NO_LIMIT: u64 = 1 << 60;

#[derive(Debug)]
struct Known {
    path: String,
    /// Pressure when it was asked about last; `None`: not yet.
    pressure: Option<u64>,
    stat: Option<MemoryStat>,
}

/// The files of one tree.
#[derive(Debug)]
pub struct Files {
    tree: PathBuf,
    unified: bool,
    known: HashMap<CgroupKey, Known>,
    /// The first reading is of cgroups that were there before.
    begun: bool,
    unread: u64,
}

impl Files {
    /// `unified`: the tree is cgroup v2's.
    pub fn new(tree: PathBuf, unified: bool) -> Files {
        Files { tree, unified, known: HashMap::default(), begun: false, unread: 0 }
    }

    /// Times that a cgroup was pressed and not read, as too many were.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Takes note of which cgroups came, reads those that waited for memory, and appends what is known of any.
    pub fn read(&mut self, reading: &mut Reading) {
        for change in &reading.changes {
            let CgroupChange::Present { cgroup, path } = change else { continue };
            // What is made later begins at zero.
            let born = MemoryStat { refaults: Some(0), major_faults: Some(0), ..MemoryStat::default() };
            let stat = self.begun.then_some(born);
            let pressure = self.begun.then_some(0);
            let known =
                self.known.entry(*cgroup).or_insert_with(|| Known { path: String::new(), pressure, stat });
            known.path.clone_from(path);
        }
        self.begun = true;
        let mut left = MOST;
        for StatReading { cgroup, stat } in &reading.stats {
            let Some(pressure) = stat.memory_pressure.map(|p| p.some) else { continue };
            let Some(known) = self.known.get_mut(cgroup) else { continue };
            let before = *known.pressure.get_or_insert(pressure);
            if pressure.saturating_sub(before) >= PRESSED {
                if left == 0 {
                    self.unread += 1;
                    continue;
                }
                left -= 1;
                let dir = name::below(&self.tree, &known.path);
                let file = |name: &str| fs::read_to_string(dir.join(name)).ok();
                // Gone, or without the memory controller.
                known.stat = memory(file, self.unified).or(known.stat);
                known.pressure = Some(pressure);
            }
            reading.memory.extend(known.stat.map(|stat| MemoryReading { cgroup: *cgroup, stat }));
        }
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, cgroup: CgroupKey) {
        self.known.remove(&cgroup);
    }
}

/// From the files of a cgroup, by name; `None`: it has no memory controller.
fn memory(file: impl Fn(&str) -> Option<String>, unified: bool) -> Option<MemoryStat> {
    let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
    let (usage, limit, high) = match unified {
        true => ("memory.current", "memory.max", Some("memory.high")),
        false => ("memory.usage_in_bytes", "memory.limit_in_bytes", None),
    };
    let text = file("memory.stat")?;
    let stat = Stat::of(&text, unified);
    Some(MemoryStat {
        usage: number(usage),
        inactive_file: stat.get("inactive_file"),
        reclaimable: stat.sum(["active_file", "inactive_file"]).map(|files| {
            // v1 does not tell.
            files + stat.get("slab_reclaimable").unwrap_or_default()
        }),
        limit: number(limit).filter(|limit| *limit < NO_LIMIT),
        high: high.and_then(number),
        // One number for both before 5.9.
        refaults: stat
            .sum(["workingset_refault_anon", "workingset_refault_file"])
            .or_else(|| stat.get("workingset_refault")),
        major_faults: stat.get("pgmajfault"),
    })
}

/// The lines of memory.stat; of v1 those that count what is below, too, as all of v2's do.
struct Stat<'t> {
    text: &'t str,
    prefix: &'static str,
}

impl<'t> Stat<'t> {
    fn of(text: &'t str, unified: bool) -> Stat<'t> {
        Stat { text, prefix: if unified { "" } else { "total_" } }
    }

    fn get(&self, name: &str) -> Option<u64> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(key, _)| key.strip_prefix(self.prefix) == Some(name))?;
        value.parse().ok()
    }

    fn sum(&self, names: [&str; 2]) -> Option<u64> {
        let [one, other] = names.map(|name| self.get(name));
        one?.checked_add(other?)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::kernel::{CgroupStat, Hierarchy, Pressure};

    #[test]
    fn files_of_both_versions() {
        // kernel 6.12, a group with memory.high
        let v2 = |name: &str| {
            Some(
                match name {
                    "memory.current" => "16777216\n",
                    "memory.max" => "max\n",
                    "memory.high" => "16777216\n",
                    "memory.stat" => {
                        "anon 4096\nfile 8192\ninactive_anon 0\nactive_anon 4096\ninactive_file 4096\nactive_file 8192\n\
                         slab_reclaimable 100\nworkingset_refault_anon 3\nworkingset_refault_file 694904\npgmajfault 7\n"
                    }
                    _ => return None,
                }
                .to_owned(),
            )
        };
        let expected = MemoryStat {
            usage: Some(16 << 20),
            inactive_file: Some(4096),
            reclaimable: Some(4096 + 8192 + 100),
            limit: None,
            high: Some(16 << 20),
            refaults: Some(694_907),
            major_faults: Some(7),
        };
        assert_eq!(memory(v2, true), Some(expected));
        // kernel 6.18, hybrid
        let v1 = |name: &str| {
            Some(
                match name {
                    "memory.usage_in_bytes" => "16773120\n",
                    "memory.limit_in_bytes" => "9223372036854771712\n",
                    "memory.stat" => {
                        "inactive_file 1\nactive_file 1\ntotal_inactive_file 4096\ntotal_active_file 8192\n\
                         total_workingset_refault_anon 0\ntotal_workingset_refault_file 12\ntotal_pgmajfault 5\n"
                    }
                    _ => return None,
                }
                .to_owned(),
            )
        };
        let stat = memory(v1, false).expect("understood");
        assert_eq!((stat.limit, stat.high, stat.reclaimable), (None, None, Some(12_288)));
        assert_eq!((stat.refaults, stat.major_faults), (Some(12), Some(5)));
        assert_eq!(memory(|_| None, true), None);
        assert_eq!(memory(|_| Some("no numbers\n".to_owned()), true), Some(MemoryStat::default()));
    }

    /// All of the files are one text here: one that is none of them is no number.
    #[test]
    fn no_file_panics() {
        let seeds: [&[u8]; 5] = [
            b"anon 4096\nfile 8192\ninactive_file 4096\nactive_file 8192\nslab_reclaimable 100\n\
              workingset_refault_anon 3\nworkingset_refault_file 694904\npgmajfault 7\n",
            b"inactive_file 1\ntotal_inactive_file 4096\ntotal_active_file 8192\ntotal_workingset_refault 12\n\
              total_pgmajfault 5\n",
            b"16777216\n",
            b"max\n",
            b"9223372036854771712\n",
        ];
        crate::testfuzz::Mutator::new(&seeds).each(|file| {
            // What is no text is none: see `read`.
            let Ok(text) = std::str::from_utf8(file) else { return };
            for unified in [true, false] {
                let read = memory(|_| Some(text.to_owned()), unified).expect("there is a file");
                assert!(read.limit.is_none_or(|limit| limit < NO_LIMIT));
            }
        });
    }

    #[test]
    fn only_who_waited_is_read_and_what_is_made_later_began_at_zero() {
        let tree = tempfile::tempdir().expect("a directory");
        let write = |group: &OsStr, usage: u64| {
            fs::create_dir_all(tree.path().join(group)).expect("a group");
            fs::write(tree.path().join(group).join("memory.current"), usage.to_string()).expect("written");
            fs::write(tree.path().join(group).join("memory.stat"), "pgmajfault 9\n").expect("written");
        };
        write("old".as_ref(), 1);
        // Its name is no text.
        write(OsStr::from_bytes(b"new\xe9"), 2);
        let key = |id| CgroupKey { hierarchy: Hierarchy::Unified, id };
        let mut files = Files::new(tree.path().to_owned(), true);
        let mut read = |new: Option<(u64, &str)>, pressure: [u64; 2]| {
            let mut reading = Reading::default();
            let present =
                |(id, path): (u64, &str)| CgroupChange::Present { cgroup: key(id), path: path.to_owned() };
            reading.changes.extend(new.map(present));
            reading.stats = (1..=2)
                .zip(pressure)
                .map(|(id, some)| StatReading {
                    cgroup: key(id),
                    stat: CgroupStat {
                        memory_pressure: Some(Pressure { some, full: None }),
                        ..CgroupStat::default()
                    },
                })
                .collect();
            files.read(&mut reading);
            let mut known: Vec<_> =
                reading.memory.iter().map(|m| (m.cgroup.id, m.stat.usage, m.stat.major_faults)).collect();
            known.sort_unstable();
            known
        };
        let ms = 1_000_000;
        assert_eq!(read(Some((1, "/old")), [9 * ms, 0]), []);
        assert_eq!(read(Some((2, r"/new\xe9")), [9 * ms, 0]), [(2, None, Some(0))]);
        assert_eq!(read(None, [9 * ms + ms / 2, 0]), [(2, None, Some(0))], "half a millisecond");
        assert_eq!(read(None, [10 * ms, ms]), [(1, Some(1), Some(9)), (2, Some(2), Some(9))]);
    }
}
