//! Where the phases of a birth lie. Pure.

use super::failure;
use super::input::{Input, PHASES_MAX, display, since, tidy, told};
use super::moment::Moment;
use super::story::{Container, Phase, Work};
use crate::api::{BirthOutcome, BirthPhase};
use crate::attribution::pods::{ContainerKind, ContainerRecord};

/// Where the phases lie. Times in ms after zero.
pub struct Times<'a> {
    input: &'a Input<'a>,
    spans: Vec<Span>,
    pub scheduled: Option<Moment>,
    pub ready: Option<Moment>,
}

struct Span {
    phase: Phase,
    container: Option<String>,
    start: f64,
    end: f64,
    uncertainty: Option<f64>,
}

impl<'a> Times<'a> {
    pub fn of(input: &'a Input<'a>) -> Times<'a> {
        let mut times = Times { input, spans: Vec::new(), scheduled: None, ready: None };
        times.scheduling();
        times.pod();
        times.each_container();
        times.readiness();
        times.spans.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.phase.cmp(&b.phase)));
        times
    }

    fn ms(&self, ns: u64) -> f64 {
        since(self.input.zero, ns)
    }

    fn add(&mut self, phase: Phase, container: Option<&Container>, start: f64, end: f64) {
        let container = container.map(display);
        self.spans.push(Span { phase, container, start, end: end.max(start), uncertainty: None });
    }

    /// The API server's: before the kubelet made the pod's cgroup, and before the agent heard of it.
    fn scheduling(&mut self) {
        // The kubelet makes the object of a static pod after the pod itself: its times are not of the birth.
        let own = self.input.record.filter(|r| r.config_hash.is_none());
        let Some(life) = own.map(|r| &r.life) else { return };
        let before = Some(self.input.heard_of.unwrap_or(0.0).min(0.0));
        let of = |second, after, before| Moment::of_second(second, self.input.zero.unix_ns, after, before);
        let Some(scheduled) = life.scheduled.map(|s| of(s, None, before)) else { return };
        self.scheduled = Some(scheduled);
        if let Some(created) = life.created.map(|s| of(s, None, Some(scheduled.late))) {
            let uncertainty = (created.late - created.early).max(scheduled.late - scheduled.early);
            self.spans.push(Span {
                phase: Phase::Scheduled,
                container: None,
                start: created.late,
                end: scheduled.late.max(created.late),
                uncertainty: (uncertainty > 0.0).then_some(uncertainty),
            });
        }
    }

    /// What is done for the pod as a whole.
    fn pod(&mut self) {
        let story = self.input.story;
        let sandbox = story.sandbox();
        let of = |phase| story.works.iter().filter(move |w: &&Work| w.phase == phase);
        let first = |phase| of(phase).map(|w| w.start_ns).min();
        let last = |phase| of(phase).map(|w| w.end_ns.unwrap_or(w.start_ns)).max();
        let runtime = story.containers.iter().map(|c| c.first_ns).min().unwrap_or(self.input.until_ns);
        let cgroups = story.cgroups.iter().filter(|m| m.is_pods()).map(|m| m.made.by.at_ns);
        let writes = story.writes.iter().map(|(w, _)| w.by.at_ns);
        if let Some(last) = cgroups.chain(writes).filter(|ns| *ns <= runtime).max() {
            self.add(Phase::Cgroup, None, 0.0, self.ms(last));
        }
        for phase in [Phase::Volumes, Phase::Network] {
            if let (Some(first), Some(last)) = (first(phase), last(phase)) {
                self.add(phase, None, self.ms(first), self.ms(last));
            }
        }
        if let Some(sandbox) = sandbox {
            let start = story.containers.iter().filter(|c| c.named.sandbox).map(|c| c.first_ns).min();
            let end = sandbox.exec_ns.or_else(|| last(Phase::Sandbox)).unwrap_or(sandbox.first_ns);
            self.add(Phase::Sandbox, None, self.ms(start.unwrap_or(sandbox.first_ns)), self.ms(end));
        }
    }

    fn each_container(&mut self) {
        let story = self.input.story;
        // The kubelet begins one after the other: what it waits for before each is told with that one.
        let mut free = story.sandbox().and_then(|s| s.exec_ns);
        let mut seen: Vec<String> = Vec::new();
        for container in told(self.input) {
            let c = Some(container);
            // What is started again waits for the kubelet's patience.
            let again = seen.contains(&display(container));
            seen.push(display(container));
            if let Some(free) = free.filter(|free| !again && *free < container.first_ns) {
                self.add(Phase::Wait, c, self.ms(free), self.ms(container.first_ns));
            }
            if let Some((start, end)) = container.create {
                let end = end.or(container.start_ns).or(container.exec_ns).unwrap_or(start);
                self.add(Phase::Create, c, self.ms(start), self.ms(end));
            }
            let Some(exec) = container.exec_ns else { continue };
            if let Some(start) = container.start_ns {
                self.add(Phase::Start, c, self.ms(start), self.ms(exec));
            }
            free = Some(exec);
            if container.named.init {
                let end = container.exit.map_or(self.input.until_ns, |(ns, _)| ns);
                self.add(Phase::Init, c, self.ms(exec), self.ms(end));
                free = Some(end);
            } else if let Some((listen, ..)) = container.listen {
                self.add(Phase::Listen, c, self.ms(exec), self.ms(listen));
            }
        }
        self.awaited(free, &seen);
    }

    /// What a birth that did not come so far waits for: the container that is next, or its image if the kubelet says so.
    fn awaited(&mut self, free: Option<u64>, seen: &[String]) {
        let until = self.input.until_ns;
        let (Some(free), Some(record)) = (free.filter(|ns| *ns < until), self.input.record) else { return };
        let of = |kind: ContainerKind| record.containers.iter().filter(move |c| c.kind == kind);
        let there = |c: &&ContainerRecord| !seen.contains(&c.name);
        let next = of(ContainerKind::Init).chain(of(ContainerKind::Main)).find(there);
        if let Some(next) = next.filter(|_| self.input.outcome != BirthOutcome::Complete) {
            let waits = next.waiting.as_ref().and_then(|(reason, _)| failure::waiting(reason));
            self.spans.push(Span {
                phase: waits.filter(|phase| *phase == Phase::Image).unwrap_or(Phase::Wait),
                container: Some(next.name.clone()),
                start: self.ms(free),
                end: self.ms(until),
                uncertainty: None,
            });
        }
    }

    /// From the last thing a container did to Ready.
    fn readiness(&mut self) {
        let Some(second) = self.input.record.and_then(|r| r.life.ready) else { return };
        let story = self.input.story;
        let execs = story.containers().filter_map(|c| c.exec_ns);
        let listens = story.containers().filter_map(|c| c.listen.map(|(ns, ..)| ns));
        let exec = execs.max().map(|ns| self.ms(ns));
        // A pod may be Ready before a container listens, but not before it runs.
        let ready = Moment::of_second(second, self.input.zero.unix_ns, exec, self.input.heard_ready);
        self.ready = Some(ready);
        let from = listens.max().map(|ns| self.ms(ns)).filter(|ms| *ms <= ready.late).or(exec).unwrap_or(0.0);
        self.spans.push(Span {
            phase: Phase::Ready,
            container: None,
            start: from.min(ready.late),
            end: ready.late,
            uncertainty: ready.uncertainty(),
        });
    }

    /// The phases in the order they began, and how many are left out: the shortest ones of containers, so that the pod's
    /// own are there in any case.
    pub fn phases(&self) -> (Vec<BirthPhase>, usize) {
        let mut kept: Vec<&Span> = self.spans.iter().collect();
        let left_out = kept.len().saturating_sub(PHASES_MAX);
        if left_out > 0 {
            let lasted = |s: &&Span| if s.container.is_none() { f64::INFINITY } else { s.end - s.start };
            kept.sort_by(|a, b| lasted(b).total_cmp(&lasted(a)));
            kept.truncate(PHASES_MAX);
            kept.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.phase.cmp(&b.phase)));
        }
        let phase = |s: &&Span| BirthPhase {
            name: s.phase.as_str().to_owned(),
            container: s.container.clone(),
            start_ms: tidy(s.start),
            duration_ms: tidy(s.end - s.start),
            uncertainty_ms: s.uncertainty.map(tidy),
        };
        (kept.iter().map(phase).collect(), left_out)
    }

    /// From the pod's cgroup to the last of: each container's program, its first socket, and Ready; of a pod that has
    /// succeeded, its end. Of a birth that did not come so far: to its end.
    pub fn total(&self, input: &Input<'_>) -> f64 {
        let story = input.story;
        let succeeded = input.record.is_some_and(|r| r.life.succeeded && r.life.ready.is_none());
        let of = |c: &Container| {
            let exit = c.exit.map(|(ns, _)| ns).filter(|_| succeeded);
            [c.exec_ns, c.listen.map(|(ns, ..)| ns), exit]
        };
        let kernel = story.containers().flat_map(of).flatten().max();
        let kernel = kernel.map(|ns| self.ms(ns));
        let ready = self.ready.map(|m| m.late);
        let whole = kernel.into_iter().chain(ready).reduce(f64::max);
        match input.outcome {
            BirthOutcome::Complete => whole.unwrap_or_else(|| self.ms(input.until_ns)),
            _ => self.ms(input.until_ns),
        }
    }
}
