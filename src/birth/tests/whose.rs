//! Whose a program or a cgroup is.

use super::*;
use crate::birth::testdata::place;
use crate::kernel::recorder::{Begun, Ended, Segment};

#[test]
fn crio_and_systemd_name_the_same_pod() {
    let uid = UID.replace('-', "_");
    let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
    let mut log = Log::new(0);
    log.add(cgroup(0, 10, &slice, 1));
    log.add(cgroup(0, 11, &format!("{slice}/crio-conmon-{SANDBOX}.scope"), 2));
    log.add(cgroup(0, 12, &format!("{slice}/crio-{SANDBOX}.scope"), 3));
    log.add(cgroup(0, 13, &format!("{slice}/crio-{SANDBOX}.scope/container"), 4));
    log.add(Record::Began(fork(20, None)));
    log.add(Record::Began(exec(
        21,
        Some(20),
        &format!("/usr/bin/conmon -b /run/x/userdata -c {SANDBOX} -r /usr/bin/crun"),
    )));
    log.add(Record::Began(fork(22, Some(21))));
    log.add(Record::Began(exec(
        23,
        Some(22),
        &format!("/usr/bin/crun --systemd-cgroup create --bundle /run/x/userdata {SANDBOX}"),
    )));
    log.add(Record::Began(fork(24, Some(23))));
    let mut own = exec(25, Some(24), "/pause");
    own.place = place(13);
    log.add(Record::Began(own));
    let pod = Subject::Pod(PodId::Uid(UID.into()));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named { sandbox: true, ..Named::default() });
    let ids: Vec<_> = story.works.iter().map(|w| w.id.0).collect();
    assert_eq!(ids, [21, 22, 23, 24, 25], "20 was conmon's in another process, and says nothing of itself");
    assert_eq!(story.containers.len(), 1);
    assert_eq!(story.containers[0].program.as_deref(), Some("pause"));
    assert_eq!(story.cgroups.len(), 4);
    let made: Vec<_> = story.cgroups.iter().map(crate::birth::log::Made::is_pods).collect();
    assert_eq!(made, [true, false, false, false], "conmon's is not the kubelet's");
    let (costs, _) = crate::birth::numbers::breakdown(&story, Coverage::ALL);
    let kubelets: Vec<_> = costs.iter().filter(|c| c.actor == Actor::Kubelet).collect();
    assert_eq!(kubelets.iter().map(|c| c.cgroups_created).collect::<Vec<_>>(), [Some(1)]);
}

/// Another pod's UID, who is to be made to look bad.
pub(super) const VICTIM: &str = "d341e8db-112f-4371-804f-3616d814d3d6";

/// All that a program can say to be taken for one that works for the victim.
pub(super) fn forgeries(first: u64) -> Vec<Segment> {
    let mut plugin = exec(first, None, "/tmp/bridge");
    plugin.env.insert("CNI_CONTAINERID".into(), SANDBOX.into());
    plugin.env.insert("CNI_COMMAND".into(), "ADD".into());
    plugin.env.insert("CNI_ARGS".into(), format!("K8S_POD_UID={VICTIM}"));
    let mount = format!("mount -t tmpfs tmpfs /var/lib/kubelet/pods/{VICTIM}/volumes/x");
    let shim = format!("containerd-shim-runc-v2 -namespace k8s.io -id {SANDBOX}");
    let create = format!("runc create --bundle /run/{SANDBOX} {SANDBOX}");
    vec![
        plugin,
        exec(first + 1, None, &mount),
        exec(first + 2, None, &shim),
        exec(first + 3, None, &create),
        exec(first + 4, None, &format!("conmon -c {SANDBOX}")),
    ]
}

/// A log in which the victim's sandbox is being made.
pub(super) fn with_victim() -> Log {
    let mut log = Log::new(0);
    log.add(cgroup(0, 10, &format!("/kubepods/besteffort/pod{VICTIM}"), 1));
    log.add(cgroup(0, 11, &format!("/kubepods/besteffort/pod{VICTIM}/{SANDBOX}"), 2));
    log
}

