//! What is certified of a birth: from a [`Story`](super::story::Story) and the API server's word to the object's own types. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::input::{Input, PHASES_MAX, clipped, display, failed, length, ms, since, tidy, told, wall};
use super::numbers;
use super::phases::Times;
use super::story::{Container, Phase};
use super::timeline;
use crate::api::{
    Actor, BirthPhase, BornContainer, ContainerRestart, ImageOrigin, KernelStats, MissingPart,
    PodBirthCertificateStatus, Source,
};
use crate::attribution::Workload;
use crate::attribution::images::Image;
use crate::kernel::Instant;
use crate::kernel::recorder::{Begun, Counters};
use crate::plain::made_plain;

/// Processes that a trace has spans of.
const PROCESSES_MAX: usize = 512;

/// The part that is missing in a birth that failed, or took too long, and went on.
pub const RETRIES: &str = "retries";

/// A birth, or a container's restart, as it leaves the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// The pod; without Kubernetes the container.
    pub who: Workload,
    /// When it began: the zero of all its times.
    pub zero: Instant,
    /// When it is said.
    pub at: Instant,
    pub status: PodBirthCertificateStatus,
    /// The segments behind it, for the trace.
    pub processes: Vec<Process>,
    /// How often the same birth was told before: of one that failed, and went on.
    pub nth: u32,
    /// A container of a pod that runs was started again; everything is about the latest of
    /// [`PodBirthCertificateStatus::restarts`].
    pub restart: bool,
}

impl Certificate {
    /// The same with every text in it plain: this is how it leaves the agent, whatever the way.
    pub fn plain(mut self) -> Certificate {
        let text = |text: &mut String| {
            if let Cow::Owned(made) = made_plain(text) {
                *text = made;
            }
        };
        // Numbers of a birth are finite, and what is JSON is read again as it was.
        if let Ok(status) = crate::plain::all(&self.status) {
            self.status = status;
        }
        for process in &mut self.processes {
            text(&mut process.program);
            process.container.iter_mut().for_each(text);
        }
        let who = &mut self.who;
        let names = [&mut who.namespace, &mut who.pod, &mut who.container, &mut who.container_id];
        names.into_iter().flatten().for_each(text);
        text(&mut who.cgroup);
        self
    }

    /// It is of the pod of this UID.
    pub fn is_of(&self, uid: &str) -> bool {
        self.who.pod_uid.as_deref() == Some(uid)
    }
}

/// One program's life in one process, for a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub actor: Actor,
    pub phase: Phase,
    /// Its name.
    pub container: Option<String>,
    pub program: String,
    pub tgid: u32,
    pub start_ms: f64,
    /// Those that live end with the birth.
    pub end_ms: f64,
    /// `exit 1`, `signal 9`; `None` while it lives or where it went well.
    pub failed: Option<String>,
    pub syscalls: Option<u64>,
    pub cpu_ms: Option<f64>,
}

/// When it was over, CLOCK_MONOTONIC, ns: what is done later is no part of it.
pub fn end_ns(input: &Input<'_>) -> u64 {
    // Rounded up: what it ended with belongs to it.
    let total = (Times::of(input).total(input) * 1e6).ceil() as u64 + 1;
    (input.zero.mono_ns + total).min(input.until_ns)
}

/// The object's status and the processes behind it.
pub fn birth(input: &Input<'_>) -> (PodBirthCertificateStatus, Vec<Process>) {
    let times = Times::of(input);
    let mut status = PodBirthCertificateStatus::of(Source::Kernel);
    status.outcome = Some(input.outcome);
    status.failure.clone_from(&input.failure);
    status.started_at = Some(Time(wall(input.zero.unix_ns)));
    let total = times.total(input);
    status.total = Some(length(total));
    let (phases, left_out) = times.phases();
    status.phases = phases;
    status.timeline = timeline::steps(input, &times);
    status.missing.clone_from(&input.missing);
    if left_out > 0 {
        let why = format!("{left_out} of the shortest phases of containers are left out");
        status.missing.push(MissingPart { part: "phases".into(), why });
    }
    let mut stats = KernelStats::default();
    if input.coverage.programs {
        if input.coverage.whole {
            stats = numbers::stats(input.story, input.coverage);
        }
        (status.breakdown, status.beside) = numbers::breakdown(input.story, input.coverage);
    }
    stats.total_duration_ms = Some(tidy(total));
    status.kernel_stats = Some(stats);
    status.containers = containers(input);
    (status, processes(input))
}

