//! Who a cgroup is, as the runtime and the API server tell of it, in whichever order.

use super::*;

#[test]
fn the_runtime_names_container_sandbox_and_pod_and_the_api_the_rest() {
    let dir = runtime();
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    let pod = pod_path(UID);
    let (container, sandbox, other) =
        (format!("{pod}/{ID}"), format!("{pod}/{SANDBOX}"), format!("{pod}/{}", "c".repeat(64)));
    bench
        .present(v1(1), &container)
        .present(v1(2), &pod)
        .present(v1(3), &sandbox)
        .present(v1(4), &other)
        .read();
    let who = bench.who(&container);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Container, "kg-attr/burn/burn"));
    assert_eq!((who.pod_uid.as_deref(), who.container_id.as_deref()), (Some(UID), Some(ID)));
    assert_eq!((who.confirmed, who.cpu_limit, who.owner.as_ref()), (false, None, None));
    let who = bench.who(&sandbox);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Sandbox, "kg-attr/burn"));
    let who = bench.who(&pod);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Pod, "kg-attr/burn"));
    let who = bench.who(&other);
    assert_eq!(
        (who.label().as_str(), who.container.as_deref()),
        ("kg-attr/burn", None),
        "named by its siblings"
    );

    // The API server's word, when it comes: the same names here, and limits and owner.
    let mut set = PodSet::default();
    set.apply(PodRecord { namespace: "kg-attr".into(), name: "burn".into(), ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    let who = bench.who(&container);
    assert_eq!(who.label(), "kg-attr/burn/web", "the API knows the container by its id");
    assert_eq!((who.confirmed, who.cpu_limit, who.cpu_request), (true, Some(0.2), Some(0.1)));
    assert_eq!(who.owner, Some(("ReplicaSet".into(), "web-5d9c".into())));
    let who = bench.who(&sandbox);
    assert_eq!((who.kind, who.confirmed, who.container.as_deref()), (WorkloadKind::Sandbox, true, None));
}

#[test]
fn a_kata_sandbox_is_where_the_containers_run() {
    let dir = runtime();
    let options = AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() };
    let mut bench = Bench::with(options);
    let path = format!("{}/kata_{SANDBOX}", pod_path(UID));
    bench.present(v1(1), &path).read();
    let who = bench.who(&path);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Container, "kg-attr/burn"));
}

#[test]
fn without_a_runtime_the_api_names_late_and_for_good() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    bench.present(v2(1), &path).read();
    assert_eq!(bench.who(&path).label(), path, "nothing but the path is known");
    assert_eq!(bench.who(&path).pod_uid.as_deref(), Some(UID));
    let mut set = PodSet::default();
    set.apply(record(UID, None));
    bench.tell(&mut set);
    bench.read();
    assert_eq!((bench.who(&path).label().as_str(), bench.who(&path).confirmed), ("shop/web-5d9c-x", true));
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.read();
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
    // The pod is deleted, and long forgotten by the API's index, while the container ends.
    bench.pods = PodSet::default().publish(Instant::now()).unwrap_or_default();
    bench.gone(v2(1)).read();
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
}

#[test]
fn a_static_pod_has_the_apis_uid_once_that_is_known() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(HASH));
    bench.present(v2(1), &path).read();
    assert_eq!(bench.who(&path).pod_uid, None);
    let mut set = PodSet::default();
    set.apply(PodRecord { config_hash: Some(HASH.into()), ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    assert_eq!(bench.who(&path).pod_uid.as_deref(), Some(UID));
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
}

#[test]
fn a_container_outside_its_pod_is_found_by_its_id() {
    let mut bench = Bench::new();
    let path = format!("/system.slice/cri-containerd-{ID}.scope");
    let mut set = PodSet::default();
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.present(v2(1), &path).read();
    assert_eq!(
        (bench.who(&path).label().as_str(), bench.who(&path).pod_uid.as_deref()),
        ("shop/web-5d9c-x/web", Some(UID))
    );
}

#[test]
fn a_late_bundle_is_waited_for_but_not_for_ever() {
    let dir = runtime();
    let bundle = dir.path().join("io.containerd.runtime.v2.task/k8s.io").join(ID).join("config.json");
    let text = fs::read(&bundle).expect("read");
    fs::remove_file(&bundle).expect("removed");
    let options = AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() };
    let mut bench = Bench::with(options.clone());
    let path = format!("{}/{ID}", pod_path(UID));
    bench.present(v1(1), &path).read();
    bench.read();
    assert_eq!(bench.who(&path).label(), path);
    fs::write(&bundle, &text[..100]).expect("written");
    bench.read();
    fs::write(&bundle, &text).expect("written");
    for _ in 0..5 {
        bench.read();
    }
    assert_eq!(bench.who(&path).label(), "kg-attr/burn/burn");
    assert_eq!(bench.read().attribution.bundles_missed, 0);

    fs::remove_file(&bundle).expect("removed");
    let mut bench = Bench::with(options);
    bench.present(v1(1), &path);
    for _ in 0..60 {
        bench.read();
    }
    assert_eq!((bench.read().attribution.bundles_missed, bench.attributor.asking.len()), (1, 0));
}

