//! What the Metrics API (`kubectl top`) says of a pod, beside what the kernel counted over exactly the
//! same window.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde::Deserialize;

use super::faults::{Fault, FaultLog};
use super::memo::Memo;
use super::report::PodFacts;
use crate::api::{ContainerMetrics, MetricsSay};
use crate::evidence::HistoryPoint;
use crate::quantity;

/// How long a report waits for the metrics: the object must be visible within two seconds.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long nobody asks after the API failed as a whole.
const PAUSE: Duration = Duration::from_secs(10);
/// The pod's containers are often reported on together. metrics-server has news every 10 to 60 s.
const KEEP: Duration = Duration::from_secs(3);
/// No machine has more.
const CORES_MAX: f64 = 1e6;
const BYTES_MAX: f64 = (1_u64 << 50) as f64;
const PODS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

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

/// Asks the Metrics API.
pub struct MetricsApi {
    client: Client,
    known: Memo<(String, String), Answer>,
    /// Not asked before, and why.
    paused: Mutex<Option<(Instant, Silence)>>,
    log: FaultLog,
}

impl MetricsApi {
    pub fn new(client: Client) -> MetricsApi {
        MetricsApi {
            client,
            known: Memo::new(PODS_MAX),
            paused: Mutex::default(),
            log: FaultLog::new("reading the Metrics API"),
        }
    }

    /// What it says of the pod now. Never waits longer than [`PATIENCE`].
    ///
    /// # Errors
    /// Why it says nothing of the pod: no Metrics API, the pod unknown to it, no right to ask, no answer in time.
    pub async fn get(&self, namespace: &str, pod: &str) -> Answer {
        let key = (namespace.to_owned(), pod.to_owned());
        if let Some(answer) = self.known.get(&key, |_| KEEP) {
            return answer;
        }
        if let Some((until, silence)) = *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
            && Instant::now() < until
        {
            return Err(silence);
        }
        let answer = match tokio::time::timeout(PATIENCE, self.ask(namespace, pod)).await {
            Ok(answer) => answer,
            Err(_) => self.pause(Silence::TooSlow),
        };
        self.known.put(key, answer.clone());
        answer
    }

    async fn ask(&self, namespace: &str, pod: &str) -> Answer {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{pod}");
        let answer = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => self.client.request::<PodMetrics>(request).await,
            Err(e) => Err(kube::Error::HttpError(e)),
        };
        match answer {
            Ok(metrics) => {
                self.log.succeeded();
                if metrics.is_sane() { Ok(Arc::new(metrics)) } else { Err(Silence::NotUnderstood) }
            }
            // It says so of this pod: others are asked for as before.
            Err(kube::Error::SerdeError(error)) => {
                tracing::debug!(namespace, pod, %error, "no PodMetrics");
                Err(Silence::NotUnderstood)
            }
            Err(error) => match Fault::of(&error) {
                Fault::NotFound => Err(Silence::PodUnknown),
                fault @ (Fault::Forbidden | Fault::Unauthorized) => {
                    self.log.failed(
                        fault,
                        &error,
                        "grant get on pods in metrics.k8s.io; whispers say so meanwhile",
                    );
                    self.pause(Silence::Forbidden)
                }
                fault => {
                    self.log.failed(fault, &error, "whispers are written without what the metrics say");
                    self.pause(Silence::NoMetricsApi)
                }
            },
        }
    }

    fn pause(&self, silence: Silence) -> Answer {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some((Instant::now() + PAUSE, silence));
        Err(silence)
    }
}

impl PodMetrics {
    /// There is something in it, and nothing of it is less than nothing or more than any machine has: adapters have
    /// made `-9223372036854775808m` of what was no number, and `-12m` of a counter that began anew.
    fn is_sane(&self) -> bool {
        let within = |quantity: &Quantity, most: f64| {
            quantity::value(quantity).is_some_and(|value| (0.0..=most).contains(&value))
        };
        let sane = |c: &ContainerUsage| within(&c.usage.cpu, CORES_MAX) && within(&c.usage.memory, BYTES_MAX);
        !self.containers.is_empty() && self.containers.iter().all(sane)
    }
}

