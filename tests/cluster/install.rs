//! The documented way, on a real cluster: an image, `kubectl apply -k`, a burning
//! pod, its whisper, and the demo to its end. The images are put there by `scripts/image --import` and
//! `tests/testbed/image` (scripts/test install).

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bed::cgroup::cpu_tree;
use crate::bed::{self, kubectl, process, repository, whisper};
use crate::cluster::bed::Hold;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kernel_gossip::api::{KernelWhisper, Source, object_name};
use kube::api::ListParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use procfs::process::{Process, Status};
use tonic::Code;
use tonic::transport::Channel;

const NAMESPACE: &str = "kernel-gossip";

/// What was installed; dropping it takes it away again, but for the definitions.
struct Install;

impl Install {
    fn new() -> Install {
        bed::testbed();
        let install = Install;
        let overlay = repository().join("tests/fixtures/manifests/testbed");
        process::output(kubectl().args(["apply", "--server-side", "-k"]).arg(overlay));
        for workload in [
            "daemonset/kernel-observer",
            "deployment/kernel-gossip-operator",
            "deployment/kernel-gossip-collector",
        ] {
            let rollout = ["-n", NAMESPACE, "rollout", "status", "--timeout=180s", workload];
            let out = kubectl().args(rollout).output().unwrap();
            assert!(out.status.success(), "{workload} does not come up: {}", said_by(workload));
        }
        install
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        let _ = kubectl().args(["delete", "namespace", NAMESPACE]).output();
        let cluster_wide = "clusterrole,clusterrolebinding,priorityclass";
        let label = "app.kubernetes.io/part-of=kernel-gossip";
        let _ = kubectl().args(["delete", cluster_wide, "-l", label]).output();
    }
}

