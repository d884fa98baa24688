//! Recorded births (`tests/fixtures/birth/`), alone, several at once, and gone wrong.

mod ends;
mod images;
mod programs;
mod restarts;
mod retries;
mod room;
mod waits;
mod whose;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::certificate::Certificate;
use super::input::{self, Coverage};
use super::log::Log;
use super::story::{Named, Story, Subject};
use super::testdata::{cgroup, ended, exec, fork};
use super::watch::{Births, Options, trace_id};
use crate::api::{Actor, BirthOutcome, BirthPhase, PodBirthCertificateStatus};
use crate::attribution::paths::PodId;
use crate::attribution::pods::{ContainerRecord, PodIndex, PodRecord, PodSet, Terminated};
use crate::attribution::watch::slimmed;
use crate::kernel::Instant;
use crate::kernel::recorder::{By, End, Family, Listen, Record, SegmentId};

const POD: &str = include_str!("../../tests/fixtures/birth/pod.jsonl");
const POD_OBJECT: &str = include_str!("../../tests/fixtures/birth/pod.json");
const RUNC: &str = include_str!("../../tests/fixtures/birth/runc.jsonl");
const UID: &str = "c1ba2c4a-4b4d-4030-b51c-b8a48857f2a0";
const SANDBOX: &str = "752d231f46f9e694e022a3cbbb9a829496ea9630c7c44cc36383d354ead1db42";
const CONTAINER: &str = "d07e5c6d4760af38dab3d2adaabb2949f9d68054011ebd18aca1ebea0a0936b2";
/// The machine that recorded them: v1, where the tree of `cpu` has this number.
const CPU_TREE: u32 = 1;

