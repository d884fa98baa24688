//! The cgroup tree: which id is which path, and whose part each cgroup is. Kept through death for a
//! while, for what is told late.
//!
//! One node is one path: in cgroup v1 every controller has a tree and ids of its own, but the same
//! path in several of them (and in the v2 tree beside them) is one cgroup to people, so ids join by path.

use foldhash::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::paths;
use crate::kernel::{CgroupChange, CgroupKey, Hierarchy};

/// A node's place in the [`Tree`]; used again after [`Tree::removed_nodes`] reported its end.
pub type NodeId = usize;
/// A cgroup id's place in the [`Tree`]; used again after [`Tree::removed_keys`] reported its end.
pub type KeyId = usize;

/// A path and the cgroups it stands for.
#[derive(Debug)]
pub struct Node {
    pub path: Arc<str>,
    pub parent: Option<NodeId>,
    /// The cgroup that gives this one its identity: itself or an ancestor.
    pub anchor: NodeId,
    /// The living cgroup of each hierarchy.
    keys: [Option<KeyId>; Hierarchies::COUNT],
    /// Living cgroups, and all that are remembered.
    live: u32,
    remembered: u32,
    children: u32,
    died: bool,
    /// An anchor's living cgroups: its own and those that are part of it.
    members: u32,
    ended: bool,
}

impl Node {
    /// An anchor of which any cgroup lives.
    pub fn is_live(&self) -> bool {
        self.members > 0
    }

    /// An anchor that lived and does not any more. (What was only ever heard of as another's parent
    /// neither lives nor is dead.)
    pub fn is_dead(&self) -> bool {
        self.ended
    }

    /// It has a living cgroup in this hierarchy.
    pub fn is_in(&self, hierarchy: Hierarchy) -> bool {
        self.keys[Hierarchies::index(hierarchy)].is_some()
    }
}

/// The hierarchies as an array index.
pub struct Hierarchies;

impl Hierarchies {
    pub const COUNT: usize = 3;

    pub fn index(hierarchy: Hierarchy) -> usize {
        match hierarchy {
            Hierarchy::Unified => 0,
            Hierarchy::V1Cpu => 1,
            Hierarchy::V1Memory => 2,
        }
    }
}

#[derive(Debug)]
struct Key {
    cgroup: CgroupKey,
    node: NodeId,
    alive: bool,
}

/// How much a [`Tree`] remembers.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// How long the dead are remembered.
    pub dead_for: Duration,
    /// How many dead cgroups are remembered beyond [`Memory::ALWAYS`].
    pub dead_max: usize,
    /// Nodes in all; what comes after is dropped and counted.
    pub nodes_max: usize,
}

impl Memory {
    /// The dead of the last seconds are remembered whatever their number: their last numbers may
    /// still be on the way.
    pub const ALWAYS: Duration = Duration::from_secs(10);
}

