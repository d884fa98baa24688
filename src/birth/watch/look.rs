//! Looking at one birth: is it over, and what is certified of it. Pure.

use super::super::certificate::{self, Certificate};
use super::super::failure;
use super::super::input::{Coverage, Input};
use super::super::places::in_path;
use super::super::story::{Container, Named, Story, Subject};
use super::birth::{Birth, State};
use super::verdict::verdict;
use super::{Births, Numbers, missing, nanos, records_lost, trace_id};
use crate::api::{BirthOutcome, MissingPart};
use crate::attribution::paths::PodId;
use crate::attribution::pods::{ContainerKind, ContainerRecord, PodRecord};
use crate::attribution::{Workload, WorkloadKind};
use crate::kernel::Instant;
use crate::kernel::recorder::SegmentId;

impl Births {
    /// Looks at a birth: is it over?
    pub(super) fn look(
        &mut self,
        pod: &PodId,
        birth: &mut Birth,
        now: Instant,
        deadline: u64,
        api: bool,
        numbers: Numbers<'_>,
    ) -> Option<Certificate> {
        self.looks += 1;
        let story = self.story(pod, birth, now.mono_ns);
        let silent = now.mono_ns.saturating_sub(birth.last_ns) >= nanos(self.options.settle);
        let much = story.works.len() as u64 * nanos(Self::LOOK_AT_ONE);
        birth.look_ns = now.mono_ns + nanos(Self::LOOK).max(much);
        birth.changed = false;
        birth.wake_ns = self.wake(birth, now, deadline, api);
        let (outcome, failure) = verdict(birth, &story, now, deadline, api, silent, &self.options)?;
        birth.suspect = false;
        let complete = outcome == BirthOutcome::Complete;
        if complete && self.is_unnamed(&story, birth, now) {
            birth.changed = true;
            return None;
        }
        if !complete {
            let all = failure::all(birth.record.as_deref(), &story, silent, birth.trouble.as_ref());
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
            missing: self.missing(pod, birth, api),
            coverage: self.known(pod, birth),
            settle: self.options.settle,
        };
        // What was done since it was over, while it was waited for a socket, is no part of it.
        let until_ns = certificate::end_ns(&input);
        let story = self.story(pod, birth, until_ns);
        let (mut status, processes) = certificate::birth(&Input { story: &story, until_ns, ..input });
        let who = self.who(pod, birth, &story);
        status.trace_id = trace_id(who.pod_uid.as_deref().unwrap_or_default());
        let nth = birth.said.as_ref().map_or(0, |said| said.nth + 1);
        let certificate =
            Certificate { who, zero: birth.zero, at: now, status, processes, nth, restart: false };
        // Of the programs nothing is said again.
        birth.said = Some(Certificate { processes: Vec::new(), ..certificate.clone() });
        if complete {
            birth.state = State::Done;
        }
        Some(certificate)
    }

    /// When time alone may change what there is to say of a birth.
    fn wake(&self, birth: &Birth, now: Instant, deadline: u64, api: bool) -> u64 {
        if !api {
            return 0;
        }
        let settle = nanos(self.options.settle);
        let heard = birth.heard_ready.map(|ms| birth.zero.mono_ns.saturating_add_signed((ms * 1e6) as i64));
        let times = [Some(birth.last_ns), heard].into_iter().flatten().map(|ns| ns + settle);
        times.filter(|ns| *ns > now.mono_ns).fold(deadline, u64::min)
    }

    /// A container was made a moment ago and has no name yet: it may be no part of the birth.
    fn is_unnamed(&self, story: &Story, birth: &Birth, now: Instant) -> bool {
        let fresh = |c: &Container| now.mono_ns.saturating_sub(c.first_ns) < nanos(Self::NAMED);
        birth.record.is_some() && story.containers().any(|c| c.named.name.is_none() && fresh(c))
    }

    /// What the recorder tells of this birth.
    fn known(&self, pod: &PodId, birth: &Birth) -> Coverage {
        match birth.unrecorded {
            Some(_) => Coverage::NOTHING,
            None => Coverage { whole: self.lost_of(pod, birth) == 0, ..self.coverage },
        }
    }

    /// Records that were lost and may have been of this birth.
    fn lost_of(&self, pod: &PodId, birth: &Birth) -> u64 {
        self.lost().saturating_sub(birth.lost) + self.log.crowded_out(pod)
    }

    /// Takes the numbers of what lives now, where the birth may be over by now.
    pub(super) fn mark(&mut self, pod: &PodId, birth: &Birth, now: Instant, numbers: Numbers<'_>) {
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
    pub(super) fn named(&self, id: &str, record: Option<&PodRecord>, first: Option<&str>) -> Named {
        let runtime = self.names.get(id).cloned().unwrap_or_default();
        let known = record.and_then(|r| {
            let ended =
                |c: &&ContainerRecord| c.terminated.as_ref().is_some_and(|t| t.id.as_deref() == Some(id));
            r.containers.iter().find(ended).or_else(|| r.container(Some(id), runtime.name.as_deref()))
        });
        if let Some(known) = known {
            let is = |kind| known.kind == kind;
            let (init, ephemeral) = (is(ContainerKind::Init), is(ContainerKind::Ephemeral));
            return Named { name: Some(known.name.clone()), sandbox: false, init, ephemeral };
        }
        // The API names every container but the sandbox.
        let others = record.is_some_and(|r| r.containers.iter().any(|c| c.ids[0].is_some()));
        let sandbox = runtime.sandbox
            || self.log.is_sandbox(id)
            || runtime.name.is_none() && others && first == Some(id);
        Named { sandbox, ..runtime }
    }

    fn missing(&self, pod: &PodId, birth: &Birth, api: bool) -> Vec<MissingPart> {
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
            let why = "the API server has not reported this pod";
            missing.push(MissingPart { part: "api".into(), why: why.into() });
        }
        missing.extend(records_lost(self.lost_of(pod, birth)));
        missing
    }

    pub(super) fn who(&self, pod: &PodId, birth: &Birth, story: &Story) -> Workload {
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

    pub(super) fn who_of(&self, birth: &Birth) -> Workload {
        let pod = in_path(&birth.path).0;
        self.who(&pod.unwrap_or(PodId::Uid(String::new())), birth, &Story::default())
    }
}