#[test]
fn nothing_new_keeps_the_same_workload() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    let mut set = PodSet::default();
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.present(v1(1), &path).read();
    let first = bench.who(&path);
    set.apply(record("another", None));
    bench.tell(&mut set);
    bench.present(v1(2), "/x.service").cpu(v1(1), 5).read();
    assert!(Arc::ptr_eq(&first, &bench.who(&path)));
    let mut sidecar = record(UID, Some(ID));
    sidecar.containers.push(ContainerRecord { name: "sidecar".into(), ..ContainerRecord::default() });
    set.apply(sidecar);
    bench.tell(&mut set);
    bench.read();
    assert!(Arc::ptr_eq(&first, &bench.who(&path)), "news of the pod, not of the container");
    // And whoever comes later learns what was known before.
    let later = format!("{}/{SANDBOX}", pod_path(UID));
    bench.present(v1(3), &later).read();
    assert_eq!(bench.who(&later).label(), "shop/web-5d9c-x");
    set.apply(PodRecord { owner: None, ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    assert!(!Arc::ptr_eq(&first, &bench.who(&path)));
}

#[test]
fn a_unit_started_again_is_another() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/a.service").cpu(v1(1), 100).read();
    bench.gone(v1(1)).present(v1(2), "/a.service").cpu(v1(1), 110).cpu(v1(2), 1);
    let out = bench.read();
    let samples: Vec<_> = out.samples.iter().map(|s| (s.cpu.map(|c| c.run), s.last)).collect();
    assert_eq!(samples, [(Some(110), true)], "one sample a path: the old one's last");
    let sample = bench.cpu(v1(2), 2).sample("/a.service").expect("a sample");
    assert_eq!((sample.cpu.map(|c| c.run), sample.last), (Some(2), false));
}

#[test]
fn what_cannot_be_resolved_is_counted() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/kubepods/podX/y").cpu(v1(7), 1).stat(v1(8), CgroupStat::default()).blame(
        v1(1),
        v1(9),
        1,
    );
    let losses = bench.read().attribution;
    assert_eq!((losses.unresolved_ids, losses.unknown_shapes, losses.pods_known), (3, 2, 0));
    assert_eq!(bench.attributor.unknown_shapes().examples, ["/kubepods/podX", "/kubepods/podX/y"]);
    // The kernel goes on to tell of them, each reading: each is counted once.
    for s in 0..3 {
        bench.cpu(v1(7), 1).stat(v1(8), CgroupStat::default()).blame(v1(9), v1(7), 1).blame(v1(1), v1(9), 2);
        assert_eq!(bench.read().attribution.unresolved_ids, 3, "after {s} s more");
    }
    // Known at last: what it had is not lost.
    let sample = bench.present(v1(7), "/x.service").cpu(v1(7), 4).sample("/x.service").expect("a sample");
    assert_eq!(sample.cpu.map(|c| c.run), Some(4));
}

/// A container of Docker as its runtime's files name it.
fn docker(dir: &std::path::Path, name: &str) {
    let bundle = dir.join("containers").join(ID);
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.v2.json"), format!(r#"{{"Name":"/{name}","Config":{{}}}}"#))
        .expect("written");
}

#[test]
fn a_container_that_is_renamed_has_its_new_name_within_a_minute() {
    let dir = tempfile::tempdir().expect("a directory");
    docker(dir.path(), "one");
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    let path = format!("/docker/{ID}");
    bench.present(v1(1), &path).read();
    assert_eq!(bench.who(&path).label(), "one");
    docker(dir.path(), "two");
    bench.read();
    assert_eq!(bench.who(&path).label(), "one", "its file is not read each second");
    (0..60).for_each(|_| _ = bench.read());
    assert_eq!(bench.who(&path).label(), "two");
    // One that is gone keeps the last name it had.
    fs::remove_dir_all(dir.path().join("containers")).expect("removed");
    (0..120).for_each(|_| _ = bench.read());
    assert_eq!(bench.who(&path).label(), "two");
    assert_eq!(bench.read().attribution.bundles_missed, 0);
}

#[test]
fn a_container_that_nothing_names_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = dir.path().join("overlay-containers").join(ID).join("userdata");
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.json"), r#"{"annotations":{}}"#).expect("written");
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    bench.present(v1(1), &format!("/machine.slice/libpod-{ID}.scope"));
    assert_eq!(bench.read().attribution.bundles_missed, 1);
    assert_eq!(bench.read().attribution.bundles_missed, 1);
}

#[test]
fn the_root_cgroup_is_called_what_it_is() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/").read();
    let label = bench.who("/").label();
    assert!(label.contains("root cgroup") && !label.contains('/'), "{label}");
}
