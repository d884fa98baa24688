//! Process id -> cgroup -> workload, through /proc: `kernel-gossip who`, and events that name a process alone.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use procfs::process::Process;
use procfs::{ProcError, ProcResult};

use super::paths::{self, Kind};
use super::{Attributor, Workload, WorkloadKind};
use crate::kernel::cgroups::name;

/// Where a process is in one hierarchy: a line of `/proc/<pid>/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The kernel's number for the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// `cpu`, `name=systemd`, …; none for cgroup v2.
    pub controllers: Vec<String>,
    /// As this process sees it: relative to its own cgroup namespace.
    pub path: String,
}

/// Which workload processes belong to.
#[derive(Clone, Copy, Debug)]
pub struct Processes {
    /// Paths in `/proc/<pid>/cgroup` are relative to the reader's cgroup namespace.
    pub namespaced: bool,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Processes {
    pub fn new() -> Self {
        Processes { namespaced: !in_first_cgroup_namespace() }
    }

    /// The workload of a process; `None` if it is gone or its cgroup is not known (yet).
    pub fn workload(&self, pid: i32, attributor: &Attributor) -> Option<Arc<Workload>> {
        self.of(&memberships(&Process::new(pid).ok()?).ok()?, attributor)
    }

    /// The workload that these are of. The cpu controller's path decides; where that is the root, as of a service
    /// without CPU settings in cgroup v1, the next hierarchy that says more.
    pub fn of(&self, memberships: &[Membership], attributor: &Attributor) -> Option<Arc<Workload>> {
        let known = |path: &str| match self.namespaced {
            true => attributor.by_namespaced_path(path),
            false => attributor.by_path(path),
        };
        let found: Vec<_> = in_order(memberships).filter_map(|m| known(&m.path)).collect();
        found.iter().find(|who| who.kind != WorkloadKind::Root).or(found.first()).cloned()
    }

    /// The path of a process's cgroup as this process sees it, in the hierarchy of the cpu controller.
    ///
    /// # Errors
    /// The process is gone, or /proc does not show it.
    pub fn cgroup(&self, pid: i32) -> ProcResult<Arc<str>> {
        let memberships = memberships(&Process::new(pid)?)?;
        Ok(in_order(&memberships).next().map_or("", |m| m.path.as_str()).into())
    }
}

/// Where a process is, in every hierarchy. Read by the descriptor that `process` holds: another process that gets its
/// number meanwhile is not taken for it.
///
/// # Errors
/// The process is gone, or /proc does not show it.
pub fn memberships(process: &Process) -> ProcResult<Vec<Membership>> {
    let mut bytes = Vec::new();
    let mut file = process.open_relative("cgroup")?;
    // ESRCH: it ended between the two.
    let gone = |e: std::io::Error| match e.raw_os_error() {
        Some(libc::ESRCH) => ProcError::NotFound(None),
        _ => ProcError::Io(e, None),
    };
    file.read_to_end(&mut bytes).map_err(gone)?;
    Ok(parse(&bytes))
}

/// The lines of `/proc/<pid>/cgroup`; a cgroup's name may be any bytes but NUL, newline and `/`.
fn parse(bytes: &[u8]) -> Vec<Membership> {
    let line = |line: &[u8]| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let controllers = String::from_utf8_lossy(fields.next()?);
        let path = fields.next()?;
        // The kernel marks a cgroup that was removed around its last processes.
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        Some(Membership {
            hierarchy: number,
            controllers: controllers.split(',').filter(|c| !c.is_empty()).map(String::from).collect(),
            path: name::text(path).into_owned(),
        })
    };
    bytes.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// v1's cpu hierarchy if there is one, then cgroup v2's, then systemd's own.
fn in_order(memberships: &[Membership]) -> impl Iterator<Item = &Membership> {
    let with = |name: &'static str| memberships.iter().find(move |m| m.controllers.iter().any(|c| c == name));
    let unified = memberships.iter().find(|m| m.hierarchy == 0);
    let mut seen = BTreeSet::new();
    let all = [with("cpu"), unified, with("name=systemd")].into_iter().flatten();
    all.filter(move |m| seen.insert(m.hierarchy))
}

/// `/proc/<pid>/cgroup` is told in full. (The first namespace's inode number is fixed: PROC_CGROUP_INIT_INO
/// in the kernel's `include/linux/proc_ns.h`.)
fn in_first_cgroup_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/cgroup").is_ok_and(|link| link.as_os_str() == "cgroup:[4026531835]")
}

impl Attributor {
    /// The workload a cgroup belongs to, by its path from the hierarchy's root.
    pub fn by_path(&self, path: &str) -> Option<Arc<Workload>> {
        self.current(path).or_else(|| self.current(paths::classify(path).anchor))
    }

