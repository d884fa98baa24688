//! Whether a pod may be resized, and to what: pure, from what the API server says.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Container, LimitRange, Namespace, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::BTreeMap;

use super::{ANNOTATION, ANNOTATION_BEFORE, ANNOTATION_RESIZE, ClusterState, ResizeOptions};
use crate::advice::{Kind, Recommendation};
use crate::api::{ResourceStep, Source};
use crate::quantity::{from_milli, milli, to_milli};
use crate::reconciler::lookup::nodes::allocatable_cpu;
use crate::reconciler::report::Evidence;

/// The kubelet's own pods of a cluster have this priority or more (`SystemCriticalPriority`).
const SYSTEM_CRITICAL: i32 = 2_000_000_000;
/// A raise by less is not worth a step.
const LEAST_FACTOR: f64 = 1.1;

/// A resize to be done: the container's CPU, in millicores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub container: String,
    pub from: Cpu,
    pub to: Cpu,
}

/// CPU of one container, in millicores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub limit: i64,
    /// Set where the request changes with the limit.
    pub request: Option<i64>,
}

impl From<Cpu> for ResourceStep {
    fn from(cpu: Cpu) -> ResourceStep {
        ResourceStep {
            cpu_limit_cores: Some(cpu.limit as f64 / 1e3),
            cpu_request_cores: cpu.request.map(|r| r as f64 / 1e3),
            ..ResourceStep::default()
        }
    }
}

impl Cpu {
    /// What a status has written down, if it is about CPU.
    pub fn from_step(step: &ResourceStep) -> Option<Cpu> {
        Some(Cpu { limit: to_milli(step.cpu_limit_cores?), request: step.cpu_request_cores.map(to_milli) })
    }
}

/// Why a pod is not resized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// Not meant for remediation, or the report is not about what is set now: nothing is said of it.
    Silent(&'static str),
    /// Meant for it, and refused: (reason, message) for status and Event.
    Refused(&'static str, String),
}

fn refuse<T>(reason: &'static str, message: impl Into<String>) -> Result<T, No> {
    Err(No::Refused(reason, message.into()))
}

/// Whether the pod, or for lack of its own word its namespace, asks for remediation.
pub fn annotated(pod: &Pod, namespace: &Namespace) -> bool {
    annotation(pod).or_else(|| annotation(namespace)).is_some_and(|word| word == ANNOTATION_RESIZE)
}

/// What the annotation says of a pod or namespace, if it has one.
pub fn annotation(object: &impl ResourceExt) -> Option<&String> {
    let all = object.annotations();
    all.get(ANNOTATION).or_else(|| all.get(ANNOTATION_BEFORE))
}

/// The resize this pod is to get now.
///
/// # Errors
/// Why it gets none: [`No::Silent`] where remediation is not meant, [`No::Refused`] where it is and must not be.
pub fn plan(e: &Evidence, r: &Recommendation, s: &ClusterState, o: &ResizeOptions) -> Result<Plan, No> {
    if e.source != Source::Kernel || !e.kind.kind().wants_a_higher_limit() || !e.active {
        return Err(No::Silent("not an active throttle the kernel reports"));
    }
    if s.pod.uid().as_deref() != Some(&e.pod.uid) {
        return Err(No::Silent("another pod has the name now"));
    }
    if !annotated(&s.pod, &s.namespace) {
        return Err(No::Silent("not annotated"));
    }
    let container = eligible(e, s)?;
    let from = limits(container, s)?;
    let measured = e.numbers.cpu.as_ref().and_then(|c| c.limit_cores).map(to_milli);
    if measured.is_none_or(|m| (m - from.limit).abs() > (from.limit / 50).max(10)) {
        return Err(No::Silent("the report is about another limit than the one that is set"));
    }
    let wanted = match (r.kind, r.to.as_ref().and_then(|to| to.cpu_limit_cores)) {
        (Kind::RaiseLimit, Some(cores)) => to_milli(cores),
        // A limit cannot be removed in place; the most a step may do goes that way.
        (Kind::DropLimit, _) => i64::MAX,
        _ => return Err(No::Silent("a higher limit is not what is recommended")),
    };
    let limit = bounded(container, from, wanted, s, o)?;
    Ok(Plan {
        container: container.name.clone(),
        from,
        to: Cpu { limit, request: from.request.map(|_| limit) },
    })
}

/// The container, if pod and container are of a kind that may be resized.
fn eligible<'a>(e: &Evidence, s: &'a ClusterState) -> Result<&'a Container, No> {
    let pod = &s.pod;
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return Err(No::Silent("the pod has no status yet"));
    };
    if pod.metadata.deletion_timestamp.is_some() || status.phase.as_deref() != Some("Running") {
        return Err(No::Silent("the pod does not run"));
    }
    let annotations = pod.annotations();
    if annotations.contains_key("kubernetes.io/config.mirror")
        || annotations.get("kubernetes.io/config.source").is_some_and(|source| source != "api")
        || pod.owner_references().iter().any(|o| o.kind == "Node")
    {
        return refuse("StaticPod", "a static pod is what its file on the node says; change it there.");
    }
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    if class.starts_with("system-") || spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL) {
        return refuse("SystemCritical", "a system-critical pod's growth can evict others.");
    }
    if spec.resources.is_some() {
        return refuse("PodLevelResources", "its resources are set for the pod as a whole.");
    }
    let Some(container) = spec.containers.iter().find(|c| c.name == e.container) else {
        return refuse(
            "NotAContainer",
            "only the pod's main containers are resized, no init or ephemeral one.",
        );
    };
    let restarts = container
        .resize_policy
        .iter()
        .flatten()
        .any(|p| p.resource_name == "cpu" && p.restart_policy != "NotRequired");
    if restarts {
        return refuse("WouldRestart", "its resizePolicy restarts the container when its CPU changes.");
    }
    let pending = status.conditions.iter().flatten().any(|c| {
        matches!(c.type_.as_str(), "PodResizePending" | "PodResizeInProgress") && c.status == "True"
    });
    if pending {
        return refuse("ResizeUnderWay", "another resize of the pod has not been carried out yet.");
    }
    if let Some(hpa) = s.horizontal.iter().find(|h| scales(h, pod)) {
        return refuse(
            "HorizontalPodAutoscaler",
            format!("HorizontalPodAutoscaler {} scales it.", hpa.name_any()),
        );
    }
    if let Some(vpa) = s.vertical.iter().find(|v| v.acts && names(pod).any(|n| n == v.target)) {
        return refuse(
            "VerticalPodAutoscaler",
            format!("VerticalPodAutoscaler {} sets its resources.", vpa.name),
        );
    }
    Ok(container)
}

