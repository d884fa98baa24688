//! The manifests' programs where there are addresses of one family alone, with the arguments, environment, mounts and
//! probes that the manifests give. (With reconcilers and an API server: tests/cluster/families.rs.)

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::bed::cgroup::Cgroup;
use crate::bed::manifest::{Container, ports, probes};
use crate::bed::net::Netns;
use crate::bed::process::{output, without_ipv6};
use crate::bed::receiver::Receiver;
use crate::bed::{http, kernel_gossip, repository, tool, until};

/// A machine that has no address of the other family.
fn confine(address: IpAddr) -> impl FnOnce(&mut Command) {
    move |command| {
        if address.is_ipv4() {
            without_ipv6(command);
        }
    }
}

fn ask(netns: &Netns, address: IpAddr, port: u16, path: &str) -> Option<http::Answer> {
    netns.inside(|| http::try_get(SocketAddr::new(address, port), path, "").ok())
}

/// The kubelet is answered.
fn is_well(netns: &Netns, address: IpAddr, template: &Value) {
    for (port, path) in probes(template) {
        let answer = || ask(netns, address, port, &path).filter(|answer| answer.status == 200);
        until(&format!("answer at {port}{path}"), answer);
    }
    for port in ports(template) {
        let connected = netns.inside(|| std::net::TcpStream::connect((address, port)));
        connected.unwrap_or_else(|e| panic!("{address}, {port}: {e}"));
    }
}

/// Where the agent's volumes are: the cgroups of this machine, and nobody's bundles.
fn of_agent(volume: &Value, dir: &Path) -> PathBuf {
    match volume["name"].as_str() {
        Some("cgroup") => PathBuf::from("/sys/fs/cgroup"),
        Some("token") => dir.join("token"),
        _ => dir.to_owned(),
    }
}

fn token(dir: &Path) {
    fs::create_dir(dir.join("token")).unwrap();
    fs::write(dir.join("token/token"), "secret").unwrap();
}

/// The agent's probes are answered at this address, the only one there is, and its whispers get to a receiver there, whose
/// endpoint is an address.
async fn runs_at(address: IpAddr, netns: &Netns) {
    let yaml = fs::read_to_string(repository().join("k8s/base/agent.yaml")).unwrap();
    let daemon_set: Value = serde_saphyr::from_str(&yaml).unwrap();
    let template = &daemon_set["spec"]["template"];
    let receiver = netns.inside(|| std::net::TcpListener::bind((address, 4317)).unwrap());
    receiver.set_nonblocking(true).unwrap();
    let mut receiver = Receiver::start_listening(TcpListener::from_std(receiver).unwrap(), None);
    let dir = tempfile::tempdir().unwrap();
    token(dir.path());
    let container = Container {
        template,
        program: kernel_gossip().get_program().into(),
        field: &|_| "node-1".to_owned(),
        volume: &|volume| of_agent(volume, dir.path()),
        mounts: Vec::new(),
        variables: vec![("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", receiver.endpoint())],
        hosts: String::new(),
    };
    let agent = container.start(netns, confine(address));
    is_well(netns, address, template);
    let shown = ask(netns, address, ports(template)[0], "/metrics").expect("an answer").body;
    assert!(shown.contains("kernel_gossip_agent_"), "{shown}");
    let cgroup = Cgroup::new("families");
    cgroup.limit(Some(Duration::from_millis(20)), Duration::from_millis(100));
    let _burner = cgroup.burn(1, None);
    let arrived = receiver.next().await;
    let token = arrived.metadata.get("authorization").expect("sent along");
    assert_eq!(token, "Bearer secret");
    assert!(arrived.records().iter().any(|r| r.event_name == "kernel_gossip.whisper"), "{arrived:?}");
    let (status, lines) = agent.terminate();
    assert!(status.success(), "{status}: {lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_shipped_the_agent_needs_no_ipv4() {
    let netns = Netns::new("six");
    netns.ip("addr del 127.0.0.1/8 dev lo");
    runs_at(Ipv6Addr::LOCALHOST.into(), &netns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_shipped_the_agent_needs_no_ipv6() {
    let netns = Netns::new("four");
    runs_at(Ipv4Addr::LOCALHOST.into(), &netns).await;
}

/// The default install: the agent finds the collector by its Service's name, and what it sends is shown there. The address
/// is the only one beside the loopback's, of which every pod has both (Go listens for both families only where it finds
/// 127.0.0.1).
fn sends_to_the_collector(address: IpAddr) {
    let yaml = output(tool("kustomize").arg("build").arg(repository().join("k8s")));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let of = |kind: &str, name: &str| {
        let mut named = objects
            .iter()
            .filter(|o| o["kind"] == kind && o["metadata"]["name"].as_str().unwrap().starts_with(name));
        named.next().unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let netns = Netns::new("install");
    let single = if address.is_ipv6() { "128 dev lo nodad" } else { "32 dev lo" };
    netns.ip(&format!("addr add {address}/{single}"));
    let dir = tempfile::tempdir().unwrap();
    token(dir.path());
    let config = &of("ConfigMap", "kernel-gossip-collector")["data"];
    fs::write(dir.path().join("collector.yaml"), config["collector.yaml"].as_str().unwrap()).unwrap();

    let template = &of("Deployment", "kernel-gossip-collector")["spec"]["template"];
    let collector = Container {
        template,
        program: tool("otelcol").get_program().into(),
        field: &|path| panic!("{path} of a collector"),
        volume: &|_| dir.path().to_owned(),
        mounts: Vec::new(),
        variables: Vec::new(),
        hosts: String::new(),
    };
    let collector = collector.start(&netns, confine(address));
    is_well(&netns, address, template);

    let template = &of("DaemonSet", "kernel-observer")["spec"]["template"];
    let agent = Container {
        template,
        program: kernel_gossip().get_program().into(),
        field: &|_| "node-1".to_owned(),
        volume: &|volume| of_agent(volume, dir.path()),
        mounts: Vec::new(),
        variables: vec![("OTEL_METRIC_EXPORT_INTERVAL", "1000".to_owned())],
        hosts: format!("{address} kernel-gossip-collector.kernel-gossip.svc\n"),
    };
    let agent = agent.start(&netns, confine(address));
    is_well(&netns, address, template);
    until("series of the agent at the collector", || {
        ask(&netns, address, 8889, "/metrics")?.body.contains("kernel_gossip_cpu_usage_time").then_some(())
    });
    for pod in [agent, collector] {
        let (status, lines) = pod.terminate();
        assert!(status.success(), "{status}: {lines:?}");
    }
}

#[test]
#[ignore = "needs otelcol and kustomize: scripts/test host"]
fn as_shipped_the_collector_needs_no_ipv4() {
    sends_to_the_collector("fd00:10:96::10".parse().unwrap());
}

#[test]
#[ignore = "needs otelcol and kustomize: scripts/test host"]
fn as_shipped_the_collector_needs_no_ipv6() {
    sends_to_the_collector("10.96.0.10".parse().unwrap());
}
