//! Agent, reconciler and manifests on the test bed's Kubernetes node.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bed;
mod cluster {
    mod attribution;
    mod bed;
    mod births;
    mod collector_outage;
    mod dashboards;
    mod docs;
    mod drops;
    mod families;
    mod install;
    mod manifests;
    mod measured;
    mod memory;
    mod oom;
    mod reconciler;
    mod resize;
}
