//! What is known of one workload, and from whom: its path, the runtime's files, the API server.
//!
//! Each source adds to those before it and none takes away: a pod that has left the API server keeps
//! the names it had there.

use std::sync::Arc;

use tracing::{debug, warn};

use super::bundle::{BundleNames, Bundles, Miss};
use super::paths::{self, CgroupPath, Kind, PodId, Runtime};
use super::pods::{PodIndex, PodRecord};
use super::workload::{Workload, WorkloadKind};

/// See the module.
#[derive(Debug)]
pub struct Known {
    pod: Option<PodId>,
    kata: bool,
    runtime: Option<BundleNames>,
    bundle: Asked,
    record: Option<Arc<PodRecord>>,
    /// More is known than `who` says.
    news: bool,
    /// Everything above as one; replaced only when something of it changed.
    pub who: Arc<Workload>,
}

/// How far asking the runtime has come.
#[derive(Debug)]
enum Asked {
    /// So many times without an answer; not again before (CLOCK_MONOTONIC, ns).
    Times(u32, u64),
    /// It has a name that may be changed (`docker rename`); not again before (CLOCK_MONOTONIC, ns).
    Again(u64),
    Done,
}

/// What asking the runtime brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A name, or a new one.
    News,
    /// The container is there, and nothing names it.
    Nameless,
    /// None, but there will be another time to ask.
    Later,
    /// None, and none will be asked for again.
    GaveUp,
}

impl Known {
    /// The bundle is there within milliseconds of the cgroup; this many times over half a minute is patience.
    const ATTEMPTS: u32 = 7;
    /// Between two looks at a name that a person may change, ns.
    const RENAMED_WITHIN: u64 = 60_000_000_000;

    pub fn new(path: &CgroupPath<'_>) -> Self {
        let mut who = Workload {
            kind: WorkloadKind::Cgroup,
            cgroup: path.anchor.to_string(),
            namespace: None,
            pod: None,
            pod_uid: None,
            container: None,
            container_id: None,
            owner: None,
            unit: None,
            cpu_limit: None,
            cpu_request: None,
            confirmed: false,
        };
        let pod = path.pod.as_ref().map(|p| p.id.clone());
        let mut kata = false;
        match path.kind {
            Kind::Root => who.kind = WorkloadKind::Root,
            Kind::Pod => who.kind = WorkloadKind::Pod,
            Kind::PodHelper | Kind::Plain => {}
            Kind::Unit(unit) => {
                who.kind = WorkloadKind::Unit;
                who.unit = Some(paths::machine(unit).unwrap_or_else(|| unit.to_string()));
            }
            Kind::Container { id, name, runtime } => {
                who.kind = WorkloadKind::Container;
                who.container_id = id.map(String::from);
                who.unit = name.map(String::from);
                kata = runtime == Some(Runtime::Kata);
            }
        }
        if let Some(PodId::Uid(uid)) = &pod {
            who.pod_uid = Some(uid.clone());
        }
        // A container that has its name in its path has no more to tell.
        let bundle = if who.container_id.is_some() { Asked::Times(0, 0) } else { Asked::Done };
        Known { pod, kata, runtime: None, bundle, record: None, news: false, who: Arc::new(who) }
    }

    pub fn wants_the_runtime(&self) -> bool {
        !matches!(self.bundle, Asked::Done)
    }

    /// What the runtime said.
    pub fn runtime(&self) -> Option<&BundleNames> {
        self.runtime.as_ref()
    }

    /// `now`: CLOCK_MONOTONIC, ns.
    pub fn is_time_to_ask(&self, now: u64) -> bool {
        matches!(self.bundle, Asked::Times(_, not_before) | Asked::Again(not_before) if now >= not_before)
    }

