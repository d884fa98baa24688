//! The kubectl command that carries a recommendation out.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::quantity::from_milli;
use crate::reconciler::report::{ContainerKind, Evidence, PodFacts};

/// What changes in one container's resources. `Value::Null` removes a key.
#[derive(Default)]
pub struct Change {
    limits: Map<String, Value>,
    requests: Map<String, Value>,
}

impl Change {
    pub fn cpu_limit(milli: i64) -> Change {
        let mut change = Change::default();
        change.limits.insert("cpu".into(), from_milli(milli).into());
        change
    }

    pub fn cpu_request(milli: i64) -> Change {
        Change::default().with_cpu_request(milli)
    }

    pub fn with_cpu_request(mut self, milli: i64) -> Change {
        self.requests.insert("cpu".into(), from_milli(milli).into());
        self
    }

    pub fn drop_cpu_limit() -> Change {
        let mut change = Change::default();
        change.limits.insert("cpu".into(), Value::Null);
        change
    }

    pub fn memory_limit(mebibytes: i64) -> Change {
        let mut change = Change::default();
        change.limits.insert("memory".into(), format!("{mebibytes}Mi").into());
        change
    }

    pub fn with_memory_request(mut self, mebibytes: i64) -> Change {
        self.requests.insert("memory".into(), format!("{mebibytes}Mi").into());
        self
    }

    fn removes(&self) -> bool {
        self.limits.values().chain(self.requests.values()).any(Value::is_null)
    }

    fn resources(&self) -> Value {
        let mut resources = Map::new();
        for (key, values) in [("limits", &self.limits), ("requests", &self.requests)] {
            if !values.is_empty() {
                resources.insert(key.into(), Value::Object(values.clone()));
            }
        }
        Value::Object(resources)
    }

    /// The strategic-merge patch of a pod's spec with this change of one container.
    fn spec(&self, container: &str, kind: ContainerKind) -> Value {
        let list = match kind {
            ContainerKind::Sidecar | ContainerKind::Init => "initContainers",
            ContainerKind::Main | ContainerKind::Ephemeral => "containers",
        };
        json!({"spec": {list: [{"name": container, "resources": self.resources()}]}})
    }
}

/// What owns the pod's template, as kubectl names it (`deployment/web`); a ReplicaSet of a
/// Deployment is named `<deployment>-<pod-template-hash>`. `None` where kubectl cannot set its resources.
fn owner(pod: &PodFacts) -> Option<String> {
    let (kind, name) = pod.owner.as_ref()?;
    match kind.as_str() {
        "ReplicaSet" => {
            let deployment =
                pod.template_hash.as_ref().and_then(|hash| name.strip_suffix(&format!("-{hash}")));
            Some(deployment.map_or(format!("replicaset/{name}"), |d| format!("deployment/{d}")))
        }
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicationController" => {
            Some(format!("{}/{name}", kind.to_lowercase()))
        }
        _ => None,
    }
}

/// The command that changes the owner's template, and so every pod of it.
pub fn for_owner(evidence: &Evidence, change: &Change) -> Option<String> {
    let (namespace, container) = (&evidence.pod.namespace, &evidence.container);
    let kind = kind(evidence);
    // An ephemeral container is in no template.
    let owner = owner(&evidence.pod).filter(|_| kind != ContainerKind::Ephemeral)?;
    if change.removes() {
        // `kubectl set resources` cannot remove a value.
        let patch = json!({"spec": {"template": change.spec(container, kind)}});
        return Some(format!("kubectl -n {namespace} patch {owner} -p '{patch}'"));
    }
    let mut command = format!("kubectl -n {namespace} set resources {owner} -c {container}");
    for (flag, values) in [("limits", &change.limits), ("requests", &change.requests)] {
        for (i, (resource, value)) in values.iter().enumerate() {
            let lead = if i == 0 { format!(" --{flag}=") } else { ",".into() };
            let _ = write!(command, "{lead}{resource}={}", value.as_str().unwrap_or_default());
        }
    }
    Some(command)
}

/// Of a container that is not known, what most are.
fn kind(evidence: &Evidence) -> ContainerKind {
    evidence.pod.container(&evidence.container).map_or(ContainerKind::Main, |c| c.kind)
}

/// The command that resizes this one pod in place. A static pod is its file on the node, and an init container
/// that runs to its end or an ephemeral one cannot be resized: none.
pub fn in_place(evidence: &Evidence, change: &Change) -> Option<String> {
    let pod = &evidence.pod;
    let fixed = pod.config_hash.is_some() || pod.owner.as_ref().is_some_and(|(kind, _)| kind == "Node");
    let kind = kind(evidence);
    let resizable = matches!(kind, ContainerKind::Main | ContainerKind::Sidecar);
    if fixed || change.removes() || !resizable {
        return None;
    }
    let patch = change.spec(&evidence.container, kind);
    Some(format!("kubectl -n {} patch pod {} --subresource resize -p '{patch}'", pod.namespace, pod.name))
}

/// The command that shows the labels to keep apart from. `name`: `namespace/pod[/container]`.
pub fn labels_of(name: &str) -> Option<String> {
    let mut parts = name.split('/');
    let (namespace, pod) = (parts.next()?, parts.next()?);
    Some(format!("kubectl -n {namespace} get pod {pod} --show-labels"))
}
