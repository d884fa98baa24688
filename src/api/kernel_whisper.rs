//! `KernelWhisper` (kw): what the kernel saw of one pod, what the metrics said over the same time, what to do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::Remediation;
use crate::evidence::{Severity, SignalEvidence, SignalKind, Source, WhisperState};

/// Which pod the whisper is about. A pod of the same name with another UID gets a new object.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kernel.gossip.io",
    version = "v1alpha1",
    kind = "KernelWhisper",
    plural = "kernelwhispers",
    shortname = "kw",
    category = "gossip",
    namespaced,
    status = "KernelWhisperStatus",
    derive = "PartialEq",
    doc = "What the kernel knows about a pod that its metrics do not say.",
    selectable = ".spec.nodeName",
    validation = Rule::new("self.metadata.name.endsWith('-kw')")
        .message("a KernelWhisper is named after its pod: <pod>-kw"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".spec.podName"),
    printcolumn(name = "Signal", type_ = "string", json_path = ".status.signal"),
    printcolumn(
        name = "Kernel",
        type_ = "string",
        json_path = ".status.kernelTruth.summary",
        description = "What the kernel saw over its window"
    ),
    printcolumn(
        name = "Metrics",
        type_ = "string",
        json_path = ".status.metricsSay.summary",
        description = "What the Metrics API (kubectl top) said; empty when it said nothing"
    ),
    printcolumn(name = "Severity", type_ = "string", json_path = ".status.severity"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName", priority = 1),
    printcolumn(name = "Remediation", type_ = "string", json_path = ".status.remediation.state", priority = 1),
    printcolumn(name = "Recommendation", type_ = "string", json_path = ".status.recommendation", priority = 1)
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("immutable: another pod is another object"))]
#[serde(rename_all = "camelCase")]
pub struct KernelWhisperSpec {
    /// Name of the pod, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub pod_name: String,
    /// UID of the pod as the API server has it.
    #[schemars(length(min = 1, max = 64))]
    pub pod_uid: String,
    /// Node the pod runs on.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelWhisperStatus {
    /// The generation of the object this status was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Active while any signal is.
    pub state: WhisperState,
    /// Of the worst active signal; of the worst signal once all are resolved.
    pub severity: Severity,
    /// The signal the rest of the status is about: the worst one.
    pub signal: SignalKind,
    /// One sentence: what is wrong, in numbers.
    #[schemars(length(max = 2048))]
    pub insight: String,
    /// What to do, with the command that does it; `No advice: …` and why where there is none to give. Absent
    /// where a restarted reconciler has not heard of the signal again yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub recommendation: Option<String>,
    /// The kernel's numbers behind the insight, as text.
    #[schemars(length(max = 2048))]
    pub kernel_evidence: String,
    /// The kernel's numbers behind the insight, of the container the insight is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_truth: Option<KernelTruth>,
    /// What the Metrics API says of the pod. Absent when it says nothing; condition
    /// `MetricsSaid` tells why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_say: Option<MetricsSay>,
    /// Every signal of the pod, by container and type.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["container".into(), "type".into()]))]
    pub signals: Vec<Signal>,
    /// What was done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation>,
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The kernel's numbers over one window. Absent is unknown, never zero.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelTruth {
    /// The headline, for the KERNEL column: `throttled 80 %`.
    #[schemars(length(max = 128))]
    pub summary: String,
    /// Container the numbers are about; empty for the pod as a whole.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub container: String,
    /// Who measured.
    pub source: Source,
    /// Length of the window, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// Throttled time, wall / window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub throttled_percent: Option<f64>,
    /// The part of the window in which every CPU it wanted was throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub throttled_full_percent: Option<f64>,
    /// CPU used / window, cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_usage_cores: Option<f64>,
    /// The same by its name in 0.1.0; gone in 0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub actual_cpu_cores: Option<f64>,
    /// At most so many cores it would have used without its limit: (CPU used + throttled time per CPU) / window, within
    /// what its threads waited and the node has. A CPU counts as refused until the end of a period, however little was
    /// left to do there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub demand_cpu_cores: Option<f64>,
    /// The CPU limit that binds, cores; absent when unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_limit_cores: Option<f64>,
    /// CPU request, cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_request_cores: Option<f64>,
    /// Time in which at least one thread waited for a CPU on which another cgroup ran, percent of the window, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub neighbour_wait_percent: Option<f64>,
}

/// What the Metrics API (`kubectl top`) says of the pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsSay {
    /// For the METRICS column: `0.20 cores, 41 % of limit`.
    #[schemars(length(max = 128))]
    pub summary: String,
    /// Sum over the pod's containers, as `kubectl top pod` shows it.
    #[schemars(range(min = 0))]
    pub cpu_cores: f64,
    /// Of the sum of the containers' CPU limits; absent unless every container has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_percent: Option<f64>,
    /// Working set of the pod's containers, bytes.
    #[schemars(range(min = 0))]
    pub memory_bytes: i64,
    /// Seconds the usage was taken over, up to `timestamp`.
    #[schemars(range(min = 0))]
    pub window: f64,
    /// End of that window.
    pub timestamp: Time,
    /// The same per container, beside what the kernel counted over exactly this window.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub containers: Vec<ContainerMetrics>,
}

/// One container in [`MetricsSay`].
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerMetrics {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(range(min = 0))]
    pub cpu_cores: f64,
    /// Of the container's CPU limit; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_percent: Option<f64>,
    #[schemars(range(min = 0))]
    pub memory_bytes: i64,
    /// CPU used by the kernel's count over the same window; absent where its samples do not cover it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub kernel_cpu_cores: Option<f64>,
    /// Throttled time per CPU by the kernel's count over the same window, in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub kernel_throttled_cores: Option<f64>,
}

/// One signal of one container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// Name of the container; empty for the pod as a whole.
    #[schemars(length(max = 253))]
    pub container: String,
    #[serde(rename = "type")]
    pub kind: SignalKind,
    /// Who said it.
    pub source: Source,
    pub state: WhisperState,
    pub severity: Severity,
    /// When it crossed its threshold.
    pub since: Time,
    /// When it was last said.
    pub last_seen: Time,
    /// When it was said to be over, or not said again in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// How many times it has started since this object exists.
    #[schemars(range(min = 1))]
    pub count: i64,
    /// The numbers, as text.
    #[schemars(length(max = 1024))]
    pub text: String,
    pub evidence: SignalEvidence,
}
