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
    node.starts(&id(1), 1);
    assert!(node.births.recording() && node.births.drops().records > 0);
    assert!(node.after(Duration::from_secs(59)).is_empty() && node.births.recording());
    assert!(node.after(Duration::from_secs(2)).is_empty() && !node.births.recording());
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
    let took = phase(&c.status, "image").duration_ms;
    assert!((355_000.0..365_000.0).contains(&took), "{took}: it was pulled all the time");
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
