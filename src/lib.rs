//! Kernel Gossip: what the kernel knows about a pod and Kubernetes does not say.
//!
//! Types flow one way, left to right, and a module knows only those on its left:
//! [`kernel`] (a [`kernel::Reading`] each interval) -> [`attribution`] (an
//! [`attribution::Attributed`]) -> [`signals`] (a [`signals::Whisper`] on a transition) ->
//! [`sinks`] (OTLP, Prometheus, terminal). [`api`] and [`reconciler`] are the cluster's half;
//! [`quantity`] reads what Kubernetes calls one, and [`plain`] makes text of others fit to be shown, for both.

pub mod agent;
pub mod api;
pub mod attribution;
pub mod birth;
pub mod config;
pub mod kernel;
pub mod plain;
pub mod quantity;
pub mod reconciler;
pub mod signals;
pub mod sinks;
#[doc(hidden)]
pub mod testlog;
pub mod ui;
