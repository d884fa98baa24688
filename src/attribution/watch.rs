//! The watch of the node's pods: a node-filtered, slimmed watch that never gives up. The agent runs
//! without it; then names come from the runtime alone, or late.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, ObjectMeta};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use thiserror::Error;
use tracing::{info, warn};

use super::images::Images;
use super::pods::{ContainerKind, ContainerRecord, PodIndex, PodLife, PodRecord, PodSet, Terminated};
use crate::causes::chain;
use crate::kubeconfig::{self, Unusable};
use crate::quantity;

/// The longest name Kubernetes gives a node.
pub const NODE_NAME_MAX: usize = 253;

/// The node's pods, shared: the watch writes, the sampler reads without a lock.
#[derive(Debug, Default)]
pub struct Pods {
    index: ArcSwap<PodIndex>,
    status: ArcSwap<ApiStatus>,
    images: Images,
}

/// How it stands with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiStatus {
    /// Nobody has asked it.
    #[default]
    Unused,
    /// Asked, and no answer yet.
    Connecting,
    Up,
    /// It does not answer, or refuses: why.
    Down(String),
}

impl Pods {
    /// The pods known now; without a watch there are none.
    pub fn index(&self) -> Arc<PodIndex> {
        self.index.load_full()
    }

    /// Where the images of pods came from; without a watch nobody answers.
    pub fn images(&self) -> &Images {
        &self.images
    }

    pub fn status(&self) -> Arc<ApiStatus> {
        self.status.load_full()
    }
}

/// Why there is no API server to ask.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("no client for the API server: {0}")]
    Client(String),
    #[error("{0:?} is no node name (lower-case letters, digits, '-' and '.'): set NODE_NAME to the node's")]
    NodeName(String),
}

/// A client for the cluster: of the kubeconfig given, else as kubectl finds it (`$KUBECONFIG`,
/// `~/.kube/config`), else of the pod's service account. Sends nothing yet.
///
/// # Errors
/// [`Unusable::NoCluster`] where there is none of these; the others where there is one that is no good.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    let (_, config) = kubeconfig::find(kubeconfig).await?;
    kubeconfig::client(config).map_err(ApiError::Client)
}

/// The node's name in the API: as told, else `$NODE_NAME`, else this machine's host name (which in a
/// pod is the pod's, unless it uses the host's network).
///
/// # Errors
/// [`ApiError::NodeName`] where that is no name a node can have.
pub fn node_name(told: Option<&str>) -> Result<String, ApiError> {
    let name = told
        .map(String::from)
        .or_else(|| std::env::var("NODE_NAME").ok().filter(|n| !n.is_empty()))
        // The kubelet takes the host name in lower case.
        .or_else(|| {
            std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|n| n.trim().to_lowercase())
        })
        .unwrap_or_default();
    valid_node_name(name)
}

/// The text, if a node can have it for a name (a DNS subdomain).
///
/// # Errors
/// [`ApiError::NodeName`] where it cannot.
pub fn valid_node_name(name: impl Into<String>) -> Result<String, ApiError> {
    let name = name.into();
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    // It becomes part of a field selector, where a comma would start another condition.
    if name.is_empty() || name.len() > NODE_NAME_MAX || !name.bytes().all(allowed) {
        return Err(ApiError::NodeName(name));
    }
    Ok(name)
}

/// Keeps `pods` as the API server has them for `node`, for ever: after an error it lists again (from
/// the server's cache), at first after 0.8 s, later every 30 s. One line is logged when the server
/// stops answering and one when it is back. Meanwhile it answers what is asked of [`Pods::images`].
pub async fn watch(client: Client, node: &str, pods: &Pods) {
    tokio::join!(keep(client.clone(), node, pods), pods.images.serve(client));
}

