use proptest::prelude::*;

use super::*;

const UID: &str = "d341e8db-112f-4371-804f-3616d814d3d6";
const UID_: &str = "d341e8db_112f_4371_804f_3616d814d3d6";
const HASH: &str = "bf4eb23c48bbcc272d5dc8a1a460e91b";
const ID: &str = "47b78268104a1bdd76bf17cc2663859935cb749077de2ec48f39bce98c6e3122";
const OUTER: &str = "9b8993c621e038dcea16791755a552fe3ff482f46249c39016f023e8f45127f8";

/// A layout with its places filled in.
fn path(layout: &str) -> String {
    let places = [("UID_", UID_), ("UID", UID), ("HASH", HASH), ("OUTER", OUTER), ("ID", ID)];
    places.iter().fold(layout.to_string(), |s, (name, value)| s.replace(&format!("<{name}>"), value))
}

#[test]
fn containers_of_pods() {
    use Qos::*;
    let cases = [
        // cgroupfs driver
        ("/kubepods/burstable/pod<UID>/<ID>", Burstable, None),
        ("/kubepods/besteffort/pod<UID>/<ID>", BestEffort, None),
        ("/kubepods/pod<UID>/<ID>", Guaranteed, None),
        // systemd driver
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/cri-containerd-<ID>.scope",
            Burstable,
            Some(Runtime::Containerd),
        ),
        (
            "/kubepods.slice/kubepods-pod<UID_>.slice/cri-containerd-<ID>.scope",
            Guaranteed,
            Some(Runtime::Containerd),
        ),
        // containerd given the wrong driver
        (
            "/system.slice/containerd.service/kubepods-burstable-pod<UID_>.slice:cri-containerd:<ID>",
            Burstable,
            Some(Runtime::Containerd),
        ),
        // CRI-O, with both drivers; crun may put the processes in a child
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<UID_>.slice/crio-<ID>.scope",
            BestEffort,
            Some(Runtime::CriO),
        ),
        ("/kubepods/burstable/pod<UID>/crio-<ID>", Burstable, Some(Runtime::CriO)),
        // cri-dockerd
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/docker-<ID>.scope",
            Burstable,
            Some(Runtime::Docker),
        ),
        // kind, from inside the node and from its host, and a custom cgroup root
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod<UID_>.slice/cri-containerd-<ID>.scope",
            Burstable,
            Some(Runtime::Containerd),
        ),
        ("/kubelet/kubepods/burstable/pod<UID>/<ID>", Burstable, None),
        (
            "/system.slice/docker-<OUTER>.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<UID_>.slice/cri-containerd-<ID>.scope",
            Guaranteed,
            Some(Runtime::Containerd),
        ),
        ("/docker/<OUTER>/kubelet/kubepods/besteffort/pod<UID>/<ID>", BestEffort, None),
        // a node in LXC, seen from its host
        ("/lxc.payload.node1/kubepods/burstable/pod<UID>/<ID>", Burstable, None),
        // Kata, and a reader in another cgroup namespace
        ("/kubepods/burstable/pod<UID>/kata_<ID>", Burstable, Some(Runtime::Kata)),
        ("/../../besteffort/pod<UID>/<ID>", BestEffort, None),
    ];
    for (layout, qos, runtime) in cases {
        // In a pod a container may call what it makes as it likes, and be a cluster: all of it is the container's.
        let other = "/kubelet/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555";
        let (pod, conmon) = (format!("{other}/<OUTER>"), format!("{other}/crio-conmon-<OUTER>.scope"));
        for below in [
            "",
            "/container",
            "/init.scope",
            "/system.slice/nginx.service",
            "/docker/<OUTER>",
            other,
            &pod,
            &conmon,
        ] {
            let anchor = path(layout);
            let whole = anchor.clone() + &path(below);
            let got = classify(&whole);
            assert_eq!(got.kind, Kind::Container { id: Some(ID), name: None, runtime }, "{whole}");
            assert_eq!(got.anchor, anchor, "{whole}");
            let pod = got.pod.expect("in a pod");
            assert_eq!(pod.id, PodId::Uid(UID.into()), "{whole}");
            assert_eq!(pod.qos, qos, "{whole}");
            assert!(!got.unknown, "{whole}");
        }
    }
}