/// The names an autoscaler could call the pod's workload by: its controller's, and that of the controller's own owner
/// where it is named after that: a ReplicaSet's (`<name>-<hash>`, be it a Deployment's or a Rollout's), a
/// ReplicationController's (`<name>-<number>`, of a DeploymentConfig), a Job's (`<name>-<time>`, of a CronJob).
fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.owner_references().iter().filter(|o| o.controller == Some(true)).flat_map(|o| {
        let named_after = matches!(o.kind.as_str(), "ReplicaSet" | "ReplicationController" | "Job");
        let above = o.name.rsplit_once('-').map(|(head, _)| head).filter(|_| named_after);
        std::iter::once(o.name.as_str()).chain(above)
    })
}

/// Whether the autoscaler scales the pod's workload. By which metric does not matter: what more CPU does to
/// requests a second or the length of a queue, it measures as well.
fn scales(hpa: &HorizontalPodAutoscaler, pod: &Pod) -> bool {
    hpa.spec.as_ref().is_some_and(|spec| names(pod).any(|n| n == spec.scale_target_ref.name))
}

fn cpu(map: &Option<BTreeMap<String, Quantity>>) -> Option<i64> {
    map.as_ref()?.get("cpu").and_then(milli)
}

fn cpu_limit(c: &Container) -> Option<i64> {
    c.resources.as_ref().and_then(|r| cpu(&r.limits))
}

fn cpu_request(c: &Container) -> Option<i64> {
    c.resources.as_ref().and_then(|r| cpu(&r.requests))
}

/// What the container has now. A Guaranteed pod's request goes with its limit: the QoS class cannot
/// change.
fn limits(container: &Container, s: &ClusterState) -> Result<Cpu, No> {
    let Some(limit) = cpu_limit(container) else {
        return Err(No::Silent("the container has no CPU limit"));
    };
    let guaranteed = s.pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) == Some("Guaranteed");
    if !guaranteed {
        return Ok(Cpu { limit, request: None });
    }
    if limit % 1000 == 0 {
        return refuse(
            "MayBePinned",
            "a Guaranteed pod with whole CPUs may own them (static CPU manager policy); such a pod cannot be resized in place.",
        );
    }
    Ok(Cpu { limit, request: Some(limit) })
}

/// Something that bounds the new limit.
struct Cap {
    reason: &'static str,
    /// Millicores.
    limit: i64,
    what: String,
}

/// The new limit: what is wanted, within every bound; refused where that leaves no step worth taking.
fn bounded(
    container: &Container,
    from: Cpu,
    wanted: i64,
    s: &ClusterState,
    o: &ResizeOptions,
) -> Result<i64, No> {
    let limit = from.limit;
    let mut caps = vec![
        Cap {
            reason: "StepBound",
            limit: (limit as f64 * o.step_factor) as i64,
            what: format!("a step is at most {} times the limit", o.step_factor),
        },
        Cap {
            reason: "CoresBound",
            limit: to_milli(o.cores_max),
            what: format!("no limit is raised above {} cores", o.cores_max),
        },
    ];
    caps.extend(node_caps(limit, s)?);
    for range in &s.limit_ranges {
        caps.extend(range_caps(container, from, s, range));
    }
    for quota in &s.quotas {
        caps.extend(quota_caps(from, quota)?);
    }
    let mut to = wanted;
    let mut binding = None;
    for cap in &caps {
        if cap.limit < to {
            to = cap.limit;
            binding = Some(cap);
        }
    }
    let least = (limit as f64 * LEAST_FACTOR).ceil() as i64;
    match binding {
        Some(cap) if to < least => refuse(
            cap.reason,
            format!("the limit of {} would have to rise, but {}.", from_milli(limit), cap.what),
        ),
        _ if to < least => Err(No::Silent("the recommended limit is as good as there already")),
        _ => Ok(to),
    }
}

