//! The node's side: the agent as a process, and pods that burn when they are told to.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bed;
use crate::bed::process::Running;
use crate::cluster::bed::{Namespace, eventually};

/// The node's agent, on this machine, as an `agent` of this namespace that may speak for any pod. It says
/// its whispers on stdout too, as JSON.
pub struct Agent {
    pub process: Running,
    /// Its token and configuration.
    _dir: TempDir,
}

impl Agent {
    /// With this configuration (YAML), sending events to `to`.
    pub fn start(ns: &Namespace, to: SocketAddr, config: &str) -> Agent {
        let dir = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (token, config) =
            (file("token", &ns.caller("agent", &["/otlp/cluster"])), file("config.yaml", config));
        let mut command = bed::kernel_gossip();
        command.args(["agent", "--output=json", "--node-name=kg-node"]);
        command.arg("--runtime-root").arg(bundles());
        command.arg("--config").arg(config).arg("--otlp-token-file").arg(token);
        command.env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("http://{to}")).env("NO_COLOR", "1");
        let mut process = Running::start(&mut command);
        process.line("what runs here", |l| l.text.contains("cpu: ") && l.text.contains("typed tracepoints"));
        Agent { process, _dir: dir }
    }

    /// What it said on stdout about the pods of a namespace, with when that was read.
    pub fn whispers(&self, namespace: &str) -> Vec<(std::time::Instant, Value)> {
        let lines = self.process.lines().into_iter().filter(|l| !l.to_stderr);
        let parsed = lines.map(|l| (l.at, serde_json::from_str::<Value>(&l.text).expect("a line of JSON")));
        parsed.filter(|(_, w)| w["k8s.namespace.name"] == namespace).collect()
    }

    /// What it logged at WARN and above, or about what was one.
    pub fn log(&self, part: &str) -> Vec<String> {
        let lines = self.process.lines().into_iter().filter(|l| l.to_stderr).map(|l| l.text);
        lines.filter(|l| l.contains(part)).collect()
    }
}

/// Where the node's containerd has its containers' bundles.
pub fn bundles() -> PathBuf {
    bed::testbed_dir().join("cluster/state/containerd-run/io.containerd.runtime.v2.task")
}

/// Pods that burn while there is a file of their name in a directory.
pub struct Burners {
    dir: TempDir,
    pub names: Vec<String>,
}

impl Burners {
    /// So many, running and idle, each with one thread and this CPU limit.
    pub async fn start(client: &Client, ns: &Namespace, many: usize, limit: &str) -> Burners {
        let dir = TempDir::new().unwrap();
        // Read by whatever user a container runs as.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let names: Vec<_> = (0..many).map(|i| format!("burner-{i}")).collect();
        for name in &names {
            let script = format!("while :; do if [ -e /go/{name} ]; then :; else sleep 0.5; fi; done");
            let mut pod = pod(name, &script, limit);
            pod["spec"]["volumes"] = json!([{"name": "go", "hostPath": {"path": dir.path()}}]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
            create(client, ns, pod).await;
        }
        for name in &names {
            running(client, ns, name).await;
        }
        Burners { dir, names }
    }

    fn switch(&self, name: &str) -> PathBuf {
        Path::join(self.dir.path(), name)
    }

    pub fn burn(&self, name: &str) {
        std::fs::write(self.switch(name), "").unwrap();
    }

    pub fn rest(&self, name: &str) {
        std::fs::remove_file(self.switch(name)).unwrap();
    }
}

/// A pod whose container `app` runs this script.
pub fn pod(name: &str, script: &str, limit: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "app", "image": "testbed.local/busybox:1", "command": ["sh", "-c", script],
            "resources": {"limits": {"cpu": limit}, "requests": {"cpu": "10m"}},
        }]},
    })
}

pub async fn create(client: &Client, ns: &Namespace, pod: Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

pub async fn running(client: &Client, ns: &Namespace, name: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    eventually("running container", async || {
        let pod = pods.get(name).await.unwrap();
        let status = pod.status.as_ref()?.container_statuses.as_ref()?;
        status.first()?.state.as_ref()?.running.is_some().then_some(pod)
    })
    .await
}
