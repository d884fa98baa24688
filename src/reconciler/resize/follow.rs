//! How far the node is with a resize: read from the pod.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::plan::Plan;
use crate::quantity;

/// How far a resize is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not yet; what the kubelet says about it.
    Waiting(String),
    /// The container runs with the new limit.
    Actuated,
    /// The node will never do it.
    Infeasible(String),
    /// The spec says neither what was nor what was asked for.
    ChangedByOthers,
    /// The spec says what it said before the step.
    NotAsked,
    /// There is no such pod any more.
    Gone,
}

/// How far the node is with `plan` for the pod with this UID.
pub fn progress(pod: Option<&Pod>, uid: &str, plan: &Plan) -> Progress {
    let Some(pod) = pod.filter(|p| p.uid().as_deref() == Some(uid)) else {
        return Progress::Gone;
    };
    let container = pod.spec.iter().flat_map(|s| &s.containers).find(|c| c.name == plan.container);
    let wanted =
        container.and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get("cpu")).and_then(quantity::milli);
    if wanted != Some(plan.to.limit) {
        return if wanted == Some(plan.from.limit) { Progress::NotAsked } else { Progress::ChangedByOthers };
    }
    let Some(status) = &pod.status else { return Progress::Waiting("the pod has no status".into()) };
    let actual = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == plan.container)
        .and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get("cpu"))
        .and_then(quantity::milli);
    // A systemd cgroup driver rounds the quota up to 10 ms, that is 10m.
    if actual.is_some_and(|a| (plan.to.limit..=plan.to.limit + 10).contains(&a)) {
        return Progress::Actuated;
    }
    let condition = |kind: &str| {
        status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True").map(|c| {
            let text = [c.reason.as_deref(), c.message.as_deref()];
            (c.reason.clone().unwrap_or_default(), text.into_iter().flatten().collect::<Vec<_>>().join(": "))
        })
    };
    match condition("PodResizePending") {
        Some((reason, text)) if reason == "Infeasible" => Progress::Infeasible(text),
        Some((_, text)) => Progress::Waiting(text),
        None => {
            Progress::Waiting(condition("PodResizeInProgress").map_or_else(String::new, |(_, text)| text))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::plan::Cpu;
    use super::*;

    #[test]
    fn stages_of_a_resize() {
        let plan = Plan {
            container: "app".into(),
            from: Cpu { limit: 200, request: None },
            to: Cpu { limit: 400, request: None },
        };
        let pod = |spec: &str, actual: &str, conditions: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"uid": "u"},
                "spec": {"containers": [{"name": "app", "resources": {"limits": {"cpu": spec}}}]},
                "status": {"conditions": conditions, "containerStatuses": [{
                    "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": {"limits": {"cpu": actual}}}]}
            }))
            .unwrap()
        };
        let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason, "message": "m"}]);
        let in_progress =
            json!([{"type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "e"}]);
        for (pod, expected) in [
            (pod("400m", "200m", json!([])), Progress::Waiting(String::new())),
            (pod("0.4", "400m", json!([])), Progress::Actuated),
            (pod("400m", "410m", json!([])), Progress::Actuated),
            (pod("400m", "390m", json!([])), Progress::Waiting(String::new())),
            (pod("400m", "200m", pending("Deferred")), Progress::Waiting("Deferred: m".into())),
            (pod("400m", "200m", pending("Infeasible")), Progress::Infeasible("Infeasible: m".into())),
            (pod("400m", "200m", in_progress), Progress::Waiting("Error: e".into())),
            (pod("200m", "200m", json!([])), Progress::NotAsked),
            (pod("300m", "300m", json!([])), Progress::ChangedByOthers),
        ] {
            assert_eq!(progress(Some(&pod), "u", &plan), expected);
            assert_eq!(progress(Some(&pod), "another", &plan), Progress::Gone);
        }
        assert_eq!(progress(None, "u", &plan), Progress::Gone);
    }
}