/// The node's pods as they are now, from the server's cache.
///
/// # Errors
/// One line that says why there is no answer, `within` this time.
pub async fn list(client: Client, node: &str, within: Duration) -> Result<PodIndex, String> {
    let api: Api<SlimPod> = Api::all(client);
    let params = ListParams::default().fields(&format!("spec.nodeName={node}")).match_any();
    let listed = match tokio::time::timeout(within, api.list(&params)).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => return Err(chain(&error).replace('\n', " ")),
        Err(_) => return Err(format!("the API server does not answer within {} s", within.as_secs())),
    };
    let mut set = PodSet::default();
    set.begin_list();
    listed.items.into_iter().filter_map(SlimPod::into_record).for_each(|pod| set.list(pod));
    set.end_list(Instant::now());
    Ok(set.publish(Instant::now()).unwrap_or_default())
}

async fn keep(client: Client, node: &str, pods: &Pods) {
    /// Events taken together into one index.
    const CHUNK: usize = 256;
    /// A list that worked proves nothing where the watch after it is refused.
    const HOLD: Duration = Duration::from_secs(1);

    let api: Api<SlimPod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).any_semantic();
    let mut backoff = DefaultBackoff::default();
    let mut set = PodSet::default();
    pods.status.store(Arc::new(ApiStatus::Connecting));
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()).ready_chunks(CHUNK));
        let mut listed = false;
        let error = loop {
            let held = listed && **pods.status.load() != ApiStatus::Up;
            let chunk =
                match tokio::time::timeout(if held { HOLD } else { Duration::MAX }, events.next()).await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break None,
                    Err(_) => {
                        say_up(pods, node);
                        backoff.reset();
                        continue;
                    }
                };
            let (mut error, now) = (None, Instant::now());
            for event in chunk {
                match event {
                    Ok(Event::Init) => set.begin_list(),
                    Ok(Event::InitApply(pod)) => pod.into_record().into_iter().for_each(|p| set.list(p)),
                    Ok(Event::InitDone) => {
                        set.end_list(now);
                        listed = true;
                    }
                    Ok(Event::Apply(pod)) => pod.into_record().into_iter().for_each(|p| set.apply(p)),
                    Ok(Event::Delete(pod)) => {
                        set.delete(pod.metadata.uid.as_deref().unwrap_or_default(), now)
                    }
                    Err(e) => error = Some(e),
                }
            }
            if let Some(index) = set.publish(now) {
                pods.index.store(Arc::new(index));
            }
            if error.is_some() {
                break error;
            }
        };
        if let Some(error) = error.filter(|e| !is_expired(e)) {
            say_down(pods, node, error);
        }
        tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(30))).await;
    }
}

fn say_up(pods: &Pods, node: &str) {
    let live = pods.index.load().live();
    if live == 0 {
        info!(node, "API server: no pods on this node yet; if there should be, is NODE_NAME its name?");
    } else {
        info!(node, pods = live, "API server: watching the node's pods");
    }
    pods.status.store(Arc::new(ApiStatus::Up));
}

fn say_down(pods: &Pods, node: &str, error: watcher::Error) {
    let refused = match &error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => matches!(status.code, 401 | 403),
        _ => false,
    };
    let advice = if refused { "; grant the agent get, list and watch on pods" } else { "" };
    let why = brief(&error) + advice;
    if !matches!(**pods.status.load(), ApiStatus::Down(_)) {
        warn!(node, "no word from the API server, names come from the runtime until there is: {why}");
    }
    pods.status.store(Arc::new(ApiStatus::Down(why)));
}

/// The server no longer has the history asked for: a new list is due, nothing is wrong.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// What failed, and its first cause; what lies between says the same again and again.
fn brief(error: &watcher::Error) -> String {
    let text = error.to_string();
    let what = text.split(": ").next().unwrap_or_default();
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    format!("{what}: {cause}").replace('\n', " ")
}