#[test]
fn static_pods_are_named_by_their_hash() {
    for layout in [
        "/kubepods/burstable/pod<HASH>/<ID>",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<HASH>.slice/crio-<ID>.scope",
    ] {
        let whole = path(layout);
        let got = classify(&whole);
        assert_eq!(got.pod.map(|p| p.id), Some(PodId::ConfigHash(HASH.into())), "{whole}");
        assert!(matches!(got.kind, Kind::Container { id: Some(ID), .. }), "{whole}");
    }
}

#[test]
fn pods_and_their_helpers() {
    for layout in [
        "/kubepods/burstable/pod<UID>",
        "/kubepods.slice/kubepods-pod<UID_>.slice",
        "/system.slice/docker-<OUTER>.scope/kubelet/kubepods/pod<UID>",
    ] {
        let whole = path(layout);
        let got = classify(&whole);
        assert_eq!((got.kind, got.anchor, got.unknown), (Kind::Pod, whole.as_str(), false));
        assert_eq!(got.pod.and_then(|p| p.cgroup), Some(whole.as_str()));
    }
    // CRI-O's monitor of a container is of the pod, but not the container.
    let monitor = path("/kubepods.slice/kubepods-pod<UID_>.slice/crio-conmon-<ID>.scope");
    let got = classify(&monitor);
    assert_eq!((got.kind, got.anchor, got.unknown), (Kind::PodHelper, monitor.as_str(), false));
    // What nobody knows stays with the pod, and is counted.
    let odd = path("/kubepods/pod<UID>/sidecar/inner");
    let got = classify(&odd);
    let anchor = path("/kubepods/pod<UID>/sidecar");
    assert_eq!((got.kind, got.anchor, got.unknown), (Kind::PodHelper, anchor.as_str(), true));
}

#[test]
fn containers_without_kubernetes() {
    let id = |runtime| Kind::Container { id: Some(ID), name: None, runtime };
    let name = |name, runtime| Kind::Container { id: None, name: Some(name), runtime: Some(runtime) };
    let garden = |name| Kind::Container { id: None, name: Some(name), runtime: None };
    let cases = [
        ("/docker/<ID>", "", id(Some(Runtime::Docker))),
        ("/system.slice/docker-<ID>.scope", "/init.scope", id(Some(Runtime::Docker))),
        ("/system.slice/docker-<ID>.scope", "/system.slice/kubelet.service", id(Some(Runtime::Docker))),
        ("/machine.slice/libpod-<ID>.scope", "/container", id(Some(Runtime::Podman))),
        ("/libpod_parent/libpod-<ID>", "", id(Some(Runtime::Podman))),
        ("/libpod_parent/<OUTER>/libpod-<ID>", "", id(Some(Runtime::Podman))),
        ("/machine.slice/machine-libpod_pod_<OUTER>.slice/libpod-<ID>.scope", "", id(Some(Runtime::Podman))),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<ID>.scope",
            "",
            id(Some(Runtime::Podman)),
        ),
        ("/system.slice/nerdctl-<ID>.scope", "", id(Some(Runtime::Containerd))),
        ("/default/<ID>", "", id(None)),
        ("/somewhere/<ID>", "/below", id(None)),
        ("/default/web", "", name("web", Runtime::Containerd)),
        ("/default/web", "/below", name("web", Runtime::Containerd)),
        ("/lxc.payload.web", "/system.slice/nginx.service", name("web", Runtime::Lxc)),
        ("/lxc.payload/web", "/init.scope", name("web", Runtime::Lxc)),
        ("/lxc/101", "/ns/init.scope", name("101", Runtime::Lxc)),
        ("/garden/70c68d6b-36a7-4a6b-5b4c-3f7e", "", garden("70c68d6b-36a7-4a6b-5b4c-3f7e")),
        ("/garden/good/70c68d6b-36a7-4a6b-5b4c-3f7e", "/init", garden("70c68d6b-36a7-4a6b-5b4c-3f7e")),
        ("/ecs/0f9de17a6465404e8b1b2356dc13c2f8/<ID>", "", id(None)),
        ("/kata_overhead/<ID>", "", id(None)),
    ];
    for (anchor, below, kind) in cases {
        let (anchor, whole) = (path(anchor), path(anchor) + &path(below));
        let got = classify(&whole);
        assert_eq!((got.kind, got.anchor, got.unknown), (kind, anchor.as_str(), false), "{whole}");
        assert_eq!(got.pod, None, "{whole}");
    }
}

