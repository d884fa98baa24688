//! Where the cgroup trees that are sampled are mounted.

use std::path::{Path, PathBuf};

use crate::kernel::Hierarchy;
use crate::kernel::facts::Trees;

/// The trees that matter here: cgroup v2's, and in v1 those of `cpu` and `cpuacct`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    unified: Option<PathBuf>,
    v1_cpu: Option<PathBuf>,
    v1_cpuacct: Option<PathBuf>,
    /// The kernel's number for the v1 cpu hierarchy.
    v1_cpu_number: Option<u32>,
}

impl From<&Trees> for Roots {
    fn from(trees: &Trees) -> Roots {
        let mount = |tree: &Option<crate::kernel::facts::Tree>| tree.as_ref().map(|tree| tree.mount.clone());
        Roots {
            unified: mount(&trees.unified),
            v1_cpu: mount(&trees.v1_cpu),
            v1_cpuacct: mount(&trees.v1_cpuacct),
            v1_cpu_number: trees.v1_cpu.as_ref().map(|tree| tree.hierarchy),
        }
    }
}

impl Roots {
    /// The trees mounted in sight of this process, or only those at `below` and under it.
    pub fn find(below: Option<&Path>) -> Roots {
        Roots::from(&Trees::find(below))
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

    /// The hierarchy of the kernel's number for it; 0 is v2.
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