    /// The workload of a path as a reader in another cgroup namespace sees it: what lies outside the
    /// reader's own cgroup begins with `/..`, as often as it takes to reach a common ancestor, and that
    /// ancestor's name is not told. A container's id is enough; anything else must be the only one of
    /// its name. What is in the reader's own cgroup has no name that could be distinguished.
    pub fn by_namespaced_path(&self, path: &str) -> Option<Arc<Workload>> {
        let mut rest = path;
        while let Some(above) = rest.strip_prefix("/..") {
            rest = above;
        }
        let id = match paths::classify(rest).kind {
            Kind::Container { id, .. } => id,
            _ => None,
        };
        if id.is_none() && (rest.is_empty() || rest.len() == path.len()) {
            return None;
        }
        let mut found = self.living().filter(|who| match id {
            Some(id) => who.container_id.as_deref() == Some(id),
            None => who.cgroup.ends_with(rest),
        });
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AttributionOptions, pods::PodIndex};
    use super::*;
    use crate::kernel::{CgroupChange, CgroupKey, Hierarchy, Reading};
    use crate::testfuzz::Mutator;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    fn attributor(cgroups: &[&str]) -> Attributor {
        let mut attributor =
            Attributor::new(AttributionOptions { read_bundles: false, ..Default::default() });
        let present = |(id, path): (usize, &&str)| CgroupChange::Present {
            cgroup: CgroupKey { hierarchy: Hierarchy::Unified, id: id as u64 },
            path: path.to_string(),
        };
        let changes = cgroups.iter().enumerate().map(present).collect();
        attributor.attribute(&Reading { changes, ..Reading::default() }, &PodIndex::default());
        attributor
    }

    #[test]
    fn paths_of_another_namespace_resolve_by_id_or_by_a_name_of_its_own() {
        let container = format!("/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/{ID}");
        let all =
            [&container, "/system.slice/a.service", "/system.slice/b.service", "/x/system.slice/b.service"];
        let attributor = attributor(&all);
        let found = |path: &str| attributor.by_namespaced_path(path).map(|who| who.cgroup.clone());
        assert_eq!(found(&format!("/../../besteffort/pod1/{ID}")), Some(container.clone()));
        assert_eq!(found(&format!("/../{ID}/init.scope")), Some(container.clone()));
        assert_eq!(found("/../../system.slice/a.service").as_deref(), Some("/system.slice/a.service"));
        assert_eq!(found("/../../system.slice/b.service"), None, "there are two");
        assert_eq!((found("/"), found("/.."), found("/system.slice/a.service")), (None, None, None));
        assert_eq!(
            attributor.by_path(&format!("{container}/new")).map(|w| w.cgroup.clone()),
            Some(container)
        );
    }

    #[test]
    fn a_process_of_this_machine_resolves() {
        let processes = Processes::new();
        let pid = std::process::id() as i32;
        let path = processes.cgroup(pid).expect("this process");
        let text = std::fs::read_to_string("/proc/self/cgroup").expect("readable");
        assert!(text.lines().any(|line| line.ends_with(&format!(":{path}"))), "{path} in {text}");
        let attributor = attributor(&[&path]);
        if !processes.namespaced {
            let who = processes.workload(pid, &attributor).expect("known");
            assert_eq!(who.cgroup, *path);
        }
        assert!(processes.workload(i32::MAX, &attributor).is_none());
    }

    #[test]
    fn any_name_of_a_cgroup_is_read_and_the_hierarchy_that_says_most_decides() {
        let text =
            b"12:cpu,cpuacct:/\n3:name=systemd:/system.slice/a.service\n0::/caf\xe9:x (deleted)\nnonsense\n";
        let all = parse(text);
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!((all[2].hierarchy, all[2].path.as_str()), (0, "/caf\\xe9:x"));
        let order: Vec<_> = in_order(&all).map(|m| m.hierarchy).collect();
        assert_eq!(order, [12, 0, 3]);
        let attributor = attributor(&["/", "/system.slice/a.service"]);
        let here = Processes { namespaced: false };
        let who = here.of(&all, &attributor).expect("a service");
        assert_eq!(who.unit.as_deref(), Some("a.service"), "not the root, where its CPU time is counted");
        let nowhere = here.of(&all[..1], &attributor).expect("known");
        assert_eq!(nowhere.kind, WorkloadKind::Root);
    }

    #[test]
    fn no_cgroup_file_panics() {
        Mutator::new(&[b"12:cpu,cpuacct:/a/b\n0::/c (deleted)\n"]).each(|bytes| {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(parse(bytes).len() <= lines);
        });
    }
}