#[test]
fn units_and_plain_cgroups() {
    let cases = [
        ("/", "/", Kind::Root),
        ("/system.slice", "/system.slice", Kind::Unit("system.slice")),
        ("/system.slice/ssh.service", "/system.slice/ssh.service", Kind::Unit("ssh.service")),
        (
            "/system.slice/containerd.service/supervisor",
            "/system.slice/containerd.service",
            Kind::Unit("containerd.service"),
        ),
        (
            "/user.slice/user-0.slice/user@0.service/app.slice/x.scope",
            "/user.slice/user-0.slice/user@0.service/app.slice/x.scope",
            Kind::Unit("x.scope"),
        ),
        ("/system.slice/mine", "/system.slice/mine", Kind::Plain),
        ("/podruntime/kubelet", "/podruntime/kubelet", Kind::Plain),
        ("/kubepods", "/kubepods", Kind::Plain),
        ("/kubepods/besteffort", "/kubepods/besteffort", Kind::Plain),
        (
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods.slice/kubepods-burstable.slice",
            Kind::Unit("kubepods-burstable.slice"),
        ),
        (
            "/process_api/0d6d73df24b5b4ca2a58985d41584dea",
            "/process_api/0d6d73df24b5b4ca2a58985d41584dea",
            Kind::Plain,
        ),
        ("/docker", "/docker", Kind::Plain),
        ("/default", "/default", Kind::Plain),
        ("/libpod_parent/conmon", "/libpod_parent/conmon", Kind::Plain),
    ];
    for (whole, anchor, kind) in cases {
        let got = classify(whole);
        assert_eq!((got.kind, got.anchor, got.unknown), (kind, anchor, false), "{whole}");
    }
    let monitor = path("/machine.slice/libpod-conmon-<ID>.scope");
    assert!(matches!(classify(&monitor).kind, Kind::Unit(_)));
    let podman_pod = path("/libpod_parent/<ID>");
    assert_eq!(classify(&podman_pod).kind, Kind::Plain);
    let podman_pod = path("/machine.slice/machine-libpod_pod_<ID>.slice");
    assert!(matches!(classify(&podman_pod).kind, Kind::Unit(_)));
    // More of the same word after the UID makes it another word.
    for end in ["-x", "_1", "a"] {
        let longer = path("/kubepods/pod<UID>") + end + &path("/<ID>");
        assert_eq!(classify(&longer).pod, None, "{longer}");
    }
}

/// As `machinectl` shows them.
#[test]
fn machines_have_their_names() {
    for (unit, name) in [
        ("machine-qemu\\x2d1\\x2dvm1.scope", Some("qemu-1-vm1")),
        ("machine-web.scope", Some("web")),
        ("machine-a\\x1b.scope", Some("a\\x1b")),
        ("machine-a\\xe9.scope", Some("a\\xe9")),
        ("machine-a\\x2.scope", Some("a\\x2")),
        ("machine-.scope", None),
        ("machine-web.service", None),
        ("web.scope", None),
    ] {
        assert_eq!(machine(unit).as_deref(), name, "{unit}");
    }
}

#[test]
fn what_looks_like_a_container_and_is_none_is_counted() {
    let mut unknown = UnknownShapes::default();
    let odd = [
        "/kubepods/burstable/pod1234/web",
        "/kubepods.slice/kubepods-podXYZ.slice",
        "/kubepods/burstable/pod<UID>x/<UID_>",
        "/system.slice/docker-web.scope",
        "/kubepods.slice/kubepods-burstable.slice/cri-containerd-web.scope",
        "/docker/<OUTER>/kubelet/kubepods/podXYZ",
    ];
    for layout in odd {
        let whole = path(layout);
        let got = classify(&whole);
        assert!(got.unknown, "{whole}: {got:?}");
        assert!(got.pod.is_none(), "{whole}");
        assert!(unknown.note(&whole));
        assert!(!unknown.note(&whole), "kept once");
    }
    for i in 0..100 {
        unknown.note(&format!("/kubepods/{i}"));
    }
    assert_eq!(
        (unknown.count, unknown.examples.len()),
        (2 * odd.len() as u64 + 100, UnknownShapes::EXAMPLES)
    );
}

