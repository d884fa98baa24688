//! What a birth cost, in numbers: of the whole pod, and by actor and phase. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use foldhash::HashMap;

use syscalls::Sysno;

use super::input::{Coverage, int, ms};
use super::log::Made;
use super::story::{Phase, Story};
use crate::api::{Actor, BirthCost, KernelStats};
use crate::kernel::recorder::{Begun, By, Counters, Namespaces, SegmentId};

/// System calls and cgroup files named, of the whole pod and of one actor in one phase; the rest is `others`.
const NAMED_MAX: usize = 24;
const NAMED_OF_PART: usize = 12;
/// What is not named.
const OTHERS: &str = "others";

/// The numbers of the whole pod.
pub fn stats(story: &Story, coverage: Coverage) -> KernelStats {
    let mut sum = Counters::default();
    let works = || story.works.iter().filter(|w| !w.phase.is_beside());
    works().filter_map(|w| w.counters.as_ref()).for_each(|counters| add(&mut sum, counters));
    let parts = parts(story);
    let of_birth = |by: &By| by.segment.and_then(|id| parts.get(&id)).is_none_or(|(_, p)| !p.is_beside());
    let writes = || story.writes.iter().filter(|(write, _)| of_birth(&write.by));
    let mut files: BTreeMap<String, i64> = BTreeMap::new();
    for (write, _) in writes() {
        *files.entry(write.file.clone()).or_default() += 1;
    }
    let namespaces = namespaces(story);
    let mounts: Vec<u32> = story.containers.iter().filter_map(|c| c.mounts).collect();
    let tgids: HashSet<u32> = works().map(|w| w.tgid).collect();
    KernelStats {
        total_syscalls: Some(int(sum.total_syscalls())),
        by_syscall: named(&sum, NAMED_MAX),
        namespaces_created: namespaces.as_ref().map(|all| all.len() as i64),
        by_namespace: by_kind(namespaces.iter().flatten().map(|(kind, _)| *kind)),
        cgroups_created: Some(story.cgroups.iter().filter(|m| of_birth(&m.made.by)).count() as i64),
        cgroup_writes: coverage.writes.then_some(writes().count() as i64),
        by_cgroup_file: top(files, NAMED_MAX),
        mounts: (!mounts.is_empty()).then(|| mounts.iter().map(|m| i64::from(*m)).sum()),
        pivot_roots: Some(int(pivot_roots(&sum))),
        processes: Some(tgids.len() as i64),
        programs: Some(works().filter(|w| w.begun == Begun::Exec).count() as i64),
        cpu_ms: Some(ms(sum.run_ns)),
        wait_ms: coverage.waits.then(|| ms(sum.wait_ns)),
        read_bytes: coverage.bytes.then(|| int(sum.read_bytes)),
        written_bytes: coverage.bytes.then(|| int(sum.written_bytes)),
        page_faults: Some(int(sum.minor_faults + sum.major_faults)),
        netfilter_changes: coverage.writes.then(|| int(sum.netfilter_changes)),
        total_duration_ms: None,
    }
}

fn add(sum: &mut Counters, more: &Counters) {
    for (number, n) in &more.syscalls {
        *sum.syscalls.entry(*number).or_default() += n;
    }
    sum.foreign_syscalls += more.foreign_syscalls;
    sum.run_ns += more.run_ns;
    sum.wait_ns += more.wait_ns;
    sum.read_bytes += more.read_bytes;
    sum.written_bytes += more.written_bytes;
    sum.minor_faults += more.minor_faults;
    sum.major_faults += more.major_faults;
    sum.forks += more.forks;
    sum.netfilter_changes += more.netfilter_changes;
}

fn pivot_roots(sum: &Counters) -> u64 {
    sum.syscalls.get(&(Sysno::pivot_root as u32)).copied().unwrap_or(0)
}

/// The namespaces that the containers' programs are in and the runtime is not, each once, with the first container that
/// is in it; `None` where they are not known.
fn namespaces(story: &Story) -> Option<Vec<(&'static str, &str)>> {
    let host = kinds(&story.host?);
    let mut seen: BTreeSet<(&str, u32)> = BTreeSet::new();
    let mut made = Vec::new();
    for container in &story.containers {
        for (kind, inode) in container.namespaces.iter().flat_map(kinds) {
            let of_host = host.contains(&(kind, inode));
            if inode != 0 && !of_host && seen.insert((kind, inode)) {
                made.push((kind, container.id.as_str()));
            }
        }
    }
    Some(made)
}

fn by_kind<'a>(kinds: impl Iterator<Item = &'a str>) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    kinds.for_each(|kind| *counts.entry(kind.to_owned()).or_default() += 1);
    counts
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
fn syscall(number: u32) -> String {
    Sysno::new(number as usize).map_or_else(|| format!("syscall_{number}"), |s| s.name().to_owned())
}

/// System calls by name.
fn named(sum: &Counters, most: usize) -> BTreeMap<String, i64> {
    let known = sum.syscalls.iter().map(|(number, n)| (syscall(*number), int(*n))).collect();
    let mut named = top(known, most);
    if sum.foreign_syscalls > 0 {
        *named.entry(OTHERS.into()).or_default() += int(sum.foreign_syscalls);
    }
    named
}

/// The most frequent, and all others together.
fn top(all: BTreeMap<String, i64>, most: usize) -> BTreeMap<String, i64> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let others: i64 = all.iter().skip(most).map(|(_, n)| n).sum();
    all.truncate(most);
    let others = (others > 0).then(|| (OTHERS.to_owned(), others));
    all.into_iter().chain(others).collect()
}