impl Default for Memory {
    fn default() -> Self {
        Memory { dead_for: Duration::from_secs(300), dead_max: 4096, nodes_max: 65_536 }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tree {
    memory: Memory,
    nodes: Slab<Node>,
    keys: Slab<Key>,
    ids: HashMap<CgroupKey, KeyId>,
    by_path: HashMap<Arc<str>, NodeId>,
    /// When each dead cgroup died (CLOCK_MONOTONIC, ns); the oldest first.
    dead: VecDeque<(u64, KeyId)>,
    /// Nodes from which a cgroup was moved away: they may have nothing that refers to them.
    left: Vec<NodeId>,
    /// What came and went since the caller last cleared these.
    pub added_nodes: Vec<NodeId>,
    pub removed_nodes: Vec<NodeId>,
    pub removed_keys: Vec<KeyId>,
    /// Cgroups not taken in because there were `nodes_max`. Cumulative.
    pub dropped: u64,
}

impl Tree {
    pub fn new(memory: Memory) -> Self {
        Tree { memory, ..Tree::default() }
    }

    /// Takes in a change told at `now` (CLOCK_MONOTONIC, ns). What is known already changes nothing.
    pub fn apply(&mut self, change: &CgroupChange, now: u64) {
        match change {
            CgroupChange::Present { cgroup, path } => self.present(*cgroup, path, now),
            CgroupChange::Gone { cgroup } => {
                if let Some(&key) = self.ids.get(cgroup) {
                    self.gone(key, now);
                }
            }
        }
    }

    /// The cgroup id, living or remembered.
    pub fn key(&self, cgroup: CgroupKey) -> Option<KeyId> {
        self.ids.get(&cgroup).copied()
    }

    /// The node of a key this tree gave.
    pub fn node_of(&self, key: KeyId) -> NodeId {
        self.keys[key].node
    }

    /// Every [`KeyId`] is below this.
    pub fn key_slots(&self) -> usize {
        self.keys.capacity()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node at a path: the living one, else the one that was there last.
    pub fn at(&self, path: &str) -> Option<NodeId> {
        self.by_path.get(path).copied()
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter()
    }

    /// Forgets the dead whose time is over, or that are too many.
    pub fn forget(&mut self, now: u64) {
        let age = |died: u64| Duration::from_nanos(now.saturating_sub(died));
        while let Some(&(died, key)) = self.dead.front() {
            let too_many = self.dead.len() > self.memory.dead_max && age(died) > Memory::ALWAYS;
            if age(died) <= self.memory.dead_for && !too_many {
                break;
            }
            self.dead.pop_front();
            let Key { cgroup, node, .. } = self.keys.remove(key);
            if self.key(cgroup) == Some(key) {
                self.ids.remove(&cgroup);
            }
            self.removed_keys.push(key);
            self.nodes[node].remembered -= 1;
            self.prune(node);
        }
        for node in std::mem::take(&mut self.left) {
            if self.nodes.contains(node) {
                self.prune(node);
            }
        }
    }

    fn present(&mut self, cgroup: CgroupKey, path: &str, now: u64) {
        let path = if path.is_empty() { "/" } else { path };
        // Ids are never used again (kernfs counts them up). One that is reported with another path was renamed (cgroup
        // v1): it goes on under its new name, also where another that took its old one made it seem dead.
        let renamed = self.key(cgroup).filter(|&key| *self.nodes[self.keys[key].node].path != *path);
        // A dead one that is reported once more was taken for dead by mistake. Whoever tells of it will tell of its end
        // too; to refuse it would be to be blind to it for ever. It starts over, as what was published of it has ended.
        if renamed.is_none() && self.key(cgroup).is_some_and(|key| self.keys[key].alive) {
            return;
        }
        let hierarchy = Hierarchies::index(cgroup.hierarchy);
        // Another id at the same place: its removal was not told.
        if let Some(before) = self.at(path).and_then(|node| self.nodes[node].keys[hierarchy]) {
            self.gone(before, now);
        }
        if let Some(key) = renamed {
            self.leave(key, now);
        }
        let Some(node) = self.node_for(path) else {
            self.dropped += 1;
            if let Some(key) = renamed {
                self.keys.remove(key);
                self.ids.remove(&cgroup);
                self.removed_keys.push(key);
            }
            return;
        };
        let living = Key { cgroup, node, alive: true };
        let key = match renamed {
            Some(key) => {
                self.keys[key] = living;
                key
            }
            None => self.keys.insert(living),
        };
        self.ids.insert(cgroup, key);
        let node = &mut self.nodes[node];
        node.keys[hierarchy] = Some(key);
        node.live += 1;
        node.remembered += 1;
        let anchor = node.anchor;
        self.nodes[anchor].members += 1;
    }

    /// Takes a cgroup that goes on elsewhere from its node, which is dead if there is no other.
    fn leave(&mut self, key: KeyId, now: u64) {
        self.gone(key, now);
        // It was just put there, or had seemed dead before.
        if let Some(at) = self.dead.iter().rposition(|&(_, dead)| dead == key) {
            self.dead.remove(at);
        }
        let node = self.keys[key].node;
        self.nodes[node].remembered -= 1;
        self.left.push(node);
    }

    fn gone(&mut self, key: KeyId, now: u64) {
        let Key { cgroup, node, ref mut alive } = self.keys[key];
        if !std::mem::take(alive) {
            return;
        }
        let node = &mut self.nodes[node];
        node.keys[Hierarchies::index(cgroup.hierarchy)] = None;
        node.live -= 1;
        node.died = node.live == 0;
        let anchor = node.anchor;
        self.nodes[anchor].members -= 1;
        self.nodes[anchor].ended = self.nodes[anchor].members == 0;
        self.dead.push_back((now, key));
    }

    /// The node for a living cgroup at `path`, made with its ancestors where there is none; `None` when
    /// there are too many.
    fn node_for(&mut self, path: &str) -> Option<NodeId> {
        let over = |tree: &Self, id: NodeId| tree.nodes[id].died || tree.nodes[tree.nodes[id].anchor].ended;
        let usable = |tree: &Self, path: &str| tree.at(path).filter(|&id| !over(tree, id));
        let mut missing = Vec::new();
        let mut nearest = None;
        let mut next = Some(path);
        while let Some(path) = next {
            nearest = usable(self, path);
            if nearest.is_some() {
                break;
            }
            missing.push(path);
            next = parent(path);
        }
        if self.nodes.len() + missing.len() > self.memory.nodes_max {
            return None;
        }
        for path in missing.into_iter().rev() {
            nearest = Some(self.insert(path, nearest));
        }
        nearest
    }

    fn insert(&mut self, path: &str, parent: Option<NodeId>) -> NodeId {
        let path: Arc<str> = path.into();
        let id = self.nodes.vacant_key();
        let anchor_len = paths::classify(&path).anchor.len();
        let mut ancestor = parent.filter(|_| anchor_len < path.len());
        while let Some(above) = ancestor
            && self.nodes[above].path.len() > anchor_len
        {
            ancestor = self.nodes[above].parent;
        }
        self.nodes.insert(Node {
            path: path.clone(),
            parent,
            anchor: ancestor.unwrap_or(id),
            keys: [None; Hierarchies::COUNT],
            live: 0,
            remembered: 0,
            children: 0,
            died: false,
            members: 0,
            ended: false,
        });
        if let Some(parent) = parent {
            self.nodes[parent].children += 1;
        }
        self.by_path.insert(path, id);
        self.added_nodes.push(id);
        id
    }

    /// Removes a node that nothing refers to any more, and the ancestors that were only there for it.
    fn prune(&mut self, mut id: NodeId) {
        while self.nodes[id].remembered == 0 && self.nodes[id].children == 0 {
            let node = self.nodes.remove(id);
            if self.by_path.get(&node.path) == Some(&id) {
                self.by_path.remove(&node.path);
            }
            self.removed_nodes.push(id);
            let Some(parent) = node.parent else { return };
            self.nodes[parent].children -= 1;
            id = parent;
        }
    }
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

#[cfg(test)]
mod tests;
