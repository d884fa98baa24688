//! What the recorder told, kept while any birth needs it, and whose each part is: by cgroup, by what a program
//! says of itself ([`super::hints`]), and by lineage. Pure.
//!
//! What a process says of itself, or the cgroup it is in, goes before its lineage: a shim serves all
//! containers of its pod, and the runtime's daemon all pods.

use std::collections::{BTreeSet, HashSet, VecDeque};

use foldhash::HashMap;

use super::hints::{self, Hints, Role, Verb};
use crate::attribution::paths::{self, Kind, PodId};
use crate::kernel::Hierarchy;
use crate::kernel::birth::{
    Begun, CgroupMade, CgroupWrite, Counters, Ended, Listen, Place, Record, Segment, SegmentId,
};

/// A segment and what became of it.
#[derive(Clone, Debug)]
pub struct Life {
    pub segment: Segment,
    pub hints: Hints,
    /// Its end; or, of one that lives, what it did up to a moment ([`Log::settle`]).
    pub ended: Option<Ended>,
    /// What it had done at a moment at which it lived.
    marked: Option<(u64, Counters)>,
    /// The program the same process ran next.
    next: Option<SegmentId>,
}

/// Whose a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    pub pod: Option<&'a PodId>,
    /// The runtime's id of the container.
    pub container: Option<&'a str>,
}

/// A cgroup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub made: CgroupMade,
    pub pod: Option<PodId>,
    /// `None`: the pod's own, or a helper's.
    pub container: Option<String>,
    /// Within the pod and no container: that of CRI-O's monitor of one.
    pub helper: bool,
}

impl Made {
    fn owner(&self) -> Owner<'_> {
        Owner { pod: self.pod.as_ref(), container: self.container.as_deref() }
    }

    /// The kubelet's, of the pod as a whole.
    pub fn is_pods(&self) -> bool {
        self.pod.is_some() && self.container.is_none() && !self.helper
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    /// The kernel's number of the tree that [`Place::cgroup`] is in, where that is not v2's.
    cpu_tree: u32,
    lives: HashMap<SegmentId, Life>,
    order: VecDeque<SegmentId>,
    cgroups: Vec<Made>,
    by_id: HashMap<(u32, u64), usize>,
    pub writes: Vec<CgroupWrite>,
    pub listens: Vec<Listen>,
    /// By a cgroup's path or a CNI plugin's environment.
    pod_of: HashMap<String, PodId>,
    /// What CNI plugins were called for: the pods' sandboxes.
    sandboxes: BTreeSet<String>,
    /// Records not taken in because there were too many.
    pub dropped: u64,
}

impl Life {
    /// Between two looks at the recorder.
    const SLACK_NS: u64 = 1_000_000;

    /// What it did until then, as near as that is known.
    pub fn counters(&self, until_ns: u64) -> Option<&Counters> {
        let ended = self.ended.as_ref();
        let later = ended.is_none_or(|e| e.at_ns > until_ns);
        let marked = self.marked.as_ref().filter(|(at, _)| later && at + Self::SLACK_NS >= until_ns);
        marked.map(|(_, counters)| counters).or(ended.map(|e| &e.counters))
    }
}

impl Log {
    /// Records of each kind; a birth has some hundred.
    pub const MAX: usize = if cfg!(test) { 4_096 } else { 65_536 };
    /// Forks and execs between a process and whoever can say for whom it works.
    const DEPTH: usize = 64;

    /// `cpu_tree`: the kernel's number of the v1 hierarchy of the cpu controller, 0 with cgroup v2.
    pub fn new(cpu_tree: u32) -> Log {
        Log { cpu_tree, ..Log::default() }
    }

