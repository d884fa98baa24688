//! What the recorder told, kept while any birth needs it (here), and whose each part is ([`whose`]). Pure.

mod room;
mod whose;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foldhash::{HashMap, HashSet};

use super::hints::{self, Hints};
use super::kin::{Kin, Owner};
use super::places::{Home, Places, Realm};
use crate::attribution::paths::{self, Kind, PodId};
use crate::kernel::recorder::{
    Begun, CgroupMade, CgroupWrite, Counters, Ended, Listen, Record, Segment, SegmentId,
};
use whose::Known;

/// A segment and what became of it.
#[derive(Clone, Debug)]
pub struct Life {
    pub segment: Segment,
    /// What it says of itself, as far as that may be believed.
    pub hints: Hints,
    /// Its end; or, of one that lives, what it did up to a moment ([`Log::settle`]).
    pub ended: Option<Ended>,
    pub kin: Kin,
    /// What it had done at a moment at which it lived.
    marked: Option<(u64, Counters)>,
    /// The program the same process ran next.
    next: Option<SegmentId>,
    /// What began by it.
    children: Vec<SegmentId>,
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
    fn owner(&self) -> Owner {
        Owner { pod: self.pod.clone(), container: self.container.clone() }
    }

    /// The kubelet's, of the pod as a whole.
    pub fn is_pods(&self) -> bool {
        self.pod.is_some() && self.container.is_none() && !self.helper
    }
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    places: Places,
    lives: BTreeMap<SegmentId, Life>,
    /// Segments by whose they are.
    of_pod: HashMap<PodId, BTreeSet<SegmentId>>,
    of_container: HashMap<String, BTreeSet<SegmentId>>,
    /// What began lately, in order: most of it is nobody's.
    fresh: VecDeque<SegmentId>,
    /// What says something of itself in a cgroup that is not known yet.
    undecided: Vec<(SegmentId, Hints)>,
    /// Pods of which there is something new.
    touched: HashSet<PodId>,
    cgroups: Vec<Made>,
    by_id: HashMap<(u32, u64), usize>,
    pub writes: Vec<CgroupWrite>,
    pub listens: Vec<Listen>,
    /// By a cgroup's path or a CNI plugin's environment.
    pod_of: HashMap<String, (PodId, Known)>,
    /// Where the pods' cgroups are.
    realms: HashMap<PodId, Realm>,
    /// Whoever runs containers may say so: there are no pods to speak for ([`Log::of_anybody`]).
    anybody: bool,
    /// What CNI plugins were called for: the pods' sandboxes.
    sandboxes: BTreeSet<String>,
    /// Records not taken in because there were too many.
    pub dropped: u64,
    /// The same of single pods that have more than their part.
    crowded: HashMap<PodId, u64>,
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

    fn new(segment: Segment) -> Life {
        let (hints, kin, children) = (Hints::default(), Kin::default(), Vec::new());
        Life { segment, hints, ended: None, kin, marked: None, next: None, children }
    }
}

impl Log {
    /// Records of each kind; a birth has some hundred.
    pub const MAX: usize = if cfg!(test) { 4_096 } else { 65_536 };

    /// Segments that wait for their cgroup to be known: it is reported within a reading.
    const UNDECIDED: usize = 1024;

    /// `cpu_tree`: the kernel's number of the v1 hierarchy of the cpu controller, 0 with cgroup v2.
    pub fn new(cpu_tree: u32) -> Log {
        Log {
            places: Places::new(cpu_tree),
            lives: BTreeMap::new(),
            of_pod: HashMap::default(),
            of_container: HashMap::default(),
            fresh: VecDeque::new(),
            undecided: Vec::new(),
            touched: HashSet::default(),
            cgroups: Vec::new(),
            by_id: HashMap::default(),
            writes: Vec::new(),
            listens: Vec::new(),
            pod_of: HashMap::default(),
            realms: HashMap::default(),
            anybody: false,
            sandboxes: BTreeSet::new(),
            dropped: 0,
            crowded: HashMap::default(),
        }
    }

    /// One for the containers of this machine whoever runs them, without Kubernetes: what users other than root say of
    /// themselves counts too, for containers that are no pod's.
    pub fn of_anybody(cpu_tree: u32) -> Log {
        Log { anybody: true, ..Log::new(cpu_tree) }
    }

    /// There is a cgroup, made now or long ago. `tree`: the kernel's number, 0 for v2's; `owner`: see [`CgroupMade::owner`].
    pub fn know(&mut self, tree: u32, cgroup: u64, path: &str, owner: Option<u32>) {
        let home = Home::of(path, owner);
        if let Some(pod) = &home.pod {
            self.settles(pod, &home.realm);
        }
        if self.places.know(tree, cgroup, home) && !self.undecided.is_empty() {
            self.decide();
        }
    }

