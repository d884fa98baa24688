//! The pods that are reported on: asked for one by one and remembered for a while, so that neither
//! memory nor watch grows with the cluster, only with what whispers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;

use super::ttl_cache::TtlCache;
use crate::quantity;
use crate::reconciler::report::{ContainerFacts, ContainerKind, Owner, PodFacts};

/// Limits change by in-place resize; an active whisper is said once a minute, so each is asked again.
const KEEP: Duration = Duration::from_secs(50);
/// Where nobody says which pod of this name is meant, it must be there now.
const KEEP_UNSURE: Duration = Duration::from_secs(1);
/// Pods remembered; about 1 kB each.
const PODS_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Requests under way at once.
const PARALLEL: usize = 32;

/// Asks the API server about pods.
pub struct Pods {
    client: Client,
    known: TtlCache<(String, String), Option<Arc<PodFacts>>>,
    parallel: Semaphore,
}

impl Pods {
    pub fn new(client: Client) -> Pods {
        Pods { client, known: TtlCache::new(PODS_MAX), parallel: Semaphore::new(PARALLEL) }
    }

    /// The pod of this name, `None` where there is none. Where the sender means one `uid` and another
    /// pod is remembered, the API server is asked again: the name may have been taken over since.
    ///
    /// # Errors
    /// The API server gave no answer.
    pub async fn get(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Result<Option<Arc<PodFacts>>, kube::Error> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(answer) = self.remembered(&key, uid) {
            return Ok(answer);
        }
        // Never closed.
        let _permit = self.parallel.acquire().await;
        // The answer may have come for another report of the same pod while this one waited.
        if let Some(answer) = self.remembered(&key, uid) {
            return Ok(answer);
        }
        let pod = Api::<Pod>::namespaced(self.client.clone(), namespace).get_opt(name).await?;
        let facts = pod.map(|pod| Arc::new(facts(&pod)));
        self.known.put(key, facts.clone());
        Ok(facts)
    }

    fn remembered(&self, key: &(String, String), uid: Option<&str>) -> Option<Option<Arc<PodFacts>>> {
        self.known.get(key, |facts| match (facts, uid) {
            (Some(facts), Some(uid)) if facts.is(uid) => KEEP,
            // A sender that means another pod than the one remembered may be ahead of it: to turn it away
            // is final, so the API server is asked again.
            (_, Some(_)) => Duration::ZERO,
            (_, None) => KEEP_UNSURE,
        })
    }
}

/// What is kept of a pod.
pub fn facts(pod: &Pod) -> PodFacts {
    let mut containers = Vec::new();
    if let Some(spec) = &pod.spec {
        use ContainerKind as Kind;
        let main = spec.containers.iter().map(|c| (c, Kind::Main));
        let init = spec.init_containers.iter().flatten().map(|c| match c.restart_policy.as_deref() {
            Some("Always") => (c, Kind::Sidecar),
            _ => (c, Kind::Init),
        });
        containers.extend(main.chain(init).map(|(c, kind)| container(c, kind)));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        containers.extend(ephemeral.map(|c| ContainerFacts {
            name: c.name.clone(),
            kind: Kind::Ephemeral,
            ..ContainerFacts::default()
        }));
    }
    let owner = pod.owner_references().iter().find(|o| o.controller == Some(true));
    PodFacts {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
        owner: owner.map(|o| Owner {
            api_version: o.api_version.clone(),
            kind: o.kind.clone(),
            name: o.name.clone(),
        }),
        template_hash: pod.labels().get("pod-template-hash").cloned(),
        template_is_made: pod.labels().contains_key("rollouts-pod-template-hash")
            || pod.annotations().contains_key("openshift.io/deployment-config.name"),
        config_hash: pod.annotations().get("kubernetes.io/config.hash").cloned(),
        containers,
    }
}

fn container(container: &Container, kind: ContainerKind) -> ContainerFacts {
    let resources = container.resources.as_ref();
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
    };
    let get = |which: fn(&ResourceRequirements) -> Option<&std::collections::BTreeMap<_, _>>, key: &str| {
        resources.and_then(which).and_then(|r| r.get(key)).and_then(quantity::value)
    };
    ContainerFacts {
        name: container.name.clone(),
        kind,
        cpu_limit_cores: get(|r| r.limits.as_ref(), "cpu"),
        cpu_request_cores: get(|r| r.requests.as_ref(), "cpu"),
        memory_limit_bytes: get(|r| r.limits.as_ref(), "memory").map(|b| b as i64),
        memory_request_bytes: get(|r| r.requests.as_ref(), "memory").map(|b| b as i64),
        cpu_resize_restarts: restarts("cpu"),
        memory_resize_restarts: restarts("memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "web-5d9c-x", "namespace": "shop", "uid": "u1",
                "labels": {"pod-template-hash": "5d9c"},
                "annotations": {"kubernetes.io/config.hash": "abc"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "x"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c", "uid": "r", "controller": true}
                ]
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "web", "resources": {"limits": {"cpu": "200m", "memory": "64Mi"},
                                                              "requests": {"cpu": "0.1"}}}],
                "initContainers": [{"name": "init"}, {"name": "mesh", "restartPolicy": "Always"}],
                "ephemeralContainers": [{"name": "debug"}]
            }
        }))
        .unwrap();
        let f = facts(&pod);
        assert_eq!(
            (f.namespace.as_str(), f.name.as_str(), f.uid.as_str(), f.node.as_str()),
            ("shop", "web-5d9c-x", "u1", "n1")
        );
        let (api_version, kind, name) = ("apps/v1".into(), "ReplicaSet".into(), "web-5d9c".into());
        assert_eq!(f.owner, Some(Owner { api_version, kind, name }));
        assert_eq!(f.template_hash.as_deref(), Some("5d9c"));
        assert!(f.is("u1") && f.is("abc") && !f.is("u2"));
        let web = f.container("web").unwrap();
        assert_eq!((web.cpu_limit_cores, web.cpu_request_cores), (Some(0.2), Some(0.1)));
        assert_eq!((web.memory_limit_bytes, web.memory_request_bytes), (Some(64 << 20), None));
        let kind = |name: &str| f.container(name).map(|c| c.kind);
        assert_eq!((kind("web"), kind("mesh")), (Some(ContainerKind::Main), Some(ContainerKind::Sidecar)));
        assert_eq!(
            (kind("init"), kind("debug")),
            (Some(ContainerKind::Init), Some(ContainerKind::Ephemeral))
        );
        assert_eq!(kind("no"), None);
        assert!(!f.template_is_made && !web.cpu_resize_restarts && !web.memory_resize_restarts);
        for (metadata, made) in [
            (serde_json::json!({"labels": {"rollouts-pod-template-hash": "5d9c"}}), true),
            (serde_json::json!({"annotations": {"openshift.io/deployment-config.name": "dc"}}), true),
            (serde_json::json!({"labels": {"app": "web"}}), false),
        ] {
            let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": {
                "containers": [{"name": "web", "resizePolicy": [
                    {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "RestartContainer"}
                ]}]
            }}))
            .unwrap();
            let f = facts(&pod);
            let web = f.container("web").unwrap();
            assert_eq!((web.cpu_resize_restarts, web.memory_resize_restarts), (false, true));
            assert_eq!(f.template_is_made, made, "{metadata}");
        }
    }
}
