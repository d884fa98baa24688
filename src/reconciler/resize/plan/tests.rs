use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::VerticalAutoscaler;
use super::*;
use crate::api::{CpuNumbers, Severity, SignalEvidence, SignalKind};
use crate::reconciler::report::PodFacts;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod that may be resized: 200m of 100m requested, on a node of four with half of it promised.
fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-5d9c-x7", "namespace": "shop", "uid": "u",
            "annotations": {ANNOTATION: ANNOTATION_RESIZE},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c", "uid": "r", "controller": true}],
        },
        "spec": {"nodeName": "n", "containers": [
            {"name": "app", "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}}},
        ]},
        "status": {"phase": "Running", "qosClass": "Burstable"},
    })
}

fn state() -> ClusterState {
    ClusterState {
        pod: read(pod()),
        node: node("4"),
        node_pods: vec![read(pod()), requesting("1900m")],
        ..ClusterState::default()
    }
}

fn node(cpu: &str) -> Node {
    read(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu}}}))
}

fn requesting(cpu: &str) -> Pod {
    read(
        json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
    )
}

fn evidence() -> Evidence {
    let cpu = CpuNumbers { limit_cores: Some(0.2), throttled_percent: Some(80.0), ..CpuNumbers::default() };
    Evidence {
        pod: Arc::new(PodFacts { uid: "u".into(), ..PodFacts::default() }),
        container: "app".into(),
        kind: SignalKind::CpuThrottle,
        source: Source::Kernel,
        severity: Severity::Critical,
        active: true,
        since: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        numbers: SignalEvidence { cpu: Some(cpu), ..SignalEvidence::default() },
        history: Arc::from([]),
    }
}

fn raise(cores: f64) -> Recommendation {
    Recommendation {
        kind: Kind::RaiseLimit,
        from: None,
        to: Some(ResourceStep { cpu_limit_cores: Some(cores), ..ResourceStep::default() }),
        text: String::new(),
        commands: Vec::new(),
    }
}

fn planned(s: &ClusterState, cores: f64) -> Result<i64, String> {
    match plan(&evidence(), &raise(cores), s, &ResizeOptions::default()) {
        Ok(plan) => {
            assert_eq!((plan.container.as_str(), plan.from.limit), ("app", 200));
            Ok(plan.to.limit)
        }
        Err(No::Refused(reason, _)) => Err(reason.to_string()),
        Err(No::Silent(why)) => Err(format!("silent: {why}")),
    }
}

/// The state with one thing in the pod set: by JSON pointer to the parent, key and value.
fn with(parent: &str, key: &str, value: Value) -> ClusterState {
    let mut pod = pod();
    pod.pointer_mut(parent).unwrap()[key] = value;
    ClusterState { pod: read(pod), ..state() }
}

fn hpa(target: &str, metrics: Value) -> ClusterState {
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": target}, "metrics": metrics});
    ClusterState { horizontal: vec![read(json!({"metadata": {"name": "h"}, "spec": spec}))], ..state() }
}

fn vpa(target: &str, acts: bool) -> ClusterState {
    let vertical = VerticalAutoscaler { name: "v".into(), target: target.into(), acts };
    ClusterState { vertical: vec![vertical], ..state() }
}

fn range(item: Value) -> ClusterState {
    ClusterState {
        limit_ranges: vec![read(json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}}))],
        ..state()
    }
}

fn quota(hard: Value, used: Value) -> ClusterState {
    let object = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}});
    ClusterState { quotas: vec![read(object)], ..state() }
}

