//! When a birth begins and ends: the births of one node. No clock of its own and no I/O: records, the API server's
//! pods and time go in, [`Certificate`]s and whether to record come out.

mod birth;
mod held;
mod restarts;
mod verdict;

use std::collections::HashMap;
use std::time::Duration;

use birth::{Birth, Restart, State};
use held::Held;
use verdict::verdict;

use super::certificate::{self, Certificate, Input, Knows, tell_images};
use super::failure;
use super::hints::{Role, Verb};
use super::log::{Log, in_path};
use super::story::{Named, Story, Subject};
use crate::api::{BirthOutcome, MissingPart};
use crate::attribution::images::OfPod;
use crate::attribution::paths::{self, Kind, PodId};
use crate::attribution::pods::{ContainerKind, PodIndex, PodRecord};
use crate::attribution::{Workload, WorkloadKind};
use crate::kernel::Instant;
use crate::kernel::birth::{Begun, CgroupMade, Counters, Ended, Record, SegmentId};

/// How births are watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How long a pod that is Ready may take to listen, before it counts as one that does not.
    pub settle: Duration,
    /// A birth that takes longer ends unfinished.
    pub wait: Duration,
    /// How long a certificate waits for the API server's word where its images came from; zero: that is not asked.
    pub images: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            settle: Duration::from_secs(2),
            wait: Duration::from_secs(300),
            images: Duration::from_secs(5),
        }
    }
}

/// What was not taken in. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Births not watched because there were too many.
    pub births: u64,
    /// Records not kept because there were too many.
    pub records: u64,
}

/// What segments that live have done up to now.
pub trait Tally {
    /// They are followed no longer.
    fn end(&mut self, ids: &[SegmentId]) -> Vec<Ended>;

    /// They go on.
    fn so_far(&mut self, _ids: &[SegmentId]) -> Vec<(SegmentId, Counters)> {
        Vec::new()
    }
}

impl<F: FnMut(&[SegmentId]) -> Vec<Ended>> Tally for F {
    fn end(&mut self, ids: &[SegmentId]) -> Vec<Ended> {
        self(ids)
    }
}

pub type Numbers<'a> = &'a mut dyn Tally;

/// See the module.
#[derive(Debug)]
pub struct Births {
    options: Options,
    log: Log,
    births: HashMap<PodId, Birth>,
    /// By the runtime's id.
    names: HashMap<String, Named>,
    unnamed: Vec<String>,
    held: Held,
    /// Why the recorder does not run, or what it does not tell.
    missing: Vec<MissingPart>,
    knows: Knows,
    /// Records the recorder lost so far.
    lost: u64,
    /// When the recorder last began.
    began_ns: u64,
    forgot_ns: u64,
    drops: u64,
}

impl Births {
    /// Births watched at once: a node has a hundred pods or two.
    const MAX: usize = 1024;
    /// A birth that goes on within this time of its first failure is the same one.
    const PARKED: Duration = Duration::from_secs(600);
    /// A container that is started again has this long to run its own program.
    const RESTART: Duration = Duration::from_secs(60);
    /// Between two looks at a birth that is about to end.
    const LOOK: Duration = Duration::from_millis(200);
    const FORGET: Duration = Duration::from_secs(5);
    /// By then it is known whose a program is.
    const RECENT: Duration = Duration::from_secs(30);
    const RESTARTS_MAX: usize = 16;
    /// A recording that began so long after a container's cgroup was made may have missed its program: runc takes some
    /// 50 ms from the one to the other, the recorder 2 ms, but on a busy node far more.
    const LATE: Duration = Duration::from_millis(10);

    /// `cpu_tree`: see [`Log::new`]. `missing`: what the recorder cannot tell, and why.
    pub fn new(options: Options, cpu_tree: u32, missing: Vec<MissingPart>, knows: Knows) -> Births {
        Births {
            options,
            log: Log::new(cpu_tree),
            births: HashMap::new(),
            names: HashMap::new(),
            unnamed: Vec::new(),
            held: Held::default(),
            missing,
            knows,
            lost: 0,
            began_ns: 0,
            forgot_ns: 0,
            drops: 0,
        }
    }

