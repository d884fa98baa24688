//! An agent and a reconciler for one namespace.

use std::io::Write;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Value, json};

use crate::cluster::{Namespace, feed};
use crate::common::process::{Running, output};
use crate::common::{free_address, kernel_gossip, kubectl, repository, testbed_dir, until};

pub struct Bed {
    agent: Running,
    _reconciler: Running,
    pub namespace: Namespace,
    /// Where the agent serves its metrics.
    pub metrics: String,
    _token: tempfile::NamedTempFile,
    _share: Share,
}

/// Tests that measure time have the node to themselves.
static NODE: RwLock<()> = RwLock::new(());

#[allow(dead_code, reason = "held, not read")]
enum Share {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Bed {
    /// `arguments`: more of the agent's.
    pub fn new(name: &str, arguments: &[&str]) -> Bed {
        let share = NODE.read().unwrap_or_else(PoisonError::into_inner);
        Bed::with(Share::Shared(share), name, arguments)
    }

    /// The same; nothing else of this program runs meanwhile.
    pub fn alone(name: &str, arguments: &[&str]) -> Bed {
        let share = NODE.write().unwrap_or_else(PoisonError::into_inner);
        Bed::with(Share::Alone(share), name, arguments)
    }

    fn with(share: Share, name: &str, arguments: &[&str]) -> Bed {
        let namespace = Namespace::new(name);
        let crds = repository().join("k8s/crds");
        output(kubectl().args(["apply", "--server-side", "--force-conflicts", "-k", crds.to_str().unwrap()]));
        output(kubectl().args([
            "wait",
            "--for=condition=Established",
            "crd/podbirthcertificates.kernel.gossip.io",
            "--timeout=30s",
        ]));
        let token = caller(&namespace);
        let [otlp, webhook, metrics, own] =
            [free_address(), free_address(), free_address(), free_address()].map(|a| a.port().to_string());
        let mut reconciler = Running::start(kernel_gossip().args([
            "reconciler",
            "--listen",
            "127.0.0.1",
            "--otlp-port",
            &otlp,
            "--webhook-port",
            &webhook,
            "--metrics-port",
            &metrics,
            "--leader-election=false",
            "--only-namespace",
            &namespace.0,
        ]));
        reconciler.says("what the API knows is taken over");
        let mut agent = Running::start(
            kernel_gossip()
                .args(["agent", "--node-name", "kg-node", "--output", "json"])
                .args(["--otlp-logs-endpoint", &format!("http://127.0.0.1:{otlp}")])
                .args(["--otlp-token-file", token.path().to_str().unwrap()])
                .args(["--prometheus", &format!("127.0.0.1:{own}")])
                .args(arguments),
        );
        agent.says("births: working");
        agent.says("watching");
        agent.says("API server: ");
        let metrics = format!("http://127.0.0.1:{own}/metrics");
        Bed { agent, _reconciler: reconciler, namespace, metrics, _token: token, _share: share }
    }

    /// The status of a pod's certificate, once there is one.
    pub fn certificate(&self, pod: &str) -> Value {
        let object = format!("podbirthcertificate/{pod}-pbc");
        until("certificate", || {
            let mut ask = kubectl();
            ask.args([
                "-n",
                &self.namespace.0,
                "get",
                &object,
                "-o",
                "jsonpath={.status}",
                "--ignore-not-found",
            ]);
            let status: Value = serde_json::from_str(&output(&mut ask)).ok()?;
            status["outcome"].is_string().then_some(status)
        })
    }

    /// All births that the agent told of until now, each with `zero`.
    pub fn births(&self) -> Vec<Value> {
        let lines = self.agent.lines().into_iter().filter_map(|l| serde_json::from_str(&l.text).ok());
        let births = lines.filter(|said: &Value| said["event.name"] == "kernel_gossip.birth");
        births.map(with_zero).collect()
    }

    /// What the agent said of a pod's birth, with `zero`: the birth's, in ms since the Unix epoch.
    pub fn said(&mut self, pod: &str) -> Value {
        let wanted = json!(pod);
        let mut found = Value::Null;
        self.agent.line("the birth", |line| {
            let Ok(said) = serde_json::from_str::<Value>(&line.text) else { return false };
            let it = said["event.name"] == "kernel_gossip.birth" && said["k8s.pod.name"] == wanted;
            if it {
                found = said;
            }
            it
        });
        with_zero(found)
    }
}

fn with_zero(mut said: Value) -> Value {
    let zero: jiff::Timestamp = said["kernel_gossip.birth.zero"].as_str().unwrap().parse().unwrap();
    said["zero"] = json!(zero.as_nanosecond() as f64 / 1e6);
    said
}

/// A service account that may speak for any pod: its token, in a file.
fn caller(namespace: &Namespace) -> tempfile::NamedTempFile {
    let ns = &namespace.0;
    let meta = json!({"name": ns});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "caller", "namespace": ns}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta,
         "rules": [{"nonResourceURLs": ["/otlp/cluster"], "verbs": ["post"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ns},
         "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": ns}]},
    ]});
    feed(kubectl().args(["apply", "-f", "-"]), &objects.to_string()).expect("applied");
    let token = namespace.kubectl(&["create", "token", "caller", "--audience", "kernel-gossip"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(token.trim().as_bytes()).unwrap();
    file
}

/// A pod of one container, `main`; the image's own command where there is none.
pub fn pod(name: &str, image: &str, command: Value) -> Value {
    let mut container = json!({"name": "main", "image": image});
    if command.as_array().is_some_and(|c| !c.is_empty()) {
        container["command"] = command;
    }
    if name == "web" {
        container["name"] = "web".into();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

/// When containerd says it was, ms since the Unix epoch: `2026-11-21 10:34:31.123456789 +0000 UTC k8s.io /tasks/…`.
pub fn containerd_ms(line: &str) -> f64 {
    let mut words = line.split_whitespace();
    let (day, time) = (words.next().unwrap(), words.next().unwrap());
    let at: jiff::Timestamp = format!("{day}T{time}Z").parse().unwrap();
    at.as_nanosecond() as f64 / 1e6
}

/// `ctr` of the node's containerd, in the namespace of its pods.
pub fn ctr(arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.arg("-a").arg(testbed_dir().join("cluster/state/containerd.sock"));
    command.args(["-n", "k8s.io"]).args(arguments);
    command
}

/// Kills the first process of a pod's first container.
pub fn kill(namespace: &Namespace, pod: &str) {
    let id = namespace.get(&format!("pod/{pod}"), "{.status.containerStatuses[0].containerID}");
    let id = id.strip_prefix("containerd://").expect("containerd's");
    output(&mut ctr(&["tasks", "kill", "-s", "SIGKILL", id]));
}

/// What a URL gives.
pub fn get(url: &str) -> String {
    output(Command::new("curl").args(["-sf", "--max-time", "10", url]))
}
