//! Whose the node's cgroups are, those from before a recording too, and who is believed of what runs in each. Pure.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::attribution::paths::{self, Kind, PodId};
use crate::kernel::Hierarchy;
use crate::kernel::recorder::Place;

/// What a process in a cgroup may say for whom it works, by its arguments and its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whatever it says: it is outside every pod.
    Node,
    /// For which container of its own pod: CRI-O keeps a container's monitor, and the runtime that it runs, in the pod.
    Monitor,
    /// Nothing: what runs in a pod may say anything of itself.
    Nobody,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub pod: Option<PodId>,
    pub container: Option<String>,
    pub trust: Trust,
    /// Where it is; if it is a pod's, that of the pod's cgroup.
    pub realm: Realm,
}

/// The host's root.
pub const ROOT: u32 = 0;

/// Where a pod's cgroup is and whose: any user may have a part of the cgroups to himself (systemd's `user@.service`), and call one
/// there as he likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// What holds it ([`paths::realm`]); `None`: the node itself.
    within: Option<Box<str>>,
    /// Whose the directory is. Where that is not known it is nobody's, and root alone may speak for it.
    owner: u32,
}

impl Realm {
    const NOBODY: u32 = u32::MAX;

    pub fn of(path: &str, owner: Option<u32>) -> Realm {
        Realm { within: paths::realm(path).map(Box::from), owner: owner.unwrap_or(Self::NOBODY) }
    }

    /// The node's own, made by its root: what is anywhere else under the same name is not it.
    pub fn is_nodes(&self) -> bool {
        self.within.is_none() && self.owner == ROOT
    }

    /// It belongs to a user of the host who is not its root: the runtime is rootless, or somebody made it to look so.
    pub fn user(&self) -> Option<u32> {
        Some(self.owner).filter(|owner| !matches!(*owner, ROOT | Self::NOBODY))
    }

    /// Whether a program may say that it works for the pod whose cgroup is here: it is in the same container (or on the node),
    /// and its user, by whose choice it says so, is root or the one who makes pods here.
    pub fn hears(&self, from: &Home, uid: Option<u32>) -> bool {
        let user = uid.is_some_and(|uid| uid == ROOT || Some(uid) == self.user());
        user && self.within == from.realm.within
    }
}

impl Home {
    /// By the cgroup's path, and by whose the directory is of the pod that it lies in.
    pub fn of(path: &str, owner: Option<u32>) -> Home {
        let class = paths::classify(path);
        let trust = match &class.kind {
            Kind::PodHelper if !class.unknown => Trust::Monitor,
            _ if class.pod.is_some() || class.unknown => Trust::Nobody,
            _ => Trust::Node,
        };
        let (pod, container) = in_path(path);
        Home { pod, container, trust, realm: Realm::of(path, owner) }
    }

    /// Whether a program here may say that it works for a pod of whose cgroup nothing is known.
    pub fn is_roots(&self, uid: Option<u32>) -> bool {
        uid == Some(ROOT) && self.realm.within.is_none()
    }
}

/// The pod and the container a cgroup's path lies in. A process that is in a container's cgroup below another
/// one (a cluster within a container) is the innermost's.
pub fn in_path(path: &str) -> (Option<PodId>, Option<String>) {
    let class = paths::classify(path);
    let container = match class.kind {
        Kind::Container { id: Some(id), .. } => Some(id.to_owned()),
        _ => None,
    };
    (class.pod.map(|p| p.id), container)
}

/// See the module.
#[derive(Debug)]
pub struct Places {
    /// The kernel's number of the tree that [`Place::cgroup`] is in, where that is not v2's.
    cpu_tree: u32,
    homes: HashMap<Key, Home>,
    /// What is gone, and since when: what was recorded there may be read later.
    gone: VecDeque<(u64, Key)>,
}

/// The number of a tree, and the id of a cgroup within it.
type Key = (u32, u64);

impl Places {
    /// Of more cgroups nothing is known, and nothing is believed of what runs there.
    const MAX: usize = 65_536;
    /// What is said of a cgroup is read within this time of its end, ns.
    const KEPT_NS: u64 = 30_000_000_000;
    /// The kernel's id of every tree's root.
    const TOP: u64 = 1;

