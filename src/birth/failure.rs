//! Why a birth does not go on: by the kubelet's word, and by how the processes ended. Pure.

use super::certificate::{clipped, display, failed, length};
use super::hints::Role;
use super::story::{Container, Phase, Story};
use crate::api::BirthFailure;
use crate::attribution::pods::{ContainerKind, ContainerRecord, PodRecord, Terminated};
use crate::kernel::birth::{Begun, End};

/// What keeps this pod from being born, if anything does. `silent`: nothing was done for it for a while.
pub fn of(record: Option<&PodRecord>, story: &Story, silent: bool) -> Option<BirthFailure> {
    let said = record.and_then(|r| r.containers.iter().find_map(|c| container(c, r, story)));
    said.or_else(|| plugin(story).filter(|_| silent))
        .or_else(|| record.filter(|r| r.life.failed).map(|_| failure(furthest(story), None, "Failed", None)))
}

/// The kubelet has given the pod up, or tries again and again.
fn container(c: &ContainerRecord, pod: &PodRecord, story: &Story) -> Option<BirthFailure> {
    if c.kind == ContainerKind::Ephemeral {
        return None;
    }
    if let Some((reason, message)) = &c.waiting
        && let Some(phase) = waiting(reason)
    {
        return Some(failure(phase, Some(&c.name), reason, message.clone()));
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
    let reason = over.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or("Exited");
    Some(failure(phase, Some(&c.name), reason, Some(how(over, c, story))))
}

/// The phase in which the kubelet waits for this reason; `None`: it just waits.
fn waiting(reason: &str) -> Option<Phase> {
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

/// A CNI plugin that failed, if none succeeded after it.
fn plugin(story: &Story) -> Option<BirthFailure> {
    let last = story
        .works
        .iter()
        .rfind(|w| w.role == Role::Cni { add: true } && w.begun == Begun::Exec && w.end_ns.is_some())?;
    let why = last.how.and_then(failed)?;
    Some(failure(Phase::Network, None, "NetworkPlugin", Some(format!("{}: {why}", last.program))))
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
    let ready = story.containers().filter(|c| c.exec_ns.is_some()).map(|_| Phase::Ready).next();
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
