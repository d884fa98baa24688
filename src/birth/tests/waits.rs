//! What a birth waits for, what is done beside it, and when it is over.

use super::retries::{BACKOFF, Node, SOON, id};
use super::*;
use crate::attribution::images::{Image, OfPod, Trouble};
use crate::attribution::pods::ContainerKind;
use crate::birth::testdata::place;

/// The fixture's pod, and a second container of it that is started so long after the first.
fn with_second(later: Duration, options: Options) -> Node {
    let mut node = Node::with(options, records(POD), slimmed(POD_OBJECT));
    node.now += later.as_nanos() as u64;
    node.add("second", ContainerKind::Main);
    node
}

/// Lets the API server say Ready, and everything settle.
fn born(mut node: Node) -> Certificate {
    let seconds = ((node.now - node.zero) / 1_000_000_000) as i64;
    node.pod.life.ready = node.pod.life.ready.map(|s| s + seconds);
    node.told();
    let mut told = node.after(SOON);
    told.extend(node.after(Duration::from_secs(2)));
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn a_hook_is_waited_for_and_no_image() {
    let hook = Duration::from_secs(5);
    let c = born(with_second(hook, untold()));
    assert!(c.status.phases.iter().all(|p| p.name != "image"), "{:?}", c.status.phases);
    let of = |p: &&BirthPhase| p.name == "wait" && p.container.as_deref() == Some("second");
    let wait = c.status.phases.iter().find(of).expect("it was waited for");
    assert!((5_000.0..6_000.0).contains(&wait.duration_ms), "{wait:?}");
}

#[test]
fn a_pull_is_what_the_kubelet_says_it_took_and_the_rest_is_waited_for() {
    let options = Options { images: Duration::from_secs(5), ..Options::default() };
    let mut node = with_second(Duration::from_secs(5), options);
    node.pod.life.ready = node.pod.life.ready.map(|s| s + 5);
    node.told();
    node.after(SOON);
    assert!(node.after(Duration::from_secs(2)).is_empty() && node.births.holding());
    let pulled = Image::Pulled(Some(Duration::from_millis(1_300)));
    let images = [("kg-birth".to_owned(), Image::Present), ("second".to_owned(), pulled)].into();
    let told = OfPod { uid: UID.into(), images };
    // Told twice it is the same.
    node.births.images(&told);
    node.births.images(&told);
    let c = node.after(SOON).remove(0);
    let of = |name: &str| {
        let is = |p: &&BirthPhase| p.name == name && p.container.as_deref() == Some("second");
        let found: Vec<_> = c.status.phases.iter().filter(is).collect();
        let [one] = found.as_slice() else { panic!("{name}: {:?}", c.status.phases) };
        (one.start_ms, one.start_ms + one.duration_ms)
    };
    let (wait, image) = (of("wait"), of("image"));
    assert!(
        (image.1 - image.0 - 1_300.0).abs() < 0.01 && (wait.1 - image.0).abs() < 0.01,
        "{wait:?} {image:?}"
    );
    assert!(c.status.phases.is_sorted_by_key(|p| p.start_ms));
    let first =
        c.status.phases.iter().find(|p| p.name == "image" && p.container.as_deref() == Some("kg-birth"));
    assert_eq!(first, None, "it was there");
}

#[test]
fn what_debug_adds_is_no_part_of_the_birth() {
    let mut alone = Node::new(records(POD), slimmed(POD_OBJECT));
    alone.told();
    let alone = alone.after(SOON).remove(0).status;
    // It comes before the pod's own container.
    let (all, pod) = (records(POD), slimmed(POD_OBJECT));
    let last = all.iter().map(Record::at_ns).max().expect("records");
    let mut node = Node::with(untold(), all, pod);
    node.now = node.zero + 450_000_000;
    node.add("second", ContainerKind::Ephemeral);
    let mut end = ended(9_001, 9_001, node.now + 2_000_000, End::Exit(0));
    end.counters.syscalls.insert(syscalls::Sysno::getppid as u32, 30_000);
    node.record(Record::Ended(end));
    node.now = last;
    node.told();
    let status = node.after(SOON).remove(0).status;
    assert_eq!(status.containers, alone.containers);
    let counts = |s: &PodBirthCertificateStatus| {
        let stats = s.kernel_stats.clone().expect("numbers");
        crate::api::KernelStats { total_duration_ms: None, ..stats }
    };
    assert_eq!(counts(&status), counts(&alone));
    assert_eq!(status.breakdown, alone.breakdown);
    let names = |s: &PodBirthCertificateStatus| s.phases.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&status), names(&alone));
    let beside: Vec<_> = status.beside.iter().map(|c| (c.phase.as_str(), c.syscalls)).collect();
    assert_eq!(beside, [("debug", Some(30_000))]);
}

