//! The cgroup trees of the host: which are mounted, where, and what they show.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};
use serde::{Deserialize, Serialize};

use crate::kernel::Hierarchy;

/// The kernfs id of a tree's own root (fs/kernfs/dir.c hands out ids from 1).
pub(crate) const ROOT_ID: u64 = 1;

/// Which cgroup versions have the controllers that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// No cgroup tree is mounted in sight.
    None,
    V1,
    V2,
    /// v1 controllers, and a v2 tree (often with few or no controllers) beside them.
    Hybrid,
}

/// One cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The kernel's number for it (/proc/self/cgroup), 0 for the unified one.
    pub hierarchy: u32,
    /// The mount shows the tree from its root, not only from this process's own cgroup.
    pub whole: bool,
}

/// The trees that matter here. One v1 tree may be in several fields (`cpu,cpuacct`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trees {
    pub unified: Option<Tree>,
    pub v1_cpu: Option<Tree>,
    pub v1_cpuacct: Option<Tree>,
    pub v1_memory: Option<Tree>,
    /// The tree the cpu controller is in, mounted in sight or not: the one whose ids the scheduler
    /// knows cgroups by.
    pub cpu: Hierarchy,
    /// The only place that was looked at, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
}

/// Where trees were to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// As it was given.
    pub named: PathBuf,
    /// Why it could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Pressure stall information (PSI) of cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    Works,
    /// Off (psi=0, or not on by default) or not built in: which of the two cannot be told.
    Off,
    /// It is in the cgroup v2 tree, and none is in sight.
    NoTree,
    /// Cannot be read: the error.
    Unreadable(String),
}

impl Pressure {
    /// The kernel counts it: its files are there, readable or not.
    pub fn is_on(&self) -> bool {
        matches!(self, Pressure::Works | Pressure::Unreadable(_))
    }
}

impl Trees {
    /// Looks through the mounts. `below`: only those at this path or below count.
    pub(crate) fn find(below: Option<&Path>) -> Trees {
        let me = Process::myself();
        let mounts = mounts(&fs::read("/proc/self/mountinfo").unwrap_or_default());
        let own = me.and_then(|me| me.cgroups()).map_or_else(|_| Vec::new(), |cgroups| cgroups.0);
        // The kernel tells a v1 tree's controllers here even if it is mounted nowhere in sight.
        let number = |controller: &str| {
            own.iter().find(|c| c.controllers.iter().any(|name| name == controller)).map(|c| c.hierarchy)
        };
        // The mount table has whole paths without links and `..`; what was given may be any path.
        let (root, below) = match below.map(|root| (root, fs::canonicalize(root))) {
            Some((named, Ok(path))) => (Some(Root { named: named.into(), error: None }), Some(path)),
            Some((named, Err(error))) => {
                (Some(Root { named: named.into(), error: Some(error.to_string()) }), Some(named.into()))
            }
            None => (None, None),
        };
        let in_sight =
            |mount: &&MountInfo| below.as_ref().is_none_or(|root| mount.mount_point.starts_with(root));
        let v1 = |controller: &str| {
            let hierarchy = number(controller)?;
            let has = |m: &&MountInfo| m.fs_type == "cgroup" && m.super_options.contains_key(controller);
            best(mounts.iter().filter(in_sight).filter(has), hierarchy)
        };
        let unified = best(mounts.iter().filter(in_sight).filter(|m| m.fs_type == "cgroup2"), 0);
        Trees {
            unified,
            v1_cpu: v1("cpu"),
            v1_cpuacct: v1("cpuacct"),
            v1_memory: v1("memory"),
            cpu: if number("cpu").is_some() { Hierarchy::V1Cpu } else { Hierarchy::Unified },
            root,
        }
    }

    pub fn version(&self) -> CgroupVersion {
        let v1 = self.v1_cpu.is_some() || self.v1_cpuacct.is_some() || self.v1_memory.is_some();
        match (v1, self.unified.is_some()) {
            (false, false) => CgroupVersion::None,
            (true, false) => CgroupVersion::V1,
            (false, true) => CgroupVersion::V2,
            (true, true) => CgroupVersion::Hybrid,
        }
    }

    /// Where the tree with the cpu controller is mounted, if it is.
    pub fn cpu_mount(&self) -> Option<&Path> {
        let tree = match self.cpu {
            Hierarchy::Unified => &self.unified,
            _ => &self.v1_cpu,
        };
        tree.as_ref().map(|tree| tree.mount.as_path())
    }

    /// Where the tree with the memory controller is mounted, if it is, and whether that is cgroup v2's.
    pub fn memory_mount(&self) -> Option<(&Path, bool)> {
        let tree = self.v1_memory.as_ref().or(self.unified.as_ref())?;
        Some((&tree.mount, self.v1_memory.is_none()))
    }

    /// Those in sight, with what they are for. A tree that is there for cpu and cpuacct comes once.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tree)> {
        let cpuacct = self.v1_cpuacct.as_ref().filter(|tree| Some(*tree) != self.v1_cpu.as_ref());
        [
            ("unified", self.unified.as_ref()),
            ("cpu", self.v1_cpu.as_ref()),
            ("cpuacct", cpuacct),
            ("memory", self.v1_memory.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, tree)| Some((name, tree?)))
    }

    pub(super) fn pressure(&self) -> Pressure {
        let Some(tree) = &self.unified else {
            return Pressure::NoTree;
        };
        match fs::read(tree.mount.join("cpu.pressure")) {
            Ok(_) => Pressure::Works,
            // Where it is off some kernels have no such file, others say EOPNOTSUPP.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Pressure::Off,
            Err(e) => Pressure::Unreadable(e.to_string()),
        }
    }
}

/// The mounts of a table (proc(5), mountinfo). A line that is none, or no text, hides none of the others: whoever may
/// mount may choose the name.
fn mounts(table: &[u8]) -> Vec<MountInfo> {
    let lines = table.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter(|line| !line.is_empty()).filter_map(|line| MountInfo::from_line(line).ok()).collect()
}

/// Of several mounts of one tree, the first that shows all of it, else the first.
fn best<'a>(mounts: impl Iterator<Item = &'a MountInfo>, hierarchy: u32) -> Option<Tree> {
    let trees = mounts.map(|mount| Tree {
        mount: mount.mount_point.clone(),
        hierarchy,
        whole: fs::metadata(&mount.mount_point).is_ok_and(|root| root.ino() == ROOT_ID),
    });
    trees.reduce(|best, tree| if tree.whole && !best.whole { tree } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testfuzz::Mutator;

    const TABLE: &str = "24 30 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
        41 25 0:36 / /sys/fs/cgroup/cpu,cpuacct rw shared:19 - cgroup cgroup rw,cpu,cpuacct\n";

    #[test]
    fn a_mount_that_is_no_text_hides_no_other() {
        let table =
            [b"90 27 0:9 / /mnt/caf\xe9 rw - ext4 /dev/vdb rw\nnonsense\n", TABLE.as_bytes()].concat();
        let points: Vec<_> = mounts(&table).into_iter().map(|m| m.mount_point).collect();
        assert_eq!(points, [PathBuf::from("/sys/fs/cgroup"), "/sys/fs/cgroup/cpu,cpuacct".into()]);
    }

    #[test]
    fn no_mount_table_panics() {
        Mutator::new(&[TABLE.as_bytes()]).each(|table| {
            let lines = table.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(mounts(table).len() <= lines);
        });
    }
}
