//! What is certified of a birth: from a [`Story`] and the API server's word to the object's own types. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::numbers;
use super::phases::Times;
use super::story::{Container, Phase, Story};
use super::timeline;
use crate::api::{
    Actor, BirthFailure, BirthOutcome, BirthPhase, BornContainer, ContainerRestart, ImageOrigin, KernelStats,
    MissingPart, PodBirthCertificateStatus, Source,
};
use crate::attribution::Workload;
use crate::attribution::images::Image;
use crate::attribution::pods::PodRecord;
use crate::kernel::Instant;
use crate::kernel::birth::{Begun, Counters, End};

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
    /// A container of a pod that runs was started again; everything is about the latest of
    /// [`PodBirthCertificateStatus::restarts`].
    pub restart: bool,
}

impl Certificate {
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

/// What [`birth`] is made from, besides the story. Times are ms after `zero`.
#[derive(Debug)]
pub struct Input<'a> {
    pub story: &'a Story,
    pub zero: Instant,
    /// The birth was over, CLOCK_MONOTONIC, ns.
    pub until_ns: u64,
    pub record: Option<&'a PodRecord>,
    /// When the agent first heard of the pod having a node, and of its being Ready.
    pub heard_of: Option<f64>,
    pub heard_ready: Option<f64>,
    pub outcome: BirthOutcome,
    pub failure: Option<BirthFailure>,
    pub missing: Vec<MissingPart>,
    pub knows: Knows,
}

/// What the recorder tells here. What it does not has no number, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knows {
    /// It runs at all: what it does not tell was not done.
    pub programs: bool,
    /// Writes to cgroup files, and changes to netfilter other than of whole tables.
    pub writes: bool,
    /// Time waiting for a CPU.
    pub waits: bool,
    /// Bytes read and written.
    pub bytes: bool,
}

impl Knows {
    pub const ALL: Knows = Knows { programs: true, writes: true, waits: true, bytes: true };
    pub const NOTHING: Knows = Knows { programs: false, writes: false, waits: false, bytes: false };
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
    status.phases = times.phases();
    status.timeline = timeline::steps(input, &times);
    status.missing.clone_from(&input.missing);
    if input.knows.programs {
        let mut stats = numbers::stats(input.story, input.knows);
        stats.total_duration_ms = Some(tidy(total));
        status.kernel_stats = Some(stats);
        status.breakdown = numbers::breakdown(input.story, input.knows);
    } else {
        status.kernel_stats =
            Some(KernelStats { total_duration_ms: Some(tidy(total)), ..KernelStats::default() });
    }
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
    input.story.containers().take(256).map(born).collect()
}

/// Where the image of a phase's container came from; `None` for other phases, and where that is not known.
pub fn image_of(status: &PodBirthCertificateStatus, phase: &BirthPhase) -> Option<ImageOrigin> {
    let of =
        |c: &&BornContainer| phase.name == Phase::Image.as_str() && Some(&c.name) == phase.container.as_ref();
    let origin = status.containers.iter().find(of)?.image?;
    (origin != ImageOrigin::Unknown).then_some(origin)
}

/// Fills in where the containers' images came from, as far as that was told.
pub fn tell_images(status: &mut PodBirthCertificateStatus, images: &BTreeMap<String, Image>) {
    for container in &mut status.containers {
        match images.get(&container.name) {
            Some(Image::Pulled) => container.image = Some(ImageOrigin::Pulled),
            Some(Image::Present) => container.image = Some(ImageOrigin::Present),
            None => drop(container.image.get_or_insert(ImageOrigin::Unknown)),
        }
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
            .knows
            .programs
            .then(|| numbers::stats(input.story, input.knows).total_syscalls)
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
            program: w.program.clone(),
            tgid: w.tgid,
            start_ms: since(input.zero, w.start_ns),
            end_ms: w.end_ns.map_or(end, |ns| since(input.zero, ns)),
            failed: w.how.and_then(failed),
            syscalls: w.counters.as_ref().map(Counters::total_syscalls),
            cpu_ms: w.counters.as_ref().map(|c| ms(c.run_ns)),
        })
        .collect()
}

/// How it failed, if it did.
pub fn failed(how: End) -> Option<String> {
    match how {
        End::Exit(0) | End::Exec | End::Stopped | End::Unknown => None,
        how => Some(end(how)),
    }
}

pub(super) fn end(how: End) -> String {
    match how {
        End::Exit(code) => format!("exit status {code}"),
        End::Signal(signal) => format!("killed by signal {signal}"),
        End::Exec | End::Stopped => "still running".into(),
        End::Unknown => "how was not seen".into(),
    }
}

/// What a container is called.
pub fn display(container: &Container) -> String {
    match &container.named.name {
        Some(name) => name.clone(),
        None if container.named.sandbox => "sandbox".into(),
        None => container.id.chars().take(12).collect(),
    }
}

/// A length of time for people.
pub fn length(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

/// Milliseconds after the zero of a birth.
pub fn since(zero: Instant, ns: u64) -> f64 {
    (i128::from(ns) - i128::from(zero.mono_ns)) as f64 / 1e6
}

pub(super) fn wall(unix_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX)
}

/// Microseconds are enough for people, and shorter.
pub(super) fn tidy(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

pub(super) fn ms(ns: u64) -> f64 {
    tidy(ns as f64 / 1e6)
}

pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Text without control characters, of at most so many bytes.
pub fn clipped(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}