/// The part of a Pod that is kept; the rest is skipped while it is decoded.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "Pod")]
struct SlimPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    containers: Vec<SlimContainer>,
    init_containers: Vec<SlimContainer>,
    ephemeral_containers: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimContainer {
    name: String,
    #[serde(default)]
    resources: SlimResources,
    #[serde(rename = "restartPolicy")]
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimResources {
    limits: SlimCpu,
    requests: SlimCpu,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimCpu {
    cpu: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: String,
    conditions: Vec<SlimCondition>,
    container_statuses: Vec<SlimContainerStatus>,
    init_container_statuses: Vec<SlimContainerStatus>,
    ephemeral_container_statuses: Vec<SlimContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    state: SlimState,
    #[serde(default)]
    last_state: SlimState,
    #[serde(default)]
    restart_count: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimState {
    waiting: Option<SlimWaiting>,
    terminated: Option<SlimTerminated>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimWaiting {
    #[serde(default)]
    reason: String,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimTerminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    exit_code: i32,
    reason: Option<String>,
    message: Option<String>,
}

impl From<&SlimTerminated> for Terminated {
    fn from(t: &SlimTerminated) -> Self {
        Terminated {
            id: bare_id(t.container_id.as_deref()),
            exit_code: t.exit_code,
            reason: t.reason.clone(),
            message: t.message.clone(),
        }
    }
}

impl SlimPod {
    /// `None` for an object without a name or UID, which the API server never sends.
    fn into_record(self) -> Option<PodRecord> {
        let SlimPod { metadata, spec, mut status } = self;
        let mut statuses = std::mem::take(&mut status.container_statuses);
        statuses.append(&mut status.init_container_statuses);
        statuses.append(&mut status.ephemeral_container_statuses);
        let of_kind = |kind| move |c: SlimContainer| (c, kind);
        let containers = spec.containers.into_iter().map(of_kind(ContainerKind::Main));
        let containers = containers
            .chain(spec.init_containers.into_iter().map(|c| {
                let sidecar = c.restart_policy.as_deref() == Some("Always");
                (c, if sidecar { ContainerKind::Main } else { ContainerKind::Init })
            }))
            .chain(spec.ephemeral_containers.into_iter().map(of_kind(ContainerKind::Ephemeral)))
            .map(|(c, kind)| {
                let status = statuses.iter().find(|s| s.name == c.name);
                let before = status.and_then(|s| s.last_state.terminated.as_ref());
                ContainerRecord {
                    ids: [
                        status.and_then(|s| bare_id(s.container_id.as_deref())),
                        before.and_then(|t| bare_id(t.container_id.as_deref())),
                    ],
                    name: c.name,
                    cpu_limit: c.resources.limits.cpu.as_deref().and_then(quantity::parse),
                    cpu_request: c.resources.requests.cpu.as_deref().and_then(quantity::parse),
                    kind,
                    waiting: status.and_then(|s| s.state.waiting.clone()).map(|w| (w.reason, w.message)),
                    terminated: status
                        .and_then(|s| s.state.terminated.as_ref().or(before))
                        .map(Terminated::from),
                    restarts: status.map_or(0, |s| s.restart_count),
                }
            })
            .collect();
        let since = |kind: &str| {
            let met = status.conditions.iter().find(|c| c.kind == kind && c.status == "True")?;
            met.last_transition_time.as_ref().map(|t| t.0.as_second())
        };
        let life = PodLife {
            created: metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
            scheduled: since("PodScheduled"),
            ready: since("Ready"),
            succeeded: status.phase == "Succeeded",
            failed: status.phase == "Failed",
            deleting: metadata.deletion_timestamp.is_some(),
        };
        let owner =
            metadata.owner_references.unwrap_or_default().into_iter().find(|o| o.controller == Some(true));
        let hash = metadata.annotations.and_then(|mut a| a.remove("kubernetes.io/config.hash"));
        Some(PodRecord {
            namespace: metadata.namespace?,
            name: metadata.name?,
            uid: metadata.uid?,
            config_hash: hash,
            owner: owner.map(|o| (o.kind, o.name)),
            containers,
            life,
        })
    }
}

/// A pod as kubectl prints it, for the tests of other rooms.
#[cfg(test)]
pub(crate) fn slimmed(json: &str) -> PodRecord {
    serde_json::from_str::<SlimPod>(json).expect("a pod").into_record().expect("named")
}

/// The id of `containerd://<id>`.
fn bare_id(id: Option<&str>) -> Option<String> {
    id?.split_once("://").map(|(_, id)| id.to_string()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_pod_is_slimmed() {
        let text = include_str!("../../tests/fixtures/attribution/pod.json");
        let pod: SlimPod = serde_json::from_str(text).expect("a pod");
        let record = pod.into_record().expect("named");
        let id = "47b78268104a1bdd76bf17cc2663859935cb749077de2ec48f39bce98c6e3122";
        let expected = PodRecord {
            namespace: "kg-attr".into(),
            name: "burn".into(),
            uid: "d341e8db-112f-4371-804f-3616d814d3d6".into(),
            config_hash: None,
            owner: None,
            containers: vec![ContainerRecord {
                name: "burn".into(),
                ids: [Some(id.into()), None],
                cpu_limit: Some(0.2),
                cpu_request: Some(0.1),
                ..ContainerRecord::default()
            }],
            life: record.life.clone(),
        };
        assert_eq!(record, expected);
        let life = PodLife {
            created: record.life.created,
            scheduled: record.life.scheduled,
            ready: record.life.ready,
            ..PodLife::default()
        };
        assert_eq!(record.life, life, "neither over nor going");
        assert!(life.created.is_some() && life.scheduled.is_some() && life.ready.is_some(), "{life:?}");
    }

    #[test]
    fn a_static_pod_keeps_its_hash_and_owner() {
        let text = include_str!("../../tests/fixtures/attribution/pod-static.json");
        let pod: SlimPod = serde_json::from_str(text).expect("a pod");
        let record = pod.into_record().expect("named");
        assert_eq!(record.config_hash.as_deref(), Some("bf4eb23c48bbcc272d5dc8a1a460e91b"));
        assert_eq!(record.uid, "58c14ee8-b397-4873-ac64-225dfd5cda0c");
        assert_eq!(record.owner, Some(("Node".into(), "kg-node".into())));
    }

    #[test]
    fn every_kind_of_container_and_the_id_before_a_restart() {
        let text = r#"{"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "x", "containers": [{"name": "a"}], "initContainers": [{"name": "b"}],
                     "ephemeralContainers": [{"name": "c"}]},
            "status": {"containerStatuses": [{"name": "a", "containerID": "containerd://a1",
                           "lastState": {"terminated": {"containerID": "containerd://a0", "exitCode": 1}}}],
                       "initContainerStatuses": [{"name": "b", "containerID": "cri-o://b1"}],
                       "ephemeralContainerStatuses": [{"name": "c", "containerID": ""}]}}"#;
        let record = serde_json::from_str::<SlimPod>(text).expect("a pod").into_record().expect("named");
        let id = |s: &str| Some(s.to_string());
        let ids: Vec<_> = record.containers.iter().map(|c| (c.name.as_str(), c.ids.clone())).collect();
        assert_eq!(ids, [("a", [id("a1"), id("a0")]), ("b", [id("b1"), None]), ("c", [None, None])]);
    }

    #[test]
    fn node_names() {
        assert_eq!(node_name(Some("kg-node")).expect("a name"), "kg-node");
        for bad in ["", "a,metadata.name=b", "UPPER", "a b"] {
            assert!(matches!(node_name(Some(bad)), Err(ApiError::NodeName(n)) if n == bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_bad_kubeconfig_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "clusters: [").expect("written");
        let error = client(Some(file.path())).await.err().expect("refused").to_string();
        assert!(error.starts_with(&format!("kubeconfig {}: ", file.path().display())), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
