//! A birth as an OTLP trace: its id is the pod's UID (both are 128 bits), its spans are the birth, the phases, and
//! the programs that ran in each. Begin and end are the kernel's; only `scheduled` and `ready` are the API server's.

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use sha2::{Digest, Sha256};

use super::{attribute, scope, workload_resource};
use crate::api::{BirthOutcome, BirthPhase};
use crate::birth::{Certificate, Process};
use crate::sinks::event::{AttrValue, Attribute};
use crate::sinks::names::{self, birth as attr, resource};

/// The id of a birth's trace; `None` for what has no UID.
pub fn id(birth: &Certificate) -> Option<[u8; 16]> {
    let hex = birth.status.trace_id.as_deref()?;
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

/// The spans; `None` for a restart, or a birth without an id.
pub fn birth(birth: &Certificate, node: Option<&str>) -> Option<ResourceSpans> {
    let id = id(birth).filter(|_| !birth.restart)?;
    let status = &birth.status;
    let ids = Ids { trace: id };
    let root = ids.span("birth");
    let mut spans = Vec::with_capacity(1 + status.phases.len() + birth.processes.len());
    let start = status.phases.iter().map(|p| p.start_ms).fold(0.0, f64::min);
    let length = status.kernel_stats.as_ref().and_then(|s| s.total_duration_ms);
    let last = status.phases.iter().map(|p| p.start_ms + p.duration_ms);
    let end = length.into_iter().chain(last).fold(start, f64::max);
    let name = match (&birth.who.namespace, &birth.who.pod) {
        (Some(namespace), Some(pod)) => format!("birth of {namespace}/{pod}"),
        _ => "birth".to_owned(),
    };
    let mut attributes: Vec<Attribute> = vec![(attr::KIND, "birth".into())];
    attributes.extend(status.outcome.map(|o| (attr::OUTCOME, o.as_str().into())));
    let stats = status.kernel_stats.as_ref();
    for (name, value) in [
        (attr::SYSCALLS, stats.and_then(|s| s.total_syscalls)),
        (attr::NAMESPACES, stats.and_then(|s| s.namespaces_created)),
        (attr::CGROUP_WRITES, stats.and_then(|s| s.cgroup_writes)),
        (attr::MOUNTS, stats.and_then(|s| s.mounts)),
    ] {
        attributes.extend(value.map(|n| (name, AttrValue::Int(n))));
    }
    let failure = status.failure.as_ref().map(|f| match &f.message {
        Some(message) => format!("{}: {message}", f.reason),
        None => f.reason.clone(),
    });
    let complete = status.outcome == Some(BirthOutcome::Complete);
    let times = (at(birth, start), at(birth, end));
    spans.push(span(&ids, root, None, name, times, attributes, failure.filter(|_| !complete)));
    let mut parents = Vec::new();
    for (n, phase) in status.phases.iter().enumerate() {
        let own = ids.span(&format!("phase {n}"));
        parents.push((phase, own));
        let times = (at(birth, phase.start_ms), at(birth, phase.start_ms + phase.duration_ms));
        spans.push(span(&ids, own, Some(root), title(phase), times, of_phase(phase), None));
    }
    for (n, process) in birth.processes.iter().enumerate() {
        let own = ids.span(&format!("process {n}"));
        let within = |p: &&(&BirthPhase, [u8; 8])| {
            p.0.name == process.phase.as_str()
                && (p.0.container.is_none() || p.0.container == process.container)
        };
        let parent = parents.iter().find(within).map_or(root, |p| p.1);
        let times = (at(birth, process.start_ms), at(birth, process.end_ms));
        let name = format!("{} {}", process.actor.as_str(), process.program);
        spans.push(span(&ids, own, Some(parent), name, times, of_process(process), process.failed.clone()));
    }
    Some(ResourceSpans {
        resource: Some(service(workload_resource(&birth.who, node))),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, schema_url: String::new() }],
        schema_url: names::SCHEMA_URL.into(),
    })
}

/// Stores of traces group by the service's name.
fn service(
    mut of: opentelemetry_proto::tonic::resource::v1::Resource,
) -> opentelemetry_proto::tonic::resource::v1::Resource {
    of.attributes.push(attribute(resource::SERVICE, AttrValue::from("kernel-gossip")));
    of
}

fn title(phase: &BirthPhase) -> String {
    match &phase.container {
        Some(container) => format!("{} {container}", phase.name),
        None => phase.name.clone(),
    }
}

fn of_phase(phase: &BirthPhase) -> Vec<Attribute> {
    let mut out = vec![(attr::PHASE, phase.name.clone().into())];
    out.extend(phase.container.clone().map(|c| (resource::CONTAINER, c.into())));
    out.extend(phase.uncertainty_ms.map(|ms| (attr::UNCERTAINTY, AttrValue::Double(ms / 1e3))));
    out
}

fn of_process(process: &Process) -> Vec<Attribute> {
    let mut out = vec![
        (attr::ACTOR, process.actor.as_str().into()),
        (attr::PHASE, process.phase.as_str().into()),
        (attr::PROGRAM, process.program.clone().into()),
        (attr::PROCESS_ID, AttrValue::Int(process.tgid.into())),
    ];
    out.extend(process.container.clone().map(|c| (resource::CONTAINER, c.into())));
    out.extend(process.syscalls.map(|n| (attr::SYSCALLS, n.into())));
    out.extend(process.cpu_ms.map(|ms| (attr::CPU, AttrValue::Double(ms / 1e3))));
    out
}

/// The same birth told twice has the same spans.
struct Ids {
    trace: [u8; 16],
}

impl Ids {
    fn span(&self, name: &str) -> [u8; 8] {
        let hash = Sha256::new().chain_update(self.trace).chain_update(name).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        id
    }
}

fn at(birth: &Certificate, ms: f64) -> u64 {
    let ns = (ms * 1e6).round() as i128 + i128::from(birth.zero.unix_ns);
    u64::try_from(ns).unwrap_or(0)
}

fn span(
    ids: &Ids,
    own: [u8; 8],
    parent: Option<[u8; 8]>,
    name: String,
    (start, end): (u64, u64),
    attributes: Vec<Attribute>,
    failed: Option<String>,
) -> Span {
    Span {
        trace_id: ids.trace.to_vec(),
        span_id: own.to_vec(),
        parent_span_id: parent.map(Vec::from).unwrap_or_default(),
        name,
        kind: span::SpanKind::Internal.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end.max(start),
        attributes: attributes.into_iter().map(|(k, v)| attribute(k, v)).collect(),
        status: failed.map(|message| Status { message, code: status::StatusCode::Error.into() }),
        ..Span::default()
    }
}
