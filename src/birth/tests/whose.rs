//! Whose a program or a cgroup is.

use super::*;

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
    own.place.cgroup = Some(13);
    own.place.hierarchy = Some(crate::kernel::Hierarchy::Unified);
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
    let costs = crate::birth::numbers::breakdown(&story, Knows::ALL);
    let kubelets: Vec<_> = costs.iter().filter(|c| c.actor == Actor::Kubelet).collect();
    assert_eq!(kubelets.iter().map(|c| c.cgroups_created).collect::<Vec<_>>(), [Some(1)]);
}

#[test]
fn what_a_container_says_of_itself_is_not_believed() {
    let mut log = Log::new(0);
    log.add(cgroup(0, 13, &format!("/kubepods/besteffort/pod{UID}/{CONTAINER}"), 1));
    let other = "d341e8db-112f-4371-804f-3616d814d3d6";
    let mut plugin = exec(21, None, "/tmp/bridge");
    plugin.env.insert("CNI_CONTAINERID".into(), SANDBOX.into());
    plugin.env.insert("CNI_ARGS".into(), format!("K8S_POD_UID={other}"));
    plugin.place.cgroup = Some(13);
    plugin.place.hierarchy = Some(crate::kernel::Hierarchy::Unified);
    log.add(Record::Began(plugin));
    assert_eq!((log.pod_of(SANDBOX), log.is_sandbox(SANDBOX)), (None, false));
    assert_eq!(log.owner(SegmentId(21)).pod, Some(&PodId::Uid(UID.into())));
}

#[test]
fn a_program_run_in_a_container_that_is_there_is_none_of_its_creation() {
    let mut log = Log::new(0);
    log.add(cgroup(0, 13, &format!("/kubepods/besteffort/pod{UID}/{CONTAINER}"), 1));
    log.add(Record::Began(exec(21, None, &format!("runc exec --process /tmp/p --detach {CONTAINER}"))));
    log.add(Record::Began(fork(22, Some(21))));
    let mut init = exec(23, Some(22), "runc init");
    init.file = Some("memfd:runc_cloned:/proc/self/exe".into());
    log.add(Record::Began(init));
    let mut probe = exec(24, Some(23), "/bin/probe");
    probe.place.cgroup = Some(13);
    probe.place.hierarchy = Some(crate::kernel::Hierarchy::Unified);
    log.add(Record::Began(probe));
    let pod = Subject::Pod(PodId::Uid(UID.into()));
    let story = Story::of(&log, &pod, 0, u64::MAX, |_| Named::default());
    let parts: Vec<_> = story.works.iter().map(|w| (w.id.0, w.actor, w.phase)).collect();
    let ready = |id| (id, Actor::Runtime, crate::birth::story::Phase::Ready);
    assert_eq!(parts, [ready(21), ready(22), ready(23), ready(24)]);
    assert_eq!(story.containers[0].exec_ns, None, "not its own program");
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
