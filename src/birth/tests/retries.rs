//! Births that fail and are tried again.

use super::*;
use crate::birth::watch::Numbers;

/// The births of one node, a pod of it, and the time.
pub struct Node {
    pub births: Births,
    pub pod: PodRecord,
    set: PodSet,
    index: PodIndex,
    pub zero: u64,
    pub now: u64,
}

impl Node {
    /// All that is recorded has just come in.
    pub fn new(all: Vec<Record>, pod: PodRecord) -> Node {
        Node::with(untold(), all, pod)
    }

    pub fn with(options: Options, all: Vec<Record>, pod: PodRecord) -> Node {
        let zero = zero(&all);
        let now = all.iter().map(Record::at_ns).max().expect("records");
        let mut births = Births::new(options, CPU_TREE, Vec::new(), Coverage::ALL);
        all.into_iter().for_each(|r| births.record(r, moment(zero, now)));
        Node { births, pod, set: PodSet::default(), index: PodIndex::default(), zero, now }
    }

    /// The API server tells of the pod as it is now.
    pub fn told(&mut self) {
        self.set.apply(self.pod.clone());
        if let Some(index) = self.set.publish(std::time::Instant::now()) {
            self.index = index;
        }
    }

    /// Looks after so long.
    pub fn after(&mut self, time: Duration) -> Vec<Certificate> {
        self.tallied(time, &mut |_: &[SegmentId]| Vec::new())
    }

    /// The same, with this recorder.
    pub fn tallied(&mut self, time: Duration, numbers: Numbers<'_>) -> Vec<Certificate> {
        self.now += time.as_nanos() as u64;
        self.births.step(moment(self.zero, self.now), &self.index, true, numbers)
    }

    pub fn record(&mut self, record: Record) {
        self.births.record(record, moment(self.zero, self.now));
    }

    /// The runtime makes a container of this id and runs its program: `n` tells them apart.
    pub fn starts(&mut self, id: &str, n: u64) {
        let path = format!("/kubepods/besteffort/pod{UID}/{id}");
        self.record(cgroup(CPU_TREE, 777_000 + n, &path, self.now));
        let mut own = exec(9_000 + n, None, "/pod web");
        own.start_ns = self.now + 1_000_000;
        own.place.cgroup = Some(777_000 + n);
        own.place.hierarchy = Some(crate::kernel::Hierarchy::V1Cpu);
        self.record(Record::Began(own));
    }

    /// Its program ends.
    pub fn exits(&mut self, n: u64) {
        let tgid = u32::try_from(9_000 + n).expect("small");
        self.record(Record::Ended(ended(9_000 + n, tgid, self.now, End::Exit(3))));
    }
}

pub const SOON: Duration = Duration::from_millis(250);
pub const BACKOFF: Duration = Duration::from_secs(10);

pub fn id(n: u64) -> String {
    format!("{n:064x}")
}

#[test]
fn a_birth_that_fails_at_first_becomes_complete() {
    let (all, pod) = crashed();
    let mut node = Node::new(all, pod);
    node.told();
    let first = node.after(SOON);
    assert_eq!(first[0].status.outcome, Some(BirthOutcome::Failed));
    assert!(!node.births.recording());
    assert!(node.after(BACKOFF).is_empty());
    // The kubelet makes it again before it says so: what the API server has is the end of the one before.
    node.starts(&id(1), 1);
    assert!(node.births.recording());
    assert!(node.after(SOON).is_empty(), "what it failed of was told");
    node.pod.containers[0].ids = [Some(id(1)), Some(CONTAINER.into())];
    node.pod.containers[0].restarts = 1;
    node.told();
    assert!(node.after(SOON).is_empty() && node.births.recording());
    node.pod.life.ready = slimmed(POD_OBJECT).life.ready.map(|s| s + 11);
    node.told();
    let mut last = node.after(SOON);
    last.extend(node.after(Duration::from_secs(2)));
    let [c] = last.as_slice() else { panic!("{last:?}") };
    assert_eq!((c.status.outcome, &c.status.failure), (Some(BirthOutcome::Complete), &None));
    assert_eq!(c.status.missing[0].part, "retries");
    assert!(!node.births.recording() && !c.restart && c.status.restarts.is_empty());
}

#[test]
fn the_same_failure_is_told_once() {
    let (all, pod) = crashed();
    let mut node = Node::new(all, pod);
    node.told();
    assert_eq!(node.after(SOON).len(), 1);
    for n in 1..5 {
        assert!(node.after(BACKOFF).is_empty());
        node.starts(&id(n), n);
        assert!(node.after(SOON).is_empty());
        node.exits(n);
        node.pod.containers[0].terminated = Some(exit_3(&id(n)));
        node.told();
        assert!(node.after(SOON).is_empty() && !node.births.recording(), "the {n}th");
    }
    // Another one is news.
    node.starts(&id(9), 9);
    node.pod.containers[0].waiting = Some(("CreateContainerConfigError".into(), None));
    node.told();
    let news = node.after(SOON);
    let reasons: Vec<_> =
        news.iter().filter_map(|c| Some(c.status.failure.as_ref()?.reason.as_str())).collect();
    assert_eq!(reasons, ["CreateContainerConfigError"]);
}