/// The increase must fit into what the node has not promised to anybody.
fn node_caps(limit: i64, s: &ClusterState) -> Result<[Cap; 2], No> {
    let name = s.node.name_any();
    let Some(allocatable) = allocatable_cpu(&s.node).map(to_milli) else {
        return refuse("NodeUnknown", format!("node {name} does not say what it can allocate."));
    };
    let promised: i64 = s.node_pods.iter().map(pod_request).sum();
    let free = (allocatable - promised).max(0);
    Ok([
        Cap {
            reason: "NodeTooSmall",
            limit: allocatable,
            what: format!("node {name} has {} for pods in all", from_milli(allocatable)),
        },
        Cap {
            reason: "NodeFull",
            limit: limit + free,
            what: format!(
                "node {name} has {} left of {} (the rest is requested by its pods)",
                from_milli(free),
                from_milli(allocatable)
            ),
        },
    ])
}

/// CPU a pod holds on its node, millicores: as the scheduler counts it, and what the kubelet has
/// allocated where that is more.
fn pod_request(pod: &Pod) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    if matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")) {
        return 0;
    }
    let overhead = cpu(&spec.overhead).unwrap_or(0);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| cpu(&r.requests)) {
        return whole + overhead;
    }
    let allocated = |c: &Container| {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        let status = statuses.into_iter().flatten().find(|s| s.name == c.name);
        status.and_then(|s| cpu(&s.allocated_resources)).unwrap_or(0)
    };
    let main: i64 = spec.containers.iter().map(|c| cpu_request(c).unwrap_or(0).max(allocated(c))).sum();
    let (mut sidecars, mut peak) = (0, 0);
    for c in spec.init_containers.iter().flatten() {
        let request = cpu_request(c).unwrap_or(0);
        if c.restart_policy.as_deref() == Some("Always") {
            sidecars += request;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + request);
        }
    }
    (main + sidecars).max(peak) + overhead
}

/// What a LimitRange permits the container and its pod.
fn range_caps(container: &Container, from: Cpu, s: &ClusterState, range: &LimitRange) -> Vec<Cap> {
    let name = range.name_any();
    let containers =
        || s.pod.spec.iter().flat_map(|spec| &spec.containers).filter(|c| c.name != container.name);
    let others_limit: i64 = containers().filter_map(cpu_limit).sum();
    let others_request: i64 = containers().filter_map(cpu_request).sum();
    let request = cpu_request(container).unwrap_or(0);
    let mut caps = Vec::new();
    for item in range.spec.iter().flat_map(|spec| &spec.limits) {
        let (elsewhere, requested) = match item.type_.as_str() {
            "Container" => (0, request),
            "Pod" => (others_limit, others_request + request),
            _ => continue,
        };
        let kind = item.type_.to_lowercase();
        if let Some(max) = cpu(&item.max) {
            caps.push(Cap {
                reason: "LimitRange",
                limit: max - elsewhere,
                what: format!("LimitRange {name} permits a {kind} {} at most", from_milli(max)),
            });
        }
        // Where the request goes with the limit the ratio stays one.
        let ratio = item.max_limit_request_ratio.as_ref().and_then(|m| m.get("cpu"));
        if let (Some(ratio), None) = (ratio.and_then(milli), from.request) {
            caps.push(Cap {
                reason: "LimitRange",
                limit: requested * ratio / 1000 - elsewhere,
                what: format!(
                    "LimitRange {name} permits a {kind} limits of {} times its requests at most",
                    from_milli(ratio)
                ),
            });
        }
    }
    caps
}

/// What is left of a ResourceQuota; whichever pods its scopes select, it is taken to count this one.
fn quota_caps(from: Cpu, quota: &ResourceQuota) -> Result<Vec<Cap>, No> {
    let name = quota.name_any();
    let spec_hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let mut caps = Vec::new();
    let counted: &[&str] =
        if from.request.is_some() { &["limits.cpu", "requests.cpu", "cpu"] } else { &["limits.cpu"] };
    for resource in counted {
        let Some(hard) = spec_hard.and_then(|h| h.get(*resource)).and_then(milli) else { continue };
        let used = quota.status.as_ref().and_then(|s| s.used.as_ref()?.get(*resource)).and_then(milli);
        let Some(used) = used else {
            return refuse(
                "ResourceQuota",
                format!("ResourceQuota {name} does not say yet how much is used."),
            );
        };
        let left = (hard - used).max(0);
        caps.push(Cap {
            reason: "ResourceQuota",
            limit: from.limit + left,
            what: format!(
                "ResourceQuota {name} has {} of {resource} left of {}",
                from_milli(left),
                from_milli(hard)
            ),
        });
    }
    Ok(caps)
}

#[cfg(test)]
mod tests;
