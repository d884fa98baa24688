use std::fs;

use super::*;

/// No container of this machine: the mount table is looked at too.
const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
const PODMAN: &str = "4f24eb817b000e81b2f9d13ab15e0b813020a6d3ae5ef7f72a5cda28886f37fb";

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fixtures/attribution/", $name)).as_slice()
    };
}

fn parse_oci(text: &[u8]) -> serde_json::Result<BundleNames> {
    serde_json::from_slice::<OciConfig>(text).map(BundleNames::from)
}

fn parse_docker(text: &[u8]) -> serde_json::Result<BundleNames> {
    serde_json::from_slice::<DockerConfig>(text).map(BundleNames::from)
}

fn some(s: &str) -> Option<String> {
    Some(s.to_string())
}

fn shop(container: Option<&str>, name: Option<&str>) -> BundleNames {
    BundleNames {
        namespace: some("shop"),
        pod: some("web-5d9c"),
        pod_uid: some("2f1c1b0e-8a3f-4d41-9d3a-5b0a1d9f7c11"),
        container: container.map(String::from),
        sandbox: container.is_none(),
        name: name.map(String::from),
    }
}

#[test]
fn containerd_names_container_and_sandbox() {
    let burn = BundleNames {
        namespace: some("kg-attr"),
        pod: some("burn"),
        pod_uid: some("d341e8db-112f-4371-804f-3616d814d3d6"),
        container: some("burn"),
        sandbox: false,
        name: None,
    };
    assert_eq!(parse_oci(fixture!("containerd-container.json")).expect("json"), burn);
    let sandbox = BundleNames { container: None, sandbox: true, ..burn };
    assert_eq!(parse_oci(fixture!("containerd-sandbox.json")).expect("json"), sandbox);
}

#[test]
fn crio_names_by_the_kubelets_labels() {
    assert_eq!(parse_oci(fixture!("crio-container.json")).expect("json"), shop(Some("web"), None));
}

#[test]
fn docker_names_with_and_without_kubernetes() {
    let plain = BundleNames { name: some("kg-web"), ..BundleNames::default() };
    assert_eq!(parse_docker(fixture!("docker.json")).expect("json"), plain);
    let uid = "2f1c1b0e-8a3f-4d41-9d3a-5b0a1d9f7c11";
    let container = shop(Some("web"), Some(&format!("k8s_web_web-5d9c_shop_{uid}_0")));
    assert_eq!(parse_docker(fixture!("docker-k8s-container.json")).expect("json"), container);
    let sandbox = shop(None, Some(&format!("k8s_POD_web-5d9c_shop_{uid}_0")));
    assert_eq!(parse_docker(fixture!("docker-k8s-sandbox.json")).expect("json"), sandbox);
}

#[test]
fn podman_names_in_its_list() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = dir.path().join("overlay-containers");
    let bundle = storage.join(PODMAN).join("userdata");
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.json"), fixture!("podman-config.json")).expect("written");
    let mut bundles = Bundles::new(&[dir.path().into()]);
    let unnamed = BundleNames::default();
    assert_eq!(bundles.look_up(PODMAN), Ok(unnamed.clone()), "a container, though its list is not there");
    fs::write(storage.join("containers.json"), fixture!("podman-containers.json")).expect("written");
    assert_eq!(bundles.look_up(PODMAN), Ok(BundleNames { name: some("kg-web"), ..unnamed }));
}

/// A store of Podman with one container, and these lists.
fn podman(lists: &[(&str, String)]) -> (tempfile::TempDir, Bundles) {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = dir.path().join("overlay-containers");
    let bundle = storage.join(ID).join("userdata");
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.json"), br#"{"annotations": {}}"#).expect("written");
    for (name, text) in lists {
        fs::write(storage.join(name), text).expect("written");
    }
    let bundles = Bundles::new(&[dir.path().into()]);
    (dir, bundles)
}

