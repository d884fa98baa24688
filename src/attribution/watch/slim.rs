//! The part of a Pod that is kept, decoded without the rest.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::attribution::pods::{ContainerKind, ContainerRecord, PodLife, PodRecord, Terminated};
use crate::quantity;

/// The part of a Pod that is kept; the rest is skipped while it is decoded.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "Pod")]
pub(super) struct SlimPod {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    containers: Vec<SlimContainer>,
    init_containers: Vec<SlimContainer>,
    ephemeral_containers: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimContainer {
    name: String,
    #[serde(default)]
    resources: SlimResources,
    #[serde(rename = "restartPolicy")]
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimResources {
    limits: SlimCpu,
    requests: SlimCpu,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimCpu {
    cpu: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: String,
    conditions: Vec<SlimCondition>,
    container_statuses: Vec<SlimContainerStatus>,
    init_container_statuses: Vec<SlimContainerStatus>,
    ephemeral_container_statuses: Vec<SlimContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    state: SlimState,
    #[serde(default)]
    last_state: SlimState,
    #[serde(default)]
    restart_count: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimState {
    waiting: Option<SlimWaiting>,
    terminated: Option<SlimTerminated>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimWaiting {
    #[serde(default)]
    reason: String,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimTerminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    exit_code: i32,
    reason: Option<String>,
    message: Option<String>,
}

impl From<&SlimTerminated> for Terminated {
    fn from(t: &SlimTerminated) -> Self {
        Terminated {
            id: bare_id(t.container_id.as_deref()),
            exit_code: t.exit_code,
            reason: t.reason.clone(),
            message: t.message.clone(),
        }
    }
}

impl SlimPod {
    /// `None` for an object without a name or UID, which the API server never sends.
    pub(super) fn into_record(self) -> Option<PodRecord> {
        let SlimPod { metadata, spec, mut status } = self;
        let mut statuses = std::mem::take(&mut status.container_statuses);
        statuses.append(&mut status.init_container_statuses);
        statuses.append(&mut status.ephemeral_container_statuses);
        let of_kind = |kind| move |c: SlimContainer| (c, kind);
        let containers = spec.containers.into_iter().map(of_kind(ContainerKind::Main));
        let containers = containers
            .chain(spec.init_containers.into_iter().map(|c| {
                let sidecar = c.restart_policy.as_deref() == Some("Always");
                (c, if sidecar { ContainerKind::Main } else { ContainerKind::Init })
            }))
            .chain(spec.ephemeral_containers.into_iter().map(of_kind(ContainerKind::Ephemeral)))
            .map(|(c, kind)| {
                let status = statuses.iter().find(|s| s.name == c.name);
                let before = status.and_then(|s| s.last_state.terminated.as_ref());
                ContainerRecord {
                    ids: [
                        status.and_then(|s| bare_id(s.container_id.as_deref())),
                        before.and_then(|t| bare_id(t.container_id.as_deref())),
                    ],
                    name: c.name,
                    cpu_limit: c.resources.limits.cpu.as_deref().and_then(quantity::parse),
                    cpu_request: c.resources.requests.cpu.as_deref().and_then(quantity::parse),
                    kind,
                    waiting: status.and_then(|s| s.state.waiting.clone()).map(|w| (w.reason, w.message)),
                    terminated: status
                        .and_then(|s| s.state.terminated.as_ref().or(before))
                        .map(Terminated::from),
                    restarts: status.map_or(0, |s| s.restart_count),
                }
            })
            .collect();
        let since = |kind: &str| {
            let met = status.conditions.iter().find(|c| c.kind == kind && c.status == "True")?;
            met.last_transition_time.as_ref().map(|t| t.0.as_second())
        };
        let life = PodLife {
            created: metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
            scheduled: since("PodScheduled"),
            ready: since("Ready"),
            succeeded: status.phase == "Succeeded",
            failed: status.phase == "Failed",
            deleting: metadata.deletion_timestamp.is_some(),
        };
        let owner =
            metadata.owner_references.unwrap_or_default().into_iter().find(|o| o.controller == Some(true));
        let hash = metadata.annotations.and_then(|mut a| a.remove("kubernetes.io/config.hash"));
        Some(PodRecord {
            namespace: metadata.namespace?,
            name: metadata.name?,
            uid: metadata.uid?,
            config_hash: hash,
            owner: owner.map(|o| (o.kind, o.name)),
            containers,
            life,
        })
    }
}

/// A pod as kubectl prints it, for the tests of other rooms.
#[cfg(test)]
pub(crate) fn slimmed(json: &str) -> PodRecord {
    serde_json::from_str::<SlimPod>(json).expect("a pod").into_record().expect("named")
}

/// The id of `containerd://<id>`.
fn bare_id(id: Option<&str>) -> Option<String> {
    id?.split_once("://").map(|(_, id)| id.to_string()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_pod_is_slimmed() {
        let text = include_str!("../../../tests/fixtures/attribution/pod.json");
        let pod: SlimPod = serde_json::from_str(text).expect("a pod");
        let record = pod.into_record().expect("named");
        let id = "47b78268104a1bdd76bf17cc2663859935cb749077de2ec48f39bce98c6e3122";
        let expected = PodRecord {
            namespace: "kg-attr".into(),
            name: "burn".into(),
            uid: "d341e8db-112f-4371-804f-3616d814d3d6".into(),
            config_hash: None,
            owner: None,
            containers: vec![ContainerRecord {
                name: "burn".into(),
                ids: [Some(id.into()), None],
                cpu_limit: Some(0.2),
                cpu_request: Some(0.1),
                ..ContainerRecord::default()
            }],
            life: record.life.clone(),
        };
        assert_eq!(record, expected);
        let life = PodLife {
            created: record.life.created,
            scheduled: record.life.scheduled,
            ready: record.life.ready,
            ..PodLife::default()
        };
        assert_eq!(record.life, life, "neither over nor going");
        assert!(life.created.is_some() && life.scheduled.is_some() && life.ready.is_some(), "{life:?}");
    }

    #[test]
    fn a_static_pod_keeps_its_hash_and_owner() {
        let text = include_str!("../../../tests/fixtures/attribution/pod-static.json");
        let pod: SlimPod = serde_json::from_str(text).expect("a pod");
        let record = pod.into_record().expect("named");
        assert_eq!(record.config_hash.as_deref(), Some("bf4eb23c48bbcc272d5dc8a1a460e91b"));
        assert_eq!(record.uid, "58c14ee8-b397-4873-ac64-225dfd5cda0c");
        assert_eq!(record.owner, Some(("Node".into(), "kg-node".into())));
    }

    #[test]
    fn every_kind_of_container_and_the_id_before_a_restart() {
        let text = r#"{"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "x", "containers": [{"name": "a"}], "initContainers": [{"name": "b"}],
                     "ephemeralContainers": [{"name": "c"}]},
            "status": {"containerStatuses": [{"name": "a", "containerID": "containerd://a1",
                           "lastState": {"terminated": {"containerID": "containerd://a0", "exitCode": 1}}}],
                       "initContainerStatuses": [{"name": "b", "containerID": "cri-o://b1"}],
                       "ephemeralContainerStatuses": [{"name": "c", "containerID": ""}]}}"#;
        let record = serde_json::from_str::<SlimPod>(text).expect("a pod").into_record().expect("named");
        let id = |s: &str| Some(s.to_string());
        let ids: Vec<_> = record.containers.iter().map(|c| (c.name.as_str(), c.ids.clone())).collect();
        assert_eq!(ids, [("a", [id("a1"), id("a0")]), ("b", [id("b1"), None]), ("c", [None, None])]);
    }
}
