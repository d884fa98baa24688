//! What is certified of a birth: from a [`Story`] and the API server's word to the object's own types. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use syscalls::Sysno;

use super::hints::{Role, Verb};
use super::moment::Moment;
use super::story::{Container, Phase, Story, Work};
use crate::api::{
    Actor, BirthCost, BirthFailure, BirthOutcome, BirthPhase, BirthStep, BornContainer, ContainerRestart,
    KernelStats, MissingPart, PodBirthCertificateStatus, Source,
};
use crate::attribution::Workload;
use crate::attribution::pods::PodRecord;
use crate::kernel::Instant;
use crate::kernel::birth::{Begun, Counters, End, Namespaces};

/// Steps of one certificate; the rest is counted and left out.
const STEPS_MAX: usize = 128;
/// System calls and cgroup files named.
const NAMED_MAX: usize = 24;
/// Processes that a trace has spans of.
const PROCESSES_MAX: usize = 512;

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
    /// The recorder ran: what it does not tell was not done.
    pub recorded: bool,
    /// It told of writes to cgroup files too.
    pub writes: bool,
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
    status.timeline = steps(input, &times);
    status.missing.clone_from(&input.missing);
    if input.recorded {
        let mut stats = stats(input.story);
        stats.total_duration_ms = Some(tidy(total));
        stats.cgroup_writes = stats.cgroup_writes.filter(|_| input.writes);
        status.kernel_stats = Some(stats);
        status.breakdown = breakdown(input.story);
    } else {
        status.kernel_stats =
            Some(KernelStats { total_duration_ms: Some(tidy(total)), ..KernelStats::default() });
    }
    status.containers = containers(input);
    (status, processes(input))
}

/// Where the phases lie. Times in ms after zero.
struct Times<'a> {
    input: &'a Input<'a>,
    spans: Vec<Span>,
    scheduled: Option<Moment>,
    ready: Option<Moment>,
}

struct Span {
    phase: Phase,
    container: Option<String>,
    start: f64,
    end: f64,
    uncertainty: Option<f64>,
}

