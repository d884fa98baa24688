//! What comes in: a [`Report`] (one signal of one container, said by an agent or by others), what the API server knows of
//! its pod, [`PodFacts`], and what the Metrics API does, [`PodMetrics`]: together [`Said`]. Plain data that knows neither who
//! asks nor who listens; everything right of here reads these.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::api::{Severity, SignalEvidence, SignalKind, Source};
use crate::quantity;
use crate::signals::HistoryPoint;

/// No machine has more.
const CORES_MAX: f64 = 1e6;
const BYTES_MAX: f64 = (1_u64 << 50) as f64;

/// One signal of one container of one pod, checked and bounded, not yet believed to exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub source: Source,
    pub namespace: String,
    pub pod: String,
    /// As the sender has it; the webhook does not know it.
    pub uid: Option<String>,
    /// Empty for the pod as a whole.
    pub container: String,
    pub kind: SignalKind,
    pub severity: Severity,
    /// False: it is over.
    pub active: bool,
    /// When it started: with UID, container and kind the whisper's identity.
    pub since: Timestamp,
    /// When it was said.
    pub at: Timestamp,
    /// The numbers; `neighbours` in here is empty, see the field below.
    pub numbers: SignalEvidence,
    /// Who ran meanwhile, the greatest share first, with the namespaces that decide who may read them.
    pub neighbours: Vec<NamedNeighbour>,
    /// Cumulative samples of the container, oldest first, times strictly rising, at most two minutes.
    pub history: Vec<HistoryPoint>,
}

/// A workload that ran while the pod waited.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedNeighbour {
    pub name: String,
    /// Empty where it is no pod, or unknown.
    pub namespace: String,
    pub pod: String,
    /// Wait blamed on it, percent of the window.
    pub percent: f64,
}

/// Where a pod's spec has a container: what may be done to it goes by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerKind {
    #[default]
    Main,
    /// An init container that is restarted for as long as the pod runs.
    Sidecar,
    /// An init container that runs to its end before the others.
    Init,
    /// Put into the running pod by a person; it has no resources of its own.
    Ephemeral,
}

/// Resources of one container, as its pod's spec has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    pub name: String,
    pub kind: ContainerKind,
    pub cpu_limit_cores: Option<f64>,
    pub cpu_request_cores: Option<f64>,
    pub memory_limit_bytes: Option<i64>,
    pub memory_request_bytes: Option<i64>,
    /// Its `resizePolicy` restarts it when its CPU, or its memory, is resized in place.
    pub cpu_resize_restarts: bool,
    pub memory_resize_restarts: bool,
}

/// The controller of a pod as its ownerReference has it. The API server takes any text for each of these from
/// whoever may create the pod: they are checked before they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// `web-5d9c`.
    pub name: String,
}

/// What the API server says of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
    /// The controller that owns it.
    pub owner: Option<Owner>,
    /// Its label pod-template-hash: what a Deployment's ReplicaSet has after the Deployment's name.
    pub template_hash: Option<String>,
    /// An Argo Rollout or a DeploymentConfig makes its ReplicaSet or ReplicationController, and undoes what is changed
    /// there.
    pub template_is_made: bool,
    /// Of a static pod: the UID its node knows it by.
    pub config_hash: Option<String>,
    /// Every container, the init and ephemeral ones too.
    pub containers: Vec<ContainerFacts>,
}

impl PodFacts {
    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerFacts> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Whether a sender that calls the pod `uid` means this one.
    pub fn is(&self, uid: &str) -> bool {
        self.uid == uid || self.config_hash.as_deref() == Some(uid)
    }
}

/// What the API server says of the node a pod runs on; what is unknown is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// CPU it can give to pods (allocatable), cores.
    pub cpu_cores: Option<f64>,
    /// Its kubelet resizes pods in place, and so does the API server, which is never older.
    pub resizes: Option<bool>,
}

