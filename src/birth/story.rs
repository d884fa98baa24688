//! One pod's part of the log: its segments with the part each plays, and its containers one by one. Pure.

use std::collections::HashMap;

use super::hints::{self, Role, Verb};
use super::kin::{Kin, Owner, Within};
use super::log::{Life, Log, Made};
use crate::api::Actor;
use crate::attribution::paths::PodId;
use crate::kernel::recorder::{Begun, CgroupWrite, Counters, End, Family, Namespaces, SegmentId};

/// Whose birth it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Pod(PodId),
    /// A container without Kubernetes, or one that is started again, by the runtime's id.
    Container(String),
}

impl Subject {
    fn is(&self, owner: &Owner) -> bool {
        match self {
            Subject::Pod(pod) => owner.pod.as_ref() == Some(pod),
            Subject::Container(id) => owner.container.as_ref() == Some(id),
        }
    }

    /// Its segments, in the order they began.
    fn lives<'l>(&self, log: &'l Log) -> Vec<&'l Life> {
        match self {
            Subject::Pod(pod) => log.lives_of_pod(pod).collect(),
            Subject::Container(id) => log.lives_of_container(id).collect(),
        }
    }

    /// Whether a cgroup is its: without Kubernetes a container may have any name.
    fn has(&self, made: &Made) -> bool {
        let named = |id: &String| {
            made.made.path.split('/').any(|part| {
                part == id || part.strip_suffix(".scope").is_some_and(|p| p.ends_with(&format!("-{id}")))
            })
        };
        match self {
            Subject::Pod(pod) => made.pod.as_ref() == Some(pod),
            Subject::Container(id) => made.container.as_ref().map_or_else(|| named(id), |c| c == id),
        }
    }
}

/// The phases of a birth, in their usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The API server: from the pod's creation to its node's choice.
    Scheduled,
    /// From the first cgroup of the pod to the last the kubelet made or wrote before the sandbox.
    Cgroup,
    /// The kubelet's mounts.
    Volumes,
    /// From the first thing done for the sandbox to its program.
    Sandbox,
    /// The CNI plugins.
    Network,
    /// From the sandbox, or the container before, to the first thing done for the container, less its image's pull: what
    /// the kubelet waits for (a hook, a startup probe, its own second), and how long it takes itself.
    Wait,
    /// The pull of a container's image.
    Image,
    /// The runtime's `create`.
    Create,
    /// The runtime's `start`, to the container's own program.
    Start,
    /// An init container's own program, to its end.
    Init,
    /// The container's own program, to its first listening socket.
    Listen,
    /// To the pod's condition Ready.
    Ready,
    /// Beside the birth: programs that are executed in a container that is there (probes, hooks, `kubectl exec`).
    Exec,
    /// Beside the birth: ephemeral containers (`kubectl debug`).
    Debug,
}

impl Phase {
    /// Those that a birth goes through.
    pub const ALL: [Phase; 12] = [
        Phase::Scheduled,
        Phase::Cgroup,
        Phase::Volumes,
        Phase::Sandbox,
        Phase::Network,
        Phase::Wait,
        Phase::Image,
        Phase::Create,
        Phase::Start,
        Phase::Init,
        Phase::Listen,
        Phase::Ready,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Scheduled => "scheduled",
            Phase::Cgroup => "cgroup",
            Phase::Volumes => "volumes",
            Phase::Sandbox => "sandbox",
            Phase::Network => "network",
            Phase::Wait => "wait",
            Phase::Image => "image",
            Phase::Create => "create",
            Phase::Start => "start",
            Phase::Init => "init",
            Phase::Listen => "listen",
            Phase::Ready => "ready",
            Phase::Exec => "exec",
            Phase::Debug => "debug",
        }
    }

    /// It is beside the birth, and no part of what that cost.
    pub fn is_beside(self) -> bool {
        matches!(self, Phase::Exec | Phase::Debug)
    }
}

/// A name for a container, where it is known, and whether it is the pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub name: Option<String>,
    pub sandbox: bool,
    /// An init container.
    pub init: bool,
    /// One that `kubectl debug` added.
    pub ephemeral: bool,
}

/// What one segment was for.
#[derive(Clone, Debug)]
pub struct Work {
    pub id: SegmentId,
    pub tgid: u32,
    pub actor: Actor,
    pub phase: Phase,
    /// The runtime's id.
    pub container: Option<String>,
    pub role: Role,
    pub begun: Begun,
    pub program: String,
    /// CLOCK_MONOTONIC, ns.
    pub start_ns: u64,
    /// When it ended; `None` while it lives.
    pub end_ns: Option<u64>,
    pub how: Option<End>,
    /// What it did, up to its end or to when the birth was over; `None` where that is not known.
    pub counters: Option<Counters>,
}

