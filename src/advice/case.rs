//! What a recommendation is made from: one signal of a pod, and what the API server says of pod and node. Plain data.

use std::sync::Arc;

use jiff::Timestamp;

use crate::evidence::{HistoryPoint, Severity, SignalEvidence, SignalKind, Source};

/// Where a pod's spec has a container: what may be done to it goes by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerKind {
    #[default]
    Main,
    /// An init container that is restarted for as long as the pod runs.
    Sidecar,
    /// An init container that runs to its end before the others.
    Init,
    /// Put into the running pod by a person; it has no resources of its own.
    Ephemeral,
}

/// Resources of one container, as its pod's spec has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    pub name: String,
    pub kind: ContainerKind,
    pub cpu_limit_cores: Option<f64>,
    pub cpu_request_cores: Option<f64>,
    pub memory_limit_bytes: Option<i64>,
    pub memory_request_bytes: Option<i64>,
    /// Its `resizePolicy` restarts it when its CPU, or its memory, is resized in place.
    pub cpu_resize_restarts: bool,
    pub memory_resize_restarts: bool,
}

/// The controller of a pod as its ownerReference has it. The API server takes any text for each of these from
/// whoever may create the pod: they are checked before they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// `web-5d9c`.
    pub name: String,
}

/// What the API server says of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
    /// The controller that owns it.
    pub owner: Option<Owner>,
    /// Its label pod-template-hash: what a Deployment's ReplicaSet has after the Deployment's name.
    pub template_hash: Option<String>,
    /// An Argo Rollout or a DeploymentConfig makes its ReplicaSet or ReplicationController, and undoes what is changed
    /// there.
    pub template_is_made: bool,
    /// Of a static pod: the UID its node knows it by.
    pub config_hash: Option<String>,
    /// Every container, the init and ephemeral ones too.
    pub containers: Vec<ContainerFacts>,
}

impl PodFacts {
    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerFacts> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Whether a sender that calls the pod `uid` means this one.
    pub fn is(&self, uid: &str) -> bool {
        self.uid == uid || self.config_hash.as_deref() == Some(uid)
    }
}

/// What the API server says of the node a pod runs on; what is unknown is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// CPU it can give to pods (allocatable), cores.
    pub cpu_cores: Option<f64>,
    /// Its kubelet resizes pods in place, and so does the API server, which is never older.
    pub resizes: Option<bool>,
}

/// What a recommendation is made from, and a remediation decided by: one signal of a pod that exists.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub pod: Arc<PodFacts>,
    /// Empty for the pod as a whole.
    pub container: String,
    pub kind: SignalKind,
    /// Never act on [`Source::Reported`].
    pub source: Source,
    pub severity: Severity,
    pub active: bool,
    pub since: Timestamp,
    /// When it was last said.
    pub last_seen: Timestamp,
    /// The numbers of the last window, neighbours' names withheld where they are to be.
    pub numbers: SignalEvidence,
    /// As the report has it; empty where others reported.
    pub history: Arc<[HistoryPoint]>,
}