    /// `cpu_tree`: the kernel's number of the v1 hierarchy of the cpu controller, 0 with cgroup v2.
    pub fn new(cpu_tree: u32) -> Places {
        let root = |tree: u32| ((tree, Self::TOP), Home::of("/", None));
        Places { cpu_tree, homes: [root(0), root(cpu_tree)].into_iter().collect(), gone: VecDeque::new() }
    }

    /// There is a cgroup of this path; false where it does not matter, or was known. `tree`: the kernel's number, 0 for v2's.
    pub fn know(&mut self, tree: u32, cgroup: u64, home: Home) -> bool {
        let matters = tree == 0 || tree == self.cpu_tree;
        if !matters || self.homes.len() >= Self::MAX {
            return false;
        }
        self.homes.insert((tree, cgroup), home).is_none()
    }

    /// The pods that have a cgroup.
    pub fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.homes.values().filter_map(|home| home.pod.as_ref())
    }

    /// A cgroup is gone.
    pub fn lose(&mut self, tree: u32, cgroup: u64, now_ns: u64) {
        if self.homes.contains_key(&(tree, cgroup)) {
            self.gone.push_back((now_ns, (tree, cgroup)));
        }
        while let Some((ns, key)) = self.gone.front()
            && now_ns.saturating_sub(*ns) > Self::KEPT_NS
        {
            self.homes.remove(key);
            self.gone.pop_front();
        }
    }

    /// Whose the cgroup is that a process is in; `None` where that is not known.
    pub fn home(&self, place: &Place) -> Option<&Home> {
        let tree = match place.hierarchy? {
            Hierarchy::Unified => 0,
            Hierarchy::V1Cpu => self.cpu_tree,
            Hierarchy::V1Memory => return None,
        };
        self.homes.get(&(tree, place.cgroup?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_pod_or_unknown_is_not_believed() {
        const POD: &str = "d341e8db-112f-4371-804f-3616d814d3d6";
        let id = "47b78268104a1bdd76bf17cc2663859935cb749077de2ec48f39bce98c6e3122";
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice", POD.replace('-', "_"));
        for (path, trust) in [
            ("/".to_owned(), Trust::Node),
            ("/system.slice/kubelet.service".into(), Trust::Node),
            ("/podruntime/runtime".into(), Trust::Node),
            // A node that is a container.
            (format!("/docker/{id}/system.slice/containerd.service"), Trust::Node),
            (format!("/kubepods/besteffort/pod{POD}/{id}"), Trust::Nobody),
            (format!("/kubepods/besteffort/pod{POD}/{id}/below/it"), Trust::Nobody),
            (format!("/kubepods/besteffort/pod{POD}"), Trust::Nobody),
            (format!("{slice}/crio-conmon-{id}.scope"), Trust::Monitor),
            (format!("{slice}/crio-{id}.scope/container"), Trust::Nobody),
            (format!("{slice}/something"), Trust::Nobody),
            ("/kubepods/besteffort/pod-of-an-odd-name/x".into(), Trust::Nobody),
        ] {
            assert_eq!(Home::of(&path, None).trust, trust, "{path}");
        }
    }

    #[test]
    fn a_cgroup_that_is_gone_is_known_for_a_while() {
        let mut places = Places::new(4);
        let place =
            |cgroup| Place { cgroup: Some(cgroup), hierarchy: Some(Hierarchy::V1Cpu), ..Place::default() };
        let slice = || Home::of("/system.slice", None);
        assert!(places.know(4, 9, slice()) && !places.know(4, 9, slice()));
        assert!(!places.know(7, 10, slice()), "a tree that no process is placed by");
        places.lose(4, 9, 1_000);
        places.lose(4, 11, 2_000);
        assert!(places.home(&place(9)).is_some());
        places.lose(4, 11, 2_000 + Places::KEPT_NS);
        assert!(places.home(&place(9)).is_none() && places.home(&place(1)).is_some());
    }
}
