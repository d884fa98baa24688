//! What is a restart, and how it ends.

use super::retries::{Node, SOON, id};
use super::*;

/// A pod that was born.
fn born() -> Node {
    let mut node = Node::new(records(POD), slimmed(POD_OBJECT));
    node.told();
    assert_eq!(node.after(SOON)[0].status.outcome, Some(BirthOutcome::Complete));
    assert!(!node.births.recording());
    node
}

#[test]
fn a_restart_whose_cgroup_was_not_kept_ends_too() {
    let mut node = born();
    for n in 0..Log::MAX as u64 {
        node.record(cgroup(CPU_TREE, 1_000_000 + n, "/elsewhere", node.now));
    }
    node.record(cgroup(CPU_TREE, 777_001, &format!("/kubepods/besteffort/pod{UID}/{}", id(1)), node.now));
    assert!(node.births.recording() && node.births.drops().records > 0);
    assert!(node.after(Duration::from_secs(59)).is_empty() && node.births.recording());
    assert!(node.after(Duration::from_secs(2)).is_empty() && !node.births.recording());
}

#[test]
fn a_restart_whose_records_were_lost_has_no_numbers() {
    let mut node = born();
    for n in 0..Log::MAX as u64 {
        node.record(cgroup(CPU_TREE, 1_000_000 + n, "/elsewhere", node.now));
    }
    node.starts(&id(1), 1);
    let told = node.after(Duration::from_secs(3));
    let [restart] = told[0].status.restarts.as_slice() else { panic!("{told:?}") };
    assert_eq!((restart.syscalls, restart.exec_ms), (None, Some(1.0)));
}

#[test]
fn a_restart_in_a_pod_that_is_deleted_is_over() {
    let mut node = born();
    node.record(cgroup(CPU_TREE, 777_001, &format!("/kubepods/besteffort/pod{UID}/{}", id(1)), node.now));
    assert!(node.births.recording());
    node.pod.life.deleting = true;
    node.told();
    node.after(SOON);
    assert!(!node.births.recording());
}

/// A pod whose container starts so late, and how it was born then.
fn late(minutes: u64) -> (Node, Certificate) {
    let (all, pod) = sandbox_only();
    let mut node = Node::new(all, pod);
    node.told();
    assert!(node.after(Duration::from_secs(299)).is_empty());
    let unfinished = node.after(Duration::from_secs(2));
    assert_eq!(unfinished[0].status.outcome, Some(BirthOutcome::Unfinished));
    assert!(!node.births.recording());
    assert!(node.after(Duration::from_secs(60 * (minutes - 5))).is_empty());
    node.starts(&id(1), 1);
    node.pod.containers[0].ids[0] = Some(id(1));
    node.pod.life.ready = slimmed(POD_OBJECT).life.ready.map(|s| s + 60 * minutes as i64);
    node.told();
    let mut told = node.after(SOON);
    told.extend(node.after(Duration::from_secs(2)));
    let [c] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((c.status.outcome, c.restart), (Some(BirthOutcome::Complete), false));
    assert!(c.status.restarts.is_empty() && !node.births.recording());
    (node, c.clone())
}

#[test]
fn a_first_start_that_comes_late_is_no_restart() {
    let (_, c) = late(6);
    let took = phase(&c.status, "wait").duration_ms;
    assert!((355_000.0..365_000.0).contains(&took), "{took}: it was waited for all the time");
    assert!(c.status.kernel_stats.as_ref().is_some_and(|s| s.total_syscalls > Some(0)));
    let (mut node, c) = late(30);
    assert!(c.status.kernel_stats.as_ref().is_some_and(|s| s.total_syscalls.is_none()));
    assert!(c.status.missing.iter().any(|m| m.part == "syscalls"), "{:?}", c.status.missing);
    // What is started from now on is started again.
    node.starts(&id(2), 2);
    assert!(node.births.recording());
    let told = node.after(Duration::from_secs(3));
    assert_eq!(told[0].status.restarts.len(), 1);
}

#[test]
fn an_ephemeral_container_is_no_restart() {
    use crate::attribution::pods::ContainerKind;
    let mut node = born();
    node.starts(&id(1), 1);
    node.births.name(id(1), Named { name: Some("debugger".into()), ..Named::default() });
    let kind = ContainerKind::Ephemeral;
    node.pod.containers.push(ContainerRecord { name: "debugger".into(), kind, ..ContainerRecord::default() });
    node.told();
    assert!(node.after(Duration::from_secs(3)).is_empty() && !node.births.recording());
}

#[test]
fn a_birth_under_way_when_the_agent_was_started_says_so() {
    let created = slimmed(POD_OBJECT).life.created.expect("created");
    let path = format!("/kubepods/besteffort/pod{UID}");
    let told = |change: fn(&mut PodRecord)| {
        let mut births = Births::new(untold(), CPU_TREE, Vec::new(), Coverage::ALL);
        births.was_there(&path);
        let mut pod = slimmed(POD_OBJECT);
        pod.life.ready = None;
        change(&mut pod);
        let index = index(vec![pod]);
        let mut none = |_: &[SegmentId]| Vec::new();
        let at = |s: u64| crate::kernel::Instant {
            mono_ns: s * 1_000_000_000,
            unix_ns: (created as u64 + s) * 1_000_000_000,
        };
        let mut told = births.step(at(20), &index, true, &mut none);
        told.extend(births.step(at(40), &index, true, &mut none));
        assert!(!births.recording());
        told
    };
    let certificates = told(|_| {});
    let [c] = certificates.as_slice() else { panic!("{certificates:?}") };
    let reason = c.status.failure.as_ref().map(|f| f.reason.as_str());
    assert_eq!((c.status.outcome, reason), (Some(BirthOutcome::Unfinished), Some("AgentStarted")));
    assert!(c.status.missing.iter().any(|m| m.part == "syscalls"), "{:?}", c.status.missing);
    assert_eq!((c.who.pod.as_deref(), &c.status.kernel_stats), (Some("kg-birth"), &None));
    // One that was born, whatever became of it, is none.
    for born in [
        (|pod| pod.life.ready = slimmed(POD_OBJECT).life.ready) as fn(&mut PodRecord),
        |pod| pod.life.succeeded = true,
        |pod| pod.containers[0].restarts = 1,
        |pod| pod.life.created = pod.life.created.map(|s| s - 3_600),
    ] {
        assert!(told(born).is_empty());
    }
}