fn records(text: &str) -> Vec<Record> {
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The kernel's number of the tree that segments' cgroups are in.
fn cpu_tree(records: &[Record]) -> u32 {
    let cgroups: HashSet<u64> = records
        .iter()
        .filter_map(|r| match r {
            Record::Began(s) => s.place.cgroup,
            _ => None,
        })
        .collect();
    let trees: BTreeSet<u32> = records
        .iter()
        .filter_map(|r| match r {
            Record::CgroupMade(m) if cgroups.contains(&m.cgroup) => Some(m.hierarchy_id),
            _ => None,
        })
        .collect();
    *trees.first().expect("one of the containers' cgroups")
}

/// The same birth of another pod: other ids everywhere, and so much later.
fn another(n: u64, later_ns: u64) -> (Vec<Record>, PodRecord) {
    let rename = |text: &str| {
        let hex = |id: &str| format!("{:04x}{}", 0xa000 + n, &id[4..]);
        text.replace(UID, &hex(UID)).replace(SANDBOX, &hex(SANDBOX)).replace(CONTAINER, &hex(CONTAINER))
    };
    let mut all = records(&rename(POD));
    let id = |id: &mut SegmentId| id.0 += n * 1_000;
    let later = |ns: &mut u64| *ns += later_ns;
    let tgid = |t: &mut u32| *t += u32::try_from(n).expect("few") * 10_000;
    let made: HashSet<u64> = all
        .iter()
        .filter_map(|r| match r {
            Record::CgroupMade(m) => Some(m.cgroup),
            _ => None,
        })
        .collect();
    let cgroup = |c: &mut u64| {
        if made.contains(c) {
            *c += n * 1_000_000;
        }
    };
    for record in &mut all {
        match record {
            Record::Began(s) => {
                id(&mut s.id);
                s.parent.iter_mut().for_each(id);
                later(&mut s.start_ns);
                tgid(&mut s.tgid);
                s.place.cgroup.iter_mut().for_each(cgroup);
            }
            Record::Ended(e) => {
                id(&mut e.segment);
                tgid(&mut e.tgid);
                later(&mut e.at_ns);
                e.place.cgroup.iter_mut().for_each(cgroup);
            }
            Record::CgroupMade(m) => {
                m.by.segment.iter_mut().for_each(id);
                later(&mut m.by.at_ns);
                cgroup(&mut m.cgroup);
            }
            Record::CgroupWrite(w) => {
                w.by.segment.iter_mut().for_each(id);
                later(&mut w.by.at_ns);
                cgroup(&mut w.cgroup);
            }
            Record::Listen(l) => {
                l.by.segment.iter_mut().for_each(id);
                later(&mut l.by.at_ns);
            }
        }
    }
    let mut pod = slimmed(&rename(POD_OBJECT));
    pod.name = format!("pod-{n}");
    (all, pod)
}

fn index(pods: Vec<PodRecord>) -> PodIndex {
    let mut set = PodSet::default();
    pods.into_iter().for_each(|p| set.apply(p));
    set.publish(std::time::Instant::now()).expect("news")
}

/// A moment of the fixture's clock; its zero is 400 ms into the second in which the pod was made.
fn moment(zero_ns: u64, mono_ns: u64) -> Instant {
    let second = slimmed(POD_OBJECT).life.created.expect("created") as u64;
    Instant { mono_ns, unix_ns: second * 1_000_000_000 + 400_000_000 + mono_ns - zero_ns }
}

/// Nobody asks where images came from.
fn untold() -> Options {
    Options { images: Duration::ZERO, ..Options::default() }
}

fn zero(records: &[Record]) -> u64 {
    let made = records.iter().find(|r| matches!(r, Record::CgroupMade(_)));
    made.expect("the pod's cgroup").at_ns()
}

/// Feeds records in order and lets the API tell of the pods at the end.
fn watched(all: Vec<Record>, pods: Vec<PodRecord>) -> Vec<Certificate> {
    let zero = zero(&all);
    let tree = cpu_tree(&all);
    let last = all.iter().map(Record::at_ns).max().expect("records");
    let mut births = Births::new(untold(), tree, Vec::new(), Coverage::ALL);
    for record in all {
        let at = record.at_ns().max(zero);
        births.record(record, moment(zero, at));
    }
    assert!(births.recording());
    let nobody = PodIndex::default();
    let mut none = |_: &[SegmentId]| Vec::new();
    let soon = moment(zero, last + 1_000_000);
    assert!(births.step(soon, &nobody, true, &mut none).is_empty(), "the API has not said Ready");
    let certificates = births.step(moment(zero, last + 60_000_000), &index(pods), true, &mut none);
    assert!(!births.recording(), "nothing more is being born");
    certificates
}

fn phase<'a>(status: &'a PodBirthCertificateStatus, name: &str) -> &'a BirthPhase {
    status.phases.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name}: {:?}", status.phases))
}