#[test]
fn what_a_container_says_of_itself_is_not_believed() {
    let path = format!("/kubepods/besteffort/pod{UID}/{CONTAINER}");
    // The forger's pod is younger than the agent, older, or in a cgroup of which the agent knows nothing.
    for known in ["made", "there", "unknown"] {
        let mut log = with_victim();
        match known {
            "made" => log.add(cgroup(0, 13, &path, 1)),
            "there" => log.know(0, 13, &path, Some(0)),
            _ => {}
        }
        for (n, mut forgery) in (21..).zip(forgeries(21)) {
            forgery.place = place(13);
            log.add(Record::Began(forgery));
            log.add(Record::Ended(Ended { place: place(13), ..ended(n, 5, n * 1_000_000, End::Exit(9)) }));
            // What it begins is no more the victim's.
            let mut child = exec(n + 100, Some(n), "/bin/true");
            child.place = place(13);
            log.add(Record::Began(child));
        }
        assert!(!log.is_sandbox(SANDBOX), "{known}");
        let forger = (known != "unknown").then(|| PodId::Uid(UID.into()));
        for id in (21..26).chain(121..126) {
            assert_eq!(log.owner(SegmentId(id)).expect("kept").pod, forger, "{known}: {id}");
        }
        let victim = Subject::Pod(PodId::Uid(VICTIM.into()));
        let story = Story::of(&log, &victim, 0, u64::MAX, |_| Named { sandbox: true, ..Named::default() });
        assert!(story.works.is_empty(), "{known}: {:?}", story.works);
        assert!(crate::birth::failure::all(None, &story, true, None).is_empty(), "{known}");
    }
}

#[test]
fn what_the_nodes_own_programs_say_is_believed() {
    let mut log = with_victim();
    log.know(0, 14, "/system.slice/containerd.service", None);
    for mut segment in forgeries(21) {
        segment.place = place(14);
        log.add(Record::Began(segment));
    }
    assert!(log.is_sandbox(SANDBOX));
    for id in 21..26 {
        let pod = log.owner(SegmentId(id)).expect("kept").pod.clone();
        assert_eq!(pod, Some(PodId::Uid(VICTIM.into())), "{id}");
    }
}

#[test]
fn what_is_said_in_a_cgroup_not_known_yet_is_believed_once_it_is() {
    let mut log = with_victim();
    log.add(Record::Began(fork(20, None)));
    let mut plugin = forgeries(21).remove(0);
    (plugin.parent, plugin.tgid, plugin.place) = (Some(SegmentId(20)), 20, place(15));
    log.add(Record::Began(plugin));
    let of = |log: &Log, id| log.owner(SegmentId(id)).expect("kept").pod.clone();
    assert_eq!((of(&log, 20), of(&log, 21)), (None, None));
    log.know(0, 15, "/system.slice/plugins.service", None);
    let victim = Some(PodId::Uid(VICTIM.into()));
    assert_eq!((of(&log, 20), of(&log, 21)), (victim.clone(), victim));
}

#[test]
fn only_the_kubelet_mounts_for_a_pod() {
    let target = format!("/var/lib/kubelet/pods/{VICTIM}/volumes/x");
    let own = format!("/var/lib/kubelet/pods/{UID}/volumes/x");
    for (by, command, of) in [
        ("kubelet", format!("mount -t tmpfs tmpfs {target}"), Some(VICTIM)),
        ("kubelet", format!("umount {target}"), Some(VICTIM)),
        // What is mounted, and with which options, is what somebody wrote into the pod.
        ("kubelet", format!("mount -t nfs host:{target} {own}"), Some(UID)),
        ("kubelet", format!("mount -t nfs -o x={target} host:/ {own}"), Some(UID)),
        ("bash", format!("mount -t tmpfs tmpfs {target}"), None),
        ("bash", format!("du {target}"), None),
        ("bash", format!("kubectl exec x -- sh -c {target}"), None),
        ("kubelet", format!("ls {target}"), None),
    ] {
        let mut log = with_victim();
        let mut process = fork(20, None);
        process.comm = by.into();
        log.add(Record::Began(process));
        let mut program = exec(21, Some(20), &command);
        program.tgid = 20;
        log.add(Record::Began(program));
        let owner = log.owner(SegmentId(21)).expect("kept");
        assert_eq!(owner.pod, of.map(|uid| PodId::Uid(uid.into())), "{by}: {command}");
    }
}

#[test]
fn a_monitor_in_its_pod_speaks_for_its_pod_alone() {
    let mut log = with_victim();
    let slice = format!("/kubepods/besteffort/pod{UID}");
    log.know(0, 16, &format!("{slice}/crio-conmon-{CONTAINER}"), Some(0));
    let mut own = exec(31, None, &format!("conmon -c {CONTAINER}"));
    own.place = place(16);
    log.add(Record::Began(own));
    let owner = log.owner(SegmentId(31)).expect("kept");
    assert_eq!((&owner.pod, owner.container.as_deref()), (&Some(PodId::Uid(UID.into())), Some(CONTAINER)));
    let mut other = exec(32, None, &format!("conmon -c {SANDBOX}"));
    other.place = place(16);
    log.add(Record::Began(other));
    assert_eq!(log.owner(SegmentId(32)).expect("kept").pod, Some(PodId::Uid(UID.into())));
}

