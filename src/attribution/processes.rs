//! Process id -> cgroup -> workload, through /proc, for what arrives by process id. No probe's events do yet:
//! they tell the cgroup's id.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use procfs::process::Process;
use procfs::{Current, ProcResult, Uptime};

use super::paths::{self, Kind};
use super::{Attributor, Workload};

/// Which cgroup processes are in, as /proc says; what was read is kept a while.
#[derive(Debug)]
pub struct Processes {
    /// By process id and start time (clock ticks after boot), which together name a process for good.
    cache: LruCache<(i32, u64), (Arc<str>, Instant)>,
    /// Paths in `/proc/<pid>/cgroup` are relative to the reader's cgroup namespace.
    namespaced: bool,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Processes {
    const CACHED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
    /// A process may be moved to another cgroup at any time, but hardly is once it has settled; in its
    /// first seconds it is, by the runtime that starts it.
    const CACHED_FOR: Duration = Duration::from_secs(60);
    const SETTLED_AFTER: Duration = Duration::from_secs(10);

    pub fn new() -> Self {
        Processes { cache: LruCache::new(Self::CACHED), namespaced: !in_first_cgroup_namespace() }
    }

    /// The workload of a process; `None` if it is gone or its cgroup is not known (yet).
    pub fn workload(&mut self, pid: i32, attributor: &Attributor) -> Option<Arc<Workload>> {
        let path = self.cgroup(pid).ok()?;
        if self.namespaced { attributor.by_namespaced_path(&path) } else { attributor.by_path(&path) }
    }

    /// The path of a process's cgroup as this process sees it, in the hierarchy of the cpu controller.
    ///
    /// # Errors
    /// The process is gone, or /proc does not show it.
    pub fn cgroup(&mut self, pid: i32) -> ProcResult<Arc<str>> {
        let process = Process::new(pid)?;
        let started = process.stat()?.starttime;
        let known = self.cache.get(&(pid, started));
        if let Some((path, _)) = known.filter(|(_, since)| since.elapsed() <= Self::CACHED_FOR) {
            return Ok(path.clone());
        }
        let path: Arc<str> = cpu_cgroup(&process)?.into();
        let age = Uptime::current()?.uptime_duration().saturating_sub(since_boot(started));
        if age >= Self::SETTLED_AFTER {
            self.cache.put((pid, started), (path.clone(), Instant::now()));
        }
        Ok(path)
    }
}

fn since_boot(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / procfs::ticks_per_second().max(1))
}

/// v1's cpu hierarchy if there is one, else the unified one.
fn cpu_cgroup(process: &Process) -> ProcResult<String> {
    let cgroups = process.cgroups()?.0;
    let cpu = cgroups.iter().find(|c| c.controllers.iter().any(|name| name == "cpu"));
    let path = cpu.or_else(|| cgroups.iter().find(|c| c.hierarchy == 0)).map_or("", |c| &c.pathname);
    // The kernel marks a cgroup that was removed around its last processes.
    Ok(path.strip_suffix(" (deleted)").unwrap_or(path).to_string())
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
    /// its name. What is in the reader's own cgroup has no name that could be told apart.
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
        let mut processes = Processes::new();
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
    fn only_settled_processes_are_kept_and_not_too_many() {
        let mut processes = Processes::new();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let first = processes.cgroup(child.id() as i32);
        let kept = processes.cache.len();
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert!(first.is_ok());
        assert_eq!(kept, 0, "it may yet be moved");
        // The eldest process of this machine that can be seen has settled.
        processes.cgroup(1).expect("process 1");
        if Uptime::current().expect("uptime").uptime_duration() > 2 * Processes::SETTLED_AFTER {
            assert_eq!(processes.cache.len(), 1);
        }
        assert_eq!(processes.cache.cap(), Processes::CACHED);
    }
}
