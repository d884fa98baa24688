//! How much CPU a node can give to pods, remembered for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use super::faults::{Fault, FaultLog};
use crate::quantity;

/// A node's allocatable CPU changes only when its kubelet is reconfigured.
const KEEP: Duration = Duration::from_secs(3600);
/// Asked again sooner where the API server did not say.
const KEEP_UNKNOWN: Duration = Duration::from_secs(60);
/// The largest cluster has 5,000 to 10,000 nodes; an entry is about 100 bytes.
const NODES_MAX: usize = 16_384;
const HINT: &str = "no limit is recommended to be dropped meanwhile; the role needs get on nodes";

/// Allocatable CPU by node: one GET an hour and node, only for nodes that whisper.
pub struct NodeSizes {
    client: Client,
    known: Mutex<HashMap<String, (Option<f64>, Instant)>>,
    log: FaultLog,
}

impl NodeSizes {
    pub fn new(client: Client) -> NodeSizes {
        NodeSizes { client, known: Mutex::new(HashMap::new()), log: FaultLog::new("reading nodes") }
    }

    /// Cores that pods may have on the node; `None` where the API server does not say (it cannot be
    /// reached, the node is gone, or the role has no `get` on nodes).
    pub async fn cores(&self, node: &str) -> Option<f64> {
        let now = Instant::now();
        if let Some((cores, until)) = self.known().get(node)
            && *until > now
        {
            return *cores;
        }
        let cores = match Api::<Node>::all(self.client.clone()).get(node).await {
            Ok(node) => {
                self.log.succeeded();
                allocatable_cpu(&node)
            }
            Err(error) => {
                match Fault::of(&error) {
                    // It went, and its pods go.
                    Fault::NotFound => tracing::debug!(node, "the node is gone"),
                    fault => self.log.failed(fault, &error, HINT),
                }
                None
            }
        };
        let keep = if cores.is_some() { KEEP } else { KEEP_UNKNOWN };
        let mut known = self.known();
        if known.len() >= NODES_MAX {
            known.retain(|_, (_, until)| *until > now);
            if known.len() >= NODES_MAX {
                known.clear();
            }
        }
        known.insert(node.to_string(), (cores, now + keep));
        cores
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Option<f64>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// CPU in `status.allocatable`, cores.
pub fn allocatable_cpu(node: &Node) -> Option<f64> {
    quantity::value(node.status.as_ref()?.allocatable.as_ref()?.get("cpu")?)
}
