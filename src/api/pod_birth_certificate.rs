//! `PodBirthCertificate` (pbc): what the start of one pod cost, from the scheduler to its first listening socket.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Severity, Source};

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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome", priority = 1),
    printcolumn(name = "Failure", type_ = "string", json_path = ".status.failure.reason", priority = 1),
    printcolumn(name = "Trace", type_ = "string", json_path = ".status.traceId", priority = 1)
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
    /// The generation of the object this status was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Who said it.
    pub source: Source,
    /// How it ended; absent where others reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BirthOutcome>,
    /// Where and why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BirthFailure>,
    /// The phase that took far longer than it does on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowPhase>,
    /// Length of the birth for the TOTAL column: `521 ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub total: Option<String>,
    /// When the pod's cgroup was made: the zero of the timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Phases in the order they began.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub phases: Vec<BirthPhase>,
    /// What happened, in order.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub timeline: Vec<BirthStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_stats: Option<KernelStats>,
    /// The same by actor and phase, the most system calls first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub breakdown: Vec<BirthCost>,
    /// What was done beside the birth, and is in none of its numbers: phase `exec` (programs executed in a container that
    /// was there, by probes, hooks and people) and `debug` (ephemeral containers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub beside: Vec<BirthCost>,
    /// The containers, in the order they were born.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub containers: Vec<BornContainer>,
    /// Containers that were started again since, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub restarts: Vec<ContainerRestart>,
    /// What is not known of this birth, and why. What is not named here was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub missing: Vec<MissingPart>,
    /// Trace of the birth: the pod's UID as 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub trace_id: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl PodBirthCertificateStatus {
    /// A status that says nothing yet.
    pub fn of(source: Source) -> Self {
        PodBirthCertificateStatus {
            observed_generation: None,
            source,
            outcome: None,
            failure: None,
            slow: None,
            total: None,
            started_at: None,
            phases: Vec::new(),
            timeline: Vec::new(),
            kernel_stats: None,
            breakdown: Vec::new(),
            beside: Vec::new(),
            containers: Vec::new(),
            restarts: Vec::new(),
            missing: Vec::new(),
            trace_id: None,
            conditions: Vec::new(),
        }
    }
}

/// The reason of a birth that was under way when the agent was started: of it nothing is known, so it does not take the
/// place of what is.
pub const AGENT_STARTED: &str = "AgentStarted";

/// How a birth ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BirthOutcome {
    /// Every container ran its own program and the pod is Ready, or has succeeded already.
    Complete,
    /// It cannot go on as it is; `failure` says where and why. The kubelet may still try again.
    Failed,
    /// It took longer than it is watched for; the timeline says how far it came.
    Unfinished,
}

impl BirthOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            BirthOutcome::Complete => "complete",
            BirthOutcome::Failed => "failed",
            BirthOutcome::Unfinished => "unfinished",
        }
    }
}

/// What made a birth slow.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowPhase {
    pub severity: Severity,
    #[schemars(length(min = 1, max = 64))]
    pub phase: String,
    /// How long it took, of all containers together.
    #[schemars(range(min = 0))]
    pub took_ms: f64,
    /// The median of the births before on this node.
    #[schemars(range(min = 0))]
    pub usual_ms: f64,
}

/// Where and why a birth failed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BirthFailure {
    /// The phase it came to.
    #[schemars(length(min = 1, max = 64))]
    pub phase: String,
    /// The container it is about; absent for the pod as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub container: Option<String>,
    /// In one word: `ErrImagePull`, `NetworkPlugin`, `Exited`.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// As the kubelet or the kernel has it: `exit status 1, 12 ms after its start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// One container of a birth. Times are after the zero of the timeline.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BornContainer {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub id: Option<String>,
    /// Where its image came from, as the kubelet's events have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOrigin>,
    /// Its own program, as it was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub program: Option<String>,
    /// When it executed its own program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_ms: Option<f64>,
    /// When it first listened on a socket; absent for one that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_ms: Option<f64>,
    /// The port it first listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<i64>,
    /// Mounts in its mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mounts: Option<i64>,
}

