//! The watch of the node's pods: a node-filtered, slimmed watch that never gives up. The agent runs
//! without it; then names come from the runtime alone, or late.

mod slim;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use thiserror::Error;
use tracing::{info, warn};

use super::images::Images;
use super::pods::{PodIndex, PodSet};
use crate::causes::chain;
use crate::kubeconfig::{self, Unusable};
use slim::SlimPod;
#[cfg(test)]
pub(crate) use slim::slimmed;

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

#[cfg(test)]
mod tests {
    use super::*;

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
