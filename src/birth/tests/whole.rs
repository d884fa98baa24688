//! A certificate as a whole: of a pod that is born as usual, of several together, of a container alone, and without the recorder.

use proptest::prelude::*;

use super::*;
use crate::birth::watch::trace_id;

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
        Record::Began(s) => crate::birth::hints::read(s).container,
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
fn a_hostile_name_is_plain_in_all_of_it() {
    let mut all = records(POD);
    for record in &mut all {
        if let Record::Began(s) = record
            && s.args == ["/pod", "web"]
        {
            s.file = Some("a\u{1b}]0;pwn\u{7}\n\u{9b}\u{202e}b".into());
        }
    }
    let told = watched(all, vec![slimmed(POD_OBJECT)]).remove(0);
    let programs: Vec<_> = told.processes.iter().map(|p| p.program.as_str()).collect();
    assert!(programs.iter().any(|name| name.contains("pwn")), "{programs:?}");
    let hostile = |text: &str| text.chars().any(|c| c.is_control() || c == '\u{202e}');
    assert!(!programs.iter().any(|name| hostile(name)), "{programs:?}");
    let status = serde_json::to_string(&told.status).expect("JSON");
    assert!(status.contains("pwn") && !status.contains("\\u00") && !hostile(&status), "{status}");
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
