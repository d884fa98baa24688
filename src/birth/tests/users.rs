//! Users of the node who are not its root: what they say, and cgroups that they call like a pod's.

use super::whose::{VICTIM, forgeries, with_victim};
use super::*;
use crate::birth::testdata::place;
use crate::kernel::recorder::{CgroupMade, Segment};

const USER: u32 = 1_000;
const SESSION: &str = "/user.slice/user-1000.slice/user@1000.service";

fn victim() -> PodId {
    PodId::Uid(VICTIM.into())
}

/// A cgroup that a user made.
fn of_user(id: u64, path: &str, user: u32) -> Record {
    let Record::CgroupMade(made) = cgroup(0, id, path, 3) else { unreachable!() };
    Record::CgroupMade(CgroupMade { owner: Some(user), ..made })
}

fn by(user: Option<u32>, segments: Vec<Segment>) -> impl Iterator<Item = Record> {
    segments.into_iter().map(move |s| Record::Began(Segment { uid: user, ..s }))
}

fn of_victim(log: &Log, ids: std::ops::Range<u64>) -> usize {
    ids.filter(|id| log.owner(SegmentId(*id)).expect("kept").pod == Some(victim())).count()
}

#[test]
fn what_a_user_without_rights_says_is_not_believed() {
    for user in [Some(USER), Some(65_534), None] {
        let mut log = with_victim();
        by(user, forgeries(21)).for_each(|record| log.add(record));
        assert_eq!(of_victim(&log, 21..26), 0, "{user:?}");
        assert!(!log.is_sandbox(SANDBOX), "{user:?}");
        // Before the container's pod is known, too.
        let mut log = Log::new(0);
        by(user, forgeries(21)).for_each(|record| log.add(record));
        log.add(cgroup(0, 11, &format!("/kubepods/besteffort/pod{VICTIM}/{SANDBOX}"), 2));
        assert_eq!(of_victim(&log, 21..26), 0, "{user:?}");
    }
}

#[test]
fn what_nobody_is_said_to_be_for_has_no_room_here() {
    let mut log = Log::new(0);
    by(Some(USER), forgeries(21)).for_each(|record| log.add(record));
    let mut released = log.release(60_000_000_000, |_| false);
    released.sort_unstable();
    assert_eq!(released, (21..26).map(SegmentId).collect::<Vec<_>>());
}

#[test]
fn a_pod_of_a_users_own_is_not_the_nodes() {
    let pod = format!("/kubepods/besteffort/pod{VICTIM}");
    let made = |n, path: &str| of_user(n, &format!("{SESSION}{path}"), USER);
    // Before the kubelet makes the pod's, and after.
    for first in [true, false] {
        let mut log = Log::new(0);
        let look_alike = |log: &mut Log| {
            log.add(made(10, &pod));
            log.add(made(11, &format!("{pod}/{CONTAINER}")));
            // It runs there already, and goes on when the kubelet makes the pod's.
            let mut inside = exec(12, None, "/bin/sh");
            inside.place = place(11);
            log.add(Record::Began(inside));
            let mut child = fork(13, Some(12));
            child.place = place(11);
            log.add(Record::Began(child));
        };
        if first {
            look_alike(&mut log);
        }
        log.add(cgroup(0, 20, &pod, 4));
        log.add(cgroup(0, 21, &format!("{pod}/{SANDBOX}"), 5));
        if !first {
            look_alike(&mut log);
        }
        by(Some(USER), forgeries(21)).for_each(|record| log.add(record));
        let mut inside = exec(40, None, "/bin/sh");
        inside.place = place(11);
        log.add(Record::Began(inside));
        let forged = of_victim(&log, 12..14) + of_victim(&log, 21..26) + of_victim(&log, 40..41);
        assert_eq!(forged, 0, "first: {first}");
        let story = Story::of(&log, &Subject::Pod(victim()), 4, u64::MAX, |_| Named::default());
        assert!(story.works.is_empty(), "{:?}", story.works);
        let containers: Vec<_> = story.containers.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(containers, [SANDBOX], "first: {first}");
    }
}

