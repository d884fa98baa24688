//! What comes in: a [`Report`] (one signal of one container, said by an agent or by others), what the API server knows of
//! its pod, [`PodFacts`], and what the Metrics API does, [`PodMetrics`]: together [`ResolvedReport`]. Plain data that knows neither who
//! asks nor who listens; everything right of here reads these.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::api::{Severity, SignalEvidence, SignalKind, Source};
use crate::evidence::HistoryPoint;
use crate::quantity;

pub use crate::advice::{ContainerFacts, ContainerKind, Evidence, NodeFacts, Owner, PodFacts};

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
    /// made `-9223372036854775808m` of what was no number, and `-12m` of a counter that started over.
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
pub struct ResolvedReport {
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
    Superseded,
    /// Too many pods whisper.
    Full,
}

impl Verdict {
    pub const ALL: [Verdict; 5] =
        [Verdict::Changed, Verdict::Refreshed, Verdict::Duplicate, Verdict::Superseded, Verdict::Full];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Changed => "changed",
            Verdict::Refreshed => "refreshed",
            Verdict::Duplicate => "duplicate",
            Verdict::Superseded => "superseded",
            Verdict::Full => "full",
        }
    }
}

/// Go's duration, as in `"window": "10.079s"`.
fn go_duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let duration = kube::core::Duration::deserialize(d)?;
    if duration.is_negative() {
        return Err(serde::de::Error::custom("a negative window"));
    }
    Ok(duration.into())
}