    /// There is no recorder after all.
    pub fn without_recorder(&mut self, why: &str) {
        self.knows = Knows::NOTHING;
        self.missing = missing(why);
    }

    /// The recorder does not run now: what is being born goes unrecorded.
    pub fn unrecorded(&mut self, why: &str) {
        for birth in self.births.values_mut() {
            if matches!(birth.state, State::Running(_)) {
                birth.unrecorded.get_or_insert_with(|| why.to_owned());
            }
            birth.restarts.values_mut().for_each(|restart| restart.recorded = false);
        }
    }

    /// The recorder runs since now.
    pub fn began(&mut self, now: Instant) {
        self.began_ns = now.mono_ns;
    }

    /// So many records were lost in all.
    pub fn lost(&mut self, total: u64) {
        self.lost = total;
    }

    /// Something is being born: record.
    pub fn recording(&self) -> bool {
        let wanted = |b: &Birth| matches!(b.state, State::Running(_)) || !b.restarts.is_empty();
        self.births.values().any(wanted)
    }

    /// What the recorder tells here.
    pub fn knows(&self) -> Knows {
        self.knows
    }

    pub fn drops(&self) -> Drops {
        Drops { births: self.drops, records: self.log.dropped }
    }

    /// Containers whose names nobody has told yet.
    pub fn unnamed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unnamed)
    }

    /// What the runtime calls a container.
    pub fn name(&mut self, id: String, named: Named) {
        self.names.insert(id, named);
    }

    /// Pods whose certificates wait to be told where their images came from, by namespace and UID; each once.
    pub fn unseen(&mut self, now: Instant) -> Vec<(String, String)> {
        let busy = self.births.values().any(|b| matches!(b.state, State::Running(_)));
        self.held.asks(now.mono_ns, busy)
    }

    /// Where the images of a pod's containers came from.
    pub fn images(&mut self, told: &OfPod) {
        let said = self.births.values_mut().filter_map(|b| b.said.as_mut());
        said.filter(|c| c.is_of(&told.uid)).for_each(|c| tell_images(&mut c.status, &told.images));
        self.held.told(told);
    }

    /// Certificates wait to be told more.
    pub fn holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Those that wait, as they are.
    pub fn give_up(&mut self) -> Vec<Certificate> {
        self.held.release(u64::MAX)
    }

    /// Takes what the recorder told, at `now`.
    pub fn record(&mut self, record: Record, now: Instant) {
        match &record {
            Record::CgroupMade(made) => self.made(made, now),
            Record::Ended(ended) => self.ended(ended),
            _ => {}
        }
        let did = match &record {
            Record::Began(segment) if segment.begun == Begun::Exec => Some(segment.id),
            Record::Listen(listen) => listen.by.segment,
            _ => None,
        };
        self.log.add(record);
        if let Some(id) = did {
            self.did(id);
        }
    }

    /// A container's own program began, or listens: without an API server that may have been the end of the birth.
    fn did(&mut self, id: SegmentId) {
        let unheard =
            self.births.values().any(|b| b.record.is_none() && matches!(b.state, State::Running(_)));
        if unheard
            && self.log.within_container(id)
            && let Some(birth) = self.log.owner(id).pod.and_then(|pod| self.births.get_mut(pod))
        {
            birth.mark = birth.record.is_none();
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let failed = certificate::failed(ended.how).is_some();
        // Of these the kubelet has no word in the pod's status.
        let silent = |l: &super::log::Life| {
            let starts = matches!(l.hints.role, Role::Runtime(Verb::Create | Verb::Run | Verb::Start));
            starts || matches!(l.hints.role, Role::Cni { add: true } | Role::Volume | Role::Monitor)
        };
        if failed
            && self.log.life(ended.segment).is_some_and(silent)
            && let Some(birth) = self.log.owner(ended.segment).pod.and_then(|p| self.births.get_mut(p))
        {
            birth.suspect = true;
            birth.last_ns = birth.last_ns.max(ended.at_ns);
        }
    }

    fn made(&mut self, made: &CgroupMade, now: Instant) {
        let ns = made.by.at_ns;
        let (Some(pod), container) = in_path(&made.path) else { return };
        let at = |ns: u64| Instant {
            mono_ns: ns,
            unix_ns: now.unix_ns - now.mono_ns.saturating_sub(ns).min(now.unix_ns),
        };
        if !self.births.contains_key(&pod) {
            if self.births.len() >= Self::MAX {
                self.make_room();
            }
            if self.births.len() >= Self::MAX {
                self.drops += 1;
                return;
            }
            let whole = matches!(paths::classify(&made.path).kind, Kind::Pod);
            // Of a pod that was there before only its new containers are of interest.
            let state = match whole {
                true => State::Running(ns + nanos(self.options.wait)),
                false => State::Done,
            };
            let lost = self.lost + self.log.dropped;
            self.births.insert(pod.clone(), Birth { lost, ..Birth::new(at(ns), made.path.clone(), state) });
        }
        let Some(birth) = self.births.get_mut(&pod) else { return };
        birth.last_ns = birth.last_ns.max(ns);
        let Some(container) = container else { return };
        if self.names.contains_key(&container) {
            return;
        }
        self.names.insert(container.clone(), Named::default());
        self.unnamed.push(container.clone());
        match birth.state {
            State::Running(_) => {}
            State::Parked(until) if ns <= until => birth.resume(ns + nanos(self.options.wait)),
            // It goes on too late to be recorded: that it becomes Ready is told all the same.
            State::Parked(_) => {}
            State::Done if birth.restarts.len() < Self::RESTARTS_MAX => {
                birth.restarts.entry(container).or_insert_with(|| Restart { zero: at(ns), recorded: true });
            }
            State::Done => self.drops += 1,
        }
    }

    /// Forgets the births that were over first.
    fn make_room(&mut self) {
        let done = |b: &Birth| match b.state {
            State::Running(_) => false,
            State::Parked(_) => b.forgotten,
            State::Done => b.restarts.is_empty(),
        };
        let mut over: Vec<_> =
            self.births.iter().filter(|(_, b)| done(b)).map(|(pod, b)| (b.last_ns, pod.clone())).collect();
        over.sort_by_key(|(ns, _)| *ns);
        for (_, pod) in over.into_iter().take(Self::MAX / 4) {
            self.births.remove(&pod);
        }
    }

    /// Lets time pass: what is to be certified now. `api`: there is an API server to say more.
    pub fn step(
        &mut self,
        now: Instant,
        pods: &PodIndex,
        api: bool,
        numbers: Numbers<'_>,
    ) -> Vec<Certificate> {
        let mut out = Vec::new();
        let ids: Vec<PodId> = self.births.keys().cloned().collect();
        for pod in ids {
            // Taken out for a moment, to look at the log beside it.
            let Some(mut birth) = self.births.remove(&pod) else { continue };
            birth.hear(pods, &pod, now);
            if birth.is_marked() {
                self.mark(&pod, &birth, now, &mut *numbers);
            }
            if let State::Parked(until) = birth.state {
                let late = now.mono_ns > until;
                birth.forgotten |= late;
                if birth.came_through() {
                    birth.resume(now.mono_ns + nanos(self.options.wait));
                    if late {
                        birth.unrecorded = Some("it took longer than a birth is recorded for".into());
                    }
                }
            }
            if let State::Running(deadline) = birth.state
                && birth.is_due(now, deadline, api)
            {
                out.extend(self.look(&pod, &mut birth, now, deadline, api, &mut *numbers));
            }
            if !birth.restarts.is_empty() && now.mono_ns >= birth.look_ns {
                out.extend(self.restarts(&mut birth, now, &mut *numbers));
            }
            let gone = birth.record.as_ref().is_some_and(|r| r.life.deleting);
            // One that is being born is told of first.
            if matches!(birth.state, State::Running(_)) || !gone {
                self.births.insert(pod, birth);
            }
        }
        if now.mono_ns.saturating_sub(self.forgot_ns) > nanos(Self::FORGET) {
            self.forget(now);
        }
        let patience = if api { nanos(self.options.images) } else { 0 };
        out.into_iter().for_each(|c| self.held.take(c, now.mono_ns, patience));
        self.held.release(now.mono_ns)
    }

    /// Forgets what no birth needs any more.
    fn forget(&mut self, now: Instant) {
        self.forgot_ns = now.mono_ns;
        let recent = now.mono_ns.saturating_sub(nanos(Self::RECENT));
        self.keep(recent, true);
        if self.log.is_crowded() {
            // Those that are being born now go before those that failed.
            self.keep(recent, false);
        }
        if self.names.len() > 16 * Self::MAX {
            self.names.clear();
        }
    }

    /// Keeps what happened since, and before only what a birth needs; `parked`: one that failed too.
    fn keep(&mut self, since: u64, parked: bool) {
        let (births, log) = (&mut self.births, &mut self.log);
        if !parked {
            let failed = births.values_mut().filter(|b| matches!(b.state, State::Parked(_)));
            failed.for_each(|b| b.forgotten = true);
        }
        log.forget(since, |owner, end| {
            let birth = owner.pod.and_then(|pod| births.get(pod));
            birth.is_some_and(|b| b.needs(owner.container, end))
        });
    }

    /// Looks at a birth: is it over?
    fn look(
        &mut self,
        pod: &PodId,
        birth: &mut Birth,
        now: Instant,
        deadline: u64,
        api: bool,
        numbers: Numbers<'_>,
    ) -> Option<Certificate> {
        birth.look_ns = now.mono_ns + nanos(Self::LOOK);
        let story = self.story(pod, birth, now.mono_ns);
        let silent = now.mono_ns.saturating_sub(birth.last_ns) >= nanos(self.options.settle);
        let (outcome, failure) = verdict(birth, &story, now, deadline, api, silent, &self.options)?;
        birth.suspect = false;
        if outcome != BirthOutcome::Complete {
            let all = failure::all(birth.record.as_deref(), &story, silent);
            birth.told = all.into_iter().map(|found| found.cause).collect();
            let until = *birth.parked_until.get_or_insert(now.mono_ns + nanos(Self::PARKED));
            birth.state = State::Parked(until);
            if !failure.as_ref().is_none_or(|f| birth.fails(f)) {
                return None;
            }
        }
        let alive: Vec<SegmentId> = story.alive().collect();
        self.log.settle(numbers.end(&alive));
        let input = Input {
            story: &self.story(pod, birth, now.mono_ns),
            zero: birth.zero,
            until_ns: now.mono_ns,
            record: birth.record.as_deref(),
            heard_of: birth.heard_of,
            heard_ready: birth.heard_ready,
            outcome,
            failure,
            missing: self.missing(birth, api),
            knows: if birth.unrecorded.is_some() { Knows::NOTHING } else { self.knows },
        };
        // What was done since it was over, while it was waited for a socket, is no part of it.
        let until_ns = certificate::end_ns(&input);
        let story = self.story(pod, birth, until_ns);
        let (mut status, processes) = certificate::birth(&Input { story: &story, until_ns, ..input });
        let who = self.who(pod, birth, &story);
        status.trace_id = trace_id(who.pod_uid.as_deref().unwrap_or_default());
        let certificate = Certificate { who, zero: birth.zero, at: now, status, processes, restart: false };
        // Of the programs nothing is said again.
        birth.said = Some(Certificate { processes: Vec::new(), ..certificate.clone() });
        if outcome == BirthOutcome::Complete {
            birth.state = State::Done;
        }
        Some(certificate)
    }

    /// Takes the numbers of what lives now, where the birth may be over by now.
    fn mark(&mut self, pod: &PodId, birth: &Birth, now: Instant, numbers: Numbers<'_>) {
        let alive: Vec<SegmentId> = self.story(pod, birth, now.mono_ns).alive().collect();
        self.log.mark(now.mono_ns, numbers.so_far(&alive));
    }

    fn story(&self, pod: &PodId, birth: &Birth, until_ns: u64) -> Story {
        let first = self.log.cgroups().iter().find_map(|m| {
            let ours = m.pod.as_ref() == Some(pod) && m.made.by.at_ns >= birth.zero.mono_ns;
            m.container.as_deref().filter(|_| ours)
        });
        let named = |id: &str| self.named(id, birth.record.as_deref(), first);
        Story::of(&self.log, &Subject::Pod(pod.clone()), birth.zero.mono_ns, until_ns, named)
    }

    /// What is known of a container; `first`: the pod's first.
    fn named(&self, id: &str, record: Option<&PodRecord>, first: Option<&str>) -> Named {
        let runtime = self.names.get(id).cloned().unwrap_or_default();
        let known = record.and_then(|r| r.container(Some(id), runtime.name.as_deref()));
        if let Some(known) = known {
            let init = known.kind == ContainerKind::Init;
            return Named { name: Some(known.name.clone()), sandbox: false, init };
        }
        // The API names every container but the sandbox.
        let others = record.is_some_and(|r| r.containers.iter().any(|c| c.ids[0].is_some()));
        let sandbox = runtime.sandbox
            || self.log.is_sandbox(id)
            || runtime.name.is_none() && others && first == Some(id);
        Named { sandbox, ..runtime }
    }

    fn missing(&self, birth: &Birth, api: bool) -> Vec<MissingPart> {
        let mut missing = match &birth.unrecorded {
            Some(why) => missing(why),
            None => self.missing.clone(),
        };
        if birth.retried {
            let why = "it stopped and went on: what was done meanwhile, up to the new container's cgroup, is not counted";
            missing.push(MissingPart { part: certificate::RETRIES.into(), why: why.into() });
        }
        if birth.forgotten {
            let why = "too much was born meanwhile: what was done for it before its last try is not counted";
            missing.push(MissingPart { part: "records".into(), why: why.into() });
        }
        if !api {
            let why = "there is no API server to ask: no scheduling, no Ready";
            missing.push(MissingPart { part: "api".into(), why: why.into() });
        } else if birth.record.is_none() {
            let why = "the API server has not told of this pod";
            missing.push(MissingPart { part: "api".into(), why: why.into() });
        }
        let lost = (self.lost + self.log.dropped).saturating_sub(birth.lost);
        missing.extend(records_lost(lost));
        missing
    }

    fn who(&self, pod: &PodId, birth: &Birth, story: &Story) -> Workload {
        let uid = match pod {
            PodId::Uid(uid) => Some(uid.clone()),
            PodId::ConfigHash(_) => None,
        };
        let record = birth.record.as_deref();
        let sandbox = story.sandbox().map(|c| c.id.clone());
        Workload {
            kind: WorkloadKind::Pod,
            cgroup: birth.path.clone(),
            namespace: record.map(|r| r.namespace.clone()),
            pod: record.map(|r| r.name.clone()),
            pod_uid: record.map(|r| r.uid.clone()).or(uid),
            container: None,
            container_id: if record.is_none() { sandbox } else { None },
            owner: record.and_then(|r| r.owner.clone()),
            unit: None,
            cpu_limit: None,
            cpu_request: None,
            confirmed: record.is_some(),
        }
    }

    fn who_of(&self, birth: &Birth) -> Workload {
        let pod = in_path(&birth.path).0;
        self.who(&pod.unwrap_or(PodId::Uid(String::new())), birth, &Story::default())
    }
}

/// A pod's UID as the id of a trace: both are 128 bits. `None` for what is no UUID.
pub fn trace_id(uid: &str) -> Option<String> {
    let hex: String = uid.chars().filter(|c| *c != '-').collect();
    let valid =
        hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) && hex.bytes().any(|b| b != b'0');
    valid.then(|| hex.to_ascii_lowercase())
}

/// All that the recorder tells is missing.
pub fn missing(why: &str) -> Vec<MissingPart> {
    let part = |part: &str| MissingPart { part: part.into(), why: certificate::clipped(why, 512) };
    ["syscalls", "processes", "namespaces", "cgroupWrites", "mounts", "listen"].map(part).into()
}

/// So many records were lost in its time.
pub fn records_lost(lost: u64) -> Option<MissingPart> {
    let why = format!("{lost} records were lost; some may have been of this birth");
    (lost > 0).then(|| MissingPart { part: "records".into(), why })
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