    pub fn add(&mut self, record: Record) {
        let full = match &record {
            Record::Began(_) => self.lives.len() >= Self::MAX,
            Record::CgroupMade(_) => self.cgroups.len() >= Self::MAX,
            Record::CgroupWrite(_) => self.writes.len() >= Self::MAX,
            Record::Listen(_) => self.listens.len() >= Self::MAX,
            Record::Ended(_) => false,
        };
        if full {
            self.dropped += 1;
            return;
        }
        match record {
            Record::Began(segment) => self.began(segment),
            Record::Ended(ended) => {
                if let Some(life) = self.lives.get_mut(&ended.segment) {
                    life.ended = Some(ended);
                }
            }
            Record::CgroupMade(made) => self.made(made),
            Record::CgroupWrite(write) => self.writes.push(write),
            Record::Listen(listen) => self.listens.push(listen),
        }
    }

    fn began(&mut self, segment: Segment) {
        let id = segment.id;
        let mut hints = if segment.begun == Begun::Fork { Hints::default() } else { hints::read(&segment) };
        // What runs in a pod's container may say anything of itself.
        let said = matches!(hints.role, Role::Cni { .. } | Role::Volume | Role::Monitor);
        if said && self.in_container(&segment.place) {
            hints = Hints::default();
        }
        if let (Some(container), Some(pod)) = (&hints.container, &hints.pod) {
            self.pod_of.insert(container.clone(), pod.clone());
        }
        if let (Role::Cni { .. }, Some(container)) = (hints.role, &hints.container)
            && self.sandboxes.len() < Self::MAX
        {
            self.sandboxes.insert(container.clone());
        }
        if segment.begun == Begun::Exec
            && let Some(before) = segment.parent.and_then(|p| self.lives.get_mut(&p))
            && before.segment.tgid == segment.tgid
        {
            before.next = Some(id);
        }
        self.lives.insert(id, Life { segment, hints, ended: None, marked: None, next: None });
        self.order.push_back(id);
    }

    fn made(&mut self, made: CgroupMade) {
        let (pod, container) = in_path(&made.path);
        let helper = matches!(paths::classify(&made.path).kind, Kind::PodHelper);
        if let (Some(pod), Some(container)) = (&pod, &container) {
            self.pod_of.insert(container.clone(), pod.clone());
        }
        self.by_id.insert((made.hierarchy_id, made.cgroup), self.cgroups.len());
        self.cgroups.push(Made { made, pod, container, helper });
    }

