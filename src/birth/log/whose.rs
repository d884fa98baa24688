//! Whose each segment is, by all that is kept: what it says of itself, where that may be believed; the cgroup it is in; its lineage
//! ([`kin`]).
//!
//! What a process says of itself, or the cgroup it is in, goes before its lineage: a shim serves all
//! containers of its pod, and the runtime's daemon all pods.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::{Life, Log};
use crate::attribution::paths::PodId;
use crate::birth::hints::{Hints, Role};
use crate::birth::kin::{self, Kin, Of, Owner};
use crate::birth::places::{Home, ROOT, Realm};
use crate::kernel::recorder::SegmentId;

/// By what it is known which pod a container is of; the better goes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// A program said so.
    Said,
    /// By the path of a cgroup that a container or a user has to himself.
    Elsewhere,
    /// By that of a cgroup of the node's own.
    Nodes,
}

impl Log {
    /// Takes what a segment says of itself as far as that may be believed; false: where it is, is not known yet.
    pub(super) fn believe(&mut self, id: SegmentId, said: &Hints) -> bool {
        let Some(life) = self.lives.get(&id) else { return true };
        let Some(home) = self.places.home(&life.segment.place) else { return false };
        let parent = life.segment.parent.and_then(|p| self.lives.get(&p)).map(|p| &p.kin);
        let uid = life.segment.uid;
        let mut hints = kin::believed(said.clone(), home, parent);
        let hears = match &hints.pod {
            Some(pod) => self.hears(home, uid, pod),
            None => self.may_speak(uid),
        };
        if !hears {
            hints = Hints::default();
        }
        if let (Role::Cni { .. }, Some(container)) = (hints.role, &hints.container)
            && (hints.pod.is_some() || home.is_roots(uid))
            && self.sandboxes.len() < Self::MAX
        {
            self.sandboxes.insert(container.clone());
        }
        let names = hints.container.clone().zip(hints.pod.clone());
        if let Some(life) = self.lives.get_mut(&id) {
            life.hints = hints;
        }
        if let Some((container, pod)) = names {
            self.is_of(container, pod, Known::Said);
        }
        true
    }

    /// Looks again at what was said where nothing was known.
    pub(super) fn decide(&mut self) {
        for (id, said) in std::mem::take(&mut self.undecided) {
            if !self.believe(id, &said) {
                self.undecided.push((id, said));
                continue;
            }
            let before = self.lives.get(&id).and_then(|l| l.segment.parent);
            self.relate(id);
            before.into_iter().for_each(|id| self.relate(id));
        }
    }

    /// A container is of a pod: so is what was done for it. What is known better stays.
    pub(super) fn is_of(&mut self, container: String, pod: PodId, by: Known) {
        let known = self.pod_of.get(&container);
        if known.is_some_and(|(_, known)| *known >= by) {
            return;
        }
        let same = known.is_some_and(|(of, _)| *of == pod);
        let done: Vec<SegmentId> = self.of_container.get(&container).into_iter().flatten().copied().collect();
        self.pod_of.insert(container, (pod, by));
        if same {
            return;
        }
        done.into_iter().for_each(|id| self.relate(id));
    }

    /// Takes the place of a pod's cgroup, the node's own before any other; false: the pod is elsewhere.
    pub fn settles(&mut self, pod: &PodId, realm: &Realm) -> bool {
        let Some(known) = self.realms.get_mut(pod) else {
            self.realms.insert(pod.clone(), realm.clone());
            return true;
        };
        if realm.is_nodes() && known != realm {
            known.clone_from(realm);
            self.moved(pod);
        } else if known != realm {
            return false;
        }
        true
    }

    /// What was taken for a pod's elsewhere is none of it.
    fn moved(&mut self, pod: &PodId) {
        for made in self.cgroups.iter_mut().filter(|m| m.pod.as_ref() == Some(pod)) {
            if !Realm::of(&made.made.path, made.made.owner).is_nodes() {
                (made.pod, made.container) = (None, None);
            }
        }
        self.pod_of.retain(|_, (of, by)| of != pod || *by == Known::Nodes);
        let lives: Vec<SegmentId> = self.of_pod.get(pod).into_iter().flatten().copied().collect();
        lives.into_iter().for_each(|id| self.relate(id));
    }