#[test]
fn who_may_be_resized() {
    let by_cpu =
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]);
    let by_container = json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app", "target": {"type": "Utilization"}}}]);
    let by_memory =
        json!([{"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization"}}}]);
    let by_requests = json!([{"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": {"type": "AverageValue"}}}]);
    let mut by_namespace = with("/metadata", "annotations", json!({}));
    by_namespace.namespace = read(json!({"metadata": {"annotations": {ANNOTATION: ANNOTATION_RESIZE}}}));
    let mut against_namespace = with("/metadata/annotations", ANNOTATION, json!("off"));
    against_namespace.namespace = by_namespace.namespace.clone();
    let by_former_name = with("/metadata", "annotations", json!({ANNOTATION_BEFORE: ANNOTATION_RESIZE}));
    let against_former_name =
        with("/metadata", "annotations", json!({ANNOTATION: "off", ANNOTATION_BEFORE: ANNOTATION_RESIZE}));
    let static_pod = |annotation: &str, value: &str| with("/metadata/annotations", annotation, json!(value));
    let resources = |r: Value| with("/spec/containers/0", "resources", r);
    let condition =
        |kind: &str, status: &str| with("/status", "conditions", json!([{"type": kind, "status": status}]));
    for (what, state, expected) in [
        ("an ordinary pod", state(), Ok(400)),
        ("its namespace asks for it", by_namespace, Ok(400)),
        ("its namespace does, it does not", against_namespace, Err("silent: not annotated")),
        ("annotated by the former name", by_former_name, Ok(400)),
        ("the name of today goes first", against_former_name, Err("silent: not annotated")),
        ("nobody asks for it", with("/metadata", "annotations", json!({})), Err("silent: not annotated")),
        (
            "another pod of the name",
            with("/metadata", "uid", json!("u2")),
            Err("silent: another pod has the name now"),
        ),
        (
            "it is being deleted",
            with("/metadata", "deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            Err("silent: the pod does not run"),
        ),
        ("it has ended", with("/status", "phase", json!("Succeeded")), Err("silent: the pod does not run")),
        ("a mirror pod", static_pod("kubernetes.io/config.mirror", "x"), Err("StaticPod")),
        ("a static pod", static_pod("kubernetes.io/config.source", "file"), Err("StaticPod")),
        (
            "owned by its node",
            with(
                "/metadata",
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n"}]),
            ),
            Err("StaticPod"),
        ),
        (
            "system-critical by class",
            with("/spec", "priorityClassName", json!("system-node-critical")),
            Err("SystemCritical"),
        ),
        (
            "system-critical by priority",
            with("/spec", "priority", json!(2_000_001_000)),
            Err("SystemCritical"),
        ),
        ("an important one", with("/spec", "priority", json!(1_000_000)), Ok(400)),
        (
            "pod-level resources",
            with("/spec", "resources", json!({"limits": {"cpu": "1"}})),
            Err("PodLevelResources"),
        ),
        ("an init container", with("/spec/containers/0", "name", json!("other")), Err("NotAContainer")),
        (
            "a restart it would take",
            with(
                "/spec/containers/0",
                "resizePolicy",
                json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]),
            ),
            Err("WouldRestart"),
        ),
        (
            "a restart for memory only",
            with(
                "/spec/containers/0",
                "resizePolicy",
                json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]),
            ),
            Ok(400),
        ),
        ("a resize is pending", condition("PodResizePending", "True"), Err("ResizeUnderWay")),
        ("a resize is going on", condition("PodResizeInProgress", "True"), Err("ResizeUnderWay")),
        ("one has ended", condition("PodResizeInProgress", "False"), Ok(400)),
        (
            "no limit",
            resources(json!({"requests": {"cpu": "100m"}})),
            Err("silent: the container has no CPU limit"),
        ),
        (
            "another limit than reported",
            resources(json!({"limits": {"cpu": "400m"}})),
            Err("silent: the report is about another limit than the one that is set"),
        ),
        ("scaled by CPU", hpa("web", by_cpu.clone()), Err("HorizontalPodAutoscaler")),
        ("scaled by a container's CPU", hpa("web", by_container), Err("HorizontalPodAutoscaler")),
        ("scaled by default", hpa("web", json!([])), Err("HorizontalPodAutoscaler")),
        ("the ReplicaSet is scaled", hpa("web-5d9c", by_cpu.clone()), Err("HorizontalPodAutoscaler")),
        ("scaled by memory", hpa("web", by_memory), Err("HorizontalPodAutoscaler")),
        ("scaled by requests a second", hpa("web", by_requests), Err("HorizontalPodAutoscaler")),
        ("another workload is scaled", hpa("we", by_cpu), Ok(400)),
        ("sized by a VPA", vpa("web", true), Err("VerticalPodAutoscaler")),
        ("a VPA that only recommends", vpa("web", false), Ok(400)),
        ("a VPA of another", vpa("db", true), Ok(400)),
    ] {
        assert_eq!(planned(&state, 0.8), expected.map_err(str::to_string), "{what}");
    }
}

#[test]
fn only_for_a_throttle_the_kernel_reports() {
    let o = ResizeOptions::default();
    let s = state();
    let silent = |e: &Evidence, r: &Recommendation| matches!(plan(e, r, &s, &o), Err(No::Silent(_)));
    assert!(!silent(&evidence(), &raise(0.4)));
    assert!(silent(&Evidence { source: Source::Reported, ..evidence() }, &raise(0.4)));
    assert!(silent(&Evidence { kind: SignalKind::CpuContention, ..evidence() }, &raise(0.4)));
    assert!(silent(&Evidence { active: false, ..evidence() }, &raise(0.4)));
    for kind in [Kind::RaiseRequest, Kind::Spread, Kind::MemoryLimit, Kind::None] {
        assert!(silent(&evidence(), &Recommendation { kind, ..raise(0.4) }), "{kind}");
    }
    let drop = Recommendation { kind: Kind::DropLimit, to: Some(ResourceStep::default()), ..raise(0.4) };
    assert_eq!(plan(&evidence(), &drop, &s, &o).map(|p| p.to.limit), Ok(400), "as far as a step goes");
}

