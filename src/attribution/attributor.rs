//! Readings of cgroups made into readings of workloads: who each is (here), and what is added up of it ([`book`]).

mod book;

use foldhash::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::account::{Account, CgroupAccount};
use super::bundle::Bundles;
use super::known::{Answer, Known};
use super::network::Networks;
use super::paths::{self, UnknownShapes};
use super::pods::PodIndex;
use super::tree::{KeyId, Memory, NodeId, Tree};
use super::unresolved::Unresolved;
use super::workload::{Attributed, NamedBlame, Sample, Workload, WorkloadKind};
use crate::kernel::oom::Place;
use crate::kernel::{CgroupKey, CpuCounters, Hierarchy, Reading};

/// How an [`Attributor`] finds names, and how much it remembers.
#[derive(Clone, Debug)]
pub struct AttributionOptions {
    /// Directories of container runtimes, before the usual ones: see [`Bundles::new`].
    pub runtime_roots: Vec<PathBuf>,
    /// Ask the runtime's files at all.
    pub read_bundles: bool,
    pub memory: Memory,
}

impl Default for AttributionOptions {
    fn default() -> Self {
        AttributionOptions { runtime_roots: Vec::new(), read_bundles: true, memory: Memory::default() }
    }
}

/// Makes readings of cgroups into readings of workloads. Lives on the sampler's thread.
#[derive(Debug)]
pub struct Attributor {
    tree: Tree,
    bundles: Bundles,
    /// By [`KeyId`].
    cgroups: Vec<CgroupAccount>,
    /// By [`NodeId`]; those of anchors.
    workloads: Vec<Option<Box<Entry>>>,
    /// By [`NodeId`]: the node's own CPU quota, cores.
    quotas: Vec<Option<f64>>,
    /// Workloads that want the runtime's names.
    asking: Vec<NodeId>,
    /// The [`PodIndex::generation`] that names were last taken from.
    generation: Option<u64>,
    /// Blame of cgroups as last read, the kernel's two kinds of parts each on its own, and of workloads as it adds up.
    pairs: HashMap<(KeyId, KeyId, bool), Pair>,
    blame: HashMap<(NodeId, NodeId), u64>,
    /// The counters of this reading, the slots of one cgroup added up.
    booking: Vec<(KeyId, CpuCounters)>,
    networks: Networks,
    reading: u64,
    unknown: UnknownShapes,
    unresolved: Unresolved,
    out: Attributed,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    /// `None` once its last sample is out.
    account: Option<Box<Account>>,
    /// The node of its pod, if that has a cgroup.
    pod: Option<NodeId>,
    /// The last reading that had numbers of it.
    heard: u64,
    /// Readings since its death.
    dead_for: u32,
    /// The reading that belongs to the one before it at its path.
    waits: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    last: u64,
    now: u64,
    reading: u64,
}

impl Attributor {
    /// Bundles looked for in one reading, so that a node full of containers does not hold the sampler up.
    const BUNDLES_PER_READING: usize = 256;
    /// Pairs of victim and culprit.
    const PAIRS_MAX: usize = 65_536;
    /// The counters of a cgroup that died are in the reading that tells of it or the next; a workload of
    /// which nothing more is read, or nothing but repetition, is reported for the last time.
    const READINGS_AFTER_DEATH: u32 = 3;

    pub fn new(options: AttributionOptions) -> Self {
        let bundles =
            if options.read_bundles { Bundles::new(&options.runtime_roots) } else { Bundles::none() };
        Attributor {
            tree: Tree::new(options.memory),
            bundles,
            cgroups: Vec::new(),
            workloads: Vec::new(),
            quotas: Vec::new(),
            asking: Vec::new(),
            generation: None,
            pairs: HashMap::default(),
            blame: HashMap::default(),
            booking: Vec::new(),
            networks: Networks::default(),
            reading: 0,
            unknown: UnknownShapes::default(),
            unresolved: Unresolved::default(),
            out: Attributed::default(),
        }
    }

    /// The reading with names. In the steady state nothing is allocated; files are read only for
    /// containers seen for the first time.
    pub fn attribute(&mut self, reading: &Reading, pods: &PodIndex) -> &Attributed {
        let now = reading.at.mono_ns;
        self.reading += 1;
        for change in &reading.changes {
            self.tree.apply(change, now);
        }
        self.cgroups.resize_with(self.tree.key_slots().max(self.cgroups.len()), CgroupAccount::default);
        self.adopt();
        self.learn(pods, now);
        self.unresolved.begin(now);
        self.book_cpu(reading);
        self.book_stats(reading);
        self.book_memory(reading);
        self.book_network(reading);
        self.book_blame(reading);
        self.publish(reading, pods);
        self.forget(now);
        &self.out
    }

    /// What is known now of the workload whose [`Workload::cgroup`] is this: the living one, or else the
    /// one that died there within the last minutes.
    pub fn current(&self, cgroup: &str) -> Option<Arc<Workload>> {
        self.who(self.tree.at(cgroup)?)
    }

