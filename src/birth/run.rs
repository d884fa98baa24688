//! Births on the agent's thread: turns the recorder on and off, and brings [`Births`] what it needs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tracing::warn;

use super::certificate::Certificate;
use super::input::{Coverage, clipped};
use super::owners::Owners;
use super::story::Named;
use super::watch::{Births, Drops, Options, Tally, UnderWay, missing};
use crate::api::MissingPart;
use crate::attribution::bundle::Bundles;
use crate::attribution::watch::{ApiStatus, Pods};
use crate::kernel::driver::Driver;
use crate::kernel::facts::Facts;
use crate::kernel::plan::Plan;
use crate::kernel::recorder::{By, CgroupMade, Counters, Ended, Entry, Record, Recorder, SegmentId};
use crate::kernel::{CgroupChange, Hierarchy, Instant, clock};

/// See the module.
#[derive(Debug)]
pub struct Watcher {
    births: Births,
    bundles: Bundles,
    owners: Owners,
    /// Containers to ask the runtime about: so many times yet, not before (CLOCK_MONOTONIC, ns).
    asking: Vec<(String, u32, u64)>,
    records: Vec<Record>,
    /// New cgroups come from readings, not from the recorder.
    untriggered: bool,
    /// The cgroups of the first reading were there before.
    first: bool,
    cpu_tree: u32,
    failed: bool,
}

impl Watcher {
    /// While a birth is under way the recorder's buffer is emptied so often.
    pub const EVERY: Duration = Duration::from_millis(50);
    /// The bundle is there within milliseconds of the cgroup.
    const ATTEMPTS: u32 = 5;
    const AGAIN: Duration = Duration::from_millis(200);

    /// What the plan allows on the host of these facts.
    pub fn new(options: Options, facts: &Facts, plan: &Plan, runtime_roots: &[PathBuf]) -> Watcher {
        let cpu_tree = facts.cgroups.v1_cpu.as_ref().map_or(0, |tree| tree.hierarchy);
        let hook = plan.births.hook();
        let (missing, coverage) = known(facts, plan);
        let births = Births::new(options, cpu_tree, missing, coverage);
        Watcher {
            births,
            bundles: Bundles::new(runtime_roots),
            owners: Owners::new(&facts.cgroups),
            asking: Vec::new(),
            records: Vec::new(),
            untriggered: hook.is_none_or(|h| !h.triggered),
            first: true,
            cpu_tree,
            failed: false,
        }
    }

    /// Starts by what the driver came to load: nothing is recorded without a recorder.
    pub fn drive(&mut self, driver: &mut Driver<'_>) {
        if driver.recorder().is_none() && self.births.coverage().programs {
            self.births.without_recorder("the recorder could not be loaded; `kernel-gossip check` says why");
        }
    }

    /// How long nothing needs to be done if nothing happens; `None`: for ever.
    pub fn patience(&self) -> Option<Duration> {
        let busy = self.births.recording() || self.births.holding() || !self.asking.is_empty();
        busy.then_some(Self::EVERY)
    }

    pub fn drops(&self) -> Drops {
        self.births.drops()
    }

    /// The births that go on now.
    pub fn under_way(&self) -> Vec<UnderWay> {
        self.births.under_way()
    }

    /// Takes the cgroups that a reading found: what runs in one is believed by its path. Where they are not reported at once,
    /// births begin by them.
    pub fn found(&mut self, changes: &[CgroupChange], at: Instant) {
        let first = std::mem::take(&mut self.first);
        let begins = !first && self.untriggered;
        let mut owners = HashMap::new();
        for change in changes {
            let (CgroupChange::Present { cgroup, .. } | CgroupChange::Gone { cgroup }) = change;
            let hierarchy_id = match cgroup.hierarchy {
                Hierarchy::Unified => 0,
                Hierarchy::V1Cpu => self.cpu_tree,
                Hierarchy::V1Memory => continue,
            };
            let CgroupChange::Present { path, .. } = change else {
                self.births.lose(hierarchy_id, cgroup.id, at);
                continue;
            };
            let owner = self.owners.of(path, &mut owners);
            self.births.know(hierarchy_id, cgroup.id, path, owner);
            if first {
                self.births.was_there(path);
            }
            if !begins {
                continue;
            }
            let by = By { at_ns: at.mono_ns, segment: None, tgid: 0, comm: String::new() };
            let made = CgroupMade { by, hierarchy_id, cgroup: cgroup.id, path: path.clone(), owner };
            self.births.record(Record::CgroupMade(made), at);
        }
    }