prop_compose! {
    fn uid()(bytes in any::<[u8; 16]>(), hash in any::<bool>()) -> (String, bool) {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if hash {
            return (hex, true);
        }
        let dashed = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        (dashed, false)
    }
}

prop_compose! {
    fn id()(bytes in any::<[u8; 32]>()) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}

proptest! {
    /// Any combination of prefix, QoS class, driver, runtime and groups below resolves to the UID and
    /// the container id put in.
    #[test]
    fn every_combination_resolves(
        (uid, is_hash) in uid(),
        id in id(),
        other in id(),
        prefix in prop_oneof![
            Just("".to_string()),
            Just("/kubelet".to_string()),
            Just("/../..".to_string()),
            "/[a-z][a-z0-9]{0,12}(\\.slice)?",
            id().prop_map(|i| format!("/system.slice/docker-{i}.scope")),
        ],
        qos in prop::sample::select(vec!["", "burstable", "besteffort"]),
        driver in 0..3,
        runtime in prop::sample::select(vec!["cri-containerd", "crio", "docker"]),
        below in prop_oneof![
            Just("".to_string()),
            Just("/container".to_string()),
            "(/[a-z0-9.-]{1,20}){0,4}",
            id().prop_map(|i| format!("/docker/{i}")),
            (uid(), id()).prop_map(|((u, _), i)| format!("/kubepods/pod{u}/{i}")),
        ],
    ) {
        let class = if qos.is_empty() { String::new() } else { format!("-{qos}") };
        let slice = format!("kubepods{class}-pod{}.slice", uid.replace('-', "_"));
        let anchor = match driver {
            0 if qos.is_empty() => format!("{prefix}/kubepods/pod{uid}/{id}"),
            0 => format!("{prefix}/kubepods/{qos}/pod{uid}/{id}"),
            1 if qos.is_empty() => format!("{prefix}/kubepods.slice/{slice}/{runtime}-{id}.scope"),
            1 => format!("{prefix}/kubepods.slice/kubepods{class}.slice/{slice}/{runtime}-{id}.scope"),
            _ => format!("{prefix}/system.slice/{runtime}.service/{slice}:{runtime}:{id}"),
        };
        let whole = format!("{anchor}{below}");
        let got = classify(&whole);
        prop_assert!(matches!(got.kind, Kind::Container { id: Some(i), .. } if i == id), "{whole}: {:?}", got);
        prop_assert_eq!(got.anchor, &anchor);
        prop_assert!(!got.unknown);
        let pod = got.pod.expect("in a pod");
        prop_assert_eq!(pod.id, if is_hash { PodId::ConfigHash(uid) } else { PodId::Uid(uid) });
        let expected = match qos { "" => Qos::Guaranteed, "burstable" => Qos::Burstable, _ => Qos::BestEffort };
        prop_assert_eq!(pod.qos, expected);
        // The monitor of a container is not the container.
        let monitor = whole.replace(&id, &format!("conmon-{other}"));
        let got = classify(&monitor);
        let found = matches!(got.kind, Kind::Container { id: Some(i), .. } if i == other);
        prop_assert!(!found, "{}", monitor);
    }

    /// Whatever the string: no panic, nothing invented, and the anchor a prefix that ends at a segment.
    #[test]
    fn nothing_is_invented(
        path in prop_oneof![
            any::<String>(),
            "[-/_.:a-f0-9podkube]{0,200}",
            "(/[a-zé-]{0,8}pod[a-f0-9_-]{30,40}[-./:]?[a-f0-9]{62,66}){1,3}",
        ],
    ) {
        let got = classify(&path);
        prop_assert!(path.starts_with(got.anchor));
        prop_assert!(got.anchor.len() == path.len() || path[got.anchor.len()..].starts_with('/'));
        if let Some(pod) = got.pod {
            let (PodId::Uid(text) | PodId::ConfigHash(text)) = pod.id;
            prop_assert!(path.contains(&text) || path.contains(&text.replace('-', "_")), "{text} in {path}");
        }
        if let Kind::Container { id: Some(id), .. } = got.kind {
            prop_assert!(id.len() == 64 && path.contains(id));
        }
        // What an anchor is, is said by the anchor alone.
        let again = classify(got.anchor);
        prop_assert_eq!(again.anchor, got.anchor);
        prop_assert_eq!(again.kind, got.kind);
    }
}

