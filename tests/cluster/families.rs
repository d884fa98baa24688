//! The install as `kubectl apply -k k8s/` has it on a network of one family: agent, collector and two reconcilers, each in a
//! network namespace as its pod, with the arguments, environment, mounts and probes of the manifests, and the API server
//! where its Service would be. A throttled pod becomes an object by way of all of them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Uri;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::bed::manifest::{Container, Pod, ports, probes};
use crate::bed::net::{Netns, run};
use crate::bed::process::without_ipv6;
use crate::bed::{http as client, kernel_gossip, kubectl, tool, until};
use crate::cluster::bed::agent::bundles;
use crate::cluster::bed::reconciler::apply_in;
use crate::cluster::bed::render::kustomize;
use crate::cluster::bed::{Namespace, OWNER};

/// Pods on a bridge, which is where the kubelet asks from and where the API server's Service is.
struct Network {
    bridge: Netns,
    /// Of the Service `kubernetes`: the first of its range, as the test bed's certificate has it.
    api: IpAddr,
    prefix: u8,
}

impl Network {
    fn new(api: IpAddr, prefix: u8) -> Network {
        let bridge = Netns::new("bridge");
        bridge.ip("link add br0 type bridge");
        let network = Network { bridge, api, prefix };
        network.address(&network.bridge, "br0", api);
        network.bridge.ip("link set br0 up");
        network
    }

    /// The only address beside the loopback's, of which every pod has both: Go listens for both families only where it
    /// finds 127.0.0.1.
    fn address(&self, netns: &Netns, device: &str, address: IpAddr) {
        let at_once = if address.is_ipv6() { "nodad" } else { "" };
        netns.ip(&format!("addr add {address}/{} dev {device} {at_once}", self.prefix));
    }

    fn pod(&self, name: &str, number: u8) -> (Netns, IpAddr) {
        let netns = Netns::new(name);
        let pair = format!(
            "link add eth0 netns {} type veth peer name {name} netns {}",
            netns.name, self.bridge.name
        );
        run("ip", &pair);
        let address = match self.api {
            IpAddr::V4(api) => {
                let [a, b, c, _] = api.octets();
                [a, b, c, number].into()
            }
            IpAddr::V6(api) => {
                let [a, b, c, d, e, f, g, _] = api.segments();
                [a, b, c, d, e, f, g, number.into()].into()
            }
        };
        self.address(&netns, "eth0", address);
        netns.ip("link set eth0 up");
        self.bridge.ip(&format!("link set {name} master br0 up"));
        (netns, address)
    }

    /// Leads what comes to the Service's address to the test bed's API server, byte by byte.
    fn lead_to_the_api_server(&self) {
        let listener = self.bridge.inside(|| std::net::TcpListener::bind((self.api, 443)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let server = crate::bed::process::output(kubectl().args([
            "config",
            "view",
            "--minify",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ]));
        let server: Uri = server.parse().unwrap();
        let server = server.authority().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut pod, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let mut api = TcpStream::connect(&server).await.unwrap();
                    copy_bidirectional(&mut pod, &mut api).await
                });
            }
        });
    }
}

/// What each pod of this install is given.
struct Install<'a> {
    objects: Vec<Value>,
    network: &'a Network,
    namespace: &'a str,
    /// Where the tokens, the authority's certificate and the collector's configuration are.
    dir: &'a Path,
}

/// A pod that runs, and where it is.
struct Up {
    pod: Pod,
    netns: Netns,
    address: IpAddr,
}

