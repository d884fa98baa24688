//! The node's pods as the API server tells them: what is kept of each, and how they are looked up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::paths::PodId;

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Static pods: what the kubelet names the pod's cgroup by (annotation `kubernetes.io/config.hash`).
    pub config_hash: Option<String>,
    /// The controller that owns it, as (kind, name).
    pub owner: Option<(String, String)>,
    /// Init and ephemeral containers too.
    pub containers: Vec<ContainerRecord>,
    pub life: PodLife,
}

/// How far a pod's life has come, as the API server has it. Times in seconds since the Unix epoch, cut to whole
/// ones by whoever wrote them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodLife {
    pub created: Option<i64>,
    /// When it was given to its node.
    pub scheduled: Option<i64>,
    /// Since when it is Ready; `None` while it is not.
    pub ready: Option<i64>,
    /// All containers have ended well, and none will be started again.
    pub succeeded: bool,
    pub failed: bool,
    /// It is being deleted, or is gone.
    pub deleting: bool,
}

/// What is kept of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRecord {
    pub name: String,
    /// Its id now, and before its last restart: 64 hex digits.
    pub ids: [Option<String>; 2],
    /// Cores.
    pub cpu_limit: Option<f64>,
    /// Cores.
    pub cpu_request: Option<f64>,
    pub kind: ContainerKind,
    /// Why it does not run, as (reason, message): (`ErrImagePull`, …).
    pub waiting: Option<(String, Option<String>)>,
    /// How its process ended: the one of now, or else the one before.
    pub terminated: Option<Terminated>,
    pub restarts: u32,
}

/// What a container is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerKind {
    /// One that is to run, sidecars included.
    #[default]
    Main,
    /// One that is to end before the others begin.
    Init,
    Ephemeral,
}

/// How a container's process ended, as the kubelet has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Terminated {
    /// Its container's id: 64 hex digits.
    pub id: Option<String>,
    pub exit_code: i32,
    /// `Error`, `OOMKilled`, `StartError`, …
    pub reason: Option<String>,
    pub message: Option<String>,
}

impl PodRecord {
    /// The container with this id, or else with this name.
    pub fn container(&self, id: Option<&str>, name: Option<&str>) -> Option<&ContainerRecord> {
        let by_id = |c: &&ContainerRecord| id.is_some() && c.ids.iter().any(|i| i.as_deref() == id);
        let by_name = |c: &&ContainerRecord| name == Some(&c.name);
        self.containers.iter().find(by_id).or_else(|| self.containers.iter().find(by_name))
    }
}

/// The pods of the node at one moment, those that left it a short while ago included.
#[derive(Clone, Debug, Default)]
pub struct PodIndex {
    generation: u64,
    live: usize,
    by_uid: HashMap<String, Arc<PodRecord>>,
    by_config_hash: HashMap<String, Arc<PodRecord>>,
    by_container: HashMap<String, Arc<PodRecord>>,
}

impl PodIndex {
    /// Grows with every change of any pod; equal generations of one store are equal indexes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many pods the API server has on the node now.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The pod whose cgroup says `id`. The look of it does not tell whether the API server has it as the pod's UID or in
    /// the annotation of a static pod, whose manifest may set a UUID.
    pub fn by_pod(&self, id: &PodId) -> Option<&Arc<PodRecord>> {
        let id = id.as_str();
        self.by_uid.get(id).or_else(|| self.by_config_hash.get(id))
    }

    /// The pod that has, or had before its last restart, the container of this id (64 hex digits).
    pub fn by_container(&self, id: &str) -> Option<&Arc<PodRecord>> {
        self.by_container.get(id)
    }

    fn insert(&mut self, pod: &Arc<PodRecord>) {
        self.by_uid.insert(pod.uid.clone(), pod.clone());
        if let Some(hash) = &pod.config_hash {
            self.by_config_hash.insert(hash.clone(), pod.clone());
        }
        for id in pod.containers.iter().flat_map(|c| c.ids.iter().flatten()) {
            self.by_container.insert(id.clone(), pod.clone());
        }
    }
}

/// The pods behind a [`PodIndex`], changed by what the watch tells.
#[derive(Debug, Default)]
pub struct PodSet {
    generation: u64,
    live: HashMap<String, Arc<PodRecord>>,
    /// Pods the API server no longer has: their containers may outlive them (a forced deletion), and
    /// what is said last of a pod is said after its end.
    departed: VecDeque<(Instant, Arc<PodRecord>)>,
    /// A list that has not ended yet.
    listing: Option<HashMap<String, Arc<PodRecord>>>,
    changed: bool,
}

impl PodSet {
    /// How long, and how many, pods are kept after they are gone.
    pub const DEPARTED_FOR: Duration = Duration::from_secs(600);
    pub const DEPARTED_MAX: usize = 512;

    /// A new list begins.
    pub fn begin_list(&mut self) {
        self.listing = Some(HashMap::new());
    }

    /// A pod of the list.
    pub fn list(&mut self, pod: PodRecord) {
        let pod = self.shared(pod);
        self.listing.get_or_insert_default().insert(pod.uid.clone(), pod);
    }

    /// The list is complete: pods not in it are gone.
    pub fn end_list(&mut self, now: Instant) {
        let Some(listed) = self.listing.take() else { return };
        let before = std::mem::replace(&mut self.live, listed);
        self.changed |= before.len() != self.live.len();
        for (uid, pod) in before {
            match self.live.get(&uid) {
                Some(same) if Arc::ptr_eq(same, &pod) => {}
                Some(_) => self.changed = true,
                None => self.depart(pod, now),
            }
        }
    }

    /// A pod is new or has changed.
    pub fn apply(&mut self, pod: PodRecord) {
        let pod = self.shared(pod);
        let before = self.live.insert(pod.uid.clone(), pod.clone());
        self.changed |= before.is_none_or(|b| !Arc::ptr_eq(&b, &pod));
    }

    /// A pod is gone.
    pub fn delete(&mut self, uid: &str, now: Instant) {
        if let Some(pod) = self.live.remove(uid) {
            self.depart(pod, now);
        }
    }

    /// The index, if anything changed since it was last asked for.
    pub fn publish(&mut self, now: Instant) -> Option<PodIndex> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        while let Some((since, _)) = self.departed.front()
            && (now.duration_since(*since) > Self::DEPARTED_FOR || self.departed.len() > Self::DEPARTED_MAX)
        {
            self.departed.pop_front();
        }
        self.generation += 1;
        let mut index =
            PodIndex { generation: self.generation, live: self.live.len(), ..PodIndex::default() };
        // The living last: a static pod that was made again has the hash of the one that left.
        self.departed.iter().map(|(_, pod)| pod).chain(self.live.values()).for_each(|pod| index.insert(pod));
        Some(index)
    }

    /// The record that is there already, if it says the same: most of what a pod's status tells is not kept.
    fn shared(&self, pod: PodRecord) -> Arc<PodRecord> {
        match self.live.get(&pod.uid) {
            Some(same) if **same == pod => same.clone(),
            _ => Arc::new(pod),
        }
    }

    fn depart(&mut self, pod: Arc<PodRecord>, now: Instant) {
        let mut pod = pod;
        Arc::make_mut(&mut pod).life.deleting = true;
        self.departed.push_back((now, pod));
        self.changed = true;
    }
}

#[cfg(test)]
mod tests;