    /// Where a pod's cgroup is.
    pub fn realm_of(&self, pod: &PodId) -> Option<&Realm> {
        self.realms.get(pod)
    }

    /// Whether a program of this user's that runs there may say that it works for this pod.
    fn hears(&self, home: &Home, uid: Option<u32>, pod: &PodId) -> bool {
        self.realms.get(pod).map_or(home.is_roots(uid), |realm| realm.hears(home, uid))
    }

    /// Whether a program of this user's may speak for any container, whose pod is not known yet: others have no room here for
    /// what they say.
    fn may_speak(&self, uid: Option<u32>) -> bool {
        self.anybody
            || uid == Some(ROOT)
            || uid.is_some_and(|uid| self.realms.values().any(|r| r.user() == Some(uid)))
    }

    /// Finds out whose a segment is, and of all that it began, as far as that changes anything.
    pub(super) fn relate(&mut self, id: SegmentId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let Some(life) = self.lives.get(&id) else { continue };
            let kin = self.kin(life);
            let pod = kin.owner.pod.clone();
            if kin != life.kin {
                todo.extend(&life.children);
                self.index(id, kin);
            }
            self.touched.extend(pod);
        }
    }

    fn index(&mut self, id: SegmentId, kin: Kin) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        let before = std::mem::replace(&mut life.kin, kin);
        let (was, is) = (before.owner, life.kin.owner.clone());
        if was.pod != is.pod {
            leave(&mut self.of_pod, was.pod.as_ref(), id);
            join(&mut self.of_pod, is.pod, id);
        }
        if was.container != is.container {
            leave(&mut self.of_container, was.container.as_ref(), id);
            join(&mut self.of_container, is.container, id);
        }
    }

    fn kin(&self, life: &Life) -> Kin {
        let next = life.next.and_then(|id| self.lives.get(&id));
        let home = self.places.home(&life.segment.place);
        let mut kin = Kin::of(Of {
            segment: &life.segment,
            hints: &life.hints,
            own: self.own(life),
            next: next.map(|l| (&l.hints, self.own(l))),
            parent: life.segment.parent.and_then(|p| self.lives.get(&p)).map(|p| &p.kin),
            in_container: home.is_some_and(|home| home.container.is_some()),
        });
        let owner = &mut kin.owner;
        if owner.pod.is_none() {
            owner.pod = owner.container.as_ref().and_then(|c| self.pod_of(c)).cloned();
        }
        kin
    }

    /// Whose a segment is by its cgroup and by what it says of itself.
    fn own(&self, life: &Life) -> Owner {
        let places = [Some(&life.segment.place), life.ended.as_ref().map(|e| &e.place)];
        let mut owner = Owner::default();
        for home in places.into_iter().flatten().filter_map(|p| self.places.home(p)) {
            // A name like the pod's, elsewhere.
            let elsewhere = |pod| self.realms.get(pod).is_some_and(|realm| *realm != home.realm);
            if home.pod.as_ref().is_some_and(elsewhere) {
                continue;
            }
            owner.learn(&Owner { pod: home.pod.clone(), container: home.container.clone() });
        }
        let said = &life.hints;
        let pod = said.pod.as_ref().or_else(|| self.pod_of(said.container.as_ref()?));
        let home = self.places.home(&life.segment.place);
        if let (Some(pod), Some(home)) = (pod, home)
            && !self.hears(home, life.segment.uid, pod)
        {
            return owner;
        }
        owner.learn(&Owner { pod: pod.cloned(), container: said.container.clone() });
        owner
    }
}

/// Puts a segment into an index.
fn join<K: std::hash::Hash + Eq>(of: &mut HashMap<K, BTreeSet<SegmentId>>, key: Option<K>, id: SegmentId) {
    if let Some(key) = key {
        of.entry(key).or_default().insert(id);
    }
}

/// Takes a segment out of an index.
pub(super) fn leave<K: std::hash::Hash + Eq>(
    of: &mut HashMap<K, BTreeSet<SegmentId>>,
    key: Option<&K>,
    id: SegmentId,
) {
    let Some(key) = key else { return };
    let Some(all) = of.get_mut(key) else { return };
    all.remove(&id);
    if all.is_empty() {
        of.remove(key);
    }
}
