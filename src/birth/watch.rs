//! When a birth begins and ends: the births of one node. No clock of its own and no I/O: records, the API server's
//! pods and time go in, [`Certificate`]s and whether to record come out.

mod begin;
mod birth;
mod held;
mod joined;
mod look;
mod restarts;
mod under_way;
mod verdict;

use std::collections::HashMap;
use std::time::Duration;

use birth::{Birth, State};
use held::Held;

pub use under_way::UnderWay;

use super::certificate::{Certificate, tell_images};
use super::hints::{Role, Verb};
use super::input::{self, Coverage};
use super::kin::{Owner, Within};
use super::log::Log;
use super::story::Named;
use crate::api::MissingPart;
use crate::attribution::images::{OfPod, Trouble};
use crate::attribution::paths::PodId;
use crate::attribution::pods::PodIndex;
use crate::kernel::Instant;
use crate::kernel::recorder::{Begun, Counters, Ended, Record, SegmentId};

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
    /// Pods that were there when the agent was started, and their cgroups, until the API server has reported them.
    before: HashMap<PodId, String>,
    /// By the runtime's id.
    names: HashMap<String, Named>,
    unnamed: Vec<String>,
    held: Held,
    /// Why the recorder does not run, or what it does not tell.
    missing: Vec<MissingPart>,
    coverage: Coverage,
    /// Records the recorder lost so far.
    lost: u64,
    /// When the recorder last began.
    began_ns: u64,
    forgot_ns: u64,
    released_ns: u64,
    released: Vec<SegmentId>,
    drops: u64,
    looks: u64,
}

impl Births {
    /// Births watched at once: a node has a hundred pods or two.
    const MAX: usize = 1024;
    /// A birth that goes on within this time of its first failure is the same one.
    const PARKED: Duration = Duration::from_secs(600);
    /// A container that is started again has this long to run its own program.
    const RESTART: Duration = Duration::from_secs(60);
    /// Between two looks at a birth of which something was told; longer if there is much of it, so that looking takes a
    /// twentieth of the time at most (a segment takes some 2 us).
    const LOOK: Duration = Duration::from_millis(200);
    const LOOK_AT_ONE: Duration = Duration::from_micros(40);
    /// Between two looks for what is nobody's.
    const RELEASE: Duration = Duration::from_millis(200);
    /// Between two questions what keeps a pod.
    const ASK_AGAIN: Duration = Duration::from_secs(10);
    const FORGET: Duration = Duration::from_secs(5);
    /// By then it is known whose a program is.
    const RECENT: Duration = Duration::from_secs(30);
    const RESTARTS_MAX: usize = 16;
    /// The runtime's files and the API server have named a container by then.
    const NAMED: Duration = Duration::from_millis(1500);
    /// A recording that began so long after a container's cgroup was made may have missed its program: runc takes some
    /// 50 ms from the one to the other, the recorder 2 ms, but on a busy node far more.
    const LATE: Duration = Duration::from_millis(10);

    /// `cpu_tree`: see [`Log::new`]. `missing`: what the recorder cannot tell, and why.
    pub fn new(options: Options, cpu_tree: u32, missing: Vec<MissingPart>, coverage: Coverage) -> Births {
        Births {
            options,
            log: Log::new(cpu_tree),
            births: HashMap::new(),
            before: HashMap::new(),
            names: HashMap::new(),
            unnamed: Vec::new(),
            held: Held::default(),
            missing,
            coverage,
            lost: 0,
            began_ns: 0,
            forgot_ns: 0,
            released_ns: 0,
            released: Vec::new(),
            drops: 0,
            looks: 0,
        }
    }

