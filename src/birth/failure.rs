//! Why a birth does not go on: by the kubelet's word, and by how the processes ended. Pure.

use super::hints::{Role, Verb};
use super::input::{clipped, display, failed, length};
use super::story::{Container, Phase, Story, Work};
use crate::api::BirthFailure;
use crate::attribution::pods::{ContainerKind, ContainerRecord, PodRecord, Terminated};
use crate::kernel::recorder::{Begun, End, SegmentId};

/// What a failure is known by: one that was told is not told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A container waits in this phase, by the kubelet's word.
    Waits(String, Phase),
    /// A container's process ended: its name and id; where there is none, how often it was started again.
    Ended(String, Option<String>, u32),
    /// A program failed.
    Program(SegmentId),
    /// By an event of the kubelet's, for this reason.
    Event(String),
    /// The pod as a whole.
    Pod,
}

/// Something that keeps a pod from being born.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub cause: Cause,
    pub failure: BirthFailure,
}

/// All that keeps this pod from being born. `silent`: nothing was done for it for a while. `event`: what the kubelet says
/// in its events, as (reason, message).
pub fn all(
    record: Option<&PodRecord>,
    story: &Story,
    silent: bool,
    event: Option<&(String, String)>,
) -> Vec<Found> {
    let containers = record.into_iter().flat_map(|r| r.containers.iter().map(move |c| (c, r)));
    let mut found: Vec<Found> = containers
        .filter_map(|(c, r)| {
            let failure = match said(c, r)? {
                ContainerFailure::Waits(phase, reason, message) => {
                    failure(phase, Some(&c.name), reason, message.clone())
                }
                ContainerFailure::Ended(phase, over) => {
                    let reason = over.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or("Exited");
                    failure(phase, Some(&c.name), reason, Some(how(over, c, story)))
                }
            };
            Some(Found { cause: cause(c, r)?, failure })
        })
        .collect();
    found.extend(programs(story).filter(|_| silent));
    // A program that failed says more.
    let event = event.filter(|_| silent && found.is_empty());
    found.extend(event.map(|(reason, message)| Found {
        cause: Cause::Event(reason.clone()),
        failure: failure(event_phase(reason), None, reason, Some(message.clone())),
    }));
    let whole = record.filter(|r| r.life.failed);
    found.extend(
        whole.map(|_| Found { cause: Cause::Pod, failure: failure(furthest(story), None, "Failed", None) }),
    );
    found
}

/// What the kubelet says of the containers now.
pub fn causes(pod: &PodRecord) -> Vec<Cause> {
    let whole = pod.life.failed.then_some(Cause::Pod);
    pod.containers.iter().filter_map(|c| cause(c, pod)).chain(whole).collect()
}

fn cause(c: &ContainerRecord, pod: &PodRecord) -> Option<Cause> {
    Some(match said(c, pod)? {
        ContainerFailure::Waits(phase, ..) => Cause::Waits(c.name.clone(), phase),
        ContainerFailure::Ended(_, over) => {
            let nth = if over.id.is_none() { c.restarts } else { 0 };
            Cause::Ended(c.name.clone(), over.id.clone(), nth)
        }
    })
}

/// The kubelet's word on a container that fails.
enum ContainerFailure<'a> {
    /// It waits, with this reason and message.
    Waits(Phase, &'a str, &'a Option<String>),
    Ended(Phase, &'a Terminated),
}

/// The kubelet has given the container up, or tries again and again.
fn said<'a>(c: &'a ContainerRecord, pod: &PodRecord) -> Option<ContainerFailure<'a>> {
    if c.kind == ContainerKind::Ephemeral {
        return None;
    }
    if let Some((reason, message)) = &c.waiting
        && let Some(phase) = waiting(reason)
    {
        return Some(ContainerFailure::Waits(phase, reason, message));
    }
    let over = c.terminated.as_ref().filter(|t| {
        let looping = c.waiting.as_ref().is_some_and(|(reason, _)| reason == "CrashLoopBackOff");
        t.exit_code != 0 || looping && c.kind == ContainerKind::Main && !pod.life.succeeded
    })?;
    let phase = match over.reason.as_deref() {
        Some("StartError" | "ContainerCannotRun") => Phase::Start,
        _ if c.kind == ContainerKind::Init => Phase::Init,
        _ => Phase::Listen,
    };
    Some(ContainerFailure::Ended(phase, over))
}

/// The phase in which the kubelet waits for this reason; `None`: it just waits.
pub fn waiting(reason: &str) -> Option<Phase> {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(Phase::Image),
        "CreateContainerConfigError" | "CreateContainerError" | "PreCreateHookError" => Some(Phase::Create),
        "RunContainerError" | "PreStartHookError" | "PostStartHookError" => Some(Phase::Start),
        _ => None,
    }
}

/// The phase that the kubelet does not come through for this reason.
fn event_phase(reason: &str) -> Phase {
    match reason {
        "FailedCreatePodSandBox" => Phase::Sandbox,
        _ => Phase::Volumes,
    }
}