#[test]
fn a_pods_birth_is_certified_whole() {
    let all = records(POD);
    // The count that does not know of joining: all segments but those of the commands that made the pod.
    let strangers: HashSet<SegmentId> = all
        .iter()
        .filter_map(|r| match r {
            Record::Began(s) if ["record_births", "sh", "kubectl"].contains(&s.comm.as_str()) => Some(s.id),
            _ => None,
        })
        .collect();
    let ends = || {
        all.iter().filter_map(|r| match r {
            Record::Ended(e) if !strangers.contains(&e.segment) => Some(e),
            _ => None,
        })
    };
    let syscalls: u64 = ends().map(|e| e.counters.total_syscalls()).sum();
    let processes = ends().map(|e| e.tgid).collect::<HashSet<_>>().len();
    let made = all.iter().filter(|r| matches!(r, Record::CgroupMade(_))).count();

    let certificates = watched(all.clone(), vec![slimmed(POD_OBJECT)]);
    let [c] = certificates.as_slice() else { panic!("{certificates:?}") };
    let (status, stats) = (&c.status, c.status.kernel_stats.as_ref().expect("numbers"));
    assert_eq!((status.outcome, &status.failure), (Some(BirthOutcome::Complete), &None));
    assert_eq!((c.who.pod.as_deref(), c.who.pod_uid.as_deref()), (Some("kg-birth"), Some(UID)));
    assert_eq!(status.trace_id.as_deref(), Some(&*UID.replace('-', "")));
    assert_eq!(stats.total_syscalls, Some(syscalls as i64));
    assert_eq!(stats.processes, Some(processes as i64));
    assert_eq!(stats.cgroups_created, Some(made as i64));
    assert_eq!(stats.pivot_roots, Some(2));
    let kinds: Vec<_> = stats.by_namespace.iter().map(|(k, n)| (k.as_str(), *n)).collect();
    assert_eq!(kinds, [("ipc", 1), ("mnt", 2), ("net", 1), ("pid", 2), ("uts", 1)]);
    assert_eq!(stats.by_syscall.values().sum::<i64>(), syscalls as i64, "named or among the others");
    sums_up(status, stats);

    let order: Vec<_> = status.phases.iter().map(|p| p.name.as_str()).collect();
    let expected = [
        "scheduled",
        "cgroup",
        "volumes",
        "sandbox",
        "network",
        "wait",
        "create",
        "start",
        "listen",
        "ready",
    ];
    assert_eq!(order, expected);
    for name in ["wait", "create", "start", "listen"] {
        assert_eq!(phase(status, name).container.as_deref(), Some("kg-birth"), "{name}");
    }
    let [container] = status.containers.as_slice() else { panic!("{:?}", status.containers) };
    assert_eq!((container.id.as_deref(), container.port), (Some(CONTAINER), Some(8080)));
    assert_eq!(container.program.as_deref(), Some("pod"));
    let (exec, listen) = (container.exec_ms.expect("ran"), container.listen_ms.expect("listened"));
    assert!(
        0.0 < exec
            && exec < listen
            && listen < phase(status, "ready").start_ms + phase(status, "ready").duration_ms
    );
    assert!(phase(status, "ready").uncertainty_ms.is_some_and(|ms| ms <= 1000.0), "two clocks meet");
    assert_eq!(phase(status, "create").uncertainty_ms, None, "the kernel's own");
    let actors: HashSet<Actor> = status.timeline.iter().map(|s| s.actor).collect();
    for actor in [Actor::Scheduler, Actor::Kubelet, Actor::Runtime, Actor::Cni, Actor::Container] {
        assert!(actors.contains(&actor), "{actor:?}");
    }
    assert!(status.timeline.is_sorted_by_key(|s| s.timestamp_ms), "{:?}", status.timeline);
}

