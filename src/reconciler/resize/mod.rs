//! Remediation: a throttled container's CPU limit raised in place, verified by the kernel's next
//! windows, undone where it did not help. Told in `docs/remediation.md`.
//!
//! [`fn@run`] takes [`Candidate`]s and gives [`Update`]s. What is decided is pure: [`step`] (where a
//! remediation stands, and what comes next) and [`plan`] (whether this pod may be resized, and to what).
//!
//! Inside belongs all that changes a pod; what is advised does not.

mod cluster_state;
mod course;
mod follow;
mod metrics;
pub mod plan;
mod run;
pub mod step;

use std::time::Duration;

use tokio::sync::oneshot;

pub use cluster_state::{ClusterState, VerticalAutoscaler};
pub use metrics::ResizeMetrics;
pub use run::run;

use super::report::Evidence;
use crate::advice::Recommendation;
use crate::api::Remediation;

/// On a pod or its namespace: who may be remediated. The pod's own word goes first.
pub const ANNOTATION: &str = "kernel.gossip.io/remediate";
/// Its name in 0.1.0, read where [`ANNOTATION`] is not there; gone in 0.3.
pub const ANNOTATION_BEFORE: &str = "kernel-gossip.io/remediate";
/// The only value of [`ANNOTATION`] that permits anything.
pub const ANNOTATION_RESIZE: &str = "resize";

/// What the reconciler may do on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Recommendations only.
    #[default]
    Off,
    /// Decides as `apply` would, and says what it would do.
    DryRun,
    /// Resizes annotated pods.
    Apply,
}

/// The bounds of remediation. The defaults are what `docs/remediation.md` says.
#[derive(Clone, Debug)]
pub struct ResizeOptions {
    pub mode: Mode,
    /// A step multiplies the limit by this at most.
    pub step_factor: f64,
    /// Steps for one pod; then a person has to look.
    pub steps_max: i64,
    /// No limit above this, cores.
    pub cores_max: f64,
    /// After a step, a dry run or a refusal, nothing for this long.
    pub cooldown: Duration,
    /// A pod that does not ask for it is not looked at for this long: shorter than a minute, so that an
    /// annotation is seen at the next report.
    pub unasked: Duration,
    /// After a step that did not help, nothing for this long.
    pub rollback_cooldown: Duration,
    /// A resize the node has not carried out after this long is undone.
    pub pending_max: Duration,
    /// Windows later than this after a step do not judge it any more.
    pub verify_within: Duration,
    /// Pods remediated at the same time; more wait for their next report.
    pub concurrent_max: usize,
}

impl Default for ResizeOptions {
    fn default() -> ResizeOptions {
        ResizeOptions {
            mode: Mode::Off,
            step_factor: 2.0,
            steps_max: 3,
            cores_max: 64.0,
            cooldown: Duration::from_secs(5 * 60),
            unasked: Duration::from_secs(50),
            rollback_cooldown: Duration::from_secs(60 * 60),
            pending_max: Duration::from_secs(5 * 60),
            verify_within: Duration::from_secs(10 * 60),
            concurrent_max: 8,
        }
    }
}

/// One fresh report of the kernel about one pod, for remediation to judge.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub evidence: Evidence,
    pub recommendation: Recommendation,
    /// `status.remediation` as the object has it now.
    pub standing: Option<Remediation>,
}

/// What `status.remediation` of a pod's whisper is to become.
#[derive(Debug)]
pub struct Update {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub remediation: Remediation,
    /// Answered with `true` once the API server has it. Nothing is done to a pod before, so that a
    /// reconciler that dies can still undo it.
    pub written: oneshot::Sender<bool>,
}