    /// The workload that a cgroup which the kernel named by its path, or by ids where that is cut, is part of; `None` where no
    /// reading has told of it yet.
    pub fn told(&self, place: &Place) -> Option<Arc<Workload>> {
        let by_id = |id: u64| {
            let of = |hierarchy| self.who(self.tree.node_of(self.tree.key(CgroupKey { hierarchy, id })?));
            of(Hierarchy::V1Cpu).or_else(|| of(Hierarchy::Unified))
        };
        let not_root = |who: &Arc<Workload>| who.kind != WorkloadKind::Root;
        let by_path = place.path.as_deref().and_then(|path| self.current(path));
        by_path
            .or_else(|| by_id(place.cpu).filter(not_root))
            .or_else(|| by_id(place.unified).filter(not_root))
    }

    /// The same of a cgroup that no reading tells of, as one that the memory controller alone has (cgroup v1): what is above it,
    /// or what its path says.
    pub fn supposed(&self, place: &Place) -> Arc<Workload> {
        let path = place.path.as_deref().unwrap_or("a cgroup whose path is too long");
        let above = || {
            let above = std::iter::successors(path.rsplit_once('/'), |(above, _)| above.rsplit_once('/'));
            above.map(|(path, _)| path).filter(|path| !path.is_empty()).find_map(|path| self.current(path))
        };
        self.told(place).or_else(above).unwrap_or_else(|| Known::new(&paths::classify(path)).who)
    }

    /// Cgroups that look like a pod's or container's but follow no rule.
    pub fn unknown_shapes(&self) -> &UnknownShapes {
        &self.unknown
    }

    /// The workloads that live now.
    pub fn living(&self) -> impl Iterator<Item = &Arc<Workload>> {
        let live = self.tree.nodes().filter(|(_, node)| node.is_live());
        live.filter_map(|(id, _)| Some(&self.workloads.get(id)?.as_deref()?.known.who))
    }

    fn who(&self, node: NodeId) -> Option<Arc<Workload>> {
        let entry = self.workloads.get(self.tree.node(node).anchor)?.as_deref()?;
        Some(entry.known.who.clone())
    }

    /// Makes entries for the anchors among the tree's new nodes.
    fn adopt(&mut self) {
        if self.tree.added_nodes.is_empty() {
            return;
        }
        let mut added = std::mem::take(&mut self.tree.added_nodes);
        for &id in &added {
            if self.workloads.len() <= id {
                self.workloads.resize_with(id + 1, || None);
                self.quotas.resize(id + 1, None);
            }
            let node = self.tree.node(id);
            let class = paths::classify(&node.path);
            if class.unknown && self.unknown.note(&node.path) {
                warn!(
                    cgroup = &*node.path,
                    "looks like a pod's or container's cgroup, but of no layout known"
                );
            }
            if node.anchor != id {
                continue;
            }
            let known = Known::new(&class);
            let above = class.pod.and_then(|p| p.cgroup).filter(|p| p.len() < node.path.len());
            let pod = above.and_then(|pod| self.ancestor(id, pod.len()));
            if known.wants_the_runtime() {
                self.asking.push(id);
            }
            let account = Some(Box::default());
            let entry = Entry { known, account, pod, heard: 0, dead_for: 0, waits: 0 };
            self.workloads[id] = Some(Box::new(entry));
            // What the API server knows already.
            self.generation = None;
        }
        added.clear();
        self.tree.added_nodes = added;
    }

    /// The ancestor whose path has this length.
    fn ancestor(&self, id: NodeId, len: usize) -> Option<NodeId> {
        let mut next = self.tree.node(id).parent;
        while let Some(above) = next.filter(|&above| self.tree.node(above).path.len() > len) {
            next = self.tree.node(above).parent;
        }
        next
    }

    /// Asks the runtime about new containers, and the API server's pods where anything is new.
    fn learn(&mut self, pods: &PodIndex, now: u64) {
        let news = !self.asking.is_empty() && self.ask_runtime(now);
        if !news && self.generation == Some(pods.generation()) {
            return;
        }
        self.generation = Some(pods.generation());
        for id in 0..self.workloads.len() {
            // Taken out for a moment, to look at its pod beside it.
            let Some(mut entry) = self.workloads[id].take() else { continue };
            entry.known.ask_api(pods);
            if entry.known.has_news() {
                let pod = entry.pod.and_then(|pod| self.workloads[pod].as_deref());
                entry.known.compose(pod.and_then(|pod| pod.known.runtime()));
            }
            self.workloads[id] = Some(entry);
        }
    }

