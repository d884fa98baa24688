//! What happened in a birth, step by step. Pure.

use super::hints::{Role, Verb};
use super::input::{Input, clipped, display, end, failed, length, since, tidy, told};
use super::log::Made;
use super::phases::Times;
use super::story::{Phase, Story, Work};
use crate::api::{Actor, BirthOutcome, BirthStep};

/// Steps of one certificate; the rest is counted and left out.
const STEPS_MAX: usize = 128;

/// Everything that happened, in order.
pub fn steps(input: &Input<'_>, times: &Times<'_>) -> Vec<BirthStep> {
    let story = input.story;
    let mut steps = Vec::new();
    let mut say = |ms: f64, actor, action: String, details: Option<String>, uncertainty: Option<f64>| {
        steps.push(BirthStep {
            timestamp_ms: tidy(ms),
            actor,
            action: clipped(&action, 128),
            details: details.map(|d| clipped(&d, 512)),
            uncertainty_ms: uncertainty.map(tidy),
        });
    };
    if let Some(scheduled) = times.scheduled {
        say(scheduled.late, Actor::Scheduler, "chooses the node".into(), None, scheduled.uncertainty());
    }
    let at = |ns: u64| since(input.zero, ns);
    let settle = input.settle.as_secs_f64() * 1e3;
    cgroup_steps(story, &at, &mut |ms, actor, action, details| say(ms, actor, action, details, None));
    for act in story.acts() {
        let Some((work, action)) = act.first().and_then(|w| Some((w, action(w)?))) else { continue };
        say(at(work.start_ns), work.actor, action, Some(cost(&act)).filter(|c| !c.is_empty()), None);
    }
    for container in told(input).chain(story.sandboxes()) {
        let name = display(container);
        if let Some(ns) = container.exec_ns {
            let program = container.program.as_deref().unwrap_or("its program");
            let (actor, action) = match container.named.sandbox {
                true => (Actor::Runtime, format!("the sandbox runs {program}")),
                false => (Actor::Container, format!("{name} runs {program}")),
            };
            let mounts = container.mounts.map(|m| format!("{m} mounts in its namespace"));
            say(at(ns), actor, action, mounts, None);
        }
        if let Some((ns, _, port)) = container.listen {
            say(at(ns), Actor::Container, format!("{name} listens on port {port}"), None, None);
        }
        let awaited = input.outcome == BirthOutcome::Complete && container.exit.is_none();
        let runs = container.exec_ns.is_some() && !container.named.sandbox && !container.named.init;
        if awaited && runs && container.listen.is_none() && input.coverage.programs {
            let action = format!("{name} was not seen to listen");
            let why = format!("no TCP socket of its own program's within {}", length(settle));
            say(at(input.until_ns), Actor::Container, action, Some(why), None);
        }
        if let Some((ns, how)) = container.exit {
            let actor = if container.named.sandbox { Actor::Runtime } else { Actor::Container };
            say(at(ns), actor, format!("{name} ends: {}", end(how)), None, None);
        }
    }
    if let Some(ready) = times.ready {
        say(ready.late, Actor::Kubelet, "says Ready".into(), None, ready.uncertainty());
    }
    if let Some(failure) = &input.failure {
        let of = failure.container.as_ref().map(|c| format!("{c}: ")).unwrap_or_default();
        let why = failure.message.clone();
        say(at(input.until_ns), Actor::Kubelet, format!("{of}fails: {}", failure.reason), why, None);
    }
    steps.sort_by(|a, b| a.timestamp_ms.total_cmp(&b.timestamp_ms));
    thin(&mut steps);
    steps
}

/// Leaves out of too many steps those in the middle: how it began and how it ended is told in any case.
fn thin(steps: &mut Vec<BirthStep>) {
    let Some(more) = steps.len().checked_sub(STEPS_MAX).filter(|n| *n > 0).map(|n| n + 1) else { return };
    let from = STEPS_MAX / 2;
    let left_out = BirthStep {
        timestamp_ms: steps[from].timestamp_ms,
        actor: Actor::Kernel,
        action: format!("{more} more steps, left out here"),
        details: None,
        uncertainty_ms: None,
    };
    steps.splice(from..from + more, [left_out]);
}

/// The cgroups made and written to, each path once.
fn cgroup_steps(
    story: &Story,
    at: &impl Fn(u64) -> f64,
    say: &mut impl FnMut(f64, Actor, String, Option<String>),
) {
    let mut paths: Vec<(&str, Vec<&Made>)> = Vec::new();
    for made in &story.cgroups {
        let path = made.made.path.as_str();
        match paths.iter_mut().find(|(p, _)| *p == path) {
            Some((_, all)) => all.push(made),
            None => paths.push((path, vec![made])),
        }
    }
    for (path, all) in paths {
        let first = &all[0].made;
        let pods = all[0].is_pods();
        let actor = if pods { Actor::Kubelet } else { Actor::Runtime };
        let trees = if all.len() > 1 { format!(", in {} trees", all.len()) } else { String::new() };
        let writes: Vec<_> = story.writes.iter().filter(|(_, p)| p == path).collect();
        let written = match writes.len() {
            0 => String::new(),
            1 => "; 1 write to its files".into(),
            n => format!("; {n} writes to its files"),
        };
        let what = match all[0].helper {
            _ if pods => "makes the pod's cgroup",
            true => "makes the cgroup of a container's monitor",
            false => "makes the container's cgroup",
        };
        let by = if first.by.comm.is_empty() { String::new() } else { format!(", by {}", first.by.comm) };
        let details = format!("{path}{trees}{by}{written}");
        say(at(first.by.at_ns), actor, what.into(), Some(details));
    }
}

/// What a program was executed for; `None` for what is told otherwise, or is of no interest.
fn action(work: &Work) -> Option<String> {
    let program = &work.program;
    Some(match work.role {
        Role::Cni { add: true } => format!("{program} adds the network"),
        Role::Cni { add: false } => format!("{program} is asked"),
        Role::Volume => format!("{program} for a volume"),
        Role::Monitor => format!("{program} starts"),
        Role::Runtime(Verb::Create) => format!("{program} create"),
        Role::Runtime(Verb::Start) => format!("{program} start"),
        Role::Runtime(Verb::Run) => format!("{program} run"),
        Role::Runtime(Verb::Init) => return None,
        Role::Runtime(Verb::Exec) => format!("{program} exec"),
        Role::Runtime(Verb::Else) => program.clone(),
        // Of what the containers run their own programs are told.
        Role::Other if matches!(work.phase, Phase::Listen | Phase::Init) || work.phase.is_beside() => {
            return None;
        }
        Role::Other if work.actor == Actor::Runtime => return None,
        Role::Other => program.clone(),
    })
}

fn cost(act: &[&Work]) -> String {
    let mut said = Vec::new();
    let (Some(first), Some(last)) = (act.first(), act.last()) else { return String::new() };
    if let Some(end) = last.end_ns {
        said.push(format!("took {}", length((end - first.start_ns.min(end)) as f64 / 1e6)));
    }
    let counted = act.iter().map(|work| Some(work.counters.as_ref()?.total_syscalls()));
    if let Some(calls) = counted.sum::<Option<u64>>() {
        said.push(format!("{calls} system calls"));
    }
    said.extend(last.how.and_then(failed));
    said.join(", ")
}
