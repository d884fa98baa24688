//! Recorded births (`tests/fixtures/birth/`), alone, several at once, and gone wrong.

mod ends;
mod images;
mod programs;
mod restarts;
mod retries;
mod room;
mod users;
mod waits;
mod whole;
mod whose;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::certificate::Certificate;
use super::input::{self, Coverage};
use super::log::Log;
use super::story::{Named, Story, Subject};
use super::testdata::{cgroup, ended, exec, fork};
use super::watch::{Births, Options};
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