    /// Takes what the recorder told, turns it on or off, and says which births are over.
    pub fn poll(&mut self, driver: &mut Driver<'_>, pods: &Pods) -> Vec<Certificate> {
        let mut records = std::mem::take(&mut self.records);
        driver.read_births(&mut records);
        let at = clock::instant();
        self.take(&mut records, at);
        let lost = driver.birth_losses();
        self.births.losing(lost.segments + lost.events + lost.cgroups);
        if self.births.recording()
            && let Some(recorder) = driver.recorder().filter(|r| !r.recording())
        {
            match recorder.start() {
                Ok(()) => {
                    self.births.began(clock::instant());
                    self.failed = false;
                }
                Err(error) => {
                    self.births.unrecorded(&error.to_string());
                    if !std::mem::replace(&mut self.failed, true) {
                        warn!("{error}: this birth is certified without system calls");
                    }
                }
            }
        }
        self.ask_runtime(at);
        pods.images().answers().iter().for_each(|told| self.births.images(told));
        pods.images().troubles().iter().for_each(|told| self.births.trouble(told));
        let index = pods.index();
        let api = *pods.status() != ApiStatus::Unused;
        let certificates = self.births.step(at, &index, api, &mut Recorded { driver, tallied: false });
        self.births.unseen(at).into_iter().for_each(|(namespace, uid)| pods.images().ask(namespace, uid));
        if api {
            let stuck = self.births.stuck(at);
            stuck.into_iter().for_each(|(namespace, uid)| pods.images().ask_why(namespace, uid));
        }
        let released = self.births.released();
        if let Some(recorder) = driver.recorder() {
            // What they did is nobody's.
            released.into_iter().for_each(|id| recorder.let_go(id, &mut Vec::new()));
        }
        if let Some(recorder) = driver.recorder()
            && !self.births.recording()
            && recorder.recording()
        {
            recorder.stop(&mut records);
            self.take(&mut records, at);
        }
        self.records = records;
        certificates
    }

    fn take(&mut self, records: &mut Vec<Record>, at: Instant) {
        let mut owners = HashMap::new();
        for mut record in records.drain(..) {
            if let Record::CgroupMade(made) = &mut record {
                made.owner = self.owners.of(&made.path, &mut owners);
            }
            self.births.record(record, at);
        }
    }

    /// Certificates that waited to be told more, at the end.
    pub fn give_up(&mut self) -> Vec<Certificate> {
        self.births.give_up()
    }

    /// Asks the runtime's files what new containers are called.
    fn ask_runtime(&mut self, at: Instant) {
        let fresh = self.births.unnamed();
        self.asking.extend(fresh.into_iter().map(|id| (id, Self::ATTEMPTS, 0)));
        let (bundles, births) = (&mut self.bundles, &mut self.births);
        self.asking.retain_mut(|(id, left, not_before)| {
            if at.mono_ns < *not_before {
                return true;
            }
            if let Ok(names) = bundles.look_up(id) {
                let name = names.container.or(names.name);
                births.name(std::mem::take(id), Named { name, sandbox: names.sandbox, ..Named::default() });
                return false;
            }
            *left -= 1;
            *not_before = at.mono_ns + Self::AGAIN.as_nanos() as u64;
            *left > 0
        });
    }
}

/// The numbers of the driver's recorder, at one moment.
struct Recorded<'a, 'obj> {
    driver: &'a mut Driver<'obj>,
    tallied: bool,
}

impl<'obj> Recorded<'_, 'obj> {
    /// All threads of the machine are gone through once for all births.
    fn recorder(&mut self) -> Option<&mut Recorder<'obj>> {
        let recorder = self.driver.recorder()?;
        if !std::mem::replace(&mut self.tallied, true) {
            recorder.tally();
        }
        Some(recorder)
    }
}

impl Tally for Recorded<'_, '_> {
    fn end(&mut self, ids: &[SegmentId]) -> Vec<Ended> {
        let Some(recorder) = self.recorder() else { return Vec::new() };
        let mut ended = Vec::new();
        ids.iter().for_each(|id| recorder.let_go(*id, &mut ended));
        let of = |r| match r {
            Record::Ended(ended) => Some(ended),
            _ => None,
        };
        ended.into_iter().filter_map(of).collect()
    }

    fn so_far(&mut self, ids: &[SegmentId]) -> Vec<(SegmentId, Counters)> {
        let Some(recorder) = self.recorder() else { return Vec::new() };
        ids.iter().filter_map(|id| Some((*id, recorder.counters(*id)?))).collect()
    }
}

/// What the recorder that the plan allows tells, and what it does not.
pub fn known(facts: &Facts, plan: &Plan) -> (Vec<MissingPart>, Coverage) {
    let mut why = plan.births.shortfalls().iter().map(|s| s.why.as_str());
    let Some(hook) = plan.births.hook() else {
        return (missing(&why.collect::<Vec<_>>().join("; ")), Coverage::NOTHING);
    };
    let part = |why| MissingPart { part: "recorder".into(), why: clipped(why, 512) };
    let coverage = Coverage {
        programs: true,
        writes: hook.entry != Entry::Bare,
        waits: facts.btf.sched_info,
        bytes: facts.btf.io_accounting,
        whole: true,
    };
    (why.by_ref().map(part).collect(), coverage)
}