/// What the metrics say, in the object's terms; without the kernel's numbers, see [`beside`].
/// `None` where a quantity cannot be read or cannot be true, or there is no container in it.
pub fn say(metrics: &PodMetrics, pod: &PodFacts) -> Option<MetricsSay> {
    if !metrics.is_sane() {
        return None;
    }
    let mut containers = Vec::with_capacity(metrics.containers.len());
    for c in &metrics.containers {
        let cpu = quantity::value(&c.usage.cpu)?;
        let limit = pod.container(&c.name).and_then(|c| c.cpu_limit_cores);
        containers.push(ContainerMetrics {
            name: c.name.clone(),
            cpu_cores: cpu,
            cpu_percent: limit.and_then(|limit| percent(cpu, limit)),
            memory_bytes: quantity::value(&c.usage.memory)? as i64,
            kernel_cpu_cores: None,
            kernel_throttled_cores: None,
        });
    }
    if containers.is_empty() {
        return None;
    }
    let cpu_cores = containers.iter().map(|c| c.cpu_cores).sum();
    let limits: Option<f64> =
        containers.iter().map(|c| pod.container(&c.name).and_then(|c| c.cpu_limit_cores)).sum();
    let cpu_percent = limits.and_then(|limit| percent(cpu_cores, limit));
    Some(MetricsSay {
        summary: match cpu_percent {
            Some(p) => format!("{cpu_cores:.2} cores, {p:.0} % of limit"),
            None => format!("{cpu_cores:.2} cores"),
        },
        cpu_cores,
        cpu_percent,
        memory_bytes: containers.iter().map(|c| c.memory_bytes).sum(),
        window: metrics.window.as_secs_f64(),
        timestamp: metrics.timestamp.clone(),
        containers,
    })
}

/// The API gives the end of its window in whole seconds, cut off: on average it was half a second later.
const CUT_OFF: SignedDuration = SignedDuration::from_millis(500);

/// Puts the kernel's count of one container over the metrics' own window beside them. False where the
/// samples do not cover that window. Its ends are known to half a second.
pub fn beside(said: &mut MetricsSay, container: &str, history: &[HistoryPoint]) -> bool {
    let Some(entry) = said.containers.iter_mut().find(|c| c.name == container) else { return false };
    let Some(usage) = usage_over(history, said.timestamp.0 + CUT_OFF, said.window) else { return false };
    entry.kernel_cpu_cores = Some(usage.cpu_cores);
    entry.kernel_throttled_cores = Some(usage.throttled_cores);
    true
}

fn percent(cores: f64, limit: f64) -> Option<f64> {
    (limit > 0.0).then(|| cores / limit * 100.0)
}

/// What the kernel counted over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelUsage {
    /// CPU time used / window, cores.
    pub cpu_cores: f64,
    /// Throttled time per CPU / window, cores.
    pub throttled_cores: f64,
}

/// Usage over the `window` seconds up to `end`, from cumulative samples (times rising). `None` where
/// they do not reach from its begin to its end, or lie so far apart there that the answer would be
/// a guess: between two samples the counter is taken to run evenly, so the two gaps at the
/// window's ends must be within a third of the window each.
pub fn usage_over(history: &[HistoryPoint], end: Timestamp, window: f64) -> Option<KernelUsage> {
    if !(window > 0.0 && window <= 3600.0) {
        return None;
    }
    let end_ns = u64::try_from(end.as_nanosecond()).ok()?;
    let window_ns = (window * 1e9) as u64;
    let begin_ns = end_ns.checked_sub(window_ns)?;
    let gap = window_ns / 3;
    let (cpu_begin, throttled_begin) = at(history, begin_ns, gap)?;
    let (cpu_end, throttled_end) = at(history, end_ns, gap)?;
    Some(KernelUsage {
        cpu_cores: (cpu_end - cpu_begin) / window_ns as f64,
        throttled_cores: (throttled_end - throttled_begin) / window_ns as f64,
    })
}

/// The counters at a moment between two samples: (CPU used, throttled), ns.
fn at(history: &[HistoryPoint], ns: u64, gap: u64) -> Option<(f64, f64)> {
    let next = history.partition_point(|p| p.unix_ns < ns);
    let b = history.get(next)?;
    if b.unix_ns == ns {
        return Some((b.cpu_usage_ns as f64, b.throttled_ns as f64));
    }
    let a = history.get(next.checked_sub(1)?)?;
    if b.unix_ns - a.unix_ns > gap {
        return None;
    }
    let share = (ns - a.unix_ns) as f64 / (b.unix_ns - a.unix_ns) as f64;
    let mix = |a: u64, b: u64| a as f64 + share * (b as f64 - a as f64);
    Some((mix(a.cpu_usage_ns, b.cpu_usage_ns), mix(a.throttled_ns, b.throttled_ns)))
}

/// Go's duration, as in `"window": "10.079s"`.
fn go_duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let duration = kube::core::Duration::deserialize(d)?;
    if duration.is_negative() {
        return Err(serde::de::Error::custom("a negative window"));
    }
    Ok(duration.into())
}

#[cfg(test)]
mod tests;