/// What each actor did in each phase is all that was done.
fn sums_up(status: &PodBirthCertificateStatus, stats: &crate::api::KernelStats) {
    let sum =
        |of: fn(&crate::api::BirthCost) -> Option<i64>| status.breakdown.iter().filter_map(of).sum::<i64>();
    let whole = |n: Option<i64>| n.expect("known");
    assert_eq!(sum(|b| b.syscalls), whole(stats.total_syscalls));
    assert_eq!(sum(|b| Some(b.by_syscall.values().sum())), whole(stats.total_syscalls));
    assert_eq!(sum(|b| b.programs), whole(stats.programs));
    assert_eq!(sum(|b| Some(b.processes)), whole(stats.processes));
    assert_eq!(sum(|b| b.cgroups_created), whole(stats.cgroups_created));
    assert_eq!(sum(|b| b.cgroup_writes), whole(stats.cgroup_writes));
    assert_eq!(sum(|b| Some(b.by_cgroup_file.values().sum())), whole(stats.cgroup_writes));
    assert_eq!(sum(|b| Some(b.by_namespace.values().sum())), whole(stats.namespaces_created));
    assert_eq!(sum(|b| b.mounts), whole(stats.mounts));
    assert_eq!(sum(|b| b.pivot_roots), whole(stats.pivot_roots));
    assert_eq!(sum(|b| b.netfilter_changes), whole(stats.netfilter_changes));
    let part = |actor, phase: &str| {
        let of = |b: &&crate::api::BirthCost| b.actor == actor && b.phase == phase;
        status.breakdown.iter().find(of).unwrap_or_else(|| panic!("{phase}: {:?}", status.breakdown))
    };
    let kubelet = part(Actor::Kubelet, "cgroup");
    assert_eq!((kubelet.syscalls, kubelet.processes), (None, 0), "its threads serve all pods");
    assert!(kubelet.cgroups_created > Some(0) && kubelet.cgroup_writes > Some(0));
    assert_eq!(part(Actor::Runtime, "sandbox").by_namespace.get("net"), Some(&1));
    assert!(part(Actor::Runtime, "create").by_cgroup_file.contains_key("cgroup.procs"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However births overlap: each has the numbers it has alone.
    #[test]
    fn pods_born_together_do_not_mix(
        offsets in prop::collection::vec(0u64..800_000_000, 2..6),
    ) {
        let alone = watched(records(POD), vec![slimmed(POD_OBJECT)]).remove(0).status;
        let (mut all, mut pods) = (Vec::new(), Vec::new());
        for (n, offset) in offsets.iter().enumerate() {
            let (records, pod) = another(n as u64 + 1, *offset);
            all.extend(records);
            pods.push(pod);
        }
        all.sort_by_key(Record::at_ns);
        let certificates = watched(all, pods.clone());
        prop_assert_eq!(certificates.len(), pods.len());
        for c in &certificates {
            let (own, one) = (c.status.kernel_stats.clone().unwrap(), alone.kernel_stats.clone().unwrap());
            // How long it took to Ready is the API's word, which came at one time for all.
            let (own, one) = (
                crate::api::KernelStats { total_duration_ms: None, ..own },
                crate::api::KernelStats { total_duration_ms: None, ..one },
            );
            prop_assert_eq!(own, one);
            prop_assert_eq!(&c.status.containers[0].exec_ms, &alone.containers[0].exec_ms);
            prop_assert_eq!(c.status.phases.len(), alone.phases.len());
        }
        let uids: HashSet<_> = certificates.iter().map(|c| c.who.pod_uid.clone()).collect();
        prop_assert_eq!(uids.len(), pods.len());
    }
}

#[test]
fn a_container_without_kubernetes() {
    let all = records(RUNC);
    let mut log = Log::new(cpu_tree(&all));
    let id = all.iter().find_map(|r| match r {
        Record::Began(s) => super::hints::read(s).container,
        _ => None,
    });
    let id = id.expect("runc names it");
    all.into_iter().for_each(|r| log.add(r));
    let story = Story::of(&log, &Subject::Container(id.clone()), 0, u64::MAX, |_| Named::default());
    let [container] = story.containers.as_slice() else { panic!("{:?}", story.containers) };
    assert_eq!(container.id, id);
    assert_eq!(container.listen.map(|(_, _, port)| port), Some(8080));
    assert!(container.create.is_some() && container.start_ns.is_some());
    assert!(
        container.start_ns < container.exec_ns && container.exec_ns < container.listen.map(|(ns, ..)| ns)
    );
    assert!(container.mounts.is_some_and(|n| n > 1), "{:?}", container.mounts);
    assert!(!story.writes.is_empty() && !story.cgroups.is_empty());
    assert!(
        story.works.iter().all(|w| matches!(w.actor, Actor::Runtime | Actor::Container)),
        "{:?}",
        story.works
    );
}

#[test]
fn times_that_contradict_each_other_give_no_length_below_zero() {
    let mut pod = slimmed(POD_OBJECT);
    // A clock that was set between the two.
    pod.life.created = pod.life.scheduled.map(|s| s + 3);
    let status = watched(records(POD), vec![pod.clone()]).remove(0).status;
    assert_eq!(phase(&status, "scheduled").duration_ms, 0.0);
    pod.config_hash = Some("bf4eb23c48bbcc272d5dc8a1a460e91b".into());
    let status = watched(records(POD), vec![pod]).remove(0).status;
    assert!(status.phases.iter().all(|p| p.name != "scheduled"), "a static pod's is its mirror's");
    assert!(status.phases.iter().all(|p| p.duration_ms >= 0.0));
}

#[test]
fn a_long_timeline_keeps_both_its_ends() {
    let mut all = records(POD);
    let own = all.iter().rev().find_map(|r| match r {
        Record::Began(s) if s.args == ["/pod", "web"] => Some((s.place, s.start_ns)),
        _ => None,
    });
    let (_, start) = own.expect("the container's program");
    // The kubelet mounts 300 volumes.
    let before: Vec<Record> = (0..300)
        .map(|n| {
            let command = format!("mount -t tmpfs tmpfs /var/lib/kubelet/pods/{UID}/volumes/x/{n}");
            let mut mount = exec(500_000 + n, None, &command);
            mount.start_ns = start - 300_000 + n;
            Record::Began(mount)
        })
        .collect();
    all.extend(before);
    let status = watched(all, vec![slimmed(POD_OBJECT)]).remove(0).status;
    let steps: Vec<_> = status.timeline.iter().map(|s| s.action.as_str()).collect();
    assert_eq!(steps.len(), 128);
    assert_eq!(steps.last(), Some(&"says Ready"));
    assert!(steps.contains(&"kg-birth listens on port 8080") && steps.contains(&"makes the pod's cgroup"));
    assert_eq!(steps.iter().filter(|s| s.ends_with("more steps, left out here")).count(), 1);
    assert!(status.timeline.is_sorted_by_key(|s| s.timestamp_ms));
}

/// The fixture up to the sandbox's program.
fn sandbox_only() -> (Vec<Record>, PodRecord) {
    let all = records(POD);
    let at = all.iter().position(|r| matches!(r, Record::Began(s) if s.args.join(" ").contains(CONTAINER)));
    let mut all = all;
    let tree_seen = cpu_tree(&all);
    assert_eq!(tree_seen, CPU_TREE);
    all.truncate(at.expect("the container's shim"));
    let mut pod = slimmed(POD_OBJECT);
    pod.life.ready = None;
    pod.containers[0].ids = [None, None];
    (all, pod)
}

#[test]
fn an_image_that_is_missing_is_told_with_its_phase() {
    let (all, mut pod) = sandbox_only();
    pod.containers[0].waiting = Some(("ErrImagePull".into(), Some("no such image".into())));
    let certificates = watched(all, vec![pod]);
    let status = &certificates[0].status;
    let failure = status.failure.as_ref().expect("a failure");
    assert_eq!(status.outcome, Some(BirthOutcome::Failed));
    assert_eq!((failure.phase.as_str(), failure.reason.as_str()), ("image", "ErrImagePull"));
    assert_eq!(
        (failure.container.as_deref(), failure.message.as_deref()),
        (Some("kg-birth"), Some("no such image"))
    );
    assert!(status.containers.is_empty() && status.phases.iter().any(|p| p.name == "sandbox"));
}

/// The fixture with a program that exits with 3 after 12 ms.
fn crashed() -> (Vec<Record>, PodRecord) {
    let mut all = records(POD);
    let own = all.iter().rev().find_map(|r| match r {
        Record::Began(s) if s.args == ["/pod", "web"] => Some((s.id, s.tgid, s.start_ns)),
        _ => None,
    });
    let (id, tgid, start) = own.expect("the container's program");
    all.retain(|r| !matches!(r, Record::Ended(e) if e.segment == id) && !matches!(r, Record::Listen(_)));
    let mut end = ended(id.0, tgid, start + 12_000_000, End::Exit(3));
    end.place.hierarchy = None;
    all.push(Record::Ended(end));
    let mut pod = slimmed(POD_OBJECT);
    pod.life.ready = None;
    pod.containers[0].terminated = Some(exit_3(CONTAINER));
    (all, pod)
}

fn exit_3(id: &str) -> Terminated {
    Terminated { id: Some(id.into()), exit_code: 3, reason: Some("Error".into()), message: None }
}

#[test]
fn a_command_that_ends_at_once_is_told_with_how_long_it_ran() {
    let (all, pod) = crashed();
    let certificates = watched(all, vec![pod]);
    let failure = certificates[0].status.failure.clone().expect("a failure");
    assert_eq!((failure.phase.as_str(), failure.reason.as_str()), ("listen", "Error"));
    assert_eq!(failure.message.as_deref(), Some("exit status 3, 12.0 ms after its start"));
}

#[test]
fn a_birth_that_takes_too_long_ends_unfinished() {
    let (all, pod) = sandbox_only();
    let zero = zero(&all);
    let mut births = Births::new(untold(), CPU_TREE, Vec::new(), Coverage::ALL);
    all.into_iter().for_each(|r| births.record(r, moment(zero, zero)));
    let index = index(vec![pod]);
    let mut none = |_: &[SegmentId]| Vec::new();
    let at = |d: Duration| moment(zero, zero + d.as_nanos() as u64);
    assert!(births.step(at(Duration::from_secs(299)), &index, true, &mut none).is_empty());
    let certificates = births.step(at(Duration::from_secs(301)), &index, true, &mut none);
    let status = &certificates[0].status;
    assert_eq!(status.outcome, Some(BirthOutcome::Unfinished));
    assert_eq!(status.failure.as_ref().map(|f| f.reason.as_str()), Some("TimedOut"));
    let wait = phase(status, "wait");
    assert_eq!(wait.container.as_deref(), Some("kg-birth"));
    assert!(wait.duration_ms > 299_000.0, "it was waited for to the end");
    assert!(
        !births.recording() && births.step(at(Duration::from_secs(302)), &index, true, &mut none).is_empty()
    );
}

/// A pod that was born, and a container of it that is started again under this id.
fn restarted(id: &str, how: Option<End>) -> Vec<Certificate> {
    restarted_seen(id, Some(how), 2_000_000)
}

/// The same: `program` is how its own one, if it was seen at all, ended; the recorder began so many ns after its cgroup was made.
fn restarted_seen(id: &str, program: Option<Option<End>>, began: u64) -> Vec<Certificate> {
    let all = records(POD);
    let zero = zero(&all);
    let last = all.iter().map(Record::at_ns).max().expect("records");
    let mut births = Births::new(untold(), CPU_TREE, Vec::new(), Coverage::ALL);
    all.into_iter().for_each(|r| births.record(r, moment(zero, last)));
    let mut none = |_: &[SegmentId]| Vec::new();
    let mut pod = slimmed(POD_OBJECT);
    let mut set = PodSet::default();
    let mut told = |pod: &PodRecord| {
        set.apply(pod.clone());
        set.publish(std::time::Instant::now()).expect("news")
    };
    assert_eq!(births.step(moment(zero, last + 60_000_000), &told(&pod), true, &mut none).len(), 1);
    let at = last + 60_000_000_000;
    let path = format!("/kubepods/besteffort/pod{UID}/{id}");
    births.record(cgroup(CPU_TREE, 777_777, &path, at), moment(zero, at));
    assert!(births.recording(), "a restart is recorded too");
    births.began(moment(zero, at + began));
    // The runtime was at work before the recording: of the program's descent nothing is known.
    let mut own = exec(9_000, None, "/pod web");
    own.start_ns = at + 40_000_000;
    own.place.cgroup = Some(777_777);
    own.place.hierarchy = Some(crate::kernel::Hierarchy::V1Cpu);
    if program.is_some() {
        births.record(Record::Began(own), moment(zero, at));
    }
    if let Some(Some(how)) = program {
        births.record(Record::Ended(ended(9_000, 9_000, at + 55_000_000, how)), moment(zero, at));
    }
    pod.containers[0].ids = [Some(id.into()), Some(CONTAINER.into())];
    pod.containers.push(ContainerRecord { name: "other".into(), ..ContainerRecord::default() });
    let index = told(&pod);
    let mut out = births.step(moment(zero, at + 100_000_000), &index, true, &mut none);
    out.extend(births.step(moment(zero, at + 3_000_000_000), &index, true, &mut none));
    out.extend(births.step(moment(zero, at + 61_000_000_000), &index, true, &mut none));
    assert!(!births.recording());
    out
}

#[test]
fn a_restart_is_a_record_of_the_same_birth() {
    let id = "f".repeat(64);
    let told = restarted(&id, None);
    let [c] = told.as_slice() else { panic!("{told:?}") };
    assert!(c.restart && c.status.outcome == Some(BirthOutcome::Complete) && !c.status.phases.is_empty());
    let [restart] = c.status.restarts.as_slice() else { panic!("{:?}", c.status.restarts) };
    assert_eq!((restart.container.as_str(), restart.exec_ms), ("kg-birth", Some(40.0)));
    assert_eq!(restart.failure, None);
    let told = restarted(&id, Some(End::Signal(9)));
    let why = told[0].status.restarts[0].failure.clone();
    assert_eq!(why.as_deref(), Some("killed by signal 9, 15.0 ms after its start"));
}

/// On a busy node the recorder may begin when the program runs already.
#[test]
fn of_a_restart_noticed_late_nothing_is_said_that_was_not_seen() {
    let id = "f".repeat(64);
    let of = |began| {
        let told = restarted_seen(&id, None, began);
        let [c] = told.as_slice() else { panic!("{told:?}") };
        let [restart] = c.status.restarts.as_slice() else { panic!("{:?}", c.status.restarts) };
        (restart.exec_ms, restart.syscalls, restart.failure.clone())
    };
    let (exec, syscalls, failure) = of(2_000_000);
    assert_eq!((exec, syscalls), (None, Some(0)));
    assert!(failure.is_some_and(|why| why.contains("NotStarted")));
    assert_eq!(of(60_000_000), (None, None, None));
}

#[test]
fn without_the_recorder_the_certificate_says_what_is_missing() {
    let missing = vec![crate::api::MissingPart { part: "syscalls".into(), why: "BPF is denied".into() }];
    let mut births = Births::new(untold(), CPU_TREE, missing, Coverage::NOTHING);
    let at = zero(&records(POD));
    let path = format!("/kubepods/besteffort/pod{UID}");
    births.record(cgroup(CPU_TREE, 5, &path, at), moment(at, at));
    let index = index(vec![slimmed(POD_OBJECT)]);
    let mut none = |_: &[SegmentId]| Vec::new();
    assert!(
        births.step(moment(at, at + 900_000_000), &index, true, &mut none).is_empty(),
        "it may yet listen"
    );
    let certificates = births.step(moment(at, at + 4_000_000_000), &index, true, &mut none);
    let status = &certificates[0].status;
    assert_eq!(status.outcome, Some(BirthOutcome::Complete));
    assert_eq!(status.missing[0].part, "syscalls");
    let stats = status.kernel_stats.as_ref().expect("the length");
    assert!(stats.total_duration_ms.is_some() && stats.total_syscalls.is_none() && stats.mounts.is_none());
    assert!(status.phases.iter().any(|p| p.name == "ready"));
}

#[test]
fn a_uid_is_a_traces_id() {
    assert_eq!(trace_id(UID).as_deref(), Some("c1ba2c4a4b4d4030b51cb8a48857f2a0"));
    for none in ["", "00000000-0000-0000-0000-000000000000", "not-a-uid", &UID[1..]] {
        assert_eq!(trace_id(none), None, "{none}");
    }
}
