//! The room that the log has, and who gives it up: first what is nobody's, then what no birth needs.

use std::collections::HashSet;

use super::whose::leave;
use super::{Log, Made};
use crate::attribution::paths::PodId;
use crate::birth::kin::Owner;
use crate::kernel::recorder::{CgroupWrite, Listen, SegmentId};

impl Log {
    /// Segments of one pod: one that does nothing but fork does not take the others' room.
    const MAX_OF_POD: usize = Self::MAX / 4;
    /// By then it is known whether a segment is somebody's: what works for a pod says so when it is executed, or is forked
    /// by what does.
    const NOBODYS_NS: u64 = 1_000_000_000;

    /// Takes a segment out again if its pod has more than its part.
    pub(super) fn bound(&mut self, id: SegmentId) {
        let Some(pod) = self.lives.get(&id).and_then(|l| l.kin.owner.pod.clone()) else { return };
        if self.of_pod.get(&pod).is_some_and(|all| all.len() > Self::MAX_OF_POD) {
            self.remove(id);
            *self.crowded.entry(pod).or_default() += 1;
        }
    }

    /// Records of this pod that were not kept because it had too many, since it was last forgotten.
    pub fn crowded_out(&self, pod: &PodId) -> u64 {
        self.crowded.get(pod).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: SegmentId) {
        let Some(life) = self.lives.remove(&id) else { return };
        let owner = &life.kin.owner;
        leave(&mut self.of_pod, owner.pod.as_ref(), id);
        leave(&mut self.of_container, owner.container.as_ref(), id);
    }

    /// Forgets what is nobody's that is `needed`, a second after it began; those of it that live need not be followed any
    /// longer. What names a container whose pod is not known yet is kept, and what says something where nothing is known yet.
    pub fn release(&mut self, now_ns: u64, needed: impl Fn(&Owner) -> bool) -> Vec<SegmentId> {
        let mut out = Vec::new();
        while let Some(id) = self.fresh.front().copied() {
            let Some(life) = self.lives.get(&id) else {
                self.fresh.pop_front();
                continue;
            };
            if life.segment.start_ns + Self::NOBODYS_NS > now_ns {
                break;
            }
            self.fresh.pop_front();
            let owner = &life.kin.owner;
            let undecided = || self.undecided.iter().any(|(of, _)| *of == id);
            if needed(owner) || owner.pod.is_none() && owner.container.is_some() || undecided() {
                continue;
            }
            if life.ended.is_none() {
                out.push(id);
            }
            self.remove(id);
        }
        // A write may be reported before the cgroup it went to.
        let made = &self.by_id;
        let is_known = |w: &CgroupWrite| made.contains_key(&(w.hierarchy_id, w.cgroup));
        self.writes.retain(|w| w.by.at_ns + Self::NOBODYS_NS > now_ns || is_known(w));
        out
    }

    /// Forgets what happened before (CLOCK_MONOTONIC, ns) and is nobody's that is `needed`: asked with the owner and
    /// the end of what it did, [`u64::MAX`] while it lives. What lives of it need not be followed any longer.
    pub fn forget(&mut self, before: u64, needed: impl Fn(&Owner, u64) -> bool) -> Vec<SegmentId> {
        let mut alive = Vec::new();
        let mut gone = HashSet::new();
        for (id, life) in &self.lives {
            let end = life.ended.as_ref().map_or(u64::MAX, |e| e.at_ns);
            let recent = life.segment.start_ns >= before || (end >= before && end < u64::MAX);
            if !recent && !needed(&life.kin.owner, end) {
                gone.insert(*id);
                alive.extend(Some(*id).filter(|_| life.ended.is_none()));
            }
        }
        let nobody = Owner::default();
        let listens = |l: &Listen| {
            let owner = l.by.segment.and_then(|id| self.owner(id)).unwrap_or(&nobody);
            l.by.at_ns >= before || needed(owner, l.by.at_ns)
        };
        let listens: Vec<bool> = self.listens.iter().map(listens).collect();
        let made = |m: &Made, ns: u64| ns >= before || needed(&m.owner(), ns);
        let written = |w: &CgroupWrite| match self.written(w) {
            Some(to) => made(to, w.by.at_ns),
            None => w.by.at_ns >= before,
        };
        let writes: Vec<bool> = self.writes.iter().map(written).collect();
        gone.iter().for_each(|id| self.remove(*id));
        self.undecided.retain(|(id, _)| !gone.contains(id));
        retain(&mut self.listens, &listens);
        retain(&mut self.writes, &writes);
        if self.cgroups.len() > Self::MAX / 2 {
            self.cgroups.retain(|m| made(m, m.made.by.at_ns));
            let ids =
                self.cgroups.iter().enumerate().map(|(at, m)| ((m.made.hierarchy_id, m.made.cgroup), at));
            self.by_id = ids.collect();
        }
        if self.pod_of.len().max(self.sandboxes.len()) > Self::MAX / 2 {
            self.pod_of.retain(|id, (pod, _)| {
                needed(&Owner { pod: Some(pod.clone()), container: Some(id.clone()) }, u64::MAX)
            });
            self.sandboxes.retain(|id| self.pod_of.contains_key(id));
        }
        if self.realms.len() > Self::MAX / 2 {
            // Of a pod that is there somebody else could else take the place.
            let there: HashSet<&PodId> = self.places.pods().collect();
            let is_needed =
                |pod: &PodId| needed(&Owner { pod: Some(pod.clone()), container: None }, u64::MAX);
            self.realms.retain(|pod, realm| realm.is_nodes() && there.contains(pod) || is_needed(pod));
        }
        self.crowded.retain(|pod, _| needed(&Owner { pod: Some(pod.clone()), container: None }, u64::MAX));
        alive
    }

    /// More than half of the room for programs is taken.
    pub fn is_crowded(&self) -> bool {
        self.lives.len() > Self::MAX / 2
    }
}

fn retain<T>(all: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    all.retain(|_| keep.next().is_none_or(|k| *k));
}
