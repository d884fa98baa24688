//! Whose pods' cgroups are: by that a pod of the node's is told from one that a user of the node made to look like it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::places::ROOT;
use crate::attribution::paths;
use crate::kernel::cgroups::name;
use crate::kernel::facts::Trees;

/// See the module.
#[derive(Debug)]
pub struct Owners {
    /// Where the trees are mounted.
    roots: Vec<PathBuf>,
}

impl Owners {
    /// cgroup v1 has a tree for each controller and one of systemd's, all mounted beside each other.
    pub fn new(trees: &Trees) -> Owners {
        let mut roots: Vec<PathBuf> = trees.iter().map(|(_, tree)| tree.mount.clone()).collect();
        let beside = trees.v1_cpu.as_ref().and_then(|tree| tree.mount.parent()).map(fs::read_dir);
        roots.extend(beside.into_iter().flatten().flatten().flatten().map(|entry| entry.path()));
        roots.sort();
        roots.dedup();
        Owners { roots }
    }

    /// Whose the directory is of the pod that a cgroup's path lies in: root's only where it is in every tree that has it.
    /// `None`: it lies in no pod, or the pod's is gone. `known`: what was found out a moment ago.
    pub fn of(&self, path: &str, known: &mut HashMap<Box<str>, Option<u32>>) -> Option<u32> {
        let class = paths::classify(path);
        let pod = class.pod.as_ref()?.cgroup.unwrap_or(class.anchor);
        if let Some(owner) = known.get(pod) {
            return *owner;
        }
        let dirs = self.roots.iter().map(|root| name::below(root, pod));
        let mut owners = dirs.filter_map(|dir| Some(fs::symlink_metadata(dir).ok()?.uid()));
        let first = owners.next();
        let owner = owners.find(|uid| *uid != ROOT).or(first);
        known.insert(pod.into(), owner);
        owner
    }
}