/// One container, by the runtime's id. Times are CLOCK_MONOTONIC, ns.
#[derive(Clone, Debug, Default)]
pub struct Container {
    pub id: String,
    pub named: Named,
    /// The first thing done for it: by its shim, the runtime, a CNI plugin, or its cgroup.
    pub first_ns: u64,
    /// The runtime's `create`, from its beginning to its end.
    pub create: Option<(u64, Option<u64>)>,
    /// The beginning of the runtime's `start`.
    pub start_ns: Option<u64>,
    /// Its own program.
    pub own: Option<SegmentId>,
    pub own_tgid: Option<u32>,
    pub program: Option<String>,
    pub exec_ns: Option<u64>,
    pub listen: Option<(u64, Family, u16)>,
    /// The end of its first process.
    pub exit: Option<(u64, End)>,
    pub mounts: Option<u32>,
    pub namespaces: Option<Namespaces>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub works: Vec<Work>,
    /// In the order in which work on them began.
    pub containers: Vec<Container>,
    pub cgroups: Vec<Made>,
    /// Each with the path of its cgroup.
    pub writes: Vec<(CgroupWrite, String)>,
    /// Namespaces of the runtime: what is in another one is in one made for the pod.
    pub host: Option<Namespaces>,
}

impl Story {
    /// What was done for `subject` from `from` to `until` (CLOCK_MONOTONIC, ns). `named`: what is known of a
    /// container by the runtime's id.
    pub fn of(log: &Log, subject: &Subject, from: u64, until: u64, named: impl Fn(&str) -> Named) -> Story {
        let mut story = Story::default();
        let mut at: HashMap<String, usize> = HashMap::new();
        for made in log.cgroups().iter().filter(|m| (from..=until).contains(&m.made.by.at_ns)) {
            if !subject.has(made) {
                continue;
            }
            story.cgroups.push(made.clone());
            if let Some(id) = &made.container {
                story.container(id, made.made.by.at_ns, &mut at, &named);
            }
        }
        for write in log.writes.iter().filter(|w| (from..=until).contains(&w.by.at_ns)) {
            let Some(made) = log.written(write) else { continue };
            if subject.has(made) {
                story.writes.push((write.clone(), made.made.path.clone()));
            }
        }
        for life in subject.lives(log) {
            let over = life.ended.as_ref().is_some_and(|e| e.at_ns < from && e.how != End::Stopped);
            if !over && life.segment.start_ns <= until {
                story.work(log, life, until, &mut at, &named);
            }
        }
        for listen in log.listens.iter().filter(|l| (from..=until).contains(&l.by.at_ns)) {
            // What is executed in a container does not make it listen.
            let own = |life: &&Life| life.kin.within == Within::Own && subject.is(&life.kin.owner);
            let life = listen.by.segment.and_then(|id| log.life(id)).filter(own);
            let Some(&at) = life.and_then(|l| at.get(l.kin.owner.container.as_ref()?)) else { continue };
            let first = &mut story.containers[at].listen;
            if first.is_none_or(|(ns, ..)| listen.by.at_ns < ns) {
                *first = Some((listen.by.at_ns, listen.family, listen.port));
            }
        }
        story.set_aside();
        story.containers.sort_by_key(|c| c.first_ns);
        story.works.sort_by_key(|w| w.start_ns);
        story
    }

    /// Ephemeral containers are no part of the birth.
    fn set_aside(&mut self) {
        let debug: Vec<String> =
            self.containers.iter().filter(|c| c.named.ephemeral).map(|c| c.id.clone()).collect();
        if debug.is_empty() {
            return;
        }
        let aside = |id: &Option<String>| id.as_ref().is_some_and(|id| debug.contains(id));
        self.containers.retain(|c| !c.named.ephemeral);
        self.writes.retain(|(_, path)| !debug.iter().any(|id| path.contains(id)));
        self.cgroups.retain(|m| !aside(&m.container) && !debug.iter().any(|id| m.made.path.contains(id)));
        self.works.iter_mut().filter(|w| aside(&w.container)).for_each(|w| w.phase = Phase::Debug);
    }

    fn container(
        &mut self,
        id: &str,
        ns: u64,
        at: &mut HashMap<String, usize>,
        named: &impl Fn(&str) -> Named,
    ) -> &mut Container {
        let index = *at.entry(id.to_owned()).or_insert_with(|| {
            let named = named(id);
            self.containers.push(Container {
                id: id.to_owned(),
                named,
                first_ns: ns,
                ..Container::default()
            });
            self.containers.len() - 1
        });
        let container = &mut self.containers[index];
        container.first_ns = container.first_ns.min(ns);
        container
    }