    /// Looks for the container's bundle.
    pub fn ask_runtime(&mut self, bundles: &mut Bundles, now: u64) -> Answer {
        let times = match self.bundle {
            Asked::Times(times, _) => times,
            Asked::Again(_) => return self.ask_again(bundles, now),
            Asked::Done => return Answer::GaveUp,
        };
        match bundles.look_up(self.who.container_id.as_deref().unwrap_or_default()) {
            Ok(names) => {
                // Of a pod neither its name nor its containers' can change.
                self.bundle = match names.pod.is_none() && names.name.is_some() {
                    true => Asked::Again(now + Self::RENAMED_WITHIN),
                    false => Asked::Done,
                };
                let named = names.is_named();
                self.runtime = Some(names);
                self.news = true;
                if named { Answer::News } else { Answer::Nameless }
            }
            Err(_) if times + 1 < Self::ATTEMPTS => {
                self.bundle = Asked::Times(times + 1, now + (500_000_000 << times));
                Answer::Later
            }
            Err(miss) => {
                self.bundle = Asked::Done;
                match miss {
                    Miss::Unreadable(why) => {
                        warn!(cgroup = self.who.cgroup, "container without a name: {why}")
                    }
                    Miss::Absent => debug!(cgroup = self.who.cgroup, "no runtime has this container's files"),
                }
                Answer::GaveUp
            }
        }
    }

    /// Looks whether the container has another name by now. One that is gone keeps the last it had.
    fn ask_again(&mut self, bundles: &mut Bundles, now: u64) -> Answer {
        self.bundle = Asked::Again(now + Self::RENAMED_WITHIN);
        match bundles.look_up(self.who.container_id.as_deref().unwrap_or_default()) {
            Ok(names) if names.is_named() && self.runtime.as_ref() != Some(&names) => {
                self.runtime = Some(names);
                self.news = true;
                Answer::News
            }
            _ => Answer::Later,
        }
    }

    /// A container of this pod has told the runtime's names of it.
    pub fn hear_of_the_pod(&mut self, names: BundleNames) {
        if self.runtime.is_none() && names.pod.is_some() {
            self.runtime = Some(BundleNames { container: None, sandbox: false, name: None, ..names });
            self.news = true;
        }
    }

    /// Looks the pod up. One that is no longer there leaves the record it had.
    pub fn ask_api(&mut self, pods: &PodIndex) {
        let said = || PodId::parse(self.runtime.as_ref()?.pod_uid.as_deref()?);
        let by_path = self.pod.as_ref().and_then(|id| pods.by_pod(id));
        let record = by_path
            .or_else(|| pods.by_pod(&said()?))
            .or_else(|| pods.by_container(self.who.container_id.as_deref()?));
        if let Some(record) = record
            && self.record.as_ref().is_none_or(|old| !Arc::ptr_eq(record, old))
        {
            self.record = Some(record.clone());
            self.news = true;
        }
    }

    /// There is something for [`Known::compose`] to take in: of its own, or of its pod's.
    pub fn has_news(&self) -> bool {
        self.news || self.pod.is_some() && self.who.pod.is_none()
    }

    /// Puts together what is known; `pod` is what the runtime said of the pod through other containers.
    pub fn compose(&mut self, pod: Option<&BundleNames>) {
        self.news = false;
        let before = &*self.who;
        let mut who = before.clone();
        let own = self.runtime.as_ref();
        if own.is_some_and(|r| r.sandbox) && !self.kata {
            who.kind = WorkloadKind::Sandbox;
        }
        if let Some(said) = own.filter(|r| r.pod.is_some()).or(pod) {
            who.namespace.clone_from(&said.namespace);
            who.pod.clone_from(&said.pod);
            if let Some(PodId::Uid(uid)) = said.pod_uid.as_deref().and_then(PodId::parse)
                && who.pod_uid.is_none()
            {
                who.pod_uid = Some(uid);
            }
        }
        if let Some(own) = own {
            who.container = own.container.clone().or(who.container);
            if self.pod.is_none() && own.pod.is_none() {
                who.unit = own.name.clone().or(who.unit);
            }
        }
        if let Some(record) = &self.record {
            who.namespace = Some(record.namespace.clone());
            who.pod = Some(record.name.clone());
            who.pod_uid = Some(record.uid.clone());
            who.owner.clone_from(&record.owner);
            who.confirmed = true;
            if who.kind == WorkloadKind::Container
                && let Some(container) =
                    record.container(who.container_id.as_deref(), who.container.as_deref())
            {
                who.container = Some(container.name.clone());
                who.cpu_limit = container.cpu_limit;
                who.cpu_request = container.cpu_request;
            }
        }
        if who != *before {
            self.who = Arc::new(who);
        }
    }
}