/// What one actor did in one phase.
#[derive(Default)]
struct Cell {
    tgids: HashSet<u32>,
    sum: Counters,
    programs: i64,
    /// Anything of what its processes did is known.
    known: bool,
    cgroups: i64,
    files: BTreeMap<String, i64>,
    kinds: Vec<&'static str>,
    mounts: Option<i64>,
}

type Part = (Actor, Phase);

/// Which part each segment's deeds are of.
fn parts(story: &Story) -> HashMap<SegmentId, Part> {
    story.works.iter().map(|work| (work.id, (work.actor, work.phase))).collect()
}

/// The same by actor and phase, the most system calls first: what the birth cost, and what was done beside it.
pub fn breakdown(story: &Story, coverage: Coverage) -> (Vec<BirthCost>, Vec<BirthCost>) {
    let mut cells: HashMap<Part, Cell> = HashMap::default();
    let parts = parts(story);
    // A process that becomes another's counts once, as what it is at last.
    let at_last: HashMap<u32, Part> =
        story.works.iter().map(|work| (work.tgid, (work.actor, work.phase))).collect();
    for (tgid, part) in at_last {
        cells.entry(part).or_default().tgids.insert(tgid);
    }
    for work in &story.works {
        let part = (work.actor, work.phase);
        let cell = cells.entry(part).or_default();
        cell.programs += i64::from(work.begun == Begun::Exec);
        if let Some(counters) = &work.counters {
            add(&mut cell.sum, counters);
            cell.known = true;
        }
    }
    for made in &story.cgroups {
        cells.entry(by(&parts, &made.made.by, Some(made), story)).or_default().cgroups += 1;
    }
    for (write, path) in &story.writes {
        let made = story.cgroups.iter().find(|m| m.made.path == *path);
        let cell = cells.entry(by(&parts, &write.by, made, story)).or_default();
        *cell.files.entry(write.file.clone()).or_default() += 1;
    }
    for (kind, container) in namespaces(story).into_iter().flatten() {
        cells.entry(creation(story, container)).or_default().kinds.push(kind);
    }
    for (container, mounts) in story.containers.iter().filter_map(|c| Some((c, c.mounts?))) {
        *cells.entry(creation(story, &container.id)).or_default().mounts.get_or_insert(0) +=
            i64::from(mounts);
    }
    let (mut costs, mut beside) = (Vec::new(), Vec::new());
    for (part, cell) in cells {
        if part.1.is_beside() { &mut beside } else { &mut costs }.push(cost(part, cell, coverage));
    }
    // There are six actors and fourteen phases: none is left out of the 64 that an object may have.
    for all in [&mut costs, &mut beside] {
        all.sort_by(|a, b| {
            b.syscalls.cmp(&a.syscalls).then_with(|| (a.actor, &a.phase).cmp(&(b.actor, &b.phase)))
        });
    }
    (costs, beside)
}

/// Whose a deed is: by the program that did it; of a daemon's own threads, by the cgroup it is about.
fn by(parts: &HashMap<SegmentId, Part>, by: &By, made: Option<&Made>, story: &Story) -> Part {
    let program = by.segment.and_then(|id| parts.get(&id)).copied();
    let container = made.filter(|m| !m.is_pods()).map(|m| {
        let named = || story.containers.iter().find(|c| m.made.path.contains(&c.id)).map(|c| c.id.as_str());
        m.container.as_deref().or_else(named).unwrap_or_default()
    });
    program.unwrap_or_else(|| match container {
        Some(container) => creation(story, container),
        None => (Actor::Kubelet, Phase::Cgroup),
    })
}

/// The runtime's making of a container.
fn creation(story: &Story, container: &str) -> Part {
    let sandbox = story.containers.iter().any(|c| c.id == container && c.named.sandbox);
    (Actor::Runtime, if sandbox { Phase::Sandbox } else { Phase::Create })
}

fn cost((actor, phase): Part, cell: Cell, coverage: Coverage) -> BirthCost {
    let Cell { tgids, sum, programs, known, cgroups, files, kinds, mounts } = cell;
    let made = |n: i64| Some(n).filter(|n| *n > 0);
    BirthCost {
        actor,
        phase: phase.as_str().to_owned(),
        processes: tgids.len() as i64,
        programs: known.then_some(programs),
        forks: known.then(|| int(sum.forks)),
        syscalls: known.then(|| int(sum.total_syscalls())),
        by_syscall: named(&sum, NAMED_OF_PART),
        by_namespace: by_kind(kinds.into_iter()),
        cgroups_created: made(cgroups),
        cgroup_writes: made(files.values().sum()),
        by_cgroup_file: top(files, NAMED_OF_PART),
        mounts,
        pivot_roots: known.then(|| int(pivot_roots(&sum))),
        cpu_ms: known.then(|| ms(sum.run_ns)),
        wait_ms: (known && coverage.waits).then(|| ms(sum.wait_ns)),
        read_bytes: (known && coverage.bytes).then(|| int(sum.read_bytes)),
        written_bytes: (known && coverage.bytes).then(|| int(sum.written_bytes)),
        page_faults: known.then(|| int(sum.minor_faults + sum.major_faults)),
        netfilter_changes: (known && coverage.writes).then(|| int(sum.netfilter_changes)),
    }
}