#[test]
fn no_cgroup_path_panics() {
    let seeds: Vec<String> = [
        "/kubepods/burstable/pod<UID>/<ID>",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/cri-containerd-<ID>.scope",
        "/system.slice/containerd.service/kubepods-burstable-pod<UID_>.slice:cri-containerd:<ID>",
        "/machine.slice/libpod-<ID>.scope/container",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm1.scope",
        "/garden/good/70c68d6b-36a7-4a6b-5b4c-3f7e",
        "/lxc.payload.web/system.slice/nginx.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope",
    ]
    .map(path)
    .to_vec();
    let seeds: Vec<&[u8]> = seeds.iter().map(String::as_bytes).collect();
    crate::testfuzz::Mutator::new(&seeds).each(|bytes| {
        let text = crate::kernel::cgroups::name::text(bytes);
        assert_eq!(&*crate::kernel::cgroups::name::bytes(&text), bytes);
        let got = classify(&text);
        assert!(text.starts_with(got.anchor));
        if let Kind::Unit(unit) = got.kind {
            assert!(got.anchor.ends_with(unit));
            assert!(machine(unit).is_none_or(|name| name.len() <= unit.len()));
        }
    });
}

/// What other people reported of other tools (reports.md has those tried before), each with its right answer.
#[test]
fn what_was_reported_of_other_tools() {
    let said = |path: &str| {
        let class = classify(path);
        let pod = class.pod.as_ref().map(|pod| pod.id.as_str().to_owned() + "/").unwrap_or_default();
        match class.kind {
            Kind::Root => "root".to_owned(),
            Kind::Container { id, name, .. } => pod + id.or(name).unwrap_or_default(),
            Kind::Unit(unit) => unit.to_owned(),
            Kind::Pod => pod,
            Kind::PodHelper => pod + "helper",
            Kind::Plain => "plain".to_owned(),
        }
    };
    for (report, layout, expected) in [
        // Podman below a service: with `--cgroups=split` (Quadlets) the container beside its monitor.
        ("coroot-node-agent#277", "/system.slice/haproxy.service/libpod-payload-<ID>", "<ID>"),
        ("coroot-node-agent#277", "/system.slice/haproxy.service/runtime", "haproxy.service"),
        ("coroot-node-agent#223", "/lxc.payload.samba19/system.slice/smbd.service", "samba19"),
        ("coroot-node-agent#223", "/lxc.monitor.samba19", "plain"),
        ("coroot-node-agent#214", "/azure.slice/walinuxagent.service", "walinuxagent.service"),
        ("coroot-node-agent#114", "/system.slice/sshd.service", "sshd.service"),
        ("opentelemetry-ebpf-instrumentation#481", "/k8s.io/<ID>", "<ID>"),
        ("zeropod#65", "/system.slice/kubepods-besteffort-pod<UID_>.slice:cri-containerd:<ID>", "<UID>/<ID>"),
        (
            "tetragon#2639, #5693",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<UID_>.slice/crio-<ID>.scope/container",
            "<UID>/<ID>",
        ),
        ("cri-o#10074", "/init/kubepods/burstable/pod<UID>/crio-<ID>", "<UID>/<ID>"),
        ("cri-o#10074", "/crio-<ID>", "<ID>"),
        (
            "opentelemetry-js#3614",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/cri-containerd-<ID>.scope",
            "<UID>/<ID>",
        ),
        ("opentelemetry-go#3633", "/ecs/<HASH>/<ID>", "<ID>"),
        ("opentelemetry-go#3633", "/ecstasks.slice/ecstasks-<HASH>.slice/docker-<ID>.scope", "<ID>"),
        ("podtrace#149 (Talos)", "/kubepods/burstable/pod<UID>/<ID>", "<UID>/<ID>"),
        (
            "kepler#153 (kind)",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod<UID_>.slice/cri-containerd-<ID>.scope",
            "<UID>/<ID>",
        ),
        ("datadog-agent#20225", "/user.slice/user-1000.slice/session-3.scope/libpod-<ID>", "<ID>"),
        ("netdata#12419 (Nomad)", "/nomad.slice/share.slice/<UID>.redis.scope", "<UID>.redis.scope"),
        ("moby/buildkit", "/system.slice/docker.service/docker/buildkit/q8m0zhcnxvt9w", "docker.service"),
        ("minikube", "/docker/<OUTER>/kubepods/besteffort/pod<UID>/<ID>", "<UID>/<ID>"),
        (
            "kubernetes#106514",
            "/system.slice/containerd.service/kubepods-burstable-pod<HASH>.slice:cri-containerd:<ID>",
            "<HASH>/<ID>",
        ),
        ("pcp#476", "/docker/<ID>", "<ID>"),
        ("jpetazzo/dind#87", "/system.slice/docker-<ID>.scope/docker/<OUTER>", "<ID>"),
        ("dstack#4267", "/kubepods/besteffort/pod<UID>/<ID>/dind", "<UID>/<ID>"),
        (
            "kubernetes/test-infra#37440",
            "/kubepods/pod<UID>/<ID>/docker/<OUTER>/kubelet/kubepods/pod<HASH>/<OUTER>",
            "<UID>/<ID>",
        ),
        // A UUID in a unit's name is no container of Cloud Foundry's.
        (
            "tracee#958",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/snap.lxd.lxc.<UID>.scope",
            "snap.lxd.lxc.<UID>.scope",
        ),
        (
            "apm-agent-go#776",
            "/user.slice/user-1000.slice/user@1000.service/apps.slice/apps-org.gnome.Terminal.slice/vte-spawn-<UID>.scope",
            "vte-spawn-<UID>.scope",
        ),
        (
            "datadog-agent#22025",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/<UID>.scope",
            "<UID>.scope",
        ),
        ("datadog-agent#11140", "/kubelet/kubepods/besteffort/pod<UID>/<ID>", "<UID>/<ID>"),
        ("dd-agent#2537", "/mygroup/<ID>", "<ID>"),
        ("podman#10800", "/libpod_parent/<OUTER>/libpod-<ID>", "<ID>"),
        ("podman#9252", "/machine.slice/libpod-<ID>.scope/init.scope", "<ID>"),
        ("envbox#168", "/docker/<ID>/system.slice/sshd.service", "<ID>"),
        (
            "envbox#169",
            "/kubepods.slice/kubepods-pod<UID_>.slice/cri-containerd-<ID>.scope/docker/<OUTER>",
            "<UID>/<ID>",
        ),
        ("netdata#10006", "/kubepods/burstable/pod<UID>", "<UID>/"),
        ("cadvisor#1900", "/ecs/<UID>/<ID>", "<ID>"),
        (
            "cgroup_exporter#30",
            "/system.slice/node1_slurmstepd.scope/job_850/step_0/user/task_0",
            "node1_slurmstepd.scope",
        ),
        ("jobstats#61", "/slurm_node1/uid_1000/job_850/step_batch", "plain"),
        ("runwasi#821", "/kubepods-besteffort-pod<UID_>.slice:cri-containerd:<ID>", "<UID>/<ID>"),
        ("coroot#467", "/podruntime.slice/kubelet.service", "kubelet.service"),
    ] {
        assert_eq!(said(&path(layout)), path(expected), "{report}: {layout}");
        assert!(!classify(&path(layout)).unknown, "{report}: {layout}");
    }
}

