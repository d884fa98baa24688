//! One birth while it is watched. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::certificate::Certificate;
use super::super::failure::{self, Cause};
use super::super::input::since;
use crate::api::BirthFailure;
use crate::attribution::paths::PodId;
use crate::attribution::pods::{ContainerKind, ContainerRecord, PodIndex, PodRecord};
use crate::kernel::Instant;

#[derive(Debug)]
pub struct Birth {
    pub zero: Instant,
    pub path: String,
    pub state: State,
    /// The last thing that was done for it, CLOCK_MONOTONIC, ns.
    pub last_ns: u64,
    pub heard_of: Option<f64>,
    pub heard_ready: Option<f64>,
    /// It is not looked at again before.
    pub look_ns: u64,
    /// When time alone may have changed what there is to say.
    pub wake_ns: u64,
    /// Something of it was told since it was last looked at.
    pub changed: bool,
    pub generation: u64,
    /// Records lost before it began.
    pub lost: u64,
    /// Something in its records asks for a look.
    pub suspect: bool,
    pub record: Option<Arc<PodRecord>>,
    pub said: Option<Certificate>,
    /// Failures that it goes on in spite of: they were there when it was last said to have failed.
    pub told: Vec<Cause>,
    /// What it was said to have failed of, as (phase, container, reason): the same is not said again.
    pub kinds: BTreeSet<(String, Option<String>, String)>,
    /// Since its first failure: how long it is remembered.
    pub parked_until: Option<u64>,
    /// What was recorded of it before its last try may be gone.
    pub forgotten: bool,
    /// It failed, or took too long, and went on.
    pub retried: bool,
    /// The same before it went on the last time.
    pub retried_before: bool,
    /// Containers made since it went on.
    pub tries: Vec<String>,
    /// What the kubelet says in its events keeps it, as (reason, message), and when that was last asked for.
    pub trouble: Option<(String, String)>,
    pub asked_ns: u64,
    pub restarts: BTreeMap<String, Restart>,
    /// Why the recorder did not run.
    pub unrecorded: Option<String>,
    /// It may be over by now: what lives is to be counted.
    pub mark: bool,
}

/// A container that is started again, by the runtime's id.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    pub zero: Instant,
    pub recorded: bool,
    /// Records lost before it began.
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being born; ends at the latest at this time.
    Running(u64),
    /// It failed, or took too long, and may yet go on; what goes on after this time is not recorded.
    Parked(u64),
    /// Complete; or it was there before: containers that it starts now are started again.
    Done,
}

impl Birth {
    /// Kinds of failures that are reported of one birth.
    const KINDS_MAX: usize = 16;

    pub fn new(zero: Instant, path: String, state: State) -> Birth {
        Birth {
            zero,
            path,
            state,
            last_ns: zero.mono_ns,
            heard_of: None,
            heard_ready: None,
            look_ns: 0,
            wake_ns: 0,
            changed: true,
            generation: u64::MAX,
            lost: 0,
            suspect: false,
            record: None,
            said: None,
            told: Vec::new(),
            kinds: BTreeSet::new(),
            parked_until: None,
            forgotten: false,
            retried: false,
            retried_before: false,
            tries: Vec::new(),
            trouble: None,
            asked_ns: 0,
            restarts: BTreeMap::new(),
            unrecorded: None,
            mark: false,
        }
    }

    /// Takes what the API server says now.
    pub fn hear(&mut self, pods: &PodIndex, pod: &PodId, now: Instant) {
        if self.generation == pods.generation() {
            return;
        }
        self.generation = pods.generation();
        let Some(record) = pods.by_pod(pod) else { return };
        if self.record.as_ref().is_some_and(|r| Arc::ptr_eq(r, record)) {
            return;
        }
        let ms = since(self.zero, now.mono_ns);
        self.heard_of.get_or_insert(ms);
        match record.life.ready {
            Some(_) => {
                self.mark |= self.heard_ready.is_none();
                self.heard_ready = self.heard_ready.or(Some(ms));
            }
            None => self.heard_ready = None,
        }
        let causes = failure::causes(record);
        self.told.retain(|c| matches!(c, Cause::Program(_) | Cause::Event(_)) || causes.contains(c));
        self.record = Some(record.clone());
        self.look_ns = 0;
        self.changed = true;
    }

    /// Once, if it may be over by now.
    pub fn is_marked(&mut self) -> bool {
        std::mem::take(&mut self.mark) && matches!(self.state, State::Running(_))
    }

    /// It goes on: it ends at the latest at `deadline`.
    pub fn resume(&mut self, deadline: u64) {
        self.state = State::Running(deadline);
        self.retried_before = std::mem::replace(&mut self.retried, true);
        self.trouble = None;
        self.changed = true;
    }

    /// All containers run, or have ended well.
    pub fn came_through(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.life.ready.is_some() || r.life.succeeded)
    }

    /// It is being born, and its sandbox or its containers are yet to be made.
    pub fn waits_for_containers(&self) -> bool {
        let made = |c: &ContainerRecord| c.ids[0].is_some() || c.terminated.is_some();
        let none = self.record.as_ref().is_some_and(|r| !r.containers.iter().any(made));
        none && matches!(self.state, State::Running(_))
    }

    /// Takes note of a failure; false: the same was said before.
    pub fn fails(&mut self, failure: &BirthFailure) -> bool {
        // The kubelet has two words for a program that cannot be started, one after the other.
        let reason = match failure.reason.as_str() {
            "StartError" | "ContainerCannotRun" => "RunContainerError",
            reason => reason,
        };
        let of = (failure.phase.clone(), failure.container.clone(), reason.to_owned());
        self.kinds.len() < Self::KINDS_MAX && self.kinds.insert(of)
    }

    /// Whether what ended then for this container, or for the pod, is part of it.
    pub fn needs(&self, container: Option<&str>, end_ns: u64) -> bool {
        let whole = match self.state {
            State::Running(_) => true,
            State::Parked(_) => !self.forgotten,
            State::Done => false,
        };
        let restart = container.and_then(|id| self.restarts.get(id));
        whole && end_ns >= self.zero.mono_ns || restart.is_some_and(|r| end_ns >= r.zero.mono_ns)
    }

    /// Whether this container, of that name, was started before; `None`: the API server has not reported it.
    pub fn started_before(&self, id: &str, name: Option<&str>) -> Option<bool> {
        let Some(record) = &self.record else { return Some(true) };
        match record.container(Some(id), name) {
            Some(c) if c.kind == ContainerKind::Ephemeral => Some(false),
            _ if self.said.is_some() => Some(true),
            Some(c) if c.ids[0].as_deref() == Some(id) => Some(c.restarts > 0),
            _ => None,
        }
    }

    /// Whether it is worth looking through its records now.
    pub fn is_due(&self, now: Instant, deadline: u64, api: bool) -> bool {
        if now.mono_ns < self.look_ns || !self.changed && now.mono_ns < self.wake_ns {
            return false;
        }
        let said = self.record.as_ref().is_some_and(|r| {
            let told = |c: &ContainerRecord| c.waiting.is_some() || c.terminated.is_some();
            let life = &r.life;
            life.ready.is_some()
                || life.succeeded
                || life.failed
                || life.deleting
                || r.containers.iter().any(told)
        });
        said || self.suspect || self.trouble.is_some() || now.mono_ns >= deadline || !api
    }
}