#[test]
fn what_debug_adds_to_a_birth_that_failed_does_not_make_it_go_on() {
    let (all, pod) = crashed();
    let mut node = Node::new(all, pod);
    node.told();
    assert_eq!(node.after(SOON)[0].status.outcome, Some(BirthOutcome::Failed));
    node.after(BACKOFF);
    node.starts(&id(1), 1);
    assert!(node.births.recording(), "it may be the next try");
    node.births.name(id(1), Named { name: Some("dbg".into()), ..Named::default() });
    let kind = ContainerKind::Ephemeral;
    node.pod.containers.push(ContainerRecord { name: "dbg".into(), kind, ..ContainerRecord::default() });
    node.told();
    assert!(node.after(SOON).is_empty() && !node.births.recording());
    // The next try is one.
    node.starts(&id(2), 2);
    assert!(node.births.recording());
    node.after(SOON);
    assert!(node.births.recording());
}

#[test]
fn a_pod_that_succeeds_is_counted_to_the_end_of_its_container() {
    let calls = |n| [(syscalls::Sysno::getppid as u32, n)].into();
    // The same work by the container's own program, and by what a shell runs.
    let total = |children: u64| {
        let (all, mut pod) = sandbox_only();
        let mut node = Node::new(all, pod.clone());
        node.starts(&id(1), 1);
        let start = node.now + 1_000_000;
        for n in 0..children {
            let mut child = exec(9_100 + n, Some(9_001), "/bin/count");
            (child.start_ns, child.place) = (start + 10_000_000 * (n + 1), place(777_001));
            child.place.hierarchy = Some(crate::kernel::Hierarchy::V1Cpu);
            let end = child.start_ns + 9_000_000;
            node.record(Record::Began(child));
            let mut end = ended(9_100 + n, 5, end, End::Exit(0));
            end.counters.syscalls = calls(40_000 / children);
            node.record(Record::Ended(end));
        }
        let mut end = ended(9_001, 9_001, start + 100_000_000, End::Exit(0));
        end.counters.syscalls = if children == 0 { calls(40_000) } else { calls(15) };
        node.record(Record::Ended(end));
        node.now = start + 150_000_000;
        pod.life.succeeded = true;
        pod.containers[0].ids[0] = Some(id(1));
        node.pod = pod;
        node.told();
        let c = node.after(SOON).remove(0);
        assert_eq!(c.status.outcome, Some(BirthOutcome::Complete));
        let exit = input::since(c.zero, start + 100_000_000);
        let stats = c.status.kernel_stats.clone().expect("numbers");
        assert!((stats.total_duration_ms.expect("a length") - exit).abs() < 0.01, "to its end");
        let of = |b: &&crate::api::BirthCost| b.actor == Actor::Container && b.phase == "listen";
        c.status.breakdown.iter().find(of).and_then(|b| b.by_syscall.get("getppid").copied())
    };
    assert_eq!(total(0), Some(40_000));
    assert_eq!(total(2), Some(40_015));
}

#[test]
fn of_too_many_phases_the_pods_own_are_kept_and_the_rest_is_told() {
    let (all, mut pod) = sandbox_only();
    let mut node = Node::new(all, pod.clone());
    pod.containers.clear();
    for n in 1..=70 {
        node.now += 20_000_000;
        node.starts(&id(n), n);
        let name = format!("c{n}");
        let by = By {
            at_ns: node.now + 2_000_000,
            segment: Some(SegmentId(9_000 + n)),
            tgid: 1,
            comm: "x".into(),
        };
        node.record(Record::Listen(Listen { by, family: Family::Ipv4, port: 80 }));
        let ids = [Some(id(n)), None];
        pod.containers.push(ContainerRecord { name, ids, ..ContainerRecord::default() });
    }
    pod.life.ready = slimmed(POD_OBJECT).life.ready.map(|s| s + 2);
    node.pod = pod;
    node.told();
    let status = node.after(SOON).remove(0).status;
    assert_eq!(status.phases.len(), input::PHASES_MAX);
    for name in ["cgroup", "volumes", "sandbox", "network", "ready"] {
        phase(&status, name);
    }
    assert!(status.phases.is_sorted_by_key(|p| p.start_ms));
    let why = status.missing.iter().find(|m| m.part == "phases").map(|m| m.why.as_str());
    assert_eq!(why, Some("18 of the shortest phases of containers are left out"));
}