/// `exit status 1, 12.0 ms after its start`, and what the kubelet has to say.
fn how(over: &Terminated, c: &ContainerRecord, story: &Story) -> String {
    let seen = |s: &&Container| over.id.as_deref() == Some(&s.id) || s.named.name.as_deref() == Some(&c.name);
    let lasted = story.containers().filter(seen).find_map(|s| {
        let (ns, _) = s.exit?;
        Some(ns.saturating_sub(s.exec_ns?))
    });
    let mut text = format!("exit status {}", over.exit_code);
    if let Some(ns) = lasted {
        text += &format!(", {} after its start", length(ns as f64 / 1e6));
    }
    if let Some(message) = over.message.as_ref().filter(|m| !m.is_empty()) {
        text += &format!(": {message}");
    }
    text
}

/// Programs that failed of which the kernel alone tells, in the order in which they are run.
fn programs(story: &Story) -> impl Iterator<Item = Found> {
    [volume(story), network(story), sandbox(story)].into_iter().flatten()
}

/// How a program failed, if it did.
fn failed_program(work: &Work) -> Option<String> {
    let why = work.how.and_then(failed).filter(|_| work.begun == Begun::Exec)?;
    Some(format!("{}: {why}", work.program))
}

/// The kubelet's mount of a volume, if it did not succeed since.
fn volume(story: &Story) -> Option<Found> {
    let mounts = |w: &&Work| w.role == Role::Volume && w.program.starts_with("mount");
    let last = story.works.iter().filter(mounts).filter(|w| w.end_ns.is_some()).max_by_key(|w| w.end_ns)?;
    let why = failed_program(last)?;
    // The sandbox is made once all volumes are mounted.
    let went_on = story.containers.iter().any(|c| Some(c.first_ns) > last.end_ns);
    let failure = failure(Phase::Volumes, None, "FailedMount", Some(why));
    (!went_on).then_some(Found { cause: Cause::Program(last.id), failure })
}

/// A CNI plugin, of the latest sandbox: each try has its own. A plugin fails because one that it runs does.
fn network(story: &Story) -> Option<Found> {
    let adds = || story.works.iter().filter(|w| w.role == Role::Cni { add: true });
    let latest = &adds().next_back()?.container;
    let failed = || adds().filter(|w| w.container == *latest).filter_map(|w| Some((w, failed_program(w)?)));
    let (outer, mut message) = failed().max_by_key(|(w, _)| w.end_ns)?;
    let (inner, why) = failed().min_by_key(|(w, _)| w.end_ns)?;
    if inner.id != outer.id {
        message += &format!(", after {why}");
    }
    let failure = failure(Phase::Network, None, "NetworkPlugin", Some(message));
    Some(Found { cause: Cause::Program(outer.id), failure })
}

/// What was to start the latest sandbox, if its program never ran.
fn sandbox(story: &Story) -> Option<Found> {
    let sandbox = story.sandbox().filter(|c| c.exec_ns.is_none())?;
    let starts = |w: &&Work| {
        let runtime = matches!(w.role, Role::Monitor | Role::Runtime(Verb::Create | Verb::Run | Verb::Start));
        runtime && w.container.as_deref() == Some(&sandbox.id)
    };
    let (work, why) =
        story.works.iter().filter(starts).filter_map(|w| Some((w, failed_program(w)?))).next_back()?;
    let failure = failure(Phase::Sandbox, None, "FailedCreatePodSandBox", Some(why));
    Some(Found { cause: Cause::Program(work.id), failure })
}

/// A container that ended badly, of those the kernel alone tells of.
pub fn exited(container: &Container) -> Option<BirthFailure> {
    let (ns, how) = container.exit.filter(|(_, how)| !matches!(how, End::Exec | End::Stopped))?;
    let lasted = length(ns.saturating_sub(container.exec_ns.unwrap_or(ns)) as f64 / 1e6);
    let why = failed(how)?;
    Some(failure(
        if container.named.init { Phase::Init } else { Phase::Listen },
        Some(&display(container)),
        "Exited",
        Some(format!("{why}, {lasted} after its start")),
    ))
}

/// The last phase anything was done in.
pub fn furthest(story: &Story) -> Phase {
    let runs = |c: &&Container| c.exec_ns.is_some() && !c.named.init;
    let ready = story.containers().find(runs).map(|_| Phase::Ready);
    let works = story.works.iter().map(|w| w.phase).max();
    ready.or(works).unwrap_or(Phase::Cgroup)
}

pub fn failure(phase: Phase, container: Option<&str>, reason: &str, message: Option<String>) -> BirthFailure {
    BirthFailure {
        phase: phase.as_str().to_owned(),
        container: container.map(str::to_owned),
        reason: clipped(reason, 128),
        message: message.map(|m| clipped(&m, 512)),
    }
}
