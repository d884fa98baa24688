use super::*;

fn pod(uid: &str, id: Option<&str>) -> PodRecord {
    PodRecord {
        namespace: "shop".into(),
        name: format!("web-{uid}"),
        uid: uid.into(),
        containers: vec![ContainerRecord {
            name: "web".into(),
            ids: [id.map(String::from), None],
            ..ContainerRecord::default()
        }],
        ..PodRecord::default()
    }
}

fn uid(uid: &str) -> PodId {
    PodId::Uid(uid.into())
}

#[test]
fn found_by_uid_hash_and_container() {
    let mut set = PodSet::default();
    let now = Instant::now();
    set.apply(PodRecord { config_hash: Some("hash".into()), ..pod("u1", Some("c1")) });
    let index = set.publish(now).expect("a change");
    assert_eq!(index.by_pod(&uid("u1")).map(|p| &*p.name), Some("web-u1"));
    assert_eq!(index.by_pod(&PodId::ConfigHash("hash".into())).map(|p| &*p.uid), Some("u1"));
    assert_eq!(index.by_container("c1").map(|p| &*p.uid), Some("u1"));
    assert!(index.by_pod(&uid("u2")).is_none() && index.by_container("c2").is_none());
}

/// A static pod whose manifest sets `metadata.uid`: its cgroup bears that UUID, its mirror at the API server has it as
/// `kubernetes.io/config.hash` (rancher/rke2#8199).
#[test]
fn a_static_pod_with_a_uuid_of_its_own_is_found() {
    let set_by_manifest = "11111111-2222-4333-8444-555555555503";
    let mut set = PodSet::default();
    set.apply(PodRecord { config_hash: Some(set_by_manifest.into()), ..pod("u1", None) });
    let index = set.publish(Instant::now()).expect("a change");
    assert_eq!(index.by_pod(&uid(set_by_manifest)).map(|p| &*p.uid), Some("u1"));
}

#[test]
fn only_what_is_kept_counts_as_a_change() {
    let mut set = PodSet::default();
    let now = Instant::now();
    set.apply(pod("u1", None));
    let first = set.publish(now).expect("a change");
    set.apply(pod("u1", None));
    assert!(set.publish(now).is_none(), "the same again");
    set.begin_list();
    set.list(pod("u1", None));
    set.end_list(now);
    assert!(set.publish(now).is_none(), "the same listed");
    set.apply(pod("u1", Some("c1")));
    let second = set.publish(now).expect("a change");
    assert!(second.generation() > first.generation());
    set.begin_list();
    set.list(pod("u1", Some("c2")));
    set.end_list(now);
    let third = set.publish(now).expect("a change while nobody watched");
    assert!(third.by_container("c2").is_some());
}

#[test]
fn a_pod_that_left_is_known_for_a_while() {
    let mut set = PodSet::default();
    let now = Instant::now();
    set.apply(pod("u1", Some("c1")));
    set.apply(pod("u2", None));
    set.delete("u1", now);
    let index = set.publish(now).expect("a change");
    assert_eq!(index.live(), 1);
    assert!(index.by_container("c1").is_some());
    // Missing from a new list is gone too; and a list that has not ended changes nothing.
    set.begin_list();
    assert!(set.publish(now).is_none());
    set.end_list(now);
    let index = set.publish(now).expect("a change");
    assert_eq!(index.live(), 0);
    assert!(index.by_pod(&uid("u2")).is_some());
    let later = now + PodSet::DEPARTED_FOR + Duration::from_secs(1);
    set.apply(pod("u3", None));
    let index = set.publish(later).expect("a change");
    assert!(index.by_pod(&uid("u1")).is_none() && index.by_pod(&uid("u2")).is_none());
}

#[test]
fn the_departed_are_bounded() {
    let mut set = PodSet::default();
    let now = Instant::now();
    for i in 0..2 * PodSet::DEPARTED_MAX {
        set.apply(pod(&i.to_string(), None));
        set.delete(&i.to_string(), now);
    }
    let index = set.publish(now).expect("a change");
    assert_eq!(index.by_uid.len(), PodSet::DEPARTED_MAX);
    assert!(index.by_pod(&uid("0")).is_none(), "the oldest go first");
}

#[test]
fn a_static_pod_made_again_is_the_living_one() {
    let mut set = PodSet::default();
    let now = Instant::now();
    let with_hash = |uid: &str| PodRecord { config_hash: Some("hash".into()), ..pod(uid, None) };
    set.apply(with_hash("old"));
    set.delete("old", now);
    set.apply(with_hash("new"));
    let index = set.publish(now).expect("a change");
    assert_eq!(index.by_pod(&PodId::ConfigHash("hash".into())).map(|p| &*p.uid), Some("new"));
}

#[test]
fn a_container_is_found_by_its_id_before_its_name() {
    let mut record = pod("u1", Some("c1"));
    record.containers[0].ids[1] = Some("c0".into());
    assert_eq!(record.container(Some("c0"), None).map(|c| &*c.name), Some("web"), "before its restart");
    assert_eq!(record.container(Some("other"), Some("web")).map(|c| &*c.name), Some("web"));
    assert!(record.container(None, None).is_none());
    assert!(record.container(Some("other"), Some("db")).is_none());
}

/// opentelemetry-ebpf-instrumentation#656, opentelemetry-collector-contrib#42978: the late end of the old pod takes the
/// names of the new one away.
#[test]
fn the_late_end_of_a_pod_does_not_touch_the_one_that_took_its_name() {
    let mut set = PodSet::default();
    let now = Instant::now();
    let named = |uid: &str, container: &str| PodRecord { name: "web-0".into(), ..pod(uid, Some(container)) };
    set.apply(named("old", "c1"));
    set.apply(named("new", "c2"));
    set.delete("old", now);
    let index = set.publish(now).expect("a change");
    for (id, uid) in [("c1", "old"), ("c2", "new")] {
        assert_eq!(index.by_container(id).map(|pod| &*pod.uid), Some(uid));
    }
    assert!(index.by_pod(&uid("new")).is_some_and(|pod| !pod.life.deleting));
}
