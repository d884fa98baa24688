//! The kubectl command that carries a recommendation out. Whoever creates a pod, or speaks for a node, chooses names:
//! each is checked for being one, and there is no command where it is not.

use serde_json::{Map, Value, json};

use super::{ContainerFacts, ContainerKind, Evidence, NodeFacts, Owner, PodFacts};
use crate::api::{is_label, is_object_name};
use crate::quantity::from_milli;
use crate::shell;

/// A command, and what it does to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub effect: String,
    /// For a POSIX shell.
    pub line: String,
}

/// The commands that carry a change out, the one that touches the least first: this pod in place, where its node can
/// (where that is not known, only if nothing else is possible), then the template of all that are made like it.
pub fn all(evidence: &Evidence, change: &Change, node: NodeFacts) -> Vec<Command> {
    let for_owner = for_owner(evidence, change);
    let resize = match node.resizes {
        Some(resizes) => resizes,
        None => for_owner.is_none(),
    };
    let in_place = in_place(evidence, change).filter(|_| resize).map(|line| {
        let container = evidence.pod.container(&evidence.container);
        let restarts = if container.is_some_and(|c| change.restarts(c)) {
            "its resizePolicy restarts the container"
        } else {
            "without a restart"
        };
        let needs = if node.resizes.is_none() { "; Kubernetes 1.33 or later" } else { "" };
        Command { effect: format!("This pod alone, until it is recreated, {restarts}{needs}:"), line }
    });
    in_place.into_iter().chain(for_owner).collect()
}

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

    fn restarts(&self, container: &ContainerFacts) -> bool {
        let touches = |resource| self.limits.contains_key(resource) || self.requests.contains_key(resource);
        touches("cpu") && container.cpu_resize_restarts
            || touches("memory") && container.memory_resize_restarts
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

/// What owns the pod's template, as kubectl names it (`deployment/web`), and whether it restarts its pods when that
/// changes; a ReplicaSet of a Deployment is named `<deployment>-<pod-template-hash>`. `None` where no such object can
/// be, or kubectl cannot set its resources.
fn owner(pod: &PodFacts) -> Option<(String, bool)> {
    let Owner { api_version, kind, name } = pod.owner.as_ref().filter(|_| !pod.template_is_made)?;
    // Whoever creates a pod chooses its owner, its kind and its API group: only what these really are is named.
    let (resource, name, rolls) = match (api_version.as_str(), kind.as_str()) {
        ("apps/v1", "ReplicaSet") => {
            let deployment =
                pod.template_hash.as_ref().and_then(|hash| name.strip_suffix(&format!("-{hash}")));
            deployment.map_or(("replicaset", name.as_str(), false), |name| ("deployment", name, true))
        }
        ("apps/v1", "Deployment") => ("deployment", name.as_str(), true),
        ("apps/v1", "StatefulSet") => ("statefulset", name.as_str(), true),
        ("apps/v1", "DaemonSet") => ("daemonset", name.as_str(), true),
        ("v1", "ReplicationController") => ("replicationcontroller", name.as_str(), false),
        _ => return None,
    };
    is_object_name(name).then(|| (format!("{resource}/{name}"), rolls))
}

/// Namespace, pod and container, if each is a name that Kubernetes takes.
fn names(evidence: &Evidence) -> Option<(&str, &str, &str)> {
    let (namespace, pod) = (&*evidence.pod.namespace, &*evidence.pod.name);
    let fit = is_label(namespace) && is_object_name(pod) && is_label(&evidence.container);
    fit.then_some((namespace, pod, &*evidence.container))
}

/// The command that changes the owner's template, and so every pod of it.
fn for_owner(evidence: &Evidence, change: &Change) -> Option<Command> {
    let (namespace, _, container) = names(evidence)?;
    let kind = kind(evidence);
    // An ephemeral container is in no template.
    let (owner, rolls) = owner(&evidence.pod).filter(|_| kind != ContainerKind::Ephemeral)?;
    let effect = if rolls {
        format!("Every pod of {owner}, each of them restarted:")
    } else {
        format!("The pods that {owner} makes from now on; those that run stay as they are:")
    };
    let line = set(namespace, &owner, container, kind, change)?;
    Some(Command { effect, line })
}

fn set(
    namespace: &str,
    owner: &str,
    container: &str,
    kind: ContainerKind,
    change: &Change,
) -> Option<String> {
    if change.removes() {
        // `kubectl set resources` cannot remove a value.
        let patch = json!({"spec": {"template": change.spec(container, kind)}}).to_string();
        return shell::command(["kubectl", "-n", namespace, "patch", owner, "-p", &patch]);
    }
    let flags: Vec<String> = [("limits", &change.limits), ("requests", &change.requests)]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(flag, values)| {
            let value =
                |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
            format!("--{flag}={}", values.iter().map(value).collect::<Vec<_>>().join(","))
        })
        .collect();
    let words = ["kubectl", "-n", namespace, "set", "resources", owner, "-c", container];
    shell::command(words.into_iter().chain(flags.iter().map(String::as_str)))
}

/// Of a container that is not known, what most are.
fn kind(evidence: &Evidence) -> ContainerKind {
    evidence.pod.container(&evidence.container).map_or(ContainerKind::Main, |c| c.kind)
}

/// The command that resizes this one pod in place. A static pod is its file on the node, and an init container
/// that runs to its end or an ephemeral one cannot be resized: none.
fn in_place(evidence: &Evidence, change: &Change) -> Option<String> {
    let (namespace, name, container) = names(evidence)?;
    let pod = &evidence.pod;
    let fixed = pod.config_hash.is_some() || pod.owner.as_ref().is_some_and(|owner| owner.kind == "Node");
    let kind = kind(evidence);
    let resizable = matches!(kind, ContainerKind::Main | ContainerKind::Sidecar);
    if fixed || change.removes() || !resizable {
        return None;
    }
    let patch = change.spec(container, kind).to_string();
    shell::command([
        "kubectl",
        "-n",
        namespace,
        "patch",
        "pod",
        name,
        "--subresource",
        "resize",
        "-p",
        &patch,
    ])
}

/// Namespace and pod of a neighbour's name, `namespace/pod[/container]`; `None` for a name that is no pod's. An agent
/// says these names: no command has one that Kubernetes would not take.
pub fn pod_of(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.split('/');
    let (namespace, pod, container, more) = (parts.next()?, parts.next()?, parts.next(), parts.next());
    let fit = is_label(namespace) && is_object_name(pod) && container.is_none_or(is_label) && more.is_none();
    fit.then_some((namespace, pod))
}

/// The command that shows the labels to keep apart from.
pub fn labels_of((namespace, pod): (&str, &str)) -> Option<Command> {
    let line = shell::command(["kubectl", "-n", namespace, "get", "pod", pod, "--show-labels"])?;
    Some(Command { effect: "Its labels:".into(), line })
}
