//! The types of an [`Attributed`]: the reading's numbers with names.

use std::sync::Arc;

use crate::kernel::{
    CgroupStat, CpuCounters, Instant, Lost, MemoryStat, NetworkCounters, ProgramCost, ReclaimCounters,
};

/// What the root cgroup is called. Not `/`, which tells nobody anything.
pub const ROOT: &str = "the root cgroup (kernel threads, processes of no service)";

/// What a cgroup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadKind {
    /// A container of a pod, or of a runtime without Kubernetes.
    Container,
    /// A pod's sandbox (the pause container).
    Sandbox,
    /// A pod's own cgroup: limits and stat of the pod as a whole, no tasks.
    Pod,
    /// A systemd service, scope or slice.
    Unit,
    /// The root cgroup: kernel threads and whatever nobody placed elsewhere.
    Root,
    /// Any other cgroup; only its path names it.
    Cgroup,
}

/// Who a sample is about. Shared: one allocation per workload and change of what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub kind: WorkloadKind,
    /// Path of the cgroup that gives the identity, relative to its hierarchy's root. Unique among
    /// the living workloads of a node.
    pub cgroup: String,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    /// The pod's UID as the API has it (a static pod's directory has its config hash instead).
    pub pod_uid: Option<String>,
    pub container: Option<String>,
    /// 64 hex digits.
    pub container_id: Option<String>,
    /// The controller that owns the pod, as (kind, name): ("ReplicaSet", "web-5d9c"). Only from the API.
    pub owner: Option<(String, String)>,
    /// The systemd unit, or the name the runtime gives a container without Kubernetes.
    pub unit: Option<String>,
    /// CPU limit of the container, in cores, as the API has it.
    pub cpu_limit: Option<f64>,
    /// CPU request of the container, in cores, as the API has it.
    pub cpu_request: Option<f64>,
    /// The API server has confirmed the names (else they are the runtime's word, or only a path).
    pub confirmed: bool,
}

impl Workload {
    /// What the kernel adds up over a cgroup and all below it (its files, pressure) is other workloads' here: a pod's own
    /// cgroup, a slice, or one of those that the kubelet keeps the pods in.
    pub fn contains_others(&self) -> bool {
        let name = self.cgroup.rsplit('/').next().unwrap_or_default();
        let of_the_kubelet = ["kubepods", "burstable", "besteffort"].contains(&name);
        match self.kind {
            WorkloadKind::Pod | WorkloadKind::Root => true,
            WorkloadKind::Unit | WorkloadKind::Cgroup => of_the_kubelet || name.ends_with(".slice"),
            WorkloadKind::Container | WorkloadKind::Sandbox => false,
        }
    }

    /// The shortest text that names it for a person: `namespace/pod/container`, a unit, [`ROOT`], or the path.
    pub fn label(&self) -> String {
        match (&self.namespace, &self.pod, &self.container, &self.unit) {
            (Some(ns), Some(pod), Some(c), _) => format!("{ns}/{pod}/{c}"),
            (Some(ns), Some(pod), None, _) => format!("{ns}/{pod}"),
            (_, _, _, Some(unit)) => unit.clone(),
            _ if self.kind == WorkloadKind::Root => ROOT.to_string(),
            _ => self.cgroup.clone(),
        }
    }

    /// The cgroup's path where the names alone need not tell it from others: of what is outside any pod (there may be a
    /// `nginx.service` of the host and one of a container's systemd), and of what a pod has beside its containers
    /// (CRI-O's monitors, one for each of them).
    pub fn told_by_path(&self) -> Option<&str> {
        let of_no_pod = self.pod.is_none() && self.pod_uid.is_none();
        (of_no_pod || self.kind == WorkloadKind::Cgroup).then_some(&self.cgroup)
    }

    /// To whoever hears of neighbours the two are one: a container, and the one that took its place.
    pub fn is_called_like(&self, other: &Workload) -> bool {
        let named_by_pod = self.namespace.is_some() && self.pod.is_some() && self.told_by_path().is_none();
        self.cgroup == other.cgroup
            || named_by_pod
                && other.told_by_path().is_none()
                && (&self.namespace, &self.pod, &self.container)
                    == (&other.namespace, &other.pod, &other.container)
    }
}

/// One workload's cumulative numbers. Cgroups below a container's own count as the container's.
#[derive(Clone, Debug)]
pub struct Sample {
    pub who: Arc<Workload>,
    /// The CPU probe's counters; `None` while the probe is not running or has not seen the cgroup.
    pub cpu: Option<CpuCounters>,
    /// The kernel's own numbers, merged over the hierarchies the cgroup lives in.
    pub stat: CgroupStat,
    /// The quota that binds: the smallest of its own and its ancestors' (cores), `None` if unlimited.
    pub quota_cores: Option<f64>,
    /// Packets, of a pod where it is one; `None`: it has no network of its own, and lost nothing that is known.
    pub network: Option<NetworkCounters>,
    /// Direct reclaim by its threads; `None` while none was.
    pub reclaim: Option<ReclaimCounters>,
    /// What the memory controller says, where it waited for memory.
    pub memory: Option<MemoryStat>,
    /// The workload is gone; this is its last sample.
    pub last: bool,
}

/// Who kept whom from a CPU. Cumulative ns.
#[derive(Clone, Debug)]
pub struct NamedBlame {
    pub victim: Arc<Workload>,
    pub culprit: Arc<Workload>,
    pub ns: u64,
}

/// What attribution itself could not do. Cumulative counts, except where said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributionLosses {
    /// Cgroups whose path looks like a container's or pod's but follows no known rule.
    pub unknown_shapes: u64,
    /// Cgroups that had numbers before anybody told their path; each once.
    pub unresolved_ids: u64,
    /// Containers whose runtime's files were not found, not understood, or do not name them.
    pub bundles_missed: u64,
    /// Cgroups not taken in because there were too many.
    pub cgroups_dropped: u64,
    /// Readings of who kept whom waiting that were not taken in because there were too many pairs.
    pub pairs_dropped: u64,
    /// Pods of this node known from the API server now (a gauge).
    pub pods_known: u64,
}

/// A reading with names.
#[derive(Clone, Debug, Default)]
pub struct Attributed {
    pub at: Instant,
    /// CPUs of the machine that are online; 0: unknown.
    pub cpus: u32,
    pub samples: Vec<Sample>,
    pub blame: Vec<NamedBlame>,
    /// What the probes lost, and blame that has no name (ns).
    pub losses: Vec<Lost>,
    pub blame_lost_ns: u64,
    pub attribution: AttributionLosses,
    pub programs: Vec<ProgramCost>,
}
