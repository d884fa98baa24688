//! The test's pods: made with kubectl, and what the kernel's own files say of their containers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{CpuNumbers, Severity, SignalEvidence, SignalKind, Source};
use kernel_gossip::reconciler::report::{ContainerFacts, Evidence, Owner, PodFacts};
use kernel_gossip::reconciler::resize::ANNOTATION;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::bed;
use crate::bed::cgroup::{Version, cpu_tree};
use crate::cluster::bed::render;
use crate::cluster::bed::{Namespace, OWNER};

/// A container that runs `script` with a CPU limit of 200m of which 100m are requested.
pub fn template(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "app", "image": "testbed.local/busybox:1", "command": ["sh", "-c", script],
            "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}},
        }],
    })
}

pub fn pod(name: &str, script: &str, annotated: bool) -> Value {
    let annotations = if annotated { json!({ANNOTATION: "resize"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": template(script)})
}

/// A pod's container as the cpu controller knows it.
pub struct Container {
    pub pod: Pod,
    dir: PathBuf,
}

/// The controller's numbers as of one moment, those of throttling for the container and for its pod.
#[derive(Clone, Copy)]
pub struct Numbers {
    at: Timestamp,
    used: Duration,
    throttled_ns: [u64; 2],
    periods: [u64; 2],
    throttled_periods: [u64; 2],
}

/// What they say of the time between two moments. Every container here has one thread, so that time
/// throttled is time stopped.
#[derive(Debug)]
pub struct Window {
    begin: Timestamp,
    end: Timestamp,
    pub seconds: f64,
    pub usage_cores: f64,
    /// Seconds.
    pub throttled: f64,
    /// Of the window.
    pub throttled_percent: f64,
    periods: u64,
    pub throttled_periods: u64,
}

impl Window {
    fn between(a: Numbers, b: Numbers) -> Window {
        let seconds = b.at.duration_since(a.at).as_secs_f64();
        // Both have the limit, and either stops the container: where the container's period begins a moment after its
        // pod's, its own quota is used up just when it is filled again, and all of the throttled time is the pod's.
        let larger = |of: fn(&Numbers) -> [u64; 2]| {
            let ([own, pod], [own_before, pod_before]) = (of(&b), of(&a));
            (own - own_before).max(pod - pod_before)
        };
        let throttled = larger(|n| n.throttled_ns) as f64 / 1e9;
        Window {
            begin: a.at,
            end: b.at,
            seconds,
            usage_cores: (b.used - a.used).as_secs_f64() / seconds,
            throttled,
            throttled_percent: (throttled / seconds * 100.0).min(100.0),
            periods: larger(|n| n.periods),
            throttled_periods: larger(|n| n.throttled_periods),
        }
    }
}

impl Container {
    pub async fn of(pods: &Api<Pod>, name: &str) -> Container {
        let pod = pods.get(name).await.unwrap();
        let status = pod.status.as_ref().unwrap();
        let id = status.container_statuses.as_ref().unwrap()[0].container_id.as_ref().unwrap();
        let id = id.strip_prefix("containerd://").unwrap();
        // A static pod's directory has its config hash for a UID.
        let uid = pod.annotations().get("kubernetes.io/config.hash").cloned().or(pod.uid()).unwrap();
        let class = if status.qos_class.as_deref() == Some("Guaranteed") { "" } else { "burstable/" };
        let dir = cpu_tree().mount.join(format!("kubepods/{class}pod{uid}/{id}"));
        assert!(dir.is_dir(), "{}", dir.display());
        Container { pod, dir }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap()
    }

    /// A number of `cpu.stat`, in the container's cgroup and in its pod's.
    fn cpu_stat(&self, key: &str) -> [u64; 2] {
        [&*self.dir, self.dir.parent().unwrap()].map(|dir| {
            let stat = std::fs::read_to_string(dir.join("cpu.stat")).unwrap();
            stat.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')).unwrap().parse().unwrap()
        })
    }

    /// The quota in microseconds a period of 0.1 s.
    pub fn quota(&self) -> u64 {
        match cpu_tree().version {
            Version::V1 => self.read("cpu.cfs_quota_us").trim().parse().unwrap(),
            Version::V2 => self.read("cpu.max").split(' ').next().unwrap().parse().unwrap(),
        }
    }

    pub fn numbers(&self) -> Numbers {
        let (used, throttled_ns) = match cpu_tree().version {
            Version::V1 => {
                // Mounted with the cpu controller, or beside it.
                let below = self.dir.strip_prefix(&cpu_tree().mount).unwrap();
                let dir = cpu_tree().mount.with_file_name("cpuacct").join(below);
                let used =
                    std::fs::read_to_string(dir.join("cpuacct.usage")).unwrap().trim().parse().unwrap();
                (Duration::from_nanos(used), self.cpu_stat("throttled_time"))
            }
            Version::V2 => {
                let throttled = self.cpu_stat("throttled_usec").map(|us| us * 1000);
                (Duration::from_micros(self.cpu_stat("usage_usec")[0]), throttled)
            }
        };
        let (periods, throttled_periods) = (self.cpu_stat("nr_periods"), self.cpu_stat("nr_throttled"));
        Numbers { at: Timestamp::now(), used, throttled_ns, periods, throttled_periods }
    }

    /// What the kernel says of `seconds` from now on.
    pub async fn watch(&self, seconds: u64) -> Evidence {
        self.until(|w| w.seconds >= seconds as f64).await
    }

    /// What the kernel says from now on until it has stopped the container often enough to judge by:
    /// on a busy machine a container that could run all the time may be kept waiting instead.
    pub async fn throttled(&self) -> Evidence {
        self.until(|w| w.seconds >= 6.0 && w.throttled_periods >= 20 && w.throttled_percent >= 5.0).await
    }

    /// A window from now on, closed as soon as `enough`.
    pub async fn until(&self, enough: impl Fn(&Window) -> bool) -> Evidence {
        self.since(self.numbers(), enough).await
    }

    /// A window from `begin` on, closed as soon as `enough`.
    pub async fn since(&self, begin: Numbers, enough: impl Fn(&Window) -> bool) -> Evidence {
        // A rest that makes little of a burst takes fifty times as long as the burst was stopped.
        let end = Instant::now() + 3 * bed::PATIENCE;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let window = Window::between(begin, self.numbers());
            if enough(&window) {
                println!("{window:?}");
                return self.evidence(&window);
            }
            assert!(Instant::now() < end, "not seen in time: {window:?}");
        }
    }

    fn evidence(&self, w: &Window) -> Evidence {
        let limit = self.quota() as f64 / 1e5;
        let cpu = CpuNumbers {
            throttled_percent: Some(w.throttled_percent),
            throttled_seconds: Some(w.throttled),
            periods: Some(w.periods as i64),
            throttled_periods: Some(w.throttled_periods as i64),
            usage_cores: Some(w.usage_cores),
            demand_cores: Some(w.usage_cores + w.throttled / w.seconds),
            limit_cores: Some(limit),
            request_cores: Some(0.1),
            ..CpuNumbers::default()
        };
        Evidence {
            pod: Arc::new(facts(&self.pod, limit)),
            container: "app".into(),
            kind: SignalKind::CpuThrottle,
            source: Source::Kernel,
            severity: Severity::Critical,
            active: true,
            since: w.begin,
            last_seen: w.end,
            numbers: SignalEvidence {
                window_seconds: Some(w.seconds),
                cpu: Some(cpu),
                ..SignalEvidence::default()
            },
            history: Arc::from([]),
        }
    }
}

fn facts(pod: &Pod, limit: f64) -> PodFacts {
    PodFacts {
        namespace: pod.namespace().unwrap(),
        name: pod.name_any(),
        uid: pod.uid().unwrap(),
        node: pod.spec.as_ref().unwrap().node_name.clone().unwrap(),
        owner: pod.owner_references().first().map(|o| Owner {
            api_version: o.api_version.clone(),
            kind: o.kind.clone(),
            name: o.name.clone(),
        }),
        containers: vec![ContainerFacts {
            name: "app".into(),
            cpu_limit_cores: Some(limit),
            cpu_request_cores: Some(0.1),
            ..Default::default()
        }],
        ..PodFacts::default()
    }
}

/// Gives the namespace's default service account the role of remediation, and no other.
pub fn remediation_role(namespace: &Namespace) -> Value {
    let manifests = render::kustomize("k8s/overlays/remediation");
    let mut role = manifests
        .into_iter()
        .find(|m| m["kind"] == "ClusterRole" && m["metadata"]["name"] == "kernel-gossip-remediation")
        .unwrap();
    role["metadata"]["name"] = json!(namespace.0);
    role["metadata"]["labels"] = json!({OWNER: namespace.0});
    namespace.apply(&role);
    namespace.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": namespace.0, "labels": {OWNER: namespace.0}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace.0},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace.0}],
    }));
    bed::until_allowed(&namespace.0, "default", &["patch", "pods", "--subresource=resize"]);
    role
}