/// Where a container's image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageOrigin {
    /// It was pulled for this start.
    Pulled,
    /// It was on the node.
    Present,
    /// No event of the kubelet's says so, or the agent may not read them.
    Unknown,
}

impl ImageOrigin {
    pub fn as_str(self) -> &'static str {
        match self {
            ImageOrigin::Pulled => "pulled",
            ImageOrigin::Present => "present",
            ImageOrigin::Unknown => "unknown",
        }
    }
}

/// A container that was started again in a pod that runs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRestart {
    #[schemars(length(min = 1, max = 253))]
    pub container: String,
    /// When its new cgroup was made: the zero of the times below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// When it executed its own program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_ms: Option<f64>,
    /// From its cgroup on; what the runtime did before is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub syscalls: Option<i64>,
    /// Why it did not come to run its own program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub failure: Option<String>,
}

/// What is not known of a birth.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingPart {
    /// `syscalls`, `processes`, `cgroupWrites`, `mounts`, `api`, …
    #[schemars(length(min = 1, max = 64))]
    pub part: String,
    #[schemars(length(max = 512))]
    pub why: String,
}

/// What one actor did in one phase. Absent is not measured, never zero.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BirthCost {
    pub actor: Actor,
    #[schemars(length(min = 1, max = 64))]
    pub phase: String,
    /// Processes, each where it was at last: the runtime's that becomes the container's is the container's.
    #[schemars(range(min = 0))]
    pub processes: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub syscalls: Option<i64>,
    /// The most frequent, and what is left as `others`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_syscall: BTreeMap<String, i64>,
    /// Programs that were executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub programs: Option<i64>,
    /// Processes forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub forks: Option<i64>,
    /// Namespaces made, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_namespace: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroups_created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroup_writes: Option<i64>,
    /// The same by file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_cgroup_file: BTreeMap<String, i64>,
    /// Mounts of the containers it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mounts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pivot_roots: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub netfilter_changes: Option<i64>,
    /// Time on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_ms: Option<f64>,
    /// Time runnable and not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub wait_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub read_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub written_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub page_faults: Option<i64>,
}

/// One phase of a birth.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BirthPhase {
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The container it is about; absent for the pod as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub container: Option<String>,
    /// After the zero of the timeline; negative before it.
    pub start_ms: f64,
    #[schemars(range(min = 0))]
    pub duration_ms: f64,
    /// How much earlier its start or its end may have been, where the API server's seconds meet the kernel's
    /// nanoseconds. Absent where both are the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub uncertainty_ms: Option<f64>,
}

/// Who did a step of a birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    Scheduler,
    Kubelet,
    Runtime,
    Cni,
    Kernel,
    Container,
}

impl Actor {
    pub const ALL: [Actor; 6] =
        [Actor::Scheduler, Actor::Kubelet, Actor::Runtime, Actor::Cni, Actor::Kernel, Actor::Container];

    pub fn as_str(self) -> &'static str {
        match self {
            Actor::Scheduler => "scheduler",
            Actor::Kubelet => "kubelet",
            Actor::Runtime => "runtime",
            Actor::Cni => "cni",
            Actor::Kernel => "kernel",
            Actor::Container => "container",
        }
    }
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
    /// How much earlier it may have been, where the time is the API server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub uncertainty_ms: Option<f64>,
}

/// What the birth cost in the kernel. Absent is not measured, never zero.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelStats {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_syscalls: Option<i64>,
    /// The most frequent system calls and their counts; those of all others as `others`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_syscall: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub namespaces_created: Option<i64>,
    /// The same by kind: `mnt`, `net`, `pid`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_namespace: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroups_created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cgroup_writes: Option<i64>,
    /// The same by file: `cpu.weight`, `memory.max`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_cgroup_file: BTreeMap<String, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mounts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pivot_roots: Option<i64>,
    /// Processes that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub processes: Option<i64>,
    /// Programs that were executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub programs: Option<i64>,
    /// Time on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_ms: Option<f64>,
    /// Time runnable and not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub wait_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub read_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub written_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub page_faults: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub netfilter_changes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_duration_ms: Option<f64>,
}
