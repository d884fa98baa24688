//! That something was killed, from the kernel's counts in cgroup files.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use foldhash::HashMap;

use super::kill::{Kill, Limit, Place};
use crate::kernel::cgroups::name;
use crate::kernel::clock::Every;
use crate::kernel::{CgroupChange, CgroupKey, Hierarchy, Reading};

/// A file is opened for each cgroup: some 15 µs.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Reads the counts of all cgroups once in a while.
pub struct Counts {
    /// The tree whose cgroups are told of by readings, and where the memory controller's is mounted: a path is the same in both.
    hierarchy: Hierarchy,
    tree: PathBuf,
    file: &'static str,
    /// What each cgroup had; `None` until it is read.
    known: HashMap<CgroupKey, (String, Option<u64>)>,
    again: Every,
    /// The first reading is of cgroups that were there before.
    begun: bool,
    kills: Vec<Kill>,
}

impl Counts {
    /// Of cgroups in `hierarchy`, with the files of `tree`; `unified`: those are cgroup v2's.
    pub fn new(hierarchy: Hierarchy, tree: PathBuf, unified: bool) -> Counts {
        Counts {
            hierarchy,
            tree,
            // Those of cgroups below are theirs.
            file: if unified { "memory.events.local" } else { "memory.oom_control" },
            known: HashMap::default(),
            again: Every::new(READ_EVERY),
            begun: false,
            kills: Vec::new(),
        }
    }

    /// Takes note of which cgroups came, and reads their counts if it is time.
    pub fn read(&mut self, reading: &Reading) {
        // What came later began at zero.
        let base = self.begun.then_some(0);
        for change in &reading.changes {
            if let CgroupChange::Present { cgroup, path } = change
                && cgroup.hierarchy == self.hierarchy
            {
                self.known.entry(*cgroup).or_insert((path.clone(), base)).0.clone_from(path);
            }
        }
        self.begun = true;
        if !self.again.due(reading.at.mono_ns) {
            return;
        }
        for (path, before) in self.known.values_mut() {
            let file = name::below(&self.tree, path).join(self.file);
            // Gone, or without the memory controller.
            let Some(count) = fs::read_to_string(file).ok().as_deref().and_then(count) else { continue };
            let grown = count.saturating_sub(before.unwrap_or(count));
            *before = Some(count);
            if grown > 0 {
                self.kills.push(Kill {
                    at_ns: reading.at.mono_ns,
                    place: Place { path: Some(path.clone()), ..Place::default() },
                    victims: Vec::new(),
                    kills: grown,
                    group: false,
                    limit: Limit::Unknown,
                    asker: None,
                });
            }
        }
    }

    /// Appends the kills that were found.
    pub fn take(&mut self, out: &mut Vec<Kill>) {
        out.append(&mut self.kills);
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, cgroup: CgroupKey) {
        self.known.remove(&cgroup);
    }
}

/// The line `oom_kill` of either file.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn both_files_are_understood() {
        let v2 = "low 0\nhigh 0\nmax 7\noom 5389\noom_kill 3\noom_group_kill 1\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 12\n";
        assert_eq!((count(v2), count(v1), count("oom 1\n")), (Some(3), Some(12), None));
    }

    #[test]
    fn no_file_panics() {
        let seeds: [&[u8]; 2] = [
            b"low 0\nhigh 0\nmax 7\noom 5389\noom_kill 3\noom_group_kill 1\n",
            b"under_oom 0\noom_kill 12\n",
        ];
        crate::testfuzz::Mutator::new(&seeds).each(|file| {
            let _ = std::str::from_utf8(file).ok().and_then(count);
        });
    }

    #[test]
    fn what_was_counted_before_is_not_told_and_what_comes_later_is_from_its_first_kill() {
        let tree = tempfile::tempdir().expect("a directory");
        let write = |group: &std::ffi::OsStr, kills: u32| {
            fs::create_dir_all(tree.path().join(group)).expect("a group");
            let text = format!("oom 9\noom_kill {kills}\n");
            fs::write(tree.path().join(group).join("memory.events.local"), text).expect("written");
        };
        let present = |id: u64, path: &str| CgroupChange::Present {
            cgroup: CgroupKey { hierarchy: Hierarchy::Unified, id },
            path: path.to_owned(),
        };
        let reading = |seconds: u64, changes: Vec<CgroupChange>| {
            let mut reading = Reading { changes, ..Reading::default() };
            reading.at.mono_ns = seconds * 1_000_000_000;
            reading
        };
        let mut counts = Counts::new(Hierarchy::Unified, tree.path().to_owned(), true);
        let told = |counts: &mut Counts| {
            let mut kills = Vec::new();
            counts.take(&mut kills);
            kills.into_iter().map(|k| (k.place.path.unwrap_or_default(), k.kills)).collect::<Vec<_>>()
        };
        // Its name is no text.
        let new = std::ffi::OsStr::from_bytes(b"caf\xe9");
        write("old".as_ref(), 7);
        counts.read(&reading(1, vec![present(1, "/old")]));
        assert_eq!(told(&mut counts), []);
        write("old".as_ref(), 8);
        write(new, 2);
        counts.read(&reading(2, vec![present(2, r"/caf\xe9")]));
        assert_eq!(told(&mut counts), [], "not time yet");
        counts.read(&reading(7, Vec::new()));
        let mut both = told(&mut counts);
        both.sort();
        assert_eq!(both, [(r"/caf\xe9".to_owned(), 2), ("/old".to_owned(), 1)]);
    }
}