fn containers(input: &Input<'_>) -> Vec<BornContainer> {
    let at = |ns: u64| tidy(since(input.zero, ns));
    let born = |c: &Container| BornContainer {
        name: display(c),
        id: Some(c.id.clone()).filter(|id| id.len() <= 64),
        image: None,
        program: c.program.as_ref().map(|p| clipped(p, 256)),
        exec_ms: c.exec_ns.map(at),
        listen_ms: c.listen.map(|(ns, ..)| at(ns)),
        port: c.listen.map(|(_, _, port)| i64::from(port)),
        mounts: c.mounts.map(i64::from),
    };
    told(input).take(256).map(born).collect()
}

/// Where the image of the container came from that a phase waits for; `None` for other phases, and where that is not known.
pub fn image_of(status: &PodBirthCertificateStatus, phase: &BirthPhase) -> Option<ImageOrigin> {
    let waits = [Phase::Image, Phase::Wait].iter().any(|p| phase.name == p.as_str());
    let of = |c: &&BornContainer| waits && Some(&c.name) == phase.container.as_ref();
    let origin = status.containers.iter().find(of)?.image?;
    (origin != ImageOrigin::Unknown).then_some(origin)
}

/// Fills in where the containers' images came from, as far as that was told. Of what was waited for before a container,
/// its image's pull is a phase of its own.
pub fn tell_images(status: &mut PodBirthCertificateStatus, images: &BTreeMap<String, Image>) {
    for container in &mut status.containers {
        match images.get(&container.name) {
            Some(Image::Pulled(took)) if container.image != Some(ImageOrigin::Pulled) => {
                container.image = Some(ImageOrigin::Pulled);
                pulled(&mut status.phases, &container.name, *took);
            }
            Some(Image::Pulled(_)) => {}
            Some(Image::Present) => container.image = Some(ImageOrigin::Present),
            None => drop(container.image.get_or_insert(ImageOrigin::Unknown)),
        }
    }
}

/// The pull comes last of what is waited for before a container: the runtime makes it once its image is there.
fn pulled(phases: &mut Vec<BirthPhase>, container: &str, took: Option<Duration>) {
    let waits = |p: &BirthPhase| p.name == Phase::Wait.as_str() && p.container.as_deref() == Some(container);
    let Some(at) = phases.iter().position(waits) else { return };
    let wait = &mut phases[at];
    let took = took.map_or(wait.duration_ms, |took| tidy(took.as_secs_f64() * 1e3));
    if took >= wait.duration_ms {
        wait.name = Phase::Image.as_str().into();
        return;
    }
    let mut image = wait.clone();
    image.name = Phase::Image.as_str().into();
    image.duration_ms = took;
    image.start_ms = tidy(wait.start_ms + wait.duration_ms - took);
    wait.duration_ms = tidy(wait.duration_ms - took);
    if phases.len() < PHASES_MAX {
        let after = phases.iter().position(|p| p.start_ms > image.start_ms).unwrap_or(phases.len());
        phases.insert(after, image);
    }
}

/// A container that was started again, as [`Input::story`] of its own has it.
pub fn restart(input: &Input<'_>) -> Option<ContainerRestart> {
    let container = input.story.containers.first()?;
    let at = |ns: u64| tidy(since(input.zero, ns));
    Some(ContainerRestart {
        container: display(container),
        at: Some(Time(wall(input.zero.unix_ns))),
        exec_ms: container.exec_ns.map(at),
        listen_ms: container.listen.map(|(ns, ..)| at(ns)),
        syscalls: input
            .coverage
            .whole
            .then(|| numbers::stats(input.story, input.coverage).total_syscalls)
            .flatten(),
        failure: input.failure.as_ref().map(|f| clipped(f.message.as_ref().unwrap_or(&f.reason), 512)),
    })
}

fn processes(input: &Input<'_>) -> Vec<Process> {
    let end = since(input.zero, input.until_ns);
    let names: HashMap<&str, String> =
        input.story.containers.iter().map(|c| (c.id.as_str(), display(c))).collect();
    let works = input.story.works.iter().filter(|w| w.begun == Begun::Exec).take(PROCESSES_MAX);
    works
        .map(|w| Process {
            actor: w.actor,
            phase: w.phase,
            container: w.container.as_deref().and_then(|id| names.get(id).cloned()),
            program: clipped(&w.program, 256),
            tgid: w.tgid,
            start_ms: since(input.zero, w.start_ns),
            end_ms: w.end_ns.map_or(end, |ns| since(input.zero, ns)),
            failed: w.how.and_then(failed),
            syscalls: w.counters.as_ref().map(Counters::total_syscalls),
            cpu_ms: w.counters.as_ref().map(|c| ms(c.run_ns)),
        })
        .collect()
}