#[test]
fn how_far() {
    let full = |promised: &str| ClusterState { node_pods: vec![requesting(promised)], ..state() };
    let limits = |kind: &str, rest: Value| {
        let mut item = json!({"type": kind});
        item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        range(item)
    };
    let second = |s: ClusterState| {
        let mut pod = pod();
        let other =
            json!({"name": "side", "resources": {"limits": {"cpu": "300m"}, "requests": {"cpu": "100m"}}});
        pod.pointer_mut("/spec/containers").unwrap().as_array_mut().unwrap().push(other);
        ClusterState { pod: read(pod), ..s }
    };
    for (what, s, wanted, expected) in [
        ("what is recommended", state(), 0.3, Ok(300)),
        ("a step at most", state(), 3.0, Ok(400)),
        (
            "less than a tenth more",
            state(),
            0.21,
            Err("silent: the recommended limit is as good as there already"),
        ),
        ("what the node has left", full("3850m"), 0.8, Ok(350)),
        ("the node is full", full("3990m"), 0.8, Err("NodeFull")),
        ("the node is overcommitted", full("5"), 0.8, Err("NodeFull")),
        (
            "the node is small",
            ClusterState { node: node("250m"), node_pods: vec![], ..state() },
            0.8,
            Ok(250),
        ),
        (
            "the node is too small",
            ClusterState { node: node("200m"), node_pods: vec![], ..state() },
            0.8,
            Err("NodeTooSmall"),
        ),
        ("the node says nothing", ClusterState { node: Node::default(), ..state() }, 0.8, Err("NodeUnknown")),
        ("a container's maximum", limits("Container", json!({"max": {"cpu": "300m"}})), 0.8, Ok(300)),
        ("a maximum reached", limits("Container", json!({"max": {"cpu": "200m"}})), 0.8, Err("LimitRange")),
        (
            "limits to requests",
            limits("Container", json!({"maxLimitRequestRatio": {"cpu": "3"}})),
            0.8,
            Ok(300),
        ),
        (
            "limits to requests reached",
            limits("Container", json!({"maxLimitRequestRatio": {"cpu": "2"}})),
            0.8,
            Err("LimitRange"),
        ),
        ("a pod's maximum", second(limits("Pod", json!({"max": {"cpu": "600m"}}))), 0.8, Ok(300)),
        (
            "a pod's limits to requests",
            second(limits("Pod", json!({"maxLimitRequestRatio": {"cpu": "3"}}))),
            0.8,
            Ok(300),
        ),
        (
            "a claim's maximum",
            limits("PersistentVolumeClaim", json!({"max": {"storage": "1Gi"}})),
            0.8,
            Ok(400),
        ),
        (
            "what a quota has left",
            quota(json!({"limits.cpu": "2"}), json!({"limits.cpu": "1900m"})),
            0.8,
            Ok(300),
        ),
        (
            "a used-up quota",
            quota(json!({"limits.cpu": "2"}), json!({"limits.cpu": "2"})),
            0.8,
            Err("ResourceQuota"),
        ),
        (
            "a quota that is not counted yet",
            quota(json!({"limits.cpu": "2"}), json!({})),
            0.8,
            Err("ResourceQuota"),
        ),
        (
            "a quota of requests only",
            quota(json!({"requests.cpu": "1"}), json!({"requests.cpu": "1"})),
            0.8,
            Ok(400),
        ),
        ("a quota of something else", quota(json!({"pods": "1"}), json!({"pods": "1"})), 0.8, Ok(400)),
    ] {
        assert_eq!(planned(&s, wanted), expected.map_err(str::to_string), "{what}");
    }
    let o = ResizeOptions { cores_max: 0.3, ..ResizeOptions::default() };
    assert_eq!(plan(&evidence(), &raise(0.8), &state(), &o).map(|p| p.to.limit), Ok(300));
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let guaranteed = |cpu: &str| {
        let mut pod = pod();
        let r = json!({"cpu": cpu, "memory": "64Mi"});
        pod["spec"]["containers"][0]["resources"] = json!({"limits": r, "requests": r});
        pod["status"]["qosClass"] = json!("Guaranteed");
        ClusterState { pod: read(pod), ..state() }
    };
    let o = ResizeOptions::default();
    let plan_of = |s: &ClusterState, limit| {
        let mut e = evidence();
        e.numbers.cpu.as_mut().unwrap().limit_cores = Some(limit);
        plan(&e, &raise(4.0), s, &o)
    };
    assert_eq!(plan_of(&guaranteed("200m"), 0.2).map(|p| p.to), Ok(Cpu { limit: 400, request: Some(400) }));
    assert!(matches!(plan_of(&guaranteed("2"), 2.0), Err(No::Refused("MayBePinned", _))));
    let ratio = range(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}}));
    let s = ClusterState { limit_ranges: ratio.limit_ranges, ..guaranteed("200m") };
    assert_eq!(plan_of(&s, 0.2).map(|p| p.to.limit), Ok(400), "its ratio stays one");
    let requests = quota(json!({"requests.cpu": "1"}), json!({"requests.cpu": "900m"}));
    let s = ClusterState { quotas: requests.quotas, ..guaranteed("200m") };
    assert_eq!(plan_of(&s, 0.2).map(|p| p.to.limit), Ok(300), "its request counts");
}

