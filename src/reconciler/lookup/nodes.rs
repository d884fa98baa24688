//! How much CPU a node can give to pods, and whether it resizes them in place: remembered for a while.

use std::num::NonZeroUsize;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use super::ttl_cache::TtlCache;
use crate::quantity;
use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::report::NodeFacts;

/// Both change only when its kubelet is reconfigured or upgraded.
const KEEP: Duration = Duration::from_secs(3600);
/// Asked again sooner where the API server did not say.
const KEEP_UNKNOWN: Duration = Duration::from_secs(60);
/// The largest cluster has 5,000 to 10,000 nodes; an entry is about 100 bytes.
const NODES_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
const HINT: &str = "no limit is recommended to be dropped meanwhile; the role needs get on nodes";

/// Kubelets resize pods in place from here on (beta, on by default; 1.35: stable).
const RESIZES_SINCE: (u32, u32) = (1, 33);

/// What is known by node: one GET an hour and node, only for nodes that whisper.
pub struct Nodes {
    client: Client,
    known: TtlCache<String, NodeFacts>,
    log: FaultLog,
}

impl Nodes {
    pub fn new(client: Client) -> Nodes {
        Nodes { client, known: TtlCache::new(NODES_MAX), log: FaultLog::new("reading nodes") }
    }

    /// What the API server says of the node; nothing where it does not (it cannot be reached, the node is gone, or the
    /// role has no `get` on nodes).
    pub async fn get(&self, node: &str) -> NodeFacts {
        let keep = |facts: &NodeFacts| if facts.cpu_cores.is_some() { KEEP } else { KEEP_UNKNOWN };
        if let Some(facts) = self.known.get(node, keep) {
            return facts;
        }
        let facts = match Api::<Node>::all(self.client.clone()).get(node).await {
            Ok(node) => {
                self.log.succeeded();
                facts(&node)
            }
            Err(error) => {
                match Fault::of(&error) {
                    // It went, and its pods go.
                    Fault::NotFound => tracing::debug!(node, "the node is gone"),
                    fault => self.log.failed(fault, &error, HINT),
                }
                NodeFacts::default()
            }
        };
        self.known.put(node.to_owned(), facts);
        facts
    }
}

/// CPU in `status.allocatable`, cores.
pub fn allocatable_cpu(node: &Node) -> Option<f64> {
    quantity::value(node.status.as_ref()?.allocatable.as_ref()?.get("cpu")?)
}

fn facts(node: &Node) -> NodeFacts {
    let kubelet = node.status.as_ref().and_then(|s| s.node_info.as_ref()).map(|info| &*info.kubelet_version);
    NodeFacts {
        cpu_cores: allocatable_cpu(node),
        resizes: kubelet.and_then(version).map(|version| version >= RESIZES_SINCE),
    }
}

/// Major and minor of `v1.34.1`, `v1.33.0-gke.100`, `v1.33+`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.strip_prefix('v')?.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_can() {
        for (version, resizes) in [
            ("v1.30.4", Some(false)),
            ("v1.32.9+k3s1", Some(false)),
            ("v1.33.0-gke.100", Some(true)),
            ("v1.35.1", Some(true)),
            ("v2.0.0", Some(true)),
            ("", None),
            ("unknown", None),
        ] {
            let node: Node = serde_json::from_value(serde_json::json!({
                "metadata": {},
                "status": {"allocatable": {"cpu": "1930m"}, "nodeInfo": {
                    "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "",
                    "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                    "systemUUID": ""
                }}
            }))
            .unwrap();
            assert_eq!(facts(&node), NodeFacts { cpu_cores: Some(1.93), resizes }, "{version:?}");
        }
        assert_eq!(facts(&Node::default()), NodeFacts::default());
    }
}