    /// True if it brought anything.
    fn ask_runtime(&mut self, now: u64) -> bool {
        let mut asking = std::mem::take(&mut self.asking);
        let (mut news, mut budget) = (false, Self::BUNDLES_PER_READING);
        asking.retain(|&id| {
            let Some(entry) = self.workloads[id].as_deref_mut() else { return false };
            if !entry.known.wants_the_runtime() {
                return false;
            }
            if budget == 0 || !entry.known.is_time_to_ask(now) {
                return true;
            }
            budget -= 1;
            let answer = entry.known.ask_runtime(&mut self.bundles, now);
            match answer {
                Answer::Later => {}
                Answer::GaveUp => {
                    if self.out.attribution.bundles_missed == 0 {
                        warn!(
                            cgroup = entry.known.who.cgroup,
                            "no runtime's files name this container (further ones are only counted): \
                             `kernel-gossip check` says which directories can be read"
                        );
                    }
                    self.out.attribution.bundles_missed += 1;
                }
                Answer::News | Answer::Nameless => {
                    news = true;
                    self.out.attribution.bundles_missed += u64::from(answer == Answer::Nameless);
                    let (pod, names) = (entry.pod, entry.known.runtime().cloned());
                    if let (Some(pod), Some(names)) =
                        (pod.and_then(|pod| self.workloads[pod].as_deref_mut()), names)
                    {
                        pod.known.hear_of_the_pod(names);
                    }
                }
            }
            self.workloads[id].as_deref().is_some_and(|entry| entry.known.wants_the_runtime())
        });
        self.asking = asking;
        news
    }

    fn publish(&mut self, reading: &Reading, pods: &PodIndex) {
        let out = &mut self.out;
        out.at = reading.at;
        out.cpus = reading.cpus;
        out.losses.clone_from(&reading.losses);
        out.blame_lost_ns = reading.blame_lost_ns;
        out.attribution.unknown_shapes = self.unknown.count;
        out.attribution.unresolved_ids = self.unresolved.count();
        out.attribution.cgroups_dropped = self.tree.dropped;
        out.attribution.pods_known = pods.live() as u64;
        out.programs.clone_from(&reading.programs);
        out.samples.clear();
        out.blame.clear();
        // A unit that was started again has the same path: the old one ends in this reading, and the new
        // one's turn is the next.
        for (id, node) in self.tree.nodes().filter(|(_, node)| node.is_dead()) {
            let ends = self.workloads[id].as_deref().is_some_and(|e| e.account.is_some());
            let successor = self.tree.at(&node.path).filter(|&at| ends && at != id);
            if let Some(successor) = successor.and_then(|at| self.workloads[at].as_deref_mut()) {
                successor.waits = self.reading;
            }
        }
        let mut any_ended = false;
        for (id, node) in self.tree.nodes().filter(|(_, node)| node.is_live() || node.is_dead()) {
            let entry = self.workloads[id].as_deref_mut().filter(|e| e.waits != self.reading);
            let Some(Entry { known, account, heard, dead_for, .. }) = entry else { continue };
            *dead_for += u32::from(node.is_dead());
            let last = node.is_dead()
                && (*heard != self.reading
                    || *dead_for >= Self::READINGS_AFTER_DEATH
                    || self.tree.at(&node.path) != Some(id));
            let Some(numbers) = account.as_deref_mut() else { continue };
            out.samples.push(Sample {
                who: known.who.clone(),
                cpu: numbers.publish_cpu(),
                stat: if last { numbers.last_stat() } else { numbers.stat(self.reading) },
                quota_cores: quota(&self.tree, &self.quotas, id),
                network: numbers.network,
                reclaim: numbers.reclaim,
                memory: numbers.memory,
                last,
            });
            if last {
                *account = None;
                any_ended = true;
            }
        }
        for (&(victim, culprit), &ns) in &self.blame {
            let who = |id: NodeId| self.workloads[id].as_deref().map(|e| e.known.who.clone());
            if let (Some(victim), Some(culprit)) = (who(victim), who(culprit)) {
                out.blame.push(NamedBlame { victim, culprit, ns });
            }
        }
        if any_ended {
            let lives = |id: NodeId| self.workloads[id].as_deref().is_some_and(|e| e.account.is_some());
            self.blame.retain(|(victim, _), _| lives(*victim));
        }
    }

    fn forget(&mut self, now: u64) {
        self.tree.forget(now);
        if self.tree.removed_keys.is_empty() && self.tree.removed_nodes.is_empty() {
            return;
        }
        let cgroups = &mut self.cgroups;
        self.tree.removed_keys.iter().for_each(|&key| cgroups[key].removed = true);
        self.pairs.retain(|(v, c, _), _| !cgroups[*v].removed && !cgroups[*c].removed);
        self.tree.removed_keys.iter().for_each(|&key| cgroups[key] = CgroupAccount::default());
        for &id in &self.tree.removed_nodes {
            self.workloads[id] = None;
            self.quotas[id] = None;
        }
        let workloads = &self.workloads;
        self.blame.retain(|(v, c), _| workloads[*v].is_some() && workloads[*c].is_some());
        self.tree.removed_keys.clear();
        self.tree.removed_nodes.clear();
    }
}

/// The smallest quota of a cgroup and its ancestors, cores.
fn quota(tree: &Tree, quotas: &[Option<f64>], id: NodeId) -> Option<f64> {
    let ancestors = std::iter::successors(Some(id), |&id| tree.node(id).parent);
    ancestors.filter_map(|id| quotas[id]).reduce(f64::min)
}

#[cfg(test)]
mod tests;
