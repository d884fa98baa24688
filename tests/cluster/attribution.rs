//! Attribution against a real kubelet, runtime and API server: the test bed's (`KG_TESTBED` set, and
//! `KUBECONFIG` its kubeconfig). Each test makes what it needs and takes it away again.

use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bed;
use crate::cluster::bed::{Hold, Namespace, eventually, install_definitions};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::attribution::pods::PodIndex;
use kernel_gossip::attribution::processes::Processes;
use kernel_gossip::attribution::watch::{self, ApiStatus, Pods};
use kernel_gossip::attribution::{AttributionOptions, Attributor, Workload, WorkloadKind};
use kernel_gossip::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Reading, StatReading};
use kernel_gossip::testlog;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const NODE: &str = "kg-node";

/// The cluster's kubeconfig.
fn kubeconfig() -> PathBuf {
    bed::testbed();
    std::env::var_os("KUBECONFIG").expect("the cluster's").into()
}

fn sleeper(namespace: &str, name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "still", "image": "testbed.local/busybox:1", "command": ["sleep", "3600"],
                "resources": {"limits": {"cpu": "250m"}, "requests": {"cpu": "50m"}},
            }],
        },
    })
}

/// A running pod's UID, its container's id, and a process of that container.
async fn running(pods: &Api<Pod>, name: &str) -> (String, String, i32) {
    let (uid, id) = eventually("the pod to run", || async {
        let pod = pods.get_opt(name).await.ok()??;
        let status = pod.status?.container_statuses?.into_iter().next()?;
        status.state.as_ref()?.running.as_ref()?;
        let id = status.container_id?.split_once("://")?.1.to_string();
        Some((pod.metadata.uid?, id))
    })
    .await;
    let process = procfs::process::all_processes()
        .expect("/proc")
        .filter_map(Result::ok)
        .find(|p| p.cgroups().is_ok_and(|all| all.0.iter().any(|c| c.pathname.contains(&id))));
    (uid, id, process.expect("a process of the container").pid())
}

/// Where the tree of the cpu controller is mounted.
fn reading_root() -> &'static Path {
    let v1 = Path::new("/sys/fs/cgroup/cpu");
    if v1.is_dir() { v1 } else { Path::new("/sys/fs/cgroup") }
}

/// What the kernel side tells of the cgroup at `path` and of those above it: ids, paths, quotas.
fn reading(path: &str) -> Reading {
    let root = reading_root();
    let v1 = root.ends_with("cpu");
    let hierarchy = if v1 { Hierarchy::V1Cpu } else { Hierarchy::Unified };
    let mut reading = Reading::default();
    for path in Path::new(path).ancestors() {
        let dir = root.join(path.strip_prefix("/").expect("absolute"));
        let id = std::fs::metadata(&dir).expect("the cgroup's directory").ino();
        let cgroup = CgroupKey { hierarchy, id };
        let path = path.to_str().expect("text").to_string();
        reading.changes.push(CgroupChange::Present { cgroup, path });
        let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<i64>().ok();
        let micros = |name| number(name).and_then(|us| u64::try_from(us * 1000).ok());
        let stat = CgroupStat {
            quota: micros("cpu.cfs_quota_us"),
            period: micros("cpu.cfs_period_us"),
            ..CgroupStat::default()
        };
        reading.stats.push(StatReading { cgroup, stat });
    }
    reading
}