impl<'a> Times<'a> {
    fn of(input: &'a Input<'a>) -> Times<'a> {
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
        let Some(life) = self.input.record.map(|r| &r.life) else { return };
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
                end: scheduled.late,
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
        let cgroups = story
            .cgroups
            .iter()
            .filter(|m| m.pod.is_some() && m.container.is_none())
            .map(|m| m.made.by.at_ns);
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
        // The kubelet begins one after the other: what it waits for before each is that one's image.
        let mut free = story.sandbox().and_then(|s| s.exec_ns);
        for container in story.containers() {
            let c = Some(container);
            // What is started again waits for the kubelet's patience.
            let again = story
                .containers()
                .take_while(|c| c.id != container.id)
                .any(|c| display(c) == display(container));
            if let Some(free) = free.filter(|free| !again && *free < container.first_ns) {
                self.add(Phase::Image, c, self.ms(free), self.ms(container.first_ns));
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

    fn phases(&self) -> Vec<BirthPhase> {
        let phase = |s: &Span| BirthPhase {
            name: s.phase.as_str().to_owned(),
            container: s.container.clone(),
            start_ms: tidy(s.start),
            duration_ms: tidy(s.end - s.start),
            uncertainty_ms: s.uncertainty.map(tidy),
        };
        self.spans.iter().take(64).map(phase).collect()
    }

    /// From the pod's cgroup to the last of: each container's program, its first socket, and Ready. Of a birth that
    /// did not come so far: to its end.
    fn total(&self, input: &Input<'_>) -> f64 {
        let story = input.story;
        let kernel =
            story.containers().flat_map(|c| [c.exec_ns, c.listen.map(|(ns, ..)| ns)]).flatten().max();
        let kernel = kernel.map(|ns| self.ms(ns));
        let ready = self.ready.map(|m| m.late);
        let whole = kernel.into_iter().chain(ready).reduce(f64::max);
        match input.outcome {
            BirthOutcome::Complete => whole.unwrap_or_else(|| self.ms(input.until_ns)),
            _ => self.ms(input.until_ns),
        }
    }
}

/// The numbers of the whole pod.
pub fn stats(story: &Story) -> KernelStats {
    let mut by_syscall: BTreeMap<u32, u64> = BTreeMap::new();
    let mut sum = Counters::default();
    for counters in story.works.iter().filter_map(|w| w.counters.as_ref()) {
        for (number, n) in &counters.syscalls {
            *by_syscall.entry(*number).or_default() += n;
        }
        add(&mut sum, counters);
    }
    let total: u64 = by_syscall.values().sum::<u64>() + sum.foreign_syscalls;
    let pivot_roots = by_syscall.get(&(Sysno::pivot_root as u32)).copied().unwrap_or(0);
    let named = by_syscall.iter().map(|(number, n)| (syscall(*number), int(*n)));
    let mut files: BTreeMap<String, i64> = BTreeMap::new();
    for (write, _) in &story.writes {
        *files.entry(write.file.clone()).or_default() += 1;
    }
    let namespaces = namespaces(story);
    let mounts: Vec<u32> = story.containers.iter().filter_map(|c| c.mounts).collect();
    let tgids: HashSet<u32> = story.works.iter().map(|w| w.tgid).collect();
    KernelStats {
        total_syscalls: Some(int(total)),
        by_syscall: top(named.collect()),
        namespaces_created: namespaces.as_ref().map(|kinds| kinds.values().sum()),
        by_namespace: namespaces.unwrap_or_default(),
        cgroups_created: Some(story.cgroups.len() as i64),
        cgroup_writes: Some(story.writes.len() as i64),
        by_cgroup_file: top(files),
        mounts: (!mounts.is_empty()).then(|| mounts.iter().map(|m| i64::from(*m)).sum()),
        pivot_roots: Some(int(pivot_roots)),
        processes: Some(tgids.len() as i64),
        programs: Some(story.works.iter().filter(|w| w.begun == Begun::Exec).count() as i64),
        cpu_ms: Some(ms(sum.run_ns)),
        wait_ms: Some(ms(sum.wait_ns)),
        read_bytes: Some(int(sum.read_bytes)),
        written_bytes: Some(int(sum.written_bytes)),
        page_faults: Some(int(sum.minor_faults + sum.major_faults)),
        netfilter_changes: Some(int(sum.netfilter_changes)),
        total_duration_ms: None,
    }
}

fn add(sum: &mut Counters, more: &Counters) {
    sum.foreign_syscalls += more.foreign_syscalls;
    sum.run_ns += more.run_ns;
    sum.wait_ns += more.wait_ns;
    sum.read_bytes += more.read_bytes;
    sum.written_bytes += more.written_bytes;
    sum.minor_faults += more.minor_faults;
    sum.major_faults += more.major_faults;
    sum.netfilter_changes += more.netfilter_changes;
}

/// The namespaces that the containers' programs are in and the runtime is not; `None` where they are not known.
fn namespaces(story: &Story) -> Option<BTreeMap<String, i64>> {
    let host = kinds(&story.host?);
    let mut made: BTreeSet<(&str, u32)> = BTreeSet::new();
    for namespaces in story.containers.iter().filter_map(|c| c.namespaces.as_ref()) {
        let of_host = |kind: &str, inode| host.iter().any(|(k, i)| *k == kind && *i == inode);
        made.extend(
            kinds(namespaces).into_iter().filter(|(kind, inode)| *inode != 0 && !of_host(kind, *inode)),
        );
    }
    let mut counts = BTreeMap::new();
    for (kind, _) in made {
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    Some(counts)
}

fn kinds(n: &Namespaces) -> [(&'static str, u32); 8] {
    [
        ("mnt", n.mnt),
        ("uts", n.uts),
        ("ipc", n.ipc),
        ("pid", n.pid),
        ("net", n.net),
        ("cgroup", n.cgroup),
        ("time", n.time),
        ("user", n.user),
    ]
}

/// The name of a system call of this machine's own ABI.
pub fn syscall(number: u32) -> String {
    Sysno::new(number as usize).map_or_else(|| format!("syscall_{number}"), |s| s.name().to_owned())
}

/// The most frequent.
fn top(all: BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(NAMED_MAX);
    all.into_iter().collect()
}

fn breakdown(story: &Story) -> Vec<BirthCost> {
    let mut cells: HashMap<(Actor, Phase), (HashSet<u32>, Counters, u64, bool)> = HashMap::new();
    for work in &story.works {
        let (tgids, sum, syscalls, known) = cells.entry((work.actor, work.phase)).or_default();
        tgids.insert(work.tgid);
        if let Some(counters) = &work.counters {
            add(sum, counters);
            *syscalls += counters.total_syscalls();
            *known = true;
        }
    }
    let mut costs: Vec<BirthCost> = cells
        .into_iter()
        .map(|((actor, phase), (tgids, sum, syscalls, known))| BirthCost {
            actor,
            phase: phase.as_str().to_owned(),
            processes: tgids.len() as i64,
            syscalls: known.then(|| int(syscalls)),
            cpu_ms: known.then(|| ms(sum.run_ns)),
            wait_ms: known.then(|| ms(sum.wait_ns)),
            read_bytes: known.then(|| int(sum.read_bytes)),
            written_bytes: known.then(|| int(sum.written_bytes)),
            page_faults: known.then(|| int(sum.minor_faults + sum.major_faults)),
        })
        .collect();
    costs.sort_by(|a, b| {
        b.syscalls.cmp(&a.syscalls).then_with(|| (a.actor, &a.phase).cmp(&(b.actor, &b.phase)))
    });
    costs.truncate(64);
    costs
}

fn containers(input: &Input<'_>) -> Vec<BornContainer> {
    let at = |ns: u64| tidy(since(input.zero, ns));
    let born = |c: &Container| BornContainer {
        name: display(c),
        id: Some(c.id.clone()).filter(|id| id.len() <= 64),
        program: c.program.as_ref().map(|p| clipped(p, 256)),
        exec_ms: c.exec_ns.map(at),
        listen_ms: c.listen.map(|(ns, ..)| at(ns)),
        port: c.listen.map(|(_, _, port)| i64::from(port)),
        mounts: c.mounts.map(i64::from),
    };
    input.story.containers().take(256).map(born).collect()
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
        syscalls: input.recorded.then(|| stats(input.story).total_syscalls).flatten(),
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

/// Everything that happened, in order.
fn steps(input: &Input<'_>, times: &Times<'_>) -> Vec<BirthStep> {
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
    cgroup_steps(story, &at, &mut |ms, actor, action, details| say(ms, actor, action, details, None));
    for work in story.works.iter().filter(|w| w.begun == Begun::Exec) {
        let Some(action) = action(work) else { continue };
        say(at(work.start_ns), work.actor, action, Some(cost(work)).filter(|c| !c.is_empty()), None);
    }
    for container in &story.containers {
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
    if steps.len() > STEPS_MAX {
        let more = steps.len() - (STEPS_MAX - 1);
        steps.truncate(STEPS_MAX - 1);
        let last = steps.last().map_or(0.0, |s| s.timestamp_ms);
        steps.push(BirthStep {
            timestamp_ms: last,
            actor: Actor::Kernel,
            action: format!("{more} more steps, left out here"),
            details: None,
            uncertainty_ms: None,
        });
    }
    steps
}

/// The cgroups made and written to, each path once.
fn cgroup_steps(
    story: &Story,
    at: &impl Fn(u64) -> f64,
    say: &mut impl FnMut(f64, Actor, String, Option<String>),
) {
    let mut paths: Vec<(&str, Vec<&super::log::Made>)> = Vec::new();
    for made in &story.cgroups {
        let path = made.made.path.as_str();
        match paths.iter_mut().find(|(p, _)| *p == path) {
            Some((_, all)) => all.push(made),
            None => paths.push((path, vec![made])),
        }
    }
    for (path, all) in paths {
        let first = &all[0].made;
        let pods = all[0].pod.is_some() && all[0].container.is_none();
        let actor = if pods { Actor::Kubelet } else { Actor::Runtime };
        let trees = if all.len() > 1 { format!(", in {} trees", all.len()) } else { String::new() };
        let writes: Vec<_> = story.writes.iter().filter(|(_, p)| p == path).collect();
        let written = match writes.len() {
            0 => String::new(),
            1 => "; 1 write to its files".into(),
            n => format!("; {n} writes to its files"),
        };
        let what =
            if all[0].container.is_none() { "makes the pod's cgroup" } else { "makes a container's cgroup" };
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
        Role::Other if matches!(work.phase, Phase::Listen | Phase::Init) => return None,
        Role::Other if work.actor == Actor::Runtime => return None,
        Role::Other => program.clone(),
    })
}

fn cost(work: &Work) -> String {
    let mut said = Vec::new();
    if let Some(end) = work.end_ns {
        said.push(format!("took {}", length((end - work.start_ns.min(end)) as f64 / 1e6)));
    }
    if let Some(counters) = &work.counters {
        said.push(format!("{} system calls", counters.total_syscalls()));
    }
    said.extend(work.how.and_then(failed));
    said.join(", ")
}

/// How it failed, if it did.
pub fn failed(how: End) -> Option<String> {
    match how {
        End::Exit(0) | End::Exec | End::Stopped | End::Unknown => None,
        how => Some(end(how)),
    }
}

fn end(how: End) -> String {
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

fn wall(unix_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX)
}

/// Microseconds are enough for people, and shorter.
fn tidy(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

fn ms(ns: u64) -> f64 {
    tidy(ns as f64 / 1e6)
}

fn int(n: u64) -> i64 {
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
