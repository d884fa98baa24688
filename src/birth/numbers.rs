//! What a birth cost, in numbers: of the whole pod, and by actor and phase. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use syscalls::Sysno;

use super::certificate::{Knows, int, ms};
use super::story::{Phase, Story};
use crate::api::{Actor, BirthCost, KernelStats};
use crate::kernel::birth::{Begun, Counters, Namespaces};

/// System calls and cgroup files named.
const NAMED_MAX: usize = 24;

/// The numbers of the whole pod.
pub fn stats(story: &Story, knows: Knows) -> KernelStats {
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
        cgroup_writes: knows.writes.then_some(story.writes.len() as i64),
        by_cgroup_file: top(files),
        mounts: (!mounts.is_empty()).then(|| mounts.iter().map(|m| i64::from(*m)).sum()),
        pivot_roots: Some(int(pivot_roots)),
        processes: Some(tgids.len() as i64),
        programs: Some(story.works.iter().filter(|w| w.begun == Begun::Exec).count() as i64),
        cpu_ms: Some(ms(sum.run_ns)),
        wait_ms: knows.waits.then(|| ms(sum.wait_ns)),
        read_bytes: knows.bytes.then(|| int(sum.read_bytes)),
        written_bytes: knows.bytes.then(|| int(sum.written_bytes)),
        page_faults: Some(int(sum.minor_faults + sum.major_faults)),
        netfilter_changes: knows.writes.then(|| int(sum.netfilter_changes)),
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
fn syscall(number: u32) -> String {
    Sysno::new(number as usize).map_or_else(|| format!("syscall_{number}"), |s| s.name().to_owned())
}

/// The most frequent.
fn top(all: BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(NAMED_MAX);
    all.into_iter().collect()
}

/// What one actor did in one phase.
#[derive(Default)]
struct Cell {
    tgids: HashSet<u32>,
    sum: Counters,
    syscalls: u64,
    known: bool,
}

/// The same by actor and phase, the most system calls first.
pub fn breakdown(story: &Story, knows: Knows) -> Vec<BirthCost> {
    let mut cells: HashMap<(Actor, Phase), Cell> = HashMap::new();
    for work in &story.works {
        let cell = cells.entry((work.actor, work.phase)).or_default();
        cell.tgids.insert(work.tgid);
        if let Some(counters) = &work.counters {
            add(&mut cell.sum, counters);
            cell.syscalls += counters.total_syscalls();
            cell.known = true;
        }
    }
    let mut costs: Vec<BirthCost> = cells
        .into_iter()
        .map(|((actor, phase), Cell { tgids, sum, syscalls, known })| BirthCost {
            actor,
            phase: phase.as_str().to_owned(),
            processes: tgids.len() as i64,
            syscalls: known.then(|| int(syscalls)),
            cpu_ms: known.then(|| ms(sum.run_ns)),
            wait_ms: (known && knows.waits).then(|| ms(sum.wait_ns)),
            read_bytes: (known && knows.bytes).then(|| int(sum.read_bytes)),
            written_bytes: (known && knows.bytes).then(|| int(sum.written_bytes)),
            page_faults: known.then(|| int(sum.minor_faults + sum.major_faults)),
        })
        .collect();
    costs.sort_by(|a, b| {
        b.syscalls.cmp(&a.syscalls).then_with(|| (a.actor, &a.phase).cmp(&(b.actor, &b.phase)))
    });
    costs.truncate(64);
    costs
}
