//! An agent and a reconciler for one namespace.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use super::Namespace;
use super::reconciler::Reconciler;
use crate::bed::process::{Running, output};
use crate::bed::{free_address, kernel_gossip, kubectl, testbed_dir, until};

pub struct Bed {
    agent: Running,
    _reconciler: Reconciler,
    pub namespace: Namespace,
    /// Where the agent serves its metrics.
    pub metrics: String,
    _token: tempfile::NamedTempFile,
}

impl Bed {
    /// `arguments`: more of the agent's.
    pub fn new(name: &str, arguments: &[&str]) -> Bed {
        Bed::with(Namespace::new(name), arguments)
    }

    /// The same; no other test runs on the cluster meanwhile.
    pub fn alone(name: &str, arguments: &[&str]) -> Bed {
        Bed::with(Namespace::alone(name), arguments)
    }

    fn with(namespace: Namespace, arguments: &[&str]) -> Bed {
        let mut token = tempfile::NamedTempFile::new().unwrap();
        token.write_all(namespace.caller("caller", &["/otlp/cluster"]).as_bytes()).unwrap();
        let mut reconciler = Reconciler::start(&namespace, &[], &[]);
        reconciler.process.says("what the API knows is taken over");
        let own = free_address();
        let mut agent = Running::start(
            kernel_gossip()
                .args(["agent", "--node-name", "kg-node", "--output", "json"])
                .args(["--otlp-logs-endpoint", &format!("http://{}", reconciler.otlp)])
                .args(["--otlp-token-file", token.path().to_str().unwrap()])
                .args(["--prometheus", &own.to_string()])
                .args(arguments),
        );
        until_watching(&mut agent);
        let metrics = format!("http://{own}/metrics");
        Bed { agent, _reconciler: reconciler, namespace, metrics, _token: token }
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
        let wanted = (json!(self.namespace.0), json!(pod));
        let mut found = Value::Null;
        self.agent.line("the birth", |line| {
            let Ok(said) = serde_json::from_str::<Value>(&line.text) else { return false };
            let it = said["event.name"] == "kernel_gossip.birth"
                && (&said["k8s.namespace.name"], &said["k8s.pod.name"]) == (&wanted.0, &wanted.1);
            if it {
                found = said;
            }
            it
        });
        with_zero(found)
    }
}

/// Waits until an agent has all that it tells births by. The API server answers before or after the first reading.
pub fn until_watching(agent: &mut Running) {
    let mut left = vec!["births: working", "sampler: watching", "API server: "];
    agent.line("that it watches", |line| {
        left.retain(|part| !line.text.contains(part));
        left.is_empty()
    });
}

fn with_zero(mut said: Value) -> Value {
    let zero: jiff::Timestamp = said["kernel_gossip.birth.zero"].as_str().unwrap().parse().unwrap();
    said["zero"] = json!(zero.as_nanosecond() as f64 / 1e6);
    said
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