/// What the pods of a workload look like, and their last words.
fn said_by(workload: &str) -> String {
    let of = |args: &[&str]| {
        let out = kubectl().args(["-n", NAMESPACE]).args(args).output().unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    of(&["get", "pods"]) + &of(&["logs", "--tail=20", workload])
}

/// The first process of each pod with this name label, as the kernel has it.
fn processes(name: &str) -> Vec<Status> {
    let path = r#"jsonpath={range .items[*]}{.status.qosClass} pod{.metadata.uid}/{.status.containerStatuses[0].containerID}{"\n"}{end}"#;
    let label = format!("app.kubernetes.io/name={name}");
    let pods = process::output(kubectl().args(["-n", NAMESPACE, "get", "pods", "-l", &label, "-o", path]));
    let of = |line: &str| {
        let (class, pod) = line.split_once(' ').unwrap();
        let class = if class == "Guaranteed" { String::new() } else { class.to_lowercase() };
        let dir = cpu_tree().mount.join("kubepods").join(class).join(pod.replace("containerd://", ""));
        let procs = std::fs::read_to_string(dir.join("cgroup.procs"))
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let pid = procs.lines().next().expect("a process").parse().unwrap();
        Process::new(pid).and_then(|p| p.status()).unwrap()
    };
    pods.lines().map(of).collect()
}

/// The token an agent's pod has: bound to the pod, and so to its node.
fn token_of(service_account: &str, pod: &str) -> String {
    let bound = format!("--bound-object-name={pod}");
    let create = ["-n", NAMESPACE, "create", "token", service_account, "--audience=kernel-gossip"];
    process::output(kubectl().args(create).args(["--bound-object-kind=Pod", &bound])).trim().into()
}

/// By the collector a whisper gets as far as its sender's token.
async fn a_whisper_goes_by_the_collector() {
    let client = Client::try_default().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let first = async |name: &str| {
        let label = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        pods.list(&label).await.unwrap().items.remove(0)
    };
    let pod = first("kernel-gossip-collector").await;
    let who = whisper::container(NAMESPACE, &pod.name_any(), &pod.uid().unwrap(), "collector");
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service = services.get("kernel-gossip-collector").await.unwrap();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    let channel = Channel::from_shared(format!("http://{address}:4317")).unwrap().connect_lazy();
    let mut collector = LogsServiceClient::new(channel);
    let event = whisper::event(&whisper::throttled(&who, Timestamp::now()), "kg-node");
    let message = ExportLogsServiceRequest { resource_logs: vec![event] };

    let whispers: Api<KernelWhisper> = Api::namespaced(client.clone(), NAMESPACE);
    let name = object_name(&pod.name_any(), "kw");
    // A service has no endpoint yet for a moment after its pod is ready, the collector's and the reconciler's.
    let end = Instant::now() + bed::PATIENCE;
    let said = loop {
        let said = collector.export(message.clone()).await.expect_err("nobody's word");
        if said.code() != Code::Unavailable || Instant::now() > end {
            break said;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(said.code(), Code::Unauthenticated, "{said}");
    assert!(whispers.get_opt(&name).await.unwrap().is_none());

    let agent = first("kernel-observer").await;
    let mut request = tonic::Request::new(message);
    let token = token_of("kernel-observer", &agent.name_any());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    collector.export(request).await.expect("the agent's word");
    let there = await_condition(whispers, &name, |kw: Option<&KernelWhisper>| {
        kw.is_some_and(|kw| kw.status.is_some())
    });
    let kw = tokio::time::timeout(bed::PATIENCE, there).await.expect("a whisper").unwrap().unwrap();
    assert_eq!(kw.spec.pod_uid, pod.uid().unwrap());
    assert_eq!(kw.status.unwrap().signals[0].source, Source::Kernel);
}

/// The role `view` of a namespace shows its whispers and certificates, and lets nobody write them.
fn who_may_view_a_namespace_reads_its_objects() {
    let binding =
        ["-n", NAMESPACE, "create", "rolebinding", "kg-viewer", "--clusterrole=view", "--user=kg-viewer"];
    process::output(kubectl().args(binding));
    let can = |verb: &str, resource: &str| {
        let ask = ["-n", NAMESPACE, "auth", "can-i", verb, resource, "--as=kg-viewer"];
        // Its exit code is the answer as well.
        let out = kubectl().args(ask).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    // The roles are put together by a controller, a moment after they are there.
    for resource in ["kernelwhispers.kernel.gossip.io", "podbirthcertificates.kernel.gossip.io"] {
        bed::until("the right to read", || (can("list", resource) == "yes").then_some(()));
        for verb in ["create", "patch", "delete"] {
            assert_eq!(can(verb, resource), "no", "{verb} {resource}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a cluster with the images: scripts/test install"]
async fn installed_by_kustomize_the_demo_ends_with_the_pod_unthrottled() {
    let _alone = Hold::alone();
    let _install = Install::new();

    // As the manifests say, by the kernel's word.
    const BPF_AND_PERFMON: u64 = 1 << 39 | 1 << 38;
    for (name, count, uid, capabilities) in [
        ("kernel-observer", 1, 0, BPF_AND_PERFMON),
        ("kernel-gossip-operator", 2, 65532, 0),
        ("kernel-gossip-collector", 1, 65532, 0),
    ] {
        let all = processes(name);
        assert_eq!(all.len(), count, "{name}");
        for status in all {
            assert_eq!((status.euid, status.ruid), (uid, uid), "{name}");
            assert_eq!((status.capeff, status.capbnd), (capabilities, Some(capabilities)), "{name}");
            assert_eq!((status.nonewprivs, status.seccomp), (Some(1), Some(2)), "{name}");
        }
    }

    a_whisper_goes_by_the_collector().await;
    who_may_view_a_namespace_reads_its_objects();

    let page = tempfile::NamedTempFile::new().unwrap();
    let mut demo = Command::new(repository().join("scripts/demo-final.sh"));
    demo.args(["--apply", "--html"])
        .arg(page.path())
        .env("KERNEL_GOSSIP", bed::kernel_gossip().get_program());
    let out = process::output(&mut demo);
    println!("{out}");
    assert!(out.contains("To start one pod the kernel did: "), "{out}");
    assert!(std::fs::read_to_string(page.path()).unwrap().contains("simple-nginx"));
    assert!(out.contains("the same container, never restarted"), "{out}");
    // By the reconciler: its status said so, and an Event on the pod.
    assert!(out.contains("ResizeVerified"), "{out}");
    let (_, story) = out.rsplit_once("What the metrics said, and what the kernel says").expect("the end");
    let told = |what: &str, words: &[&str]| {
        story.lines().any(|line| line.contains(what) && words.iter().all(|word| line.contains(word)))
    };
    assert!(told("starting simple-nginx", &["Running", "syscalls, 7 namespaces"]), "{story}");
    assert!(told("bursts, CPU", &["stopped by its limit"]), "{story}");
    assert!(told("worker, memory", &["Running", "OOM kill"]), "{story}");
    assert!(told("shop, network", &["0 packets dropped", "NETFILTER_DROP"]), "{story}");
}