impl Install<'_> {
    fn template(&self, name: &str) -> &Value {
        let workloads = self.objects.iter().filter(|o| o["spec"]["template"].is_object());
        let mut named = workloads.filter(|o| o["metadata"]["name"] == name);
        &named.next().unwrap_or_else(|| panic!("no {name}"))["spec"]["template"]
    }

    fn volume(&self, volume: &Value) -> PathBuf {
        match volume["hostPath"]["path"].as_str() {
            // The test bed's containerd has its own.
            Some(path) if path.starts_with("/run/containerd") => bundles(),
            Some(path) => path.into(),
            None => self.dir.join(volume["name"].as_str().unwrap()),
        }
    }

    /// Starts a pod of this workload; `services`: where the names lead that the manifests have.
    fn start(&self, workload: &str, name: &str, number: u8, services: &[(&str, IpAddr)]) -> Up {
        let template = self.template(workload);
        let (netns, address) = self.network.pod(name, number);
        let field = |path: &str| match path {
            "spec.nodeName" => "kg-node".to_owned(),
            "metadata.name" => name.to_owned(),
            "metadata.namespace" => self.namespace.to_owned(),
            "status.podIP" => address.to_string(),
            other => panic!("what is {other}?"),
        };
        let account = (self.dir.join("account"), "/var/run/secrets/kubernetes.io/serviceaccount");
        let own = template["spec"]["automountServiceAccountToken"] != false;
        let program = if workload.ends_with("collector") { tool("otelcol") } else { kernel_gossip() };
        let hosts = services.iter().map(|(service, at)| format!("{at} {service}.kernel-gossip.svc\n"));
        let container = Container {
            template,
            program: program.get_program().into(),
            field: &field,
            volume: &|volume| self.volume(volume),
            mounts: Vec::from_iter(own.then_some(account)),
            // As the kubelet says it; and others have pods on this cluster, too.
            variables: vec![
                ("KUBERNETES_SERVICE_HOST", self.network.api.to_string()),
                ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
                ("ONLY_NAMESPACE", self.namespace.to_owned()),
            ],
            hosts: hosts.collect(),
        };
        let pod = container.start(&netns, |command: &mut Command| {
            if address.is_ipv4() {
                without_ipv6(command);
            }
        });
        let up = Up { pod, netns, address };
        for (port, path) in probes(template) {
            until(&format!("answer of {name} at {port}{path}"), || {
                self.get(&up, port, &path).filter(|answer| answer.status == 200)
            });
        }
        for port in ports(template) {
            let connected = self.network.bridge.inside(|| std::net::TcpStream::connect((address, port)));
            connected.unwrap_or_else(|e| panic!("{name} at {address}, {port}: {e}"));
        }
        up
    }

    /// Asks as the kubelet does.
    fn get(&self, of: &Up, port: u16, path: &str) -> Option<client::Answer> {
        self.network.bridge.inside(|| client::try_get(SocketAddr::new(of.address, port), path, "").ok())
    }

    /// The sum of a reconciler's numbers that begin so.
    fn metric(&self, of: &Up, prefix: &str) -> f64 {
        let shown = self.get(of, 9090, "/metrics").expect("metrics").body;
        let lines = shown.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// The files of the volumes: the agent's token, a service account that may do everything (who may do what, others test),
/// the collector's configuration.
fn files(dir: &Path, namespace: &Namespace, objects: &[Value]) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("token/token", &namespace.caller("agent", &["/otlp/cluster"]));
    apply_in(
        None,
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{}-all", namespace.0), "labels": {OWNER: namespace.0}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": namespace.0}],
        }),
    );
    write("account/token", &namespace.token("agent", &[]));
    write("account/namespace", &namespace.0);
    write("account/ca.crt", &namespace.get("configmap/kube-root-ca.crt", r"{.data.ca\.crt}"));
    let map = objects.iter().find(|o| o["kind"] == "ConfigMap").expect("the collector's configuration");
    for (file, text) in map["data"].as_object().unwrap() {
        write(&format!("config/{file}"), text.as_str().unwrap());
    }
}

async fn installed(name: &str, api: IpAddr, prefix: u8) {
    let namespace = Namespace::throttled(name);
    let network = Network::new(api, prefix);
    network.lead_to_the_api_server();
    let dir = tempfile::tempdir().unwrap();
    let objects = kustomize("k8s");
    files(dir.path(), &namespace, &objects);
    let install = Install { objects, network: &network, namespace: &namespace.0, dir: dir.path() };
    let whole = || {
        let leader = install.start("kernel-gossip-operator", "operator-0", 10, &[]);
        let follower = install.start("kernel-gossip-operator", "operator-1", 11, &[]);
        // The Service leads to one of them.
        let operator = [("kernel-gossip-operator", follower.address)];
        let collector = install.start("kernel-gossip-collector", "collector", 12, &operator);
        let agent = install.start(
            "kernel-observer",
            "observer",
            13,
            &[("kernel-gossip-collector", collector.address)],
        );
        let shown = install.get(&agent, 9464, "/metrics").expect("metrics").body;
        assert!(shown.contains("kernel_gossip_agent_"), "{shown}");
        namespace.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "burner", "image": "testbed.local/busybox:1", "command": ["sh", "-c", "while :; do :; done"],
                "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "10m"}}}]},
        }));
        let said = until("object about the throttled pod", || {
            let get = ["-n", &namespace.0, "get", "kw", "limited-kw", "-o", "json"];
            let out = kubectl().args(get).output().ok()?;
            let object: Value = serde_json::from_slice(&out.stdout).ok()?;
            object["status"].is_object().then_some(object)
        });
        assert_eq!(said["spec"]["nodeName"], "kg-node", "{said:#}");
        assert_eq!(said["status"]["kernelTruth"]["source"], "kernel", "{said:#}");
        // By the follower, which hands it to the leader at its pod's address.
        let leads = [&leader, &follower].map(|one| install.metric(one, "kernel_gossip_reconciler_leading "));
        assert_eq!(leads, [1.0, 0.0]);
        let handed =
            install.metric(&follower, "kernel_gossip_reconciler_connections_total{end=\"forwarded\"}");
        assert!(handed >= 1.0 && install.metric(&leader, "kernel_gossip_reconciler_reports_total") >= 1.0);
        for up in [agent, collector, follower, leader] {
            let (status, lines) = up.pod.terminate();
            assert!(status.success(), "{} {status}: {lines:#?}", up.netns.name);
        }
    };
    // It waits, and the API server's connections go on meanwhile.
    tokio::task::block_in_place(whole);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster and otelcol: scripts/test cluster"]
async fn the_install_needs_no_ipv4() {
    installed("six", "fd00:10:96::1".parse().unwrap(), 112).await;
}

/// `ipv6.disable=1`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster and otelcol: scripts/test cluster"]
async fn the_install_needs_no_ipv6() {
    installed("four", "10.96.0.1".parse().unwrap(), 24).await;
}
