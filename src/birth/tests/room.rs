//! The room that there is, and who has it.

use super::retries::{Node, SOON};
use super::*;
use crate::birth::testdata::place;

/// So many programs of the node's that have nothing to do with any pod, from this one on; they live.
fn strangers(node: &mut Node, first: u64, n: u64) {
    for id in first..first + n {
        let mut stranger = exec(id, None, "/bin/sh");
        stranger.start_ns = node.now;
        node.record(Record::Began(stranger));
    }
}

#[test]
fn what_is_nobodys_gives_its_room_back_within_a_second() {
    let mut node = Node::new(sandbox_only().0, sandbox_only().1);
    let of_birth: HashSet<u64> = records(POD)
        .iter()
        .filter_map(|r| match r {
            Record::Began(s) if !["record_births", "sh", "kubectl"].contains(&s.comm.as_str()) => {
                Some(s.id.0)
            }
            _ => None,
        })
        .collect();
    strangers(&mut node, 1_000_000, 3_000);
    node.told();
    assert!(node.after(SOON).is_empty());
    assert!(node.births.released().iter().all(|id| id.0 < 1_000_000), "they may yet say for whom they work");
    assert!(node.after(Duration::from_millis(1_000)).is_empty());
    let released: HashSet<u64> = node.births.released().iter().map(|id| id.0).collect();
    assert!((1_000_000..1_003_000).all(|id| released.contains(&id)));
    assert!(released.is_disjoint(&of_birth), "{released:?}");
    // Far more than there is room for, a little at a time.
    for round in 1..20 {
        strangers(&mut node, 1_000_000 + round * 10_000, 2_000);
        node.after(Duration::from_millis(1_100));
    }
    assert_eq!(node.births.drops().records, 0);
}

#[test]
fn what_runs_in_a_pod_that_is_not_being_born_gives_its_room_back_too() {
    let mut node = Node::new(sandbox_only().0, sandbox_only().1);
    node.births.know(CPU_TREE, 55, "/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/x", Some(0));
    for id in 1_000_000..1_000_100 {
        let mut other = exec(id, None, "/bin/sh");
        (other.start_ns, other.place) = (node.now, place(55));
        other.place.hierarchy = Some(crate::kernel::Hierarchy::V1Cpu);
        node.record(Record::Began(other));
    }
    node.told();
    node.after(Duration::from_millis(1_100));
    let released = node.births.released();
    assert_eq!(released.iter().filter(|id| id.0 >= 1_000_000).count(), 100);
}

#[test]
fn where_records_were_lost_there_are_no_totals() {
    let whole = {
        let mut node = Node::new(records(POD), slimmed(POD_OBJECT));
        node.told();
        node.after(SOON).remove(0).status
    };
    let mut node = Node::new(records(POD), slimmed(POD_OBJECT));
    node.births.losing(50);
    node.told();
    let status = node.after(SOON).remove(0).status;
    let stats = status.kernel_stats.expect("the length");
    let length = stats.total_duration_ms;
    let none = crate::api::KernelStats { total_duration_ms: length, ..crate::api::KernelStats::default() };
    assert_eq!(stats, none, "a part is not shown as the whole");
    assert!(status.missing.iter().any(|m| m.part == "records" && m.why.contains("at least")));
    assert_eq!(status.breakdown, whole.breakdown, "what is known is at least this");
    assert_eq!(status.containers, whole.containers);
}

#[test]
fn a_birth_is_looked_at_when_something_of_it_is_told() {
    let mut node = Node::new(sandbox_only().0, sandbox_only().1);
    node.pod.containers[0].waiting = Some(("ContainerCreating".into(), None));
    node.told();
    for _ in 0..100 {
        node.after(SOON);
    }
    let before = node.births.looks();
    for round in 0..100 {
        strangers(&mut node, 1_000_000 + round * 100, 100);
        node.after(SOON);
    }
    assert_eq!(node.births.looks() - before, 0, "nothing of it was told");
    node.pod.containers[0].waiting = Some(("PodInitializing".into(), None));
    node.told();
    node.after(SOON);
    assert_eq!(node.births.looks() - before, 1);
}

#[test]
fn a_pod_that_does_nothing_but_fork_does_not_take_the_others_room() {
    let all = records(POD);
    let own = all.iter().rev().find_map(|r| match r {
        Record::Began(s) if s.args == ["/pod", "web"] => Some((s.id, s.place)),
        _ => None,
    });
    let (own, at) = own.expect("its program");
    let mut node = Node::new(all, slimmed(POD_OBJECT));
    for n in 0..2 * Log::MAX as u64 {
        let mut child = exec(1_000_000 + n, Some(own.0), "/bin/true");
        (child.start_ns, child.place) = (node.now, at);
        node.record(Record::Began(child));
    }
    assert_eq!(node.births.drops().records, 0, "there is room for others");
    let (other, pod) = another(2, node.now - zero(&records(POD)));
    let last = other.iter().map(Record::at_ns).max().expect("records");
    other.into_iter().for_each(|r| node.record(r));
    node.now = node.now.max(last);
    node.told();
    node.pod = pod;
    node.told();
    let mut told = node.after(SOON);
    told.extend(node.after(Duration::from_secs(2)));
    told.sort_by_key(|c| c.status.missing.len());
    let [well, crowded] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((well.status.missing.len(), well.who.pod.as_deref()), (0, Some("pod-2")));
    assert!(well.status.kernel_stats.as_ref().is_some_and(|s| s.total_syscalls.is_some()));
    assert!(crowded.status.missing.iter().any(|m| m.part == "records"), "{:?}", crowded.status.missing);
    assert!(crowded.status.kernel_stats.as_ref().is_some_and(|s| s.total_syscalls.is_none()));
}
