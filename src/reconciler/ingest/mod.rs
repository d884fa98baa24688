//! What comes in from outside: OTLP events of agents, JSON of others. All of it is checked, its pod is
//! looked up, and only then it reaches the desired state.
//!
//! Inside belongs what is taken, what is refused and how that is answered. What becomes of it does not.

mod answer;
pub mod auth;
pub mod certificate;
mod check;
pub mod decode;
mod logs;
pub mod otlp;
mod otlp_http;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt;
use tokio::sync::mpsc;

pub use super::refusal::{Denied, NotTaken, Reason, Refusal};
pub use auth::{Authorizer, Scope};

use super::faults::{Fault, FaultLog};
use super::lookup::metrics_api::MetricsApi;
use super::lookup::nodes::Nodes;
use super::lookup::pods::Pods;
use super::report::{NodeFacts, PodFacts, Report, ResolvedReport, Silence};
use super::telemetry::Telemetry;
use crate::api::Source;

/// Lookups of one request under way at once.
const PARALLEL: usize = 32;
/// How long a sender waits for room behind the ingest before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way from the ingest to the desired state. While this replica does not lead it is closed.
pub struct Intake {
    pods: Pods,
    metrics: MetricsApi,
    nodes: Nodes,
    only_namespace: Option<String>,
    out: ArcSwapOption<mpsc::Sender<ResolvedReport>>,
    telemetry: Arc<Telemetry>,
    log: FaultLog,
}

impl Intake {
    pub fn new(client: kube::Client, only_namespace: Option<String>, telemetry: Arc<Telemetry>) -> Intake {
        Intake {
            pods: Pods::new(client.clone()),
            metrics: MetricsApi::new(client.clone()),
            nodes: Nodes::new(client),
            only_namespace,
            out: ArcSwapOption::empty(),
            telemetry,
            log: FaultLog::new("looking up pods"),
        }
    }

    /// From here on reports go to `out`.
    pub fn open(&self, out: impl Into<Arc<mpsc::Sender<ResolvedReport>>>) {
        self.out.store(Some(out.into()));
    }

    /// From here on reports are not taken. Returns where they went.
    pub fn close(&self) -> Option<Arc<mpsc::Sender<ResolvedReport>>> {
        self.out.swap(None)
    }

    /// Takes the reports of one sender in their order. The answer has one entry per refused report;
    /// a refused one does not hold up the others.
    ///
    /// # Errors
    /// [`NotTaken::Later`] when not all could be dealt with. To send all of them again is safe.
    pub async fn take(&self, reports: Vec<Report>, scope: &Scope) -> Result<Vec<Refusal>, NotTaken> {
        let out = self.out.load_full().ok_or(NotTaken::Later("this replica does not lead"))?;
        let mut refused = Vec::new();
        let mut found = futures::stream::iter(reports).map(|r| self.look_up(r, scope)).buffered(PARALLEL);
        while let Some(said) = found.next().await {
            match said {
                Ok(said) => {
                    let source = said.report.source;
                    match tokio::time::timeout(PATIENCE, out.send(said)).await {
                        Ok(Ok(())) => self.telemetry.taken(source),
                        Ok(Err(_)) => return Err(NotTaken::Later("this replica does not lead any more")),
                        Err(_) => return Err(NotTaken::Later("the reconciler is overloaded")),
                    }
                }
                Err(NotTaken::Refused(refusal)) => refused.push(refusal),
                Err(later) => return Err(later),
            }
        }
        Ok(refused)
    }

    /// The pod of this name as it is now.
    ///
    /// # Errors
    /// Refused where there is none on a node.
    pub async fn pod(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Result<Arc<PodFacts>, NotTaken> {
        if let Some(only) = self.only_namespace.as_deref().filter(|only| *only != namespace) {
            let why = format!("this reconciler serves {only} alone, not {namespace}");
            return Err(Refusal::of(Reason::OtherNamespace, "namespace", why).into());
        }
        let found = self.pods.get(namespace, name, uid).await.map_err(|error| {
            let hint = "senders are told to try again; the role needs get on pods";
            self.log.failed_in("pods", namespace, Fault::of(&error), &error, hint);
            NotTaken::Later("the API server does not say whether the pod exists")
        })?;
        self.log.succeeded_in("pods", namespace);
        let no = |why: String| NotTaken::Refused(Refusal::of(Reason::NoSuchPod, "pod_name", why));
        let pod = found.ok_or_else(|| no(format!("there is no pod {namespace}/{name}")))?;
        if uid.is_some_and(|uid| !pod.is(uid)) {
            return Err(no(format!("the pod {namespace}/{name} of this UID is gone")));
        }
        if pod.node.is_empty() {
            return Err(no(format!("the pod {namespace}/{name} is on no node yet")));
        }
        Ok(pod)
    }

    async fn look_up(&self, report: Report, scope: &Scope) -> Result<ResolvedReport, NotTaken> {
        let pod = self.pod(&report.namespace, &report.pod, report.uid.as_deref()).await?;
        pod.may_be_told_of(scope)?;
        if !report.container.is_empty() && pod.container(&report.container).is_none() {
            let why = format!("{}/{} has no container {}", pod.namespace, pod.name, report.container);
            return Err(Refusal::of(Reason::NoSuchContainer, "container_name", why).into());
        }
        let ask = report.source == Source::Kernel && report.active && report.numbers.cpu.is_some();
        if !ask {
            return Ok(ResolvedReport {
                report,
                pod,
                metrics: Err(Silence::NotAsked),
                node: NodeFacts::default(),
            });
        }
        let (metrics, node) =
            futures::join!(self.metrics.get(&pod.namespace, &pod.name), self.node(&pod.node));
        Ok(ResolvedReport { report, pod, metrics, node })
    }

    /// Advice can do without it: not waited for long.
    async fn node(&self, node: &str) -> NodeFacts {
        tokio::time::timeout(Duration::from_millis(400), self.nodes.get(node)).await.unwrap_or_default()
    }
}

impl PodFacts {
    /// Whether a caller with this scope may speak for the pod.
    fn may_be_told_of(&self, scope: &Scope) -> Result<(), Refusal> {
        match scope {
            Scope::Node(node) if *node != self.node => {
                let why = format!(
                    "{}/{} runs on {}, the caller may speak for {node}",
                    self.namespace, self.name, self.node
                );
                Err(Refusal::of(Reason::OtherNode, "k8s.pod.name", why))
            }
            _ => Ok(()),
        }
    }
}