    /// All segments, in the order they began.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.order.iter().filter_map(|id| self.lives.get(id))
    }

    pub fn life(&self, id: SegmentId) -> Option<&Life> {
        self.lives.get(&id)
    }

    /// Cgroups that were made, in order.
    pub fn cgroups(&self) -> &[Made] {
        &self.cgroups
    }

    /// The cgroup a write went to, if it was made since.
    pub fn written(&self, write: &CgroupWrite) -> Option<&Made> {
        self.by_id.get(&(write.hierarchy_id, write.cgroup)).map(|&at| &self.cgroups[at])
    }

    /// The pod's sandbox, by what its CNI plugins were called for.
    pub fn is_sandbox(&self, container: &str) -> bool {
        self.sandboxes.contains(container)
    }

    /// The pod of a container.
    pub fn pod_of(&self, container: &str) -> Option<&PodId> {
        self.pod_of.get(container)
    }

    /// Takes the numbers of segments that live and go on.
    pub fn mark(&mut self, at_ns: u64, numbers: impl IntoIterator<Item = (SegmentId, Counters)>) {
        for (id, counters) in numbers {
            if let Some(life) = self.lives.get_mut(&id) {
                life.marked = Some((at_ns, counters));
            }
        }
    }

    /// Takes the numbers up to now of segments that live.
    pub fn settle(&mut self, numbers: impl IntoIterator<Item = Ended>) {
        for ended in numbers {
            if let Some(life) = self.lives.get_mut(&ended.segment) {
                life.ended = Some(ended);
            }
        }
    }

    /// Forgets what happened before (CLOCK_MONOTONIC, ns) and is nobody's that is `needed`: asked with the owner and
    /// the end of what it did, [`u64::MAX`] while it lives.
    pub fn forget(&mut self, before: u64, needed: impl Fn(Owner<'_>, u64) -> bool) {
        let over = |l: &&Life| {
            let end = l.ended.as_ref().map_or(u64::MAX, |e| e.at_ns);
            let recent = l.segment.start_ns >= before || (end >= before && end < u64::MAX);
            !recent && !needed(self.owner(l.segment.id), end)
        };
        let gone: HashSet<SegmentId> = self.lives().filter(over).map(|l| l.segment.id).collect();
        let listens = |l: &Listen| {
            let owner = l.by.segment.map(|id| self.owner(id)).unwrap_or_default();
            l.by.at_ns >= before || needed(owner, l.by.at_ns)
        };
        let listens: Vec<bool> = self.listens.iter().map(listens).collect();
        let made = |m: &Made, ns: u64| ns >= before || needed(m.owner(), ns);
        let written = |w: &CgroupWrite| match self.written(w) {
            Some(to) => made(to, w.by.at_ns),
            None => w.by.at_ns >= before,
        };
        let writes: Vec<bool> = self.writes.iter().map(written).collect();
        self.order.retain(|id| !gone.contains(id));
        self.lives.retain(|id, _| !gone.contains(id));
        retain(&mut self.listens, &listens);
        retain(&mut self.writes, &writes);
        if self.cgroups.len() > Self::MAX / 2 {
            self.cgroups.retain(|m| made(m, m.made.by.at_ns));
            let ids =
                self.cgroups.iter().enumerate().map(|(at, m)| ((m.made.hierarchy_id, m.made.cgroup), at));
            self.by_id = ids.collect();
        }
        if self.pod_of.len().max(self.sandboxes.len()) > Self::MAX / 2 {
            self.pod_of.retain(|id, pod| needed(Owner { pod: Some(pod), container: Some(id) }, u64::MAX));
            self.sandboxes.retain(|id| self.pod_of.contains_key(id));
        }
    }

    /// More than half of the room for programs is taken.
    pub fn is_crowded(&self) -> bool {
        self.lives.len() > Self::MAX / 2
    }

    /// Whose a segment is.
    pub fn owner(&self, id: SegmentId) -> Owner<'_> {
        let mut owner = Owner::default();
        let mut next = Some(id);
        for _ in 0..Self::DEPTH {
            let Some(life) = next.and_then(|id| self.lives.get(&id)) else { break };
            owner.learn(self.own(life));
            if owner.pod.is_some() && owner.container.is_some() {
                return owner;
            }
            // A fork that is about to exec a program works for whom that program works.
            if let Some(after) =
                life.next.and_then(|id| self.lives.get(&id)).filter(|_| life.hints == Hints::default())
            {
                owner.learn(self.own(after));
            }
            next = life.segment.parent;
        }
        if owner.pod.is_none() {
            owner.pod = owner.container.and_then(|c| self.pod_of.get(c));
        }
        owner
    }

    /// Whose a segment is by its cgroup and by what it says of itself.
    fn own<'a>(&'a self, life: &'a Life) -> Owner<'a> {
        let places = [Some(&life.segment.place), life.ended.as_ref().map(|e| &e.place)];
        let mut owner = Owner::default();
        for made in places.into_iter().flatten().filter_map(|p| self.place(p)) {
            owner.learn(made.owner());
        }
        let said = &life.hints;
        let pod = said.pod.as_ref().or_else(|| self.pod_of.get(said.container.as_ref()?));
        owner.learn(Owner { pod, container: said.container.as_deref() });
        owner
    }

    fn in_container(&self, place: &Place) -> bool {
        self.place(place).is_some_and(|made| made.container.is_some())
    }

    fn place(&self, place: &Place) -> Option<&Made> {
        let tree = match place.hierarchy? {
            Hierarchy::Unified => 0,
            Hierarchy::V1Cpu => self.cpu_tree,
            Hierarchy::V1Memory => return None,
        };
        self.by_id.get(&(tree, place.cgroup?)).map(|&at| &self.cgroups[at])
    }

    /// The nearest of a segment, the program it is about to become, and its ancestors that plays a part of its own.
    fn acting(&self, id: SegmentId) -> Option<&Life> {
        let acts = |l: &&Life| l.hints.role != Role::Other;
        let becomes = self.lives.get(&id).and_then(|l| self.lives.get(&l.next?));
        self.lives.get(&id).filter(acts).or(becomes.filter(acts)).or_else(|| self.ancestors(id).find(acts))
    }

    /// The part a segment plays. The runtime's own first process serves what the runtime was asked to do: a program
    /// that is run in a container which is there already (a probe, a hook) is none of its creation.
    pub fn role(&self, id: SegmentId) -> Role {
        let Some(acting) = self.acting(id) else { return Role::Other };
        let asked =
            |l: &Life| Some(l.hints.role).filter(|r| matches!(r, Role::Runtime(v) if *v != Verb::Init));
        match acting.hints.role {
            Role::Runtime(Verb::Init) => {
                self.ancestors(acting.segment.id).find_map(asked).unwrap_or(acting.hints.role)
            }
            role => role,
        }
    }

    /// A segment, whoever began it, and so on.
    pub fn ancestors(&self, id: SegmentId) -> impl Iterator<Item = &Life> {
        let mut next = Some(id);
        std::iter::from_fn(move || {
            let life = self.lives.get(&next?)?;
            next = life.segment.parent;
            Some(life)
        })
        .take(Self::DEPTH)
    }

    /// It is the program that ran before in the same process, and does the same: crun goes on in a sealed copy of itself.
    pub fn goes_on(&self, life: &Life) -> bool {
        let before = life.segment.parent.and_then(|p| self.lives.get(&p));
        life.segment.begun == Begun::Exec
            && before.is_some_and(|b| b.segment.tgid == life.segment.tgid && b.hints == life.hints)
    }

    /// The container's own program: the first a runtime's `create` or `run` leads to that is not the runtime
    /// itself, and is in a mount namespace of its own (a hook of the runtime is not).
    pub fn is_own_program(&self, life: &Life) -> bool {
        if life.segment.begun != Begun::Exec || life.hints.role != Role::Other {
            return false;
        }
        let mut above = self.ancestors(life.segment.id).skip(1).filter(|l| l.segment.begun != Begun::Fork);
        // Of a process that was there before the recording only the cgroup tells.
        let Some(runtime) = above.next() else { return self.in_container(&life.segment.place) };
        let verb = match runtime.hints.role {
            Role::Runtime(Verb::Init) => above.find_map(|l| match l.hints.role {
                Role::Runtime(verb) if verb != Verb::Init => Some(verb),
                _ => None,
            }),
            Role::Runtime(verb) => Some(verb),
            _ => return false,
        };
        // Of one whose creation was not recorded only the first process within is known.
        let creates = verb.is_none_or(|v| matches!(v, Verb::Create | Verb::Run));
        let mnt = |l: &Life| l.segment.place.namespaces.map(|n| n.mnt).filter(|&n| n != 0);
        let outside = match runtime.hints.role {
            Role::Runtime(Verb::Init) => None,
            _ => mnt(runtime),
        };
        creates && outside.is_none_or(|outside| mnt(life).is_none_or(|inside| inside != outside))
    }

    /// Whether a segment is the container's own program or descends from it.
    pub fn within_container(&self, id: SegmentId) -> bool {
        self.ancestors(id).any(|l| self.is_own_program(l))
    }
}

impl<'a> Owner<'a> {
    /// What was known goes before what is learnt; the two must not be of different pods.
    fn learn(&mut self, more: Owner<'a>) {
        let other = matches!((self.pod, more.pod), (Some(a), Some(b)) if a != b);
        if other {
            return;
        }
        self.container = self.container.or(more.container);
        self.pod = self.pod.or(more.pod);
    }
}

fn retain<T>(all: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    all.retain(|_| keep.next().is_none_or(|k| *k));
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