/// A container that runs, and what `runc exec` does in it, the programs in order of time.
fn entered(commands: &[&str]) -> Log {
    let mut log = Log::new(0);
    log.add(cgroup(0, 13, &format!("/kubepods/besteffort/pod{UID}/{CONTAINER}"), 1));
    log.add(Record::Began(exec(21, None, &format!("runc exec --process /tmp/p --detach {CONTAINER}"))));
    log.add(Record::Began(fork(22, Some(21))));
    let mut init = exec(23, Some(22), "runc init");
    init.file = Some("memfd:runc_cloned:/proc/self/exe".into());
    log.add(Record::Began(init));
    for (id, command) in (24..).zip(commands) {
        let mut program = exec(id, Some(id - 1), command);
        program.place = place(13);
        log.add(Record::Began(program));
    }
    log
}

#[test]
fn a_program_run_in_a_container_that_is_there_is_none_of_its_creation() {
    let mut log = entered(&["/bin/probe", "/bin/helper"]);
    for id in 21..26 {
        let mut end = ended(id, u32::try_from(id).expect("small"), 90_000_000, End::Exit(0));
        end.counters.syscalls.insert(syscalls::Sysno::getppid as u32, 100);
        log.add(Record::Ended(end));
    }
    // Nor does it make the container listen.
    log.add(Record::Listen(Listen {
        by: By { at_ns: 60_000_000, segment: Some(SegmentId(24)), tgid: 24, comm: "probe".into() },
        family: Family::Ipv4,
        port: 9999,
    }));
    let pod = Subject::Pod(PodId::Uid(UID.into()));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named::default());
    let parts: Vec<_> = story.works.iter().map(|w| (w.id.0, w.actor)).collect();
    let (runtime, container) = (Actor::Runtime, Actor::Container);
    assert_eq!(parts, [(21, runtime), (22, runtime), (23, runtime), (24, container), (25, container)]);
    assert!(story.works.iter().all(|w| w.phase == crate::birth::Phase::Exec), "{:?}", story.works);
    assert_eq!(story.containers[0].exec_ns, None, "not its own program");
    assert_eq!(story.containers[0].listen, None);
    let stats = crate::birth::numbers::stats(&story, Coverage::ALL);
    assert_eq!((stats.total_syscalls, stats.processes, stats.programs), (Some(0), Some(0), Some(0)));
    let (breakdown, beside) = crate::birth::numbers::breakdown(&story, Coverage::ALL);
    assert!(breakdown.iter().all(|cost| cost.syscalls.is_none()), "{breakdown:?}");
    let told: Vec<_> = beside.iter().map(|c| (c.actor, c.phase.as_str(), c.syscalls)).collect();
    assert_eq!(told, [(runtime, "exec", Some(300)), (container, "exec", Some(200))]);
}

#[test]
fn a_container_is_a_container_however_often_it_forks_and_executes_itself() {
    let mut log = Log::new(0);
    log.add(cgroup(0, 13, &format!("/kubepods/besteffort/pod{UID}/{CONTAINER}"), 1));
    log.add(Record::Began(exec(20, None, &format!("runc create --bundle /run/x {CONTAINER}"))));
    for id in 21..=400 {
        let mut segment =
            if id % 3 == 0 { fork(id, Some(id - 1)) } else { exec(id, Some(id - 1), "/bin/sh") };
        segment.place = place(13);
        log.add(Record::Began(segment));
    }
    let pod = Subject::Pod(PodId::Uid(UID.into()));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named::default());
    let of = |actor| story.works.iter().filter(|w| w.actor == actor).count();
    // The fork before its first program is the runtime's.
    assert_eq!((of(Actor::Runtime), of(Actor::Container)), (2, 379));
    // What was begun by a process of which nothing is known is the container's too.
    let mut orphan = exec(900, Some(899), "/bin/sh");
    orphan.place = place(13);
    orphan.begun = Begun::Fork;
    log.add(Record::Began(orphan));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named::default());
    assert_eq!(story.works.last().map(|w| (w.id.0, w.actor)), Some((900, Actor::Container)));
}

#[test]
fn a_runtime_that_executes_itself_again_goes_on() {
    let mut log = Log::new(0);
    log.add(cgroup(0, 13, &format!("/kubepods/besteffort/pod{UID}/crio-{CONTAINER}"), 1));
    let create = format!("/usr/bin/crun create --bundle /run/x/userdata {CONTAINER}");
    log.add(Record::Began(exec(21, None, &create)));
    log.add(Record::Ended(ended(21, 21, 22_000_000, End::Exec)));
    let mut again = exec(22, Some(21), &create);
    again.tgid = 21;
    log.add(Record::Began(again));
    log.add(Record::Ended(ended(22, 21, 30_000_000, End::Exit(0))));
    let pod = Subject::Pod(PodId::Uid(UID.into()));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named::default());
    assert_eq!(story.containers[0].create, Some((21_000_000, Some(30_000_000))));
    let acts: Vec<Vec<u64>> = story.acts().iter().map(|act| act.iter().map(|w| w.id.0).collect()).collect();
    assert_eq!(acts, [[21, 22]]);
}