    fn work(
        &mut self,
        log: &Log,
        life: &Life,
        until: u64,
        at: &mut HashMap<String, usize>,
        named: &impl Fn(&str) -> Named,
    ) {
        let segment = &life.segment;
        let ended = life.ended.as_ref().filter(|e| e.how != End::Stopped && e.at_ns <= until);
        let Kin { owner, role, within, first, .. } = &life.kin;
        let own = *first && *within == Within::Own;
        let known = owner.container.as_ref().map(|id| self.container(id, segment.start_ns, at, named));
        let (mut sandbox, mut init) = (*role == Role::Other, false);
        if let Some(container) = known {
            sandbox = container.named.sandbox;
            init = container.named.init;
            match life.hints.role {
                Role::Runtime(Verb::Create | Verb::Run) if segment.begun == Begun::Exec => {
                    let end = life.ended.as_ref().filter(|e| e.how != End::Stopped).map(|e| e.at_ns);
                    match &mut container.create {
                        Some((_, before)) if log.goes_on(life) => *before = end,
                        create => drop(create.get_or_insert((segment.start_ns, end))),
                    }
                }
                Role::Runtime(Verb::Start) if segment.begun == Begun::Exec => {
                    container.start_ns.get_or_insert(segment.start_ns);
                }
                _ => {}
            }
            if own && container.exec_ns.is_none_or(|ns| segment.start_ns < ns) {
                container.own = Some(segment.id);
                container.own_tgid = Some(segment.tgid);
                container.program = Some(hints::program(segment));
                container.exec_ns = Some(segment.start_ns);
                container.mounts = segment.place.mounts;
                container.namespaces = segment.place.namespaces;
            }
            if container.own_tgid == Some(segment.tgid)
                && let Some(ended) = ended.filter(|e| !matches!(e.how, End::Exec))
            {
                container.exit = Some((ended.at_ns, ended.how));
            }
        }
        // What is in the container's cgroup and not known to be the runtime's, is the container's.
        let within = match within {
            Within::Outside if *role == Role::Other && log.in_container(life) => Within::Own,
            within => *within,
        };
        let (actor, phase) = part(*role, within, sandbox, init);
        if actor == Actor::Runtime && within == Within::Outside && self.host.is_none() {
            self.host = segment.place.namespaces;
        }
        self.works.push(Work {
            id: segment.id,
            tgid: segment.tgid,
            actor,
            phase,
            container: owner.container.clone(),
            role: life.hints.role,
            begun: segment.begun,
            program: hints::program(segment),
            start_ns: segment.start_ns,
            end_ns: ended.map(|e| e.at_ns),
            how: ended.map(|e| e.how),
            counters: life.counters(until).cloned(),
        });
    }

    /// What programs did: of each its work, in several parts where it executed itself again in the same process.
    pub fn acts(&self) -> Vec<Vec<&Work>> {
        let mut acts: Vec<Vec<&Work>> = Vec::new();
        for work in self.works.iter().filter(|w| w.begun == Begun::Exec) {
            let goes_on = |before: &&Work| {
                before.how == Some(End::Exec) && before.tgid == work.tgid && before.role == work.role
            };
            let act = acts.iter_mut().rev().find(|act| act.last().is_some_and(goes_on));
            match act.filter(|_| work.role != Role::Other) {
                Some(act) => act.push(work),
                None => acts.push(vec![work]),
            }
        }
        acts
    }

    /// The containers of the pod that are not its sandbox.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| !c.named.sandbox)
    }

    /// The pod's sandboxes: each try has its own.
    pub fn sandboxes(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.named.sandbox)
    }

    /// The pod's sandbox; the latest, where the first attempts failed.
    pub fn sandbox(&self) -> Option<&Container> {
        self.containers.iter().rfind(|c| c.named.sandbox)
    }

    /// The segments that live at the end and of which more may be known since.
    pub fn alive(&self) -> impl Iterator<Item = SegmentId> {
        self.works.iter().filter(|w| w.end_ns.is_none()).map(|w| w.id)
    }
}

/// Who does it, and in which phase.
fn part(role: Role, within: Within, sandbox: bool, init: bool) -> (Actor, Phase) {
    let create = if sandbox { Phase::Sandbox } else { Phase::Create };
    match (within, role) {
        // The sandbox's program waits and does nothing: it is the runtime's.
        (Within::Own, _) if sandbox => (Actor::Runtime, Phase::Sandbox),
        (Within::Own, _) if init => (Actor::Container, Phase::Init),
        (Within::Own, _) => (Actor::Container, Phase::Listen),
        (Within::Entered, _) => (Actor::Container, Phase::Exec),
        (_, Role::Cni { .. }) => (Actor::Cni, Phase::Network),
        (_, Role::Volume) => (Actor::Kubelet, Phase::Volumes),
        (_, Role::Runtime(Verb::Start)) if !sandbox => (Actor::Runtime, Phase::Start),
        (_, Role::Runtime(Verb::Exec)) => (Actor::Runtime, Phase::Exec),
        (_, Role::Runtime(_) | Role::Monitor) => (Actor::Runtime, create),
        (_, Role::Other) => (Actor::Runtime, Phase::Sandbox),
    }
}
