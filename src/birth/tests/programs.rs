//! Programs that fail while a pod is started, of which the kubelet says nothing in the pod's status.

use super::retries::Node;
use super::*;
use crate::kernel::recorder::Segment;

/// The fixture up to the end of the last program that `is`, which fails like this, as all of them do.
fn failing(is: impl Fn(&Segment) -> bool, code: u8) -> Node {
    let (mut all, mut pod) = sandbox_only();
    let ids: Vec<SegmentId> = all
        .iter()
        .filter_map(|r| match r {
            Record::Began(s) if is(s) => Some(s.id),
            _ => None,
        })
        .collect();
    let mut last = 0;
    for (at, record) in all.iter_mut().enumerate() {
        if let Record::Ended(e) = record
            && ids.contains(&e.segment)
        {
            e.how = End::Exit(code);
            last = at;
        }
    }
    assert!(last > 0, "its end");
    all.truncate(last + 1);
    pod.life.ready = None;
    let mut node = Node::new(all, pod);
    node.told();
    node
}

/// What it is said to have failed of, once the kubelet was silent for a while.
fn failure(mut node: Node) -> (String, String, String) {
    assert!(node.after(Duration::from_millis(1)).is_empty(), "it may try again");
    let certificates = node.after(Duration::from_secs(3));
    let failure = certificates[0].status.failure.clone().expect("a failure");
    assert!(!node.births.recording(), "the kubelet may wait for minutes");
    (failure.phase, failure.reason, failure.message.expect("why"))
}

fn named(name: &str) -> impl Fn(&Segment) -> bool {
    move |s| s.file.as_deref() == Some(name)
}

fn says(phase: &str, reason: &str, message: &str) -> (String, String, String) {
    (phase.into(), reason.into(), message.into())
}

#[test]
fn a_network_plugin_that_fails_is_named() {
    let expected = says("network", "NetworkPlugin", "portmap: exit status 1");
    assert_eq!(failure(failing(named("portmap"), 1)), expected);
}

#[test]
fn a_plugin_that_fails_after_one_it_ran_is_named() {
    // bridge ran host-local, which went well and began later.
    let expected = says("network", "NetworkPlugin", "bridge: exit status 1");
    assert_eq!(failure(failing(named("bridge"), 1)), expected);
    let both = |s: &Segment| named("bridge")(s) || named("host-local")(s);
    let expected = says("network", "NetworkPlugin", "bridge: exit status 1, after host-local: exit status 1");
    assert_eq!(failure(failing(both, 1)), expected);
}

#[test]
fn a_volume_that_cannot_be_mounted_is_told() {
    let expected = says("volumes", "FailedMount", "mount: exit status 32");
    assert_eq!(failure(failing(named("mount"), 32)), expected);
}

#[test]
fn a_sandbox_that_the_runtime_does_not_create_is_told() {
    let create =
        |s: &Segment| s.args.iter().any(|a| a == "create") && s.args.last().is_some_and(|id| id == SANDBOX);
    let (phase, reason, message) = failure(failing(create, 1));
    assert_eq!((phase.as_str(), reason.as_str()), ("sandbox", "FailedCreatePodSandBox"));
    assert!(message.ends_with(": exit status 1"), "{message}");
}
