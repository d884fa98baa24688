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