#[test]
fn who_is_in_a_container_or_a_machine_cannot_leave_it() {
    for (layout, expected) in [
        ("/", None),
        ("/system.slice/kubelet.service", None),
        ("/podruntime/runtime", None),
        ("/user.slice/user-1000.slice/session-1.scope", None),
        ("/kubepods/burstable/pod<UID>/<ID>/docker/<OUTER>", None),
        ("/system.slice/containerd.service/kubepods-pod<UID_>.slice:cri-containerd:<ID>", None),
        ("/docker/<OUTER>/kubelet/kubepods/burstable/pod<UID>/<ID>", Some("/docker/<OUTER>")),
        ("/docker/<OUTER>/system.slice/containerd.service", Some("/docker/<OUTER>")),
        (
            "/system.slice/docker-<OUTER>.scope/kubelet.slice/kubelet-kubepods-pod<UID_>.slice",
            Some("/system.slice/docker-<OUTER>.scope"),
        ),
        ("/lxc.payload.node1/kubepods/burstable/pod<UID>/<ID>", Some("/lxc.payload.node1")),
        (
            "/machine.slice/machine-web.scope/payload/system.slice/a.service",
            Some("/machine.slice/machine-web.scope"),
        ),
    ] {
        assert_eq!(realm(&path(layout)).map(str::to_owned), expected.map(path), "{layout}");
    }
}
