//! One birth while it is watched. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::certificate::{Certificate, since};
use crate::attribution::paths::PodId;
use crate::attribution::pods::{ContainerRecord, PodIndex, PodRecord};
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
    /// When to look at it again, whatever happens.
    pub look_ns: u64,
    pub generation: u64,
    /// Records lost before it began.
    pub lost: u64,
    /// Something in its records asks for a look.
    pub suspect: bool,
    pub record: Option<Arc<PodRecord>>,
    pub said: Option<Certificate>,
    pub restarts: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being born; ends at the latest at this time.
    Running(u64),
    /// It failed, and may yet be tried again; remembered until this time.
    Parked(u64),
    Done,
}

impl Birth {
    pub fn new(zero: Instant, path: String, state: State) -> Birth {
        Birth {
            zero,
            path,
            state,
            last_ns: zero.mono_ns,
            heard_of: None,
            heard_ready: None,
            look_ns: 0,
            generation: u64::MAX,
            lost: 0,
            suspect: false,
            record: None,
            said: None,
            restarts: BTreeMap::new(),
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
        if record.life.ready.is_some() {
            self.heard_ready.get_or_insert(ms);
        }
        self.record = Some(record.clone());
        self.look_ns = 0;
    }

    /// Whether it is worth looking through its records now.
    pub fn is_due(&self, now: Instant, deadline: u64, api: bool) -> bool {
        if now.mono_ns < self.look_ns {
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
        said || self.suspect || now.mono_ns >= deadline || !api
    }
}
