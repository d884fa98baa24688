//! Where the cgroup trees are mounted.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::Process;

use crate::kernel::Hierarchy;

/// The default place of the cgroup file systems.
const DEFAULT: &str = "/sys/fs/cgroup";

/// The trees that matter here: cgroup v2's, and in v1 those of `cpu` and `cpuacct`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    unified: Option<PathBuf>,
    v1_cpu: Option<PathBuf>,
    v1_cpuacct: Option<PathBuf>,
    /// The number of the v1 cpu hierarchy in /proc/cgroups.
    v1_cpu_number: Option<u32>,
}

/// No cgroup tree was found.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("no cgroup file system under {0}: mount the host's there, or name the place by --cgroup-root")]
    None(PathBuf),
    #[error("/proc/self/mountinfo: {0}: mount /proc")]
    Mounts(#[from] procfs::ProcError),
}

impl Roots {
    /// The trees below `root` (a mount of the host's /sys/fs/cgroup); without it, those that
    /// /proc/self/mountinfo tells.
    pub fn find(root: Option<&Path>) -> Result<Roots, RootsError> {
        let mut roots = match root {
            Some(root) => Roots::below(root),
            None => Roots::mounted()?,
        };
        if roots.unified.is_none() && roots.v1_cpu.is_none() {
            return Err(RootsError::None(root.unwrap_or(Path::new(DEFAULT)).to_owned()));
        }
        if roots.v1_cpu.is_some() {
            let table = fs::read_to_string("/proc/cgroups").unwrap_or_default();
            roots.v1_cpu_number = hierarchy_number(&table, "cpu");
        }
        Ok(roots)
    }

    fn below(root: &Path) -> Roots {
        let first = |names: &[&str], file: &str| {
            names.iter().map(|name| root.join(name)).find(|dir| dir.join(file).exists())
        };
        Roots {
            unified: first(&["", "unified"], "cgroup.controllers"),
            v1_cpu: first(&["cpu", "cpu,cpuacct"], "cpu.shares"),
            v1_cpuacct: first(&["cpuacct", "cpu,cpuacct"], "cpuacct.usage"),
            v1_cpu_number: None,
        }
    }

    fn mounted() -> Result<Roots, RootsError> {
        let mounts = Process::myself()?.mountinfo()?.0;
        let of = |controller: &str| {
            let is = |m: &&procfs::process::MountInfo| {
                m.fs_type == "cgroup" && m.root == "/" && m.super_options.contains_key(controller)
            };
            mounts.iter().find(is).map(|m| m.mount_point.clone())
        };
        Ok(Roots {
            unified: mounts.iter().find(|m| m.fs_type == "cgroup2").map(|m| m.mount_point.clone()),
            v1_cpu: of("cpu"),
            v1_cpuacct: of("cpuacct"),
            v1_cpu_number: None,
        })
    }

    /// The cgroup v2 tree.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The v1 tree of the cpu controller.
    pub fn v1_cpu(&self) -> Option<&Path> {
        self.v1_cpu.as_deref()
    }

    /// The v1 tree of the cpuacct controller.
    pub fn v1_cpuacct(&self) -> Option<&Path> {
        self.v1_cpuacct.as_deref()
    }

    /// The hierarchy the scheduler's cgroups are of.
    pub fn cpu_hierarchy(&self) -> Hierarchy {
        if self.v1_cpu.is_some() { Hierarchy::V1Cpu } else { Hierarchy::Unified }
    }

    /// The hierarchy of a number in /proc/cgroups.
    pub fn hierarchy(&self, number: u32) -> Option<Hierarchy> {
        match number {
            0 => self.unified.is_some().then_some(Hierarchy::Unified),
            n => (self.v1_cpu_number == Some(n)).then_some(Hierarchy::V1Cpu),
        }
    }

    /// Every tree with its root directory.
    pub fn trees(&self) -> impl Iterator<Item = (Hierarchy, PathBuf)> + use<> {
        let trees = [(Hierarchy::V1Cpu, self.v1_cpu.clone()), (Hierarchy::Unified, self.unified.clone())];
        trees.into_iter().filter_map(|(hierarchy, root)| Some((hierarchy, root?)))
    }
}

/// A controller's hierarchy in /proc/cgroups: name, hierarchy, number of cgroups, enabled.
fn hierarchy_number(table: &str, controller: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == controller).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_second_word() {
        // of a hybrid host, kernel 6.18
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t14\t1\ncpu\t1\t19\t1\ncpuacct\t2\t14\t1\n";
        assert_eq!(hierarchy_number(table, "cpu"), Some(1));
        assert_eq!(hierarchy_number(table, "cpuacct"), Some(2));
        assert_eq!(hierarchy_number(table, "memory"), None);
    }

    #[test]
    fn this_machine_has_a_tree() {
        let mounted = Roots::find(None).expect("a cgroup mount");
        assert!(mounted.trees().all(|(_, root)| root.is_dir()));
        let named = Roots::find(Some(Path::new(DEFAULT))).expect("a cgroup mount");
        assert_eq!(named.cpu_hierarchy(), mounted.cpu_hierarchy());
        let error = Roots::find(Some(Path::new("/proc/self/ns"))).expect_err("no cgroups there");
        assert!(error.to_string().contains("--cgroup-root"), "{error}");
    }
}
