//! Kernel Gossip: what the kernel knows about a pod and Kubernetes does not say.
//!
//! Types flow one way, left to right, and a module knows only those on its left:
//! [`kernel`] (a [`kernel::Reading`] each interval) -> [`attribution`] (an
//! [`attribution::Attributed`]) -> [`signals`] (a [`signals::Whisper`] on a transition) ->
//! [`sinks`] (OTLP, Prometheus, terminal; [`top`] looks on). [`evidence`] has the words and numbers of a signal for all of them, [`names`] the names of all that
//! leaves the agent. [`api`] and [`reconciler`] are the cluster's half;
//! [`bounds`] says how long what others name may be, [`mod@plain`] makes their text fit to be shown, [`quantity`] reads what
//! Kubernetes calls one, [`kubeconfig`] finds the API server, [`proxy`] the way out, [`token`] reads what proves who asks, [`listen`] opens ports and [`shell`] writes commands, for both.

pub mod advice;
pub mod agent;
pub mod api;
pub mod attribution;
pub mod birth;
pub mod bounds;
pub mod causes;
pub mod config;
pub mod evidence;
#[cfg(test)]
mod floors;
pub mod kernel;
pub mod kubeconfig;
pub mod listen;
pub mod names;
pub mod plain;
pub mod proxy;
pub mod quantity;
pub mod reconciler;
pub mod shell;
pub mod signals;
pub mod sinks;
#[cfg(test)]
mod testfuzz;
#[doc(hidden)]
pub mod testlog;
pub mod token;
pub mod top;
pub mod ui;