#[test]
fn the_next_try_is_not_told_of_before_it_has_a_name() {
    let (all, pod) = crashed();
    let mut node = Node::new(all, pod);
    node.now += 1_000_000_000;
    node.starts(&id(1), 1);
    node.told();
    let status = node.after(SOON).remove(0).status;
    let names: Vec<_> = status.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((status.outcome, names), (Some(BirthOutcome::Failed), vec!["kg-birth"]));
    assert!(status.phases.iter().all(|p| p.container.as_deref().is_none_or(|c| c == "kg-birth")));
}

#[test]
fn a_start_that_fails_is_told_once_whatever_the_kubelet_calls_it() {
    let (all, mut pod) = crashed();
    pod.containers[0].terminated = None;
    pod.containers[0].waiting = Some(("RunContainerError".into(), Some("no such file".into())));
    let mut node = Node::new(all, pod);
    node.told();
    assert_eq!(node.after(SOON).len(), 1);
    node.pod.containers[0].waiting = Some(("CrashLoopBackOff".into(), None));
    let reason = Some("StartError".into());
    node.pod.containers[0].terminated = Some(Terminated { reason, ..exit_3(CONTAINER) });
    node.told();
    assert!(node.after(BACKOFF).is_empty());
}

#[test]
fn what_keeps_a_pod_is_told_in_the_kubelets_words_and_nothing_is_recorded_meanwhile() {
    let mut all = records(POD);
    let cgroup_alone = all.iter().position(|r| matches!(r, Record::Began(s) if s.comm == "mount"));
    all.truncate(cgroup_alone.expect("the volumes"));
    let mut pod = slimmed(POD_OBJECT);
    pod.life.ready = None;
    pod.containers[0].ids = [None, None];
    pod.containers[0].waiting = Some(("ContainerCreating".into(), None));
    let mut node = Node::new(all, pod);
    node.told();
    assert!(node.after(SOON).is_empty() && node.stuck().is_empty(), "it has just begun");
    assert!(node.after(Duration::from_secs(2)).is_empty());
    assert_eq!(node.stuck(), [(node.pod.namespace.clone(), UID.to_owned())]);
    assert!(node.stuck().is_empty(), "asked a moment ago");
    let message = "MountVolume.SetUp failed for volume \"s\" : secret \"nope\" not found";
    node.births.trouble(&Trouble { uid: UID.into(), reason: "FailedMount".into(), message: message.into() });
    let status = node.after(SOON).remove(0).status;
    let failure = status.failure.expect("why");
    let told = (failure.phase.as_str(), failure.reason.as_str(), failure.message.as_deref());
    assert_eq!(
        (status.outcome, told),
        (Some(BirthOutcome::Failed), ("volumes", "FailedMount", Some(message)))
    );
    assert!(!node.births.recording(), "nobody is being born");
    assert!(node.after(BACKOFF).is_empty() && node.stuck().is_empty());
    // The secret is there at last.
    node.starts(&id(1), 1);
    assert!(node.births.recording());
}

impl Node {
    /// Another container of the pod is started.
    fn add(&mut self, name: &str, kind: ContainerKind) {
        self.starts(&id(1), 1);
        self.births.name(id(1), Named { name: Some(name.into()), ..Named::default() });
        let (name, ids) = (name.to_owned(), [Some(id(1)), None]);
        self.pod.containers.push(ContainerRecord { name, ids, kind, ..ContainerRecord::default() });
    }

    fn stuck(&mut self) -> Vec<(String, String)> {
        let now = moment(self.zero, self.now);
        self.births.stuck(now)
    }
}