fn attributed(options: AttributionOptions, path: &str, pods: &PodIndex) -> (Attributor, Arc<Workload>) {
    let mut attributor = Attributor::new(options);
    let out = attributor.attribute(&reading(path), pods);
    let sample = out.samples.iter().find(|s| s.who.cgroup == path).expect("a sample");
    let who = sample.who.clone();
    if Path::new("/sys/fs/cgroup/cpu").is_dir() {
        assert_eq!(sample.quota_cores, Some(0.25), "the quota the kubelet set");
    }
    (attributor, who)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the cluster: scripts/test cluster"]
async fn a_limited_pod_is_named_by_the_runtime_alone_and_by_the_api_alone() {
    let kubeconfig = kubeconfig();
    let client = watch::client(Some(&kubeconfig)).await.expect("a client");
    let held = Namespace::new("attribution-pod");
    let namespace = &*held.0;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = serde_json::from_value(sleeper(namespace, "limited")).expect("a pod");
    api.create(&PostParams::default(), &pod).await.expect("created");
    let (uid, id, pid) = running(&api, "limited").await;
    let processes = Processes::new();
    let path = processes.cgroup(pid).expect("the process's cgroup");
    let named = |who: &Workload| {
        assert_eq!(who.label(), format!("{namespace}/limited/still"));
        assert_eq!(
            (who.kind, who.pod_uid.as_deref(), who.container_id.as_deref()),
            (WorkloadKind::Container, Some(&*uid), Some(&*id))
        );
    };

    // The runtime alone. Its directory is none of the usual ones: the mount table shows it.
    let (attributor, who) = attributed(AttributionOptions::default(), &path, &PodIndex::default());
    named(&who);
    assert_eq!((who.confirmed, who.cpu_limit), (false, None));
    let pod_path = Path::new(&*path).parent().and_then(Path::to_str).expect("the pod's cgroup");
    let of_pod = attributor.current(pod_path).expect("known");
    assert_eq!((of_pod.kind, of_pod.label()), (WorkloadKind::Pod, format!("{namespace}/limited")));
    let by_pid = processes.workload(pid, &attributor).expect("known");
    assert!(Arc::ptr_eq(&by_pid, &who));

    // The API alone.
    let options = AttributionOptions { read_bundles: false, ..AttributionOptions::default() };
    let (_, who) = attributed(options.clone(), &path, &PodIndex::default());
    assert_eq!(who.label(), *path, "nobody has named it yet");
    let pods = Arc::new(Pods::default());
    let task = tokio::spawn({
        let (client, pods) = (client.clone(), pods.clone());
        async move { watch::watch(client, NODE, &pods).await }
    });
    let index = eventually("the watch", || async {
        let index = pods.index();
        index.by_container(&id).is_some().then_some(index)
    })
    .await;
    let (_, who) = attributed(options.clone(), &path, &index);
    named(&who);
    assert_eq!((who.confirmed, who.cpu_limit, who.cpu_request), (true, Some(0.25), Some(0.05)));

    // The pod is deleted: its last words still carry its name.
    api.delete("limited", &DeleteParams::default()).await.expect("deleted");
    eventually("the pod to go", || async { api.get_opt("limited").await.ok()?.is_none().then_some(()) })
        .await;
    let index = eventually("the watch to tell of it", || async {
        Some(pods.index()).filter(|now| now.generation() > index.generation())
    })
    .await;
    assert_eq!(index.by_container(&id).map(|p| p.name.as_str()), Some("limited"));
    task.abort();
}

/// `kernel-gossip who`, by the runtime's files alone and with the API server, there and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the cluster: scripts/test cluster"]
async fn who_tells_a_real_pod_of_its_process_and_its_processes() {
    let kubeconfig = kubeconfig();
    let client = watch::client(Some(&kubeconfig)).await.expect("a client");
    let held = Namespace::new("attribution-who");
    let namespace = &*held.0;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = serde_json::from_value(sleeper(namespace, "asked")).expect("a pod");
    api.create(&PostParams::default(), &pod).await.expect("created");
    let (uid, id, pid) = running(&api, "asked").await;
    let who = |what: &str, kubernetes: bool| {
        let mut command = bed::kernel_gossip();
        command.args(["who", what, "--output=json", "--node-name", NODE]).env("HOME", "/nonexistent");
        match kubernetes {
            true => command.arg("--kubeconfig").arg(&kubeconfig),
            false => command.env_remove("KUBECONFIG"),
        };
        let output = command.output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    install_definitions();
    held.apply(&json!({
        "apiVersion": "kernel.gossip.io/v1alpha1", "kind": "KernelWhisper", "metadata": {"name": "asked-kw"},
        "spec": {"podName": "asked", "podUid": uid, "nodeName": NODE},
    }));
    let status = json!({"status": {
        "state": "active", "severity": "critical", "signal": "cpu_throttle", "insight": "throttled 80 %", "kernelEvidence": "",
    }});
    held.kubectl(&[
        "patch",
        "kw",
        "asked-kw",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ]);
    for kubernetes in [false, true] {
        let told = who(&pid.to_string(), kubernetes);
        assert_eq!(told["whispers"][0]["insight"] == "throttled 80 %", kubernetes, "{told}");
        let workload = &told["workloads"][0];
        assert_eq!(workload["name"], format!("{namespace}/asked/still"), "{told}");
        assert_eq!((&workload["podUid"], &workload["containerId"]), (&json!(uid), &json!(id)));
        assert_eq!((&workload["confirmed"], &told["node"]), (&json!(kubernetes), &json!(NODE)));
        let limit = if kubernetes { json!(0.25) } else { json!(null) };
        assert_eq!(workload["cpuLimit"], limit, "{told}");
        let unknown = told["unknown"].as_array().expect("a list");
        assert_eq!(unknown.is_empty(), kubernetes, "{told}");
        // The kernel's own list of the container's processes.
        let root = reading_root();
        let procs = root.join(workload["cgroup"].as_str().expect("text").trim_start_matches('/'));
        let procs = std::fs::read_to_string(procs.join("cgroup.procs")).expect("the cgroup's processes");
        let expected: Vec<i32> = procs.lines().map(|pid| pid.parse().expect("a number")).collect();
        let told = who(&format!("{namespace}/asked"), kubernetes);
        let container =
            told["workloads"].as_array().expect("a list").iter().find(|w| w["container"] == "still");
        let processes = container.expect("the container")["processes"].as_array().expect("a list").clone();
        let listed: Vec<i64> = processes.iter().filter_map(|p| p["pid"].as_i64()).collect();
        assert!(listed.contains(&i64::from(pid)), "{told}");
        assert_eq!(listed.len(), expected.len(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the cluster: scripts/test cluster"]
async fn a_static_pod_gets_the_uid_the_api_has() {
    let kubeconfig = kubeconfig();
    let manifests = kubeconfig.parent().expect("a directory").join("manifests");
    let client = watch::client(Some(&kubeconfig)).await.expect("a client");
    let held = Namespace::new("attribution-static");
    let namespace = &*held.0;
    let manifest = manifests.join(format!("{namespace}.json"));
    std::fs::write(&manifest, sleeper(namespace, "fixed").to_string()).expect("written");
    let name = format!("fixed-{NODE}");
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let test = AssertUnwindSafe(async {
        let (uid, _, pid) = running(&api, &name).await;
        let path = Processes::new().cgroup(pid).expect("the process's cgroup");
        assert!(!path.contains(&uid), "the cgroup is named by the manifest's hash: {path}");
        let (_, who) = attributed(AttributionOptions::default(), &path, &PodIndex::default());
        assert_eq!((who.label(), who.pod_uid.as_deref()), (format!("{namespace}/{name}/still"), None));
        let pods = Arc::new(Pods::default());
        let task = tokio::spawn({
            let pods = pods.clone();
            async move { watch::watch(client, NODE, &pods).await }
        });
        let index = eventually("the watch", || async {
            let index = pods.index();
            index
                .by_pod(&kernel_gossip::attribution::paths::PodId::Uid(uid.clone()))
                .is_some()
                .then_some(index)
        })
        .await;
        task.abort();
        let options = AttributionOptions { read_bundles: false, ..AttributionOptions::default() };
        let (_, who) = attributed(options, &path, &index);
        assert_eq!((who.label(), who.pod_uid.as_deref()), (format!("{namespace}/{name}/still"), Some(&*uid)));
        assert_eq!(who.owner, Some(("Node".into(), NODE.into())));
    })
    .catch_unwind()
    .await;
    std::fs::remove_file(&manifest).expect("removed");
    eventually("the static pod to go", || async { api.get_opt(&name).await.ok()?.is_none().then_some(()) })
        .await;
    if let Err(panic) = test {
        std::panic::resume_unwind(panic);
    }
}

/// The cluster's kubeconfig with one text replaced.
fn altered(kubeconfig: &Path, from: &str, to: &str) -> tempfile::NamedTempFile {
    let text = std::fs::read_to_string(kubeconfig).expect("read");
    assert!(text.contains(from), "no {from:?} in {}", kubeconfig.display());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text.replace(from, to)).expect("written");
    file
}

async fn status(pods: &Pods, what: &str, wanted: impl Fn(&ApiStatus) -> bool) -> Arc<ApiStatus> {
    eventually(what, || async {
        let status = pods.status();
        wanted(&status).then_some(status)
    })
    .await
}

/// Sends each connection on to the API server, until it is aborted.
fn forward(listener: TcpListener, server: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let server = server.clone();
            connections.spawn(async move {
                let mut to = TcpStream::connect(&server).await?;
                copy_bidirectional(&mut from, &mut to).await
            });
        }
    })
}

/// On one thread, so that what it logs is told from what others do.
#[tokio::test]
#[ignore = "needs the cluster: scripts/test cluster"]
async fn the_watch_outlives_an_api_server_that_goes_away() {
    let _hold = Hold::shared();
    let kubeconfig = kubeconfig();
    testlog::keep();
    let text = std::fs::read_to_string(&kubeconfig).expect("read");
    let server = text.lines().find_map(|l| l.trim().strip_prefix("server: https://")).expect("a server");
    // Between the agent and the real API server, so that the way to it can be cut without harm to others.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let config = altered(&kubeconfig, server, &address.to_string());
    let client = watch::client(Some(config.path())).await.expect("a client");
    let pods = Arc::new(Pods::default());
    assert_eq!(*pods.status(), ApiStatus::Unused);

    // At first nobody answers, however often it is asked.
    let task = tokio::spawn({
        let pods = pods.clone();
        async move { watch::watch(client, NODE, &pods).await }
    });
    for _ in 0..3 {
        drop(listener.accept().await.expect("another try"));
    }
    let down = |s: &ApiStatus| matches!(s, ApiStatus::Down(_));
    status(&pods, "the API server to be missed", down).await;
    let up = forward(listener, server.into());
    status(&pods, "the API server to be found", |s| *s == ApiStatus::Up).await;
    // The connections are cut and no other is taken; then it is there again.
    up.abort();
    let _ = up.await;
    status(&pods, "the API server to be missed again", down).await;
    forward(TcpListener::bind(address).await.expect("bound again"), server.into());
    status(&pods, "the API server to be found again", |s| *s == ApiStatus::Up).await;
    task.abort();

    let log = testlog::lines_of_this_thread();
    let ours: Vec<_> = log.iter().filter(|l| l.contains("attribution")).collect();
    let said: Vec<_> = ours.iter().map(|l| l.contains("no word from the API server")).collect();
    assert_eq!(said, [true, false, true, false], "{log:#?}");
    assert!(ours[1].contains("API server: "), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the cluster: scripts/test cluster"]
async fn a_refusal_says_what_to_grant() {
    let _hold = Hold::shared();
    let kubeconfig = kubeconfig();
    let config = altered(&kubeconfig, "  user:\n", "  user:\n    as: nobody\n");
    let client = watch::client(Some(config.path())).await.expect("a client");
    let pods = Arc::new(Pods::default());
    let task = tokio::spawn({
        let pods = pods.clone();
        async move { watch::watch(client, NODE, &pods).await }
    });
    let why = status(&pods, "the refusal", |s| matches!(s, ApiStatus::Down(_))).await;
    let ApiStatus::Down(why) = &*why else { unreachable!() };
    assert!(why.ends_with("; grant the agent get, list and watch on pods"), "{why}");
    task.abort();
}
