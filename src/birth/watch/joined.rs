//! Births that were under way when the agent was started: what was done before is not known, and that is said. Pure.

use super::super::certificate::Certificate;
use super::super::failure;
use super::super::places::in_path;
use super::super::story::{Phase, Story};
use super::birth::{Birth, State};
use super::{Births, missing, trace_id};
use crate::api::{AGENT_STARTED, BirthOutcome, PodBirthCertificateStatus, Source};
use crate::attribution::paths::{self, Kind};
use crate::attribution::pods::{PodIndex, PodRecord};
use crate::kernel::Instant;

impl Births {
    /// This cgroup was there when the agent was started.
    pub fn was_there(&mut self, path: &str) {
        if self.before.len() < Self::MAX
            && paths::classify(path).kind == Kind::Pod
            && let Some(pod) = in_path(path).0
        {
            self.before.insert(pod, path.to_owned());
        }
    }

    /// Of pods that were there: those whose birth is still under way, once the API server tells of them.
    pub(super) fn joined(&mut self, pods: &PodIndex, now: Instant) -> Vec<Certificate> {
        if self.before.is_empty() || pods.generation() == 0 {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (pod, path) in std::mem::take(&mut self.before) {
            let Some(record) = pods.by_pod(&pod).filter(|r| self.is_being_born(r, now)) else { continue };
            // Its containers are no restarts.
            let birth = Birth { record: Some(record.clone()), ..Birth::new(now, path, State::Done) };
            let mut status = PodBirthCertificateStatus::of(Source::Kernel);
            let why = "the agent was started in the middle of this birth";
            status.outcome = Some(BirthOutcome::Unfinished);
            status.failure = Some(failure::failure(Phase::Cgroup, None, AGENT_STARTED, Some(why.into())));
            status.missing = missing(why);
            status.trace_id = trace_id(&record.uid);
            let who = self.who(&pod, &birth, &Story::default());
            let processes = Vec::new();
            out.push(Certificate { who, zero: now, at: now, status, processes, nth: 0, restart: false });
            self.births.entry(pod).or_insert(birth);
        }
        out
    }

    /// It is not Ready, nothing of it was ever started again, and it is no older than a birth takes at most.
    fn is_being_born(&self, record: &PodRecord, now: Instant) -> bool {
        let life = &record.life;
        let over = life.ready.is_some() || life.succeeded || life.failed || life.deleting;
        let again = record.containers.iter().any(|c| c.restarts > 0 || c.ids[1].is_some());
        let created = life.created.and_then(|s| u64::try_from(s).ok());
        let young = created.is_some_and(|s| s + self.options.wait.as_secs() >= now.unix_ns / 1_000_000_000);
        !over && !again && young
    }
}