/// `PodMetrics` of metrics.k8s.io/v1beta1.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PodMetrics {
    /// End of the window.
    pub timestamp: Time,
    /// Its length.
    #[serde(deserialize_with = "go_duration")]
    pub window: Duration,
    #[serde(default)]
    pub containers: Vec<ContainerUsage>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ContainerUsage {
    pub name: String,
    pub usage: Usage,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Usage {
    pub cpu: Quantity,
    pub memory: Quantity,
}

/// Why the Metrics API said nothing; the reason of condition `MetricsSaid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Silence {
    /// Not a question for it (no agent's CPU signal), or not asked yet.
    NotAsked,
    /// There is no Metrics API in this cluster, or its server is down.
    NoMetricsApi,
    /// It does not know the pod: metrics-server needs two scrapes.
    PodUnknown,
    /// RBAC.
    Forbidden,
    /// No answer in time.
    TooSlow,
    /// What it says of the pod is no PodMetrics, or cannot be true.
    NotUnderstood,
}

impl Silence {
    pub const ALL: [Silence; 6] = [
        Silence::NotAsked,
        Silence::NoMetricsApi,
        Silence::PodUnknown,
        Silence::Forbidden,
        Silence::TooSlow,
        Silence::NotUnderstood,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Silence::NotAsked => "NotAsked",
            Silence::NoMetricsApi => "NoMetricsApi",
            Silence::PodUnknown => "PodUnknown",
            Silence::Forbidden => "Forbidden",
            Silence::TooSlow => "TooSlow",
            Silence::NotUnderstood => "NotUnderstood",
        }
    }

    /// For a person.
    pub fn message(self) -> &'static str {
        match self {
            Silence::NotAsked => "The Metrics API was not asked.",
            Silence::NoMetricsApi => "The Metrics API (metrics.k8s.io) gives no answer in this cluster.",
            Silence::PodUnknown => "The Metrics API has nothing about this pod yet.",
            Silence::Forbidden => "The reconciler may not read pods in metrics.k8s.io.",
            Silence::TooSlow => "The Metrics API did not answer in time.",
            Silence::NotUnderstood => {
                "What the Metrics API says of this pod cannot be read, or cannot be true."
            }
        }
    }
}

/// What it said, or why it did not.
pub type Answer = Result<Arc<PodMetrics>, Silence>;

impl PodMetrics {
    /// There is something in it, and nothing of it is less than nothing or more than any machine has: adapters have
    /// made `-9223372036854775808m` of what was no number, and `-12m` of a counter that began anew.
    pub fn is_sane(&self) -> bool {
        let within = |quantity: &Quantity, most: f64| {
            quantity::value(quantity).is_some_and(|value| (0.0..=most).contains(&value))
        };
        let sane = |c: &ContainerUsage| within(&c.usage.cpu, CORES_MAX) && within(&c.usage.memory, BYTES_MAX);
        !self.containers.is_empty() && self.containers.iter().all(sane)
    }
}

/// A report whose pod exists, with what was found out about it on the way in.
#[derive(Clone, Debug)]
pub struct Said {
    pub report: Report,
    pub pod: Arc<PodFacts>,
    pub metrics: Answer,
    pub node: NodeFacts,
}

/// What a report did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A signal started, changed, or was resolved.
    Changed,
    /// Still so.
    Refreshed,
    /// Known already, or older than what is known.
    Duplicate,
    /// Others reported what the kernel itself speaks about.
    KeptTruth,
    /// Too many pods whisper.
    Full,
}

impl Verdict {
    pub const ALL: [Verdict; 5] =
        [Verdict::Changed, Verdict::Refreshed, Verdict::Duplicate, Verdict::KeptTruth, Verdict::Full];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Changed => "changed",
            Verdict::Refreshed => "refreshed",
            Verdict::Duplicate => "duplicate",
            Verdict::KeptTruth => "kept_truth",
            Verdict::Full => "full",
        }
    }
}

/// What a recommendation is made from, and a remediation decided by: one signal of a pod that exists.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub pod: Arc<PodFacts>,
    /// Empty for the pod as a whole.
    pub container: String,
    pub kind: SignalKind,
    /// Never act on [`Source::Reported`].
    pub source: Source,
    pub severity: Severity,
    pub active: bool,
    pub since: Timestamp,
    /// When it was last said.
    pub last_seen: Timestamp,
    /// The numbers of the last window, neighbours' names withheld where they are to be.
    pub numbers: SignalEvidence,
    /// As the report has it; empty where others reported.
    pub history: Arc<[HistoryPoint]>,
}

/// Go's duration, as in `"window": "10.079s"`.
fn go_duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let duration = kube::core::Duration::deserialize(d)?;
    if duration.is_negative() {
        return Err(serde::de::Error::custom("a negative window"));
    }
    Ok(duration.into())
}