#[test]
fn an_image_that_comes_late_is_born() {
    let (all, mut pod) = sandbox_only();
    pod.containers[0].waiting = Some(("ErrImagePull".into(), None));
    let mut node = Node::new(all, pod);
    node.told();
    assert_eq!(node.after(SOON)[0].status.outcome, Some(BirthOutcome::Failed));
    node.pod.containers[0].waiting = Some(("ImagePullBackOff".into(), None));
    node.told();
    assert!(node.after(BACKOFF).is_empty());
    node.starts(&id(1), 1);
    assert!(node.after(SOON).is_empty(), "the API server still has the image missing");
    node.pod.containers[0].waiting = None;
    node.pod.containers[0].ids[0] = Some(id(1));
    node.pod.life.ready = slimmed(POD_OBJECT).life.ready.map(|s| s + 11);
    node.told();
    let mut last = node.after(SOON);
    last.extend(node.after(Duration::from_secs(2)));
    assert_eq!(last.iter().map(|c| c.status.outcome).collect::<Vec<_>>(), [Some(BirthOutcome::Complete)]);
}

#[test]
fn a_pod_that_crashes_again_and_again_does_not_blind_the_node() {
    let (all, pod) = crashed();
    let mut node = Node::new(all, pod);
    node.told();
    assert_eq!(node.after(SOON).len(), 1);
    let mut stranger = 1_000_000;
    for n in 1..=20 {
        node.after(BACKOFF);
        node.starts(&id(n), n);
        for _ in 0..Log::MAX / 12 {
            stranger += 1;
            let mut segment = exec(stranger, None, "/bin/true");
            segment.start_ns = node.now;
            node.record(Record::Began(segment));
            node.record(Record::Ended(ended(stranger, 5, node.now, End::Exit(0))));
        }
        node.after(SOON);
        node.exits(n);
        node.pod.containers[0].terminated = Some(exit_3(&id(n)));
        node.told();
        node.after(SOON);
    }
    assert_eq!(node.births.drops().records, 0);
}

#[test]
fn only_a_births_own_losses_are_missing_in_it() {
    let all = records(POD);
    let begun = zero(&all);
    let mut node = Node::new(all, slimmed(POD_OBJECT));
    node.told();
    assert_eq!(node.after(SOON).len(), 1);
    for n in 0..Log::MAX as u64 + 9 {
        node.record(cgroup(CPU_TREE, 2_000_000 + n, "/elsewhere", node.now));
    }
    assert!(node.births.drops().records > 0);
    node.after(Duration::from_secs(40));
    let (all, pod) = another(2, node.now - begun);
    all.into_iter().for_each(|r| node.record(r));
    node.now += 1_000_000_000;
    node.pod = pod;
    node.told();
    let mut told = node.after(SOON);
    told.extend(node.after(Duration::from_secs(2)));
    let [c] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((c.status.outcome, &c.status.missing), (Some(BirthOutcome::Complete), &Vec::new()));
}

#[test]
fn a_birth_that_the_recorder_was_not_attached_for_has_no_numbers() {
    let mut node = Node::new(records(POD), slimmed(POD_OBJECT));
    node.births.unrecorded("birth recorder: cannot attach");
    node.told();
    let mut told = node.after(SOON);
    told.extend(node.after(Duration::from_secs(2)));
    let [c] = told.as_slice() else { panic!("{told:?}") };
    let stats = c.status.kernel_stats.as_ref().expect("the length");
    assert!(stats.total_syscalls.is_none() && stats.mounts.is_none() && stats.total_duration_ms.is_some());
    assert!(c.status.missing.iter().any(|m| m.part == "syscalls" && m.why.ends_with("attach")));
    assert!(c.status.breakdown.is_empty());
}

#[test]
fn what_the_kernel_does_not_count_has_no_number() {
    let all = records(POD);
    let at = zero(&all);
    let coverage = Coverage { waits: false, bytes: false, ..Coverage::ALL };
    let mut births = Births::new(untold(), CPU_TREE, Vec::new(), coverage);
    let last = all.iter().map(Record::at_ns).max().expect("records");
    all.into_iter().for_each(|r| births.record(r, moment(at, last)));
    let index = index(vec![slimmed(POD_OBJECT)]);
    let mut none = |_: &[SegmentId]| Vec::new();
    let told = births.step(moment(at, last + 60_000_000), &index, true, &mut none);
    let stats = told[0].status.kernel_stats.as_ref().expect("numbers");
    assert_eq!((stats.wait_ms, stats.read_bytes, stats.written_bytes), (None, None, None));
    assert!(stats.cpu_ms.is_some() && stats.total_syscalls.is_some());
    assert!(told[0].status.breakdown.iter().all(|b| b.wait_ms.is_none() && b.read_bytes.is_none()));
}