#[test]
fn a_container_of_the_nodes_stays_its_pods_whoever_claims_it() {
    let mut log = with_victim();
    let own = PodId::Uid(UID.into());
    log.add(of_user(30, &format!("{SESSION}/kubepods/pod{UID}"), USER));
    log.add(of_user(31, &format!("{SESSION}/kubepods/pod{UID}/{SANDBOX}"), USER));
    let mut plugin = exec(32, None, "/tmp/bridge");
    plugin.env.insert("CNI_CONTAINERID".into(), SANDBOX.into());
    plugin.env.insert("CNI_ARGS".into(), format!("K8S_POD_UID={UID}"));
    by(Some(USER), vec![plugin]).for_each(|record| log.add(record));
    assert_eq!(log.pod_of(SANDBOX), Some(&victim()));
    assert_eq!(log.owner(SegmentId(32)).expect("kept").pod, Some(own), "his own pod he may speak for");
    log.add(Record::Began(exec(33, None, &format!("runc create --bundle /run/{SANDBOX} {SANDBOX}"))));
    assert_eq!(of_victim(&log, 33..34), 1, "the node's runtime");
}

/// Kubernetes as a user's own (rootless): the pods' cgroups are the user's, and so are the kubelet and the runtime.
#[test]
fn a_rootless_runtime_speaks_for_the_pods_of_its_user() {
    let made = |n, path: &str| of_user(n, &format!("{SESSION}/app.slice/k3s.service{path}"), USER);
    let pod = format!("/kubepods/besteffort/pod{VICTIM}");
    let mut log = Log::new(0);
    log.add(made(10, &pod));
    log.add(made(11, &format!("{pod}/{SANDBOX}")));
    by(Some(USER), forgeries(21)).for_each(|record| log.add(record));
    by(Some(USER + 1), forgeries(31)).for_each(|record| log.add(record));
    assert_eq!((of_victim(&log, 21..26), of_victim(&log, 31..36)), (5, 0), "his own, another user's");
    assert!(log.is_sandbox(SANDBOX));
}

/// A node in a container (kind, k3d), of which one is in a user namespace; and a kubelet alone in one, whose pods are the node's.
#[test]
fn a_kubelet_in_a_container_mounts_for_the_pods_in_the_same() {
    let id = "5".repeat(64);
    let target = format!("/var/lib/kubelet/pods/{VICTIM}/volumes/x");
    for (kubelet, pods, owner, uid, counts) in [
        (format!("/docker/{id}/kubelet.slice/kubelet.service"), format!("/docker/{id}/kubelet"), 0, 0, true),
        (
            format!("/system.slice/docker-{id}.scope/kubelet.slice/kubelet.service"),
            format!("/system.slice/docker-{id}.scope/kubelet"),
            0,
            0,
            true,
        ),
        (format!("/docker/{id}/init"), format!("/docker/{id}"), 0, 0, true),
        // The container's root is a user of the host's.
        (format!("/docker/{id}/init"), format!("/docker/{id}"), 100_000, 100_000, true),
        (format!("/docker/{id}/init"), format!("/docker/{id}"), 0, 100_000, false),
        // A kubelet in a container that makes the node's own pods: root in any container could say the same.
        (format!("/docker/{id}"), String::new(), 0, 0, false),
    ] {
        let mut log = Log::new(0);
        log.know(0, 9, &kubelet, None);
        log.add(of_user(10, &format!("{pods}/kubepods/besteffort/pod{VICTIM}"), owner));
        let mut process = fork(20, None);
        process.comm = "kubelet".into();
        process.place = place(9);
        log.add(Record::Began(process));
        let mut mount = exec(21, Some(20), &format!("mount -t tmpfs tmpfs {target}"));
        (mount.tgid, mount.place, mount.uid) = (20, place(9), Some(uid));
        log.add(Record::Began(mount));
        assert_eq!(of_victim(&log, 21..22) == 1, counts, "{kubelet} for {pods}, {uid} of {owner}");
    }
}

/// The user makes a cgroup called like that of a pod that is there already.
#[test]
fn a_pod_that_is_there_is_not_born_again_by_a_user() {
    let mut births = Births::new(untold(), 0, Vec::new(), Coverage::ALL);
    let pod = format!("/kubepods/besteffort/pod{VICTIM}");
    births.know(0, 10, &pod, Some(0));
    let now = Instant { mono_ns: 10, unix_ns: 10 };
    births.record(of_user(11, &format!("{SESSION}{pod}"), USER), now);
    assert!(!births.recording());
    births.record(cgroup(0, 12, &format!("{pod}/{SANDBOX}"), 12), now);
    assert!(births.recording(), "a container of its own is started again");
}