/// `podman run --rm` and Quadlets: their containers are in a list of their own (google/cadvisor#3648).
#[test]
fn podmans_volatile_containers_have_names() {
    let entry = format!(r#"[{{"id":"{ID}","names":["quadlet-web"]}}]"#);
    for other in [None, Some("[]"), Some("no list at all")] {
        let mut lists = vec![("volatile-containers.json", entry.clone())];
        lists.extend(other.map(|text| ("containers.json", text.to_owned())));
        let (_dir, mut bundles) = podman(&lists);
        assert_eq!(bundles.look_up(ID).expect("found").name, some("quadlet-web"), "{other:?}");
    }
}

#[test]
fn a_long_list_and_one_bad_entry_of_it_name_the_others() {
    let other =
        |i: usize| format!(r#"{{"id":"{i:064x}","names":["web-{i}"],"metadata":"{}"}}"#, "x".repeat(500));
    let mut all: Vec<String> = (1000..3400).map(other).collect();
    all.push(r#"{"id":"00","names":null}, {"id":7}, null, "x""#.into());
    all.push(format!(r#"{{"id":"{ID}","names":["last"]}}"#));
    let text = format!("[{}]", all.join(","));
    assert!(text.len() > 1 << 20);
    let (dir, mut bundles) = podman(&[("containers.json", text)]);
    assert_eq!(bundles.look_up(ID).expect("found").name, some("last"));
    // A list that changes is read again.
    let text = format!(r#"[{{"id":"{ID}","names":["renamed"]}}]"#);
    fs::write(dir.path().join("overlay-containers/containers.json"), text).expect("written");
    assert_eq!(bundles.look_up(ID).expect("found").name, some("renamed"));
}

#[test]
fn a_list_that_cannot_be_read_is_told() {
    let (_dir, mut bundles) = podman(&[("containers.json", "[{".into())]);
    assert!(matches!(bundles.look_up(ID), Err(Miss::Unreadable(why)) if why.contains("containers.json")));
}

/// A pod in a namespace of 2,000 Services (kubernetes#84539).
#[test]
fn a_bundle_with_26000_variables_is_read() {
    let env: Vec<String> = (0..26_000)
        .map(|i| format!("SVC_{i}_SERVICE_PORT_HTTP=tcp://10.96.{}.{}:8080", i / 256, i % 256))
        .collect();
    let text = serde_json::json!({
        "process": {"env": env},
        "annotations": {"io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "shop"},
    });
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = dir.path().join(TASKS).join("k8s.io").join(ID);
    fs::create_dir_all(&bundle).expect("made");
    let text = text.to_string();
    assert!(text.len() > 1 << 20);
    fs::write(bundle.join("config.json"), &text).expect("written");
    let mut bundles = Bundles::new(&[dir.path().into()]);
    assert_eq!(bundles.look_up(ID).expect("found").pod, some("web-0"));
    // What is longer than is read says that, not what the parser missed.
    fs::write(bundle.join("config.json"), format!("{{\"x\":\"{}", "y".repeat(17 << 20))).expect("written");
    let error = bundles.look_up(ID);
    assert!(matches!(&error, Err(Miss::Unreadable(why)) if why.contains("longer than 16 MiB")), "{error:?}");
}

#[test]
fn homes_are_those_of_users() {
    let passwd = "root:x:0:0:root:/root:/bin/bash\nbad\nweb:x:1000:1000:,,,:/home/web:/bin/sh\nx:x:y:1::/x:\nz:x:5:5::rel:\n";
    let found: Vec<_> = homes(passwd).collect();
    assert_eq!(found, [("0", "/root".into()), ("1000", "/home/web".into())]);
}

#[test]
fn a_root_may_be_given_in_either_way_and_appear_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let tasks = dir.path().join("run").join(TASKS);
    for given in [dir.path().join("run"), tasks.clone()] {
        let mut bundles = Bundles::new(&[given]);
        let _ = fs::remove_dir_all(&tasks);
        assert_eq!(bundles.look_up(ID), Err(Miss::Absent));
        let bundle = tasks.join("k8s.io").join(ID);
        fs::create_dir_all(&bundle).expect("made");
        assert_eq!(bundles.look_up(ID), Err(Miss::Absent), "the directory comes before the file");
        let text = fixture!("containerd-container.json");
        fs::write(bundle.join("config.json"), &text[..text.len() / 2]).expect("written");
        let half = bundles.look_up(ID);
        assert!(matches!(&half, Err(Miss::Unreadable(why)) if why.contains(ID)), "{half:?}");
        fs::write(bundle.join("config.json"), text).expect("written");
        assert_eq!(bundles.look_up(ID).expect("found").pod, some("burn"));
    }
}

#[test]
fn docker_goes_on_where_containerd_has_no_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let moby = dir.path().join(TASKS).join("moby").join(ID);
    let docker = dir.path().join("containers").join(ID);
    fs::create_dir_all(&moby).expect("made");
    fs::create_dir_all(&docker).expect("made");
    fs::write(moby.join("config.json"), br#"{"ociVersion": "1.0.2", "hostname": "x"}"#).expect("written");
    fs::write(docker.join("config.v2.json"), fixture!("docker.json")).expect("written");
    let mut bundles = Bundles::new(&[dir.path().into()]);
    assert_eq!(bundles.look_up(ID).expect("found").name, some("kg-web"));
}

#[test]
fn ids_do_not_leave_their_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let tasks = dir.path().join(TASKS);
    fs::create_dir_all(tasks.join("k8s.io")).expect("made");
    fs::write(tasks.join("config.json"), fixture!("containerd-container.json")).expect("written");
    let mut bundles = Bundles::new(&[dir.path().into()]);
    for id in ["..", ".", "", "a/b", "../.."] {
        assert_eq!(bundles.look_up(id), Err(Miss::Absent), "{id:?}");
    }
}

#[test]
fn names_that_cannot_be_are_not_taken() {
    let long = "x".repeat(254);
    for bad in ["", "a b", "a\nb", "\u{7}", &long] {
        let text = serde_json::json!({"annotations": {"io.kubernetes.cri.sandbox-name": bad}}).to_string();
        assert_eq!(parse_oci(text.as_bytes()).expect("json").pod, None, "{bad:?}");
    }
    for bad in ["", "7", "{\"annotations\": 1}", "{\"annotations\": {\"io.kubernetes.cri.sandbox-name\": 7}}"]
    {
        assert!(parse_oci(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(parse_oci(b"{}").expect("json"), BundleNames::default());
    assert_eq!(parse_oci(br#"{"annotations": {}}"#).expect("json"), BundleNames::default());
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = dir.path().join(TASKS).join("k8s.io").join(ID);
    fs::create_dir_all(&bundle).expect("made");
    std::os::unix::fs::symlink("/dev/zero", bundle.join("config.json")).expect("linked");
    let mut bundles = Bundles::new(&[dir.path().into()]);
    assert!(matches!(bundles.look_up(ID), Err(Miss::Unreadable(_))));
}

#[test]
fn roots_are_found_in_the_mount_table() {
    // Lines of real hosts: containerd with a state directory of its own, Podman, Docker.
    let table = format!(
        "89 27 0:52 / /srv/cd-run/io.containerd.runtime.v2.task/k8s.io/{ID}/rootfs rw,relatime - overlay overlay rw\n\
         77 27 0:42 / /srv/cd-run/io.containerd.runtime.v2.task/default/web/rootfs rw,relatime - overlay overlay rw\n\
         46 27 0:39 / /srv/pod-root/overlay-containers/{PODMAN}/userdata/shm rw,nosuid - tmpfs shm rw,size=64000k\n\
         47 27 0:69 / /srv/docker/containers/{ID}/mounts/shm rw,nosuid - tmpfs shm rw,size=64000k\n\
         48 27 0:70 / /srv/docker/overlay2/{ID}/merged rw - overlay overlay rw\n\
         27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
         nonsense\n"
    );
    // A mount point that is no text hides none of them.
    let table = [b"90 27 0:9 / /mnt/caf\xe9 rw - ext4 /dev/vdb rw\n".as_slice(), table.as_bytes()].concat();
    let expected = [
        Root::Tasks("/srv/cd-run/io.containerd.runtime.v2.task".into()),
        Root::Storage("/srv/pod-root/overlay-containers".into()),
        Root::Docker("/srv/docker/containers".into()),
    ];
    assert_eq!(roots_in(&table[..]), expected);
}

#[test]
fn directories_that_were_named_are_told_with_what_is_wrong_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let tasks = dir.path().join("good").join(TASKS);
    fs::create_dir_all(&tasks).expect("made");
    fs::create_dir_all(dir.path().join("empty")).expect("made");
    let given = ["good", "empty", "missing"].map(|name| dir.path().join(name));
    let all = Bundles::new(&given).directories();
    let of = |path: &std::path::Path| all.iter().find(|d| d.path == path);
    assert_eq!(of(&tasks).map(|d| (d.runtime, d.error.is_none())), Some(("containerd", true)));
    for (path, why) in [(&given[1], "no runtime's containers"), (&given[2], "No such file")] {
        let told = of(path).expect("told");
        assert!(told.error.as_ref().is_some_and(|e| e.contains(why)), "{told:?}");
    }
    assert!(of(&given[0]).is_none(), "it holds one");
}

/// No name comes out that could not be one.
fn can_be(names: &BundleNames) {
    let all = [&names.namespace, &names.pod, &names.pod_uid, &names.container, &names.name];
    for name in all.into_iter().flatten() {
        assert!((1..=DNS_NAME).contains(&name.len()) && !name.chars().any(is_hidden), "{name:?}");
    }
}

#[test]
fn no_bundle_panics() {
    let seeds = [
        fixture!("containerd-container.json"),
        fixture!("containerd-sandbox.json"),
        fixture!("crio-container.json"),
        fixture!("docker-k8s-container.json"),
        fixture!("docker.json"),
        fixture!("podman-config.json"),
        fixture!("podman-containers.json"),
    ];
    crate::testfuzz::Mutator::new(&seeds).each(|text| {
        parse_oci(text).iter().for_each(can_be);
        parse_docker(text).iter().for_each(can_be);
        if let Ok(names) = podman::names_in(text) {
            names
                .values()
                .for_each(|name| can_be(&BundleNames { name: Some(name.clone()), ..BundleNames::default() }));
        }
    });
}

#[test]
fn no_mount_table_or_list_of_users_panics() {
    let tasks = format!("89 27 0:52 / /run/containerd/{TASKS}/k8s.io/{ID}/rootfs rw - overlay overlay rw\n");
    let docker = format!("47 27 0:69 / /srv/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n");
    let users = b"root:x:0:0:root:/root:/bin/bash\nweb:x:1000:1000:,,,:/home/web:/bin/sh\n";
    crate::testfuzz::Mutator::new(&[tasks.as_bytes(), docker.as_bytes(), users]).each(|text| {
        let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        assert!(roots_in(text).len() <= lines);
        assert!(homes(&String::from_utf8_lossy(text)).count() <= lines);
    });
}