    /// There is no recorder after all.
    pub fn without_recorder(&mut self, why: &str) {
        self.coverage = Coverage::NOTHING;
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

    /// So many records the recorder lost in all.
    pub fn losing(&mut self, total: u64) {
        self.lost = total;
    }

    /// Records lost so far, by the recorder or here.
    fn lost(&self) -> u64 {
        self.lost + self.log.dropped
    }

    /// Something is being born: record.
    pub fn recording(&self) -> bool {
        let wanted = |b: &Birth| matches!(b.state, State::Running(_)) || !b.restarts.is_empty();
        self.births.values().any(wanted)
    }

    /// What the recorder tells here.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// How often births were looked at: each goes through all that was recorded of one.
    pub fn looks(&self) -> u64 {
        self.looks
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
        if let Some(birth) = self.log.pod_of(&id).and_then(|pod| self.births.get_mut(pod)) {
            birth.changed = true;
        }
        self.names.insert(id, named);
    }

    /// There is a cgroup, made now or long ago: whose a process in it is, and whether what it says of itself is believed.
    /// `tree`: the kernel's number, 0 for v2's; `owner`: see
    /// [`CgroupMade::owner`](crate::kernel::recorder::CgroupMade::owner).
    pub fn know(&mut self, tree: u32, cgroup: u64, path: &str, owner: Option<u32>) {
        self.log.know(tree, cgroup, path, owner);
    }

    /// A cgroup is gone.
    pub fn lose(&mut self, tree: u32, cgroup: u64, now: Instant) {
        self.log.lose(tree, cgroup, now.mono_ns);
    }

    /// Segments that live and are nobody's that is being born: the recorder need not follow them any longer. Others wait for
    /// their room.
    pub fn released(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.released)
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

    /// Pods that nothing is done for, and whose containers are yet to be made: the kubelet may say why. By namespace and
    /// UID; each again after a while.
    pub fn stuck(&mut self, now: Instant) -> Vec<(String, String)> {
        let silence = nanos(self.options.settle);
        let stuck = |b: &&mut Birth| {
            let quiet = now.mono_ns.saturating_sub(b.last_ns) >= silence;
            let again = b.asked_ns == 0 || now.mono_ns.saturating_sub(b.asked_ns) >= nanos(Self::ASK_AGAIN);
            quiet && again && b.waits_for_containers()
        };
        let mut out = Vec::new();
        for birth in self.births.values_mut().filter(stuck) {
            birth.asked_ns = now.mono_ns;
            out.extend(birth.record.as_ref().map(|r| (r.namespace.clone(), r.uid.clone())));
        }
        out
    }

    /// Why the kubelet says that a pod is not born.
    pub fn trouble(&mut self, told: &Trouble) {
        let is = |b: &&mut Birth| b.record.as_ref().is_some_and(|r| r.uid == told.uid);
        for birth in self.births.values_mut().filter(is).filter(|b| b.waits_for_containers()) {
            birth.trouble = Some((told.reason.clone(), told.message.clone()));
            birth.changed = true;
        }
    }

    /// Certificates wait to be told more.
    pub fn holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Those that wait, as they are.
    pub fn give_up(&mut self) -> Vec<Certificate> {
        self.held.release(u64::MAX).into_iter().map(Certificate::plain).collect()
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
        let Some(life) = self.log.life(id).filter(|life| life.kin.within == Within::Own) else { return };
        if let Some(birth) = life.kin.owner.pod.as_ref().and_then(|pod| self.births.get_mut(pod)) {
            birth.mark |= birth.record.is_none();
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let failed = input::failed(ended.how).is_some();
        // Of these the kubelet has no word in the pod's status.
        let silent = |l: &super::log::Life| {
            let starts = matches!(l.hints.role, Role::Runtime(Verb::Create | Verb::Run | Verb::Start));
            starts || matches!(l.hints.role, Role::Cni { add: true } | Role::Volume | Role::Monitor)
        };
        if failed
            && self.log.life(ended.segment).is_some_and(silent)
            && let Some(owner) = self.log.owner(ended.segment)
            && let Some(birth) = owner.pod.as_ref().and_then(|p| self.births.get_mut(p))
        {
            birth.suspect = true;
            birth.last_ns = birth.last_ns.max(ended.at_ns);
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
        let mut out = self.joined(pods, now);
        for pod in self.log.take_touched() {
            self.births.get_mut(&pod).into_iter().for_each(|birth| birth.changed = true);
        }
        if now.mono_ns.saturating_sub(self.released_ns) > nanos(Self::RELEASE) {
            self.release(now);
        }
        let ids: Vec<PodId> = self.births.keys().cloned().collect();
        for pod in ids {
            // Taken out for a moment, to look at the log beside it.
            let Some(mut birth) = self.births.remove(&pod) else { continue };
            birth.hear(pods, &pod, now);
            self.stay_parked(&mut birth);
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
            // One that is being born is reported first.
            if matches!(birth.state, State::Running(_)) || !gone {
                self.births.insert(pod, birth);
            }
        }
        if now.mono_ns.saturating_sub(self.forgot_ns) > nanos(Self::FORGET) {
            self.forget(now);
        }
        let patience = if api { nanos(self.options.images) } else { 0 };
        out.into_iter().for_each(|c| self.held.take(c, now.mono_ns, patience));
        self.held.release(now.mono_ns).into_iter().map(Certificate::plain).collect()
    }

    /// Lets go of what is nobody's.
    fn release(&mut self, now: Instant) {
        self.released_ns = now.mono_ns;
        let births = &self.births;
        let needed = |owner: &Owner| needs(births, owner, u64::MAX);
        self.released.extend(self.log.release(now.mono_ns, needed));
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
        let births = &*births;
        self.released.extend(log.forget(since, |owner, end| needs(births, owner, end)));
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
    let part = |part: &str| MissingPart { part: part.into(), why: input::clipped(why, 512) };
    ["syscalls", "processes", "namespaces", "cgroupWrites", "mounts", "listen"].map(part).into()
}

/// So many records were lost in its time.
pub fn records_lost(lost: u64) -> Option<MissingPart> {
    let why = format!(
        "{lost} records were lost, and some may have been of this birth: there are no totals, and each part is at least what it says"
    );
    (lost > 0).then(|| MissingPart { part: "records".into(), why })
}

fn needs(births: &HashMap<PodId, Birth>, owner: &Owner, end_ns: u64) -> bool {
    let birth = owner.pod.as_ref().and_then(|pod| births.get(pod));
    birth.is_some_and(|b| b.needs(owner.container.as_deref(), end_ns))
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
