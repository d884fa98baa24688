//! `status.remediation`: what was done about a whisper.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a remediation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RemediationState {
    /// Remediation was turned off while a step was under way: it is left as it is.
    Off,
    /// It would have been done, or undone; the mode is dry-run.
    DryRun,
    /// To be done next.
    Proposed,
    /// The resize was accepted by the API server.
    Applied,
    /// Actuated; the kernel's next windows decide.
    Verifying,
    /// The kernel shows it helped.
    Verified,
    /// It did not help and was undone.
    RolledBack,
    /// Not done; `reason` says why.
    Refused,
}

/// CPU (cores) and memory (bytes) of one container, as far as they were touched.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStep {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_limit_cores: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_request_cores: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory_limit_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory_request_bytes: Option<i64>,
}

/// One remediation of one container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remediation {
    pub state: RemediationState,
    /// Machine-readable, CamelCase.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// One sentence for a person.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Container it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ResourceStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ResourceStep>,
    /// Throttled percent in the window before, and in the kernel's next windows after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub before_throttled_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub after_throttled_percent: Option<f64>,
    pub last_transition_time: Time,
    /// Nothing further is done to this pod before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Time>,
    /// Steps taken since this object exists.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub steps: i64,
}
