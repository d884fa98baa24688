//! The whole way on a real cluster: pods that the kernel throttles, the agent that sees it, with a collector in
//! between or without, the reconciler, the object.

#[path = "../reconciler_cluster/bed.rs"]
#[allow(dead_code, reason = "shared with tests/reconciler_cluster, each uses a part of it")]
mod bed;
mod bursts;
#[path = "../common/mod.rs"]
mod common;
mod latency;
mod node;
mod outage;

use tokio::sync::Mutex;

/// Held by tests whose figures another one's load would be in.
static MEASURING: Mutex<()> = Mutex::const_new(());
