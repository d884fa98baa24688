//! `PodBirthCertificate` (pbc): what the start of one pod cost, from the scheduler to its first listening socket.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Source;

/// Which pod was born. A pod of the same name with another UID gets a new object.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kernel.gossip.io",
    version = "v1alpha1",
    kind = "PodBirthCertificate",
    plural = "podbirthcertificates",
    shortname = "pbc",
    category = "gossip",
    namespaced,
    status = "PodBirthCertificateStatus",
    derive = "PartialEq",
    doc = "What the start of a pod cost in the kernel.",
    selectable = ".spec.nodeName",
    validation = Rule::new("self.metadata.name.endsWith('-pbc')")
        .message("a PodBirthCertificate is named after its pod: <pod>-pbc"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".spec.podName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Total", type_ = "string", json_path = ".status.total"),
    printcolumn(name = "Syscalls", type_ = "integer", json_path = ".status.kernelStats.totalSyscalls"),
    printcolumn(name = "Namespaces", type_ = "integer", json_path = ".status.kernelStats.namespacesCreated"),
    printcolumn(name = "Cgroup-Writes", type_ = "integer", json_path = ".status.kernelStats.cgroupWrites"),
    printcolumn(name = "Mounts", type_ = "integer", json_path = ".status.kernelStats.mounts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("immutable: another pod is another object"))]
#[serde(rename_all = "camelCase")]
pub struct PodBirthCertificateSpec {
    /// Name of the pod, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub pod_name: String,
    /// UID of the pod as the API server has it.
    #[schemars(length(min = 1, max = 64))]
    pub pod_uid: String,
    /// Node the pod was started on.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodBirthCertificateStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Who said it.
    pub source: Source,
    /// Length of the birth for the TOTAL column: `521 ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub total: Option<String>,
    /// When the pod's cgroup was made: the zero of the timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Phases in the order they began.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub phases: Vec<BirthPhase>,
    /// What happened, in order.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub timeline: Vec<BirthStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_stats: Option<KernelStats>,
    /// Trace of the birth: the pod's UID as 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub trace_id: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One phase of a birth.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BirthPhase {
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// After the zero of the timeline; negative before it.
    pub start_ms: f64,
    #[schemars(range(min = 0))]
    pub duration_ms: f64,
    /// How far the start may be off where two clocks meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub uncertainty_ms: Option<f64>,
}

/// Who did a step of a birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    Scheduler,
    Kubelet,
    Runtime,
    Cni,
    Kernel,
    Container,
}

/// One step of a birth.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BirthStep {
    /// After the zero of the timeline; negative before it.
    pub timestamp_ms: f64,
    pub actor: Actor,
    #[schemars(length(min = 1, max = 128))]
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub details: Option<String>,
}

/// What the birth cost in the kernel. Absent is not measured, never zero.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelStats {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_syscalls: Option<i64>,
    /// The most frequent system calls and their counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_syscall: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub namespaces_created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroups_created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroup_writes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mounts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub processes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub netfilter_changes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_duration_ms: Option<f64>,
}