    /// A cgroup is gone.
    pub fn lose(&mut self, tree: u32, cgroup: u64, now_ns: u64) {
        self.places.lose(tree, cgroup, now_ns);
    }

    pub fn add(&mut self, record: Record) {
        let full = match &record {
            Record::Began(_) => self.lives.len() >= Self::MAX,
            Record::CgroupMade(made) => {
                self.know(made.hierarchy_id, made.cgroup, &made.path, made.owner);
                self.cgroups.len() >= Self::MAX
            }
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
            Record::Ended(ended) => self.ended(ended),
            Record::CgroupMade(made) => self.made(made),
            Record::CgroupWrite(write) => {
                let pod = self.written(&write).and_then(|made| made.pod.clone());
                self.touched.extend(pod);
                self.writes.push(write);
            }
            Record::Listen(listen) => {
                let pod = listen.by.segment.and_then(|id| self.owner(id)?.pod.clone());
                self.touched.extend(pod);
                self.listens.push(listen);
            }
        }
    }

    fn began(&mut self, segment: Segment) {
        let (id, parent, begun) = (segment.id, segment.parent, segment.begun);
        let said = if begun == Begun::Fork { Hints::default() } else { hints::read(&segment) };
        let before = parent.and_then(|p| self.lives.get_mut(&p));
        let same = before.as_ref().is_some_and(|b| b.segment.tgid == segment.tgid);
        if let Some(before) = before {
            before.children.push(id);
            if begun == Begun::Exec && same {
                before.next = Some(id);
            }
        }
        self.lives.insert(id, Life::new(segment));
        self.fresh.push_back(id);
        if said != Hints::default() && !self.believe(id, &said) && self.undecided.len() < Self::UNDECIDED {
            self.undecided.push((id, said));
        }
        self.relate(id);
        if begun == Begun::Exec
            && same
            && let Some(before) = parent
        {
            self.relate(before);
        }
        self.bound(id);
    }

    fn ended(&mut self, ended: Ended) {
        let id = ended.segment;
        let Some(life) = self.lives.get_mut(&id) else { return };
        let moved = ended.place.cgroup != life.segment.place.cgroup;
        life.ended = Some(ended);
        self.touched.extend(life.kin.owner.pod.clone());
        if moved {
            self.relate(id);
        }
    }

    fn made(&mut self, made: CgroupMade) {
        let Home { mut pod, mut container, realm, .. } = Home::of(&made.path, made.owner);
        if let Some(of) = &pod
            && !self.settles(of, &realm)
        {
            (pod, container) = (None, None);
        }
        let helper = matches!(paths::classify(&made.path).kind, Kind::PodHelper);
        if let (Some(pod), Some(container)) = (&pod, &container) {
            let by = if realm.is_nodes() { Known::Nodes } else { Known::Elsewhere };
            self.is_of(container.clone(), pod.clone(), by);
        }
        self.touched.extend(pod.clone());
        self.by_id.insert((made.hierarchy_id, made.cgroup), self.cgroups.len());
        self.cgroups.push(Made { made, pod, container, helper });
    }

    /// All segments that began after this one, in the order they began.
    pub fn lives_after(&self, id: Option<SegmentId>) -> impl Iterator<Item = &Life> {
        let from = id.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.lives.range((from, std::ops::Bound::Unbounded)).map(|(_, life)| life)
    }

    /// What a pod's segments are, in the order they began.
    pub fn lives_of_pod(&self, pod: &PodId) -> impl Iterator<Item = &Life> {
        self.of_pod.get(pod).into_iter().flatten().filter_map(|id| self.lives.get(id))
    }

    /// What a container's segments are, in the order they began.
    pub fn lives_of_container(&self, container: &str) -> impl Iterator<Item = &Life> {
        self.of_container.get(container).into_iter().flatten().filter_map(|id| self.lives.get(id))
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
        self.pod_of.get(container).map(|(pod, _)| pod)
    }

    /// Pods of which something was told since this was last asked.
    pub fn take_touched(&mut self) -> HashSet<PodId> {
        std::mem::take(&mut self.touched)
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

    /// Whose a segment is; `None`: it is not known, or not kept.
    pub fn owner(&self, id: SegmentId) -> Option<&Owner> {
        self.lives.get(&id).map(|life| &life.kin.owner)
    }

    /// A process in the cgroup of a container.
    pub fn in_container(&self, life: &Life) -> bool {
        let home = self.places.home(&life.segment.place);
        home.is_some_and(|home| home.container.is_some())
    }

    /// It is the program that ran before in the same process, and does the same: crun goes on in a sealed copy of itself.
    pub fn goes_on(&self, life: &Life) -> bool {
        let before = life.segment.parent.and_then(|p| self.lives.get(&p));
        life.segment.begun == Begun::Exec
            && before.is_some_and(|b| b.segment.tgid == life.segment.tgid && b.hints == life.hints)
    }
}