#[test]
fn requests_as_the_scheduler_counts_them() {
    let spec = |value: Value| pod_request(&read(json!({"metadata": {}, "spec": value})));
    let container = |cpu: &str| json!({"name": cpu, "resources": {"requests": {"cpu": cpu}}});
    let sidecar =
        |cpu: &str| json!({"name": cpu, "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
    assert_eq!(spec(json!({"containers": [container("100m"), container("200m"), {"name": "none"}]})), 300);
    assert_eq!(spec(json!({"containers": [container("100m")], "initContainers": [container("500m")]})), 500);
    assert_eq!(spec(json!({"containers": [container("100m")], "initContainers": [sidecar("500m")]})), 600);
    assert_eq!(
        spec(json!({"containers": [container("100m")], "initContainers": [sidecar("200m"), container("1")]})),
        1200
    );
    assert_eq!(spec(json!({"containers": [container("100m")], "overhead": {"cpu": "50m"}})), 150);
    assert_eq!(
        spec(json!({"containers": [container("100m")], "resources": {"requests": {"cpu": "1"}}})),
        1000
    );
    let ended =
        json!({"metadata": {}, "spec": {"containers": [container("100m")]}, "status": {"phase": "Failed"}});
    assert_eq!(pod_request(&read(ended)), 0);
    let shrinking = json!({"metadata": {}, "spec": {"containers": [container("100m")]}, "status": {"containerStatuses": [
        {"name": "100m", "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": {"cpu": "300m"}}]}});
    assert_eq!(pod_request(&read(shrinking)), 300, "still held");
}

proptest! {
    /// Whatever the bounds, a step raises, by a factor at most, and never past what anybody permits.
    #[test]
    fn a_step_is_bounded(
        wanted in 0i64..10_000, allocatable in 1i64..8000, promised in 0i64..8000,
        max in prop::option::of(1i64..1000), hard in prop::option::of(1i64..4000), used in 0i64..4000,
    ) {
        let mut s = ClusterState { node: node(&from_milli(allocatable)), node_pods: vec![requesting(&from_milli(promised))], ..state() };
        if let Some(max) = max {
            s.limit_ranges = range(json!({"type": "Container", "max": {"cpu": from_milli(max)}})).limit_ranges;
        }
        if let Some(hard) = hard {
            s.quotas = quota(json!({"limits.cpu": from_milli(hard)}), json!({"limits.cpu": from_milli(used)})).quotas;
        }
        if let Ok(to) = planned(&s, wanted as f64 / 1e3) {
            prop_assert!((220..=400).contains(&to) && to <= wanted.max(220));
            prop_assert!(to <= allocatable && to - 200 <= (allocatable - promised).max(0));
            prop_assert!(max.is_none_or(|max| to <= max));
            prop_assert!(hard.is_none_or(|hard| to - 200 <= (hard - used).max(0)));
        }
    }
}

/// Whoever owns the owner is told from its name, as for a Deployment: a CronJob's Job, a DeploymentConfig's
/// ReplicationController, a Rollout's ReplicaSet.
#[test]
fn an_autoscaler_of_the_owners_owner_refuses_too() {
    for (kind, owner, above, refused) in [
        ("Job", "nightly-29000000", "nightly", true),
        ("ReplicationController", "dcr-3", "dcr", true),
        ("ReplicaSet", "web-5d9c", "web", true),
        ("StatefulSet", "db-main", "db", false),
    ] {
        let mut pod = Pod::default();
        pod.metadata.owner_references = Some(vec![OwnerReference {
            kind: kind.into(),
            name: owner.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        let called: Vec<&str> = names(&pod).collect();
        assert!(called.contains(&owner), "{kind}");
        assert_eq!(called.contains(&above), refused, "{kind}");
    }
}
