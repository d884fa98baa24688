//! A birth as an OTLP trace: its id is the pod's UID (both are 128 bits), its spans are the birth, the phases, and
//! the programs that ran in each. Begin and end are the kernel's; only `scheduled` and `ready` are the API server's.

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use sha2::{Digest, Sha256};

use super::{attribute, scope, workload_resource};
use crate::api::{BirthOutcome, BirthPhase, PodBirthCertificateStatus};
use crate::birth::{Certificate, Phase, Process};
use crate::names::{self, birth as attr, resource};
use crate::sinks::event::{AttrValue, Attribute};

/// The id of a birth's trace; `None` for what has no UID.
pub fn id(birth: &Certificate) -> Option<[u8; 16]> {
    let hex = birth.status.trace_id.as_deref()?;
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

/// The spans; `None` for a restart, or a birth without an id. What a pod waited for its node is a span of its own before
/// the birth, and a birth that is told again (one that failed, and went on) links to what was said of it before.
pub fn birth(birth: &Certificate, node: Option<&str>) -> Option<ResourceSpans> {
    let trace = id(birth).filter(|_| !birth.restart)?;
    let status = &birth.status;
    let ids = Ids { trace, nth: birth.nth };
    let root = ids.span("birth");
    let name = match (&birth.who.namespace, &birth.who.pod) {
        (Some(namespace), Some(pod)) => format!("birth of {namespace}/{pod}"),
        _ => "birth".to_owned(),
    };
    let mut spans = vec![Span {
        links: ids.before().into_iter().collect(),
        ..ids.make(root, None, name, within(birth), of_birth(birth), failure(status))
    }];
    let mut phases = Vec::new();
    for phase in &status.phases {
        let container = phase.container.as_deref().unwrap_or_default();
        let own = ids.span(&format!("phase {} {container} {:.3}", phase.name, phase.start_ms));
        let waits = phase.name == Phase::Scheduled.as_str();
        let times = (at(birth, phase.start_ms), at(birth, phase.start_ms + phase.duration_ms));
        if !waits {
            phases.push((phase, own, times));
        }
        let parent = Some(root).filter(|_| !waits);
        spans.push(ids.make(own, parent, title(phase), times, of_phase(phase), None));
    }
    for process in &birth.processes {
        let own = ids.span(&format!("process {} {:.3} {}", process.tgid, process.start_ms, process.program));
        let times = (at(birth, process.start_ms), at(birth, process.end_ms));
        let parent = parent(process, times, &phases).unwrap_or(root);
        let name = format!("{} {}", process.actor.as_str(), process.program);
        let failed = process.failed.clone();
        spans.push(ids.make(own, Some(parent), name, times, of_process(process), failed));
    }
    Some(ResourceSpans {
        resource: Some(service(workload_resource(&birth.who, node))),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, schema_url: String::new() }],
        schema_url: names::SCHEMA_URL.into(),
    })
}

/// The birth from its first moment to the last of all that is part of it.
fn within(birth: &Certificate) -> (u64, u64) {
    let status = &birth.status;
    let phases = status.phases.iter().filter(|p| p.name != Phase::Scheduled.as_str());
    let phases = phases.map(|p| (p.start_ms, p.start_ms + p.duration_ms));
    let parts = phases.chain(birth.processes.iter().map(|p| (p.start_ms, p.end_ms)));
    let length = status.kernel_stats.as_ref().and_then(|s| s.total_duration_ms).unwrap_or_default();
    let whole =
        parts.fold((0.0, length), |(start, end): (f64, f64), (from, to)| (start.min(from), end.max(to)));
    (at(birth, whole.0), at(birth, whole.1))
}

fn of_birth(birth: &Certificate) -> Vec<Attribute> {
    let status = &birth.status;
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
    attributes
}

fn failure(status: &PodBirthCertificateStatus) -> Option<String> {
    let complete = status.outcome == Some(BirthOutcome::Complete);
    status.failure.as_ref().filter(|_| !complete).map(|f| match &f.message {
        Some(message) => format!("{}: {message}", f.reason),
        None => f.reason.clone(),
    })
}

/// The phase that a program ran in: that of its work, where it lies within. One that outlives it (a shim, what the
/// container runs on) is of the birth as a whole.
fn parent(
    process: &Process,
    (start, end): (u64, u64),
    phases: &[(&BirthPhase, [u8; 8], (u64, u64))],
) -> Option<[u8; 8]> {
    let own = |(phase, _, (from, to)): &&(&BirthPhase, [u8; 8], (u64, u64))| {
        let named = phase.name == process.phase.as_str()
            && (phase.container.is_none() || phase.container == process.container);
        named && *from <= start && end <= *to
    };
    phases.iter().find(own).map(|(_, id, _)| *id)
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

/// Names of spans: by what they are, not by their number, so that the same is the same whoever tells it.
struct Ids {
    trace: [u8; 16],
    /// How often the birth was told before.
    nth: u32,
}

impl Ids {
    fn span(&self, name: &str) -> [u8; 8] {
        let mut hash = Sha256::new().chain_update(self.trace);
        if self.nth > 0 {
            hash.update(format!("try {} ", self.nth));
        }
        let hash = hash.chain_update(name).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        id
    }

    /// What was said of the birth before.
    fn before(&self) -> Option<span::Link> {
        let before = Ids { trace: self.trace, nth: self.nth.checked_sub(1)? };
        let (trace_id, span_id) = (self.trace.to_vec(), before.span("birth").to_vec());
        Some(span::Link { trace_id, span_id, ..span::Link::default() })
    }

    fn make(
        &self,
        own: [u8; 8],
        parent: Option<[u8; 8]>,
        name: String,
        (start, end): (u64, u64),
        attributes: Vec<Attribute>,
        failed: Option<String>,
    ) -> Span {
        Span {
            trace_id: self.trace.to_vec(),
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
}

fn at(birth: &Certificate, ms: f64) -> u64 {
    let ns = (ms * 1e6).round() as i128 + i128::from(birth.zero.unix_ns);
    u64::try_from(ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::sinks::testdata;

    fn told(nth: u32, change: impl FnOnce(&mut Certificate)) -> Vec<Span> {
        let mut certificate = testdata::birth(Some(BirthOutcome::Complete), false);
        for (tgid, process) in (100..).zip(&mut certificate.processes) {
            process.tgid = tgid;
        }
        certificate.nth = nth;
        change(&mut certificate);
        let spans = birth(&certificate, None).expect("a trace");
        spans.scope_spans.into_iter().flat_map(|scope| scope.spans).collect()
    }

    fn ids(spans: &[Span]) -> BTreeSet<Vec<u8>> {
        spans.iter().map(|s| s.span_id.clone()).collect()
    }

    #[test]
    fn a_birth_told_again_is_a_tree_of_its_own_that_links_to_the_first() {
        let first = told(0, |_| {});
        assert_eq!(ids(&first).len(), first.len());
        assert_eq!(ids(&told(0, |_| {})), ids(&first), "two agents tell the same");
        // The second time there is one more, before all others.
        let second = told(1, |c| {
            let more = BirthPhase { start_ms: -1.0, ..c.status.phases[1].clone() };
            c.status.phases.insert(0, more);
        });
        assert!(ids(&second).is_disjoint(&ids(&first)) && ids(&second).len() == second.len());
        let links: Vec<_> = second.iter().flat_map(|s| &s.links).map(|l| l.span_id.clone()).collect();
        assert_eq!(links, [first[0].span_id.clone()]);
        assert!(first.iter().all(|s| s.links.is_empty()));
    }

    #[test]
    fn a_span_lies_within_its_parent_and_the_wait_for_a_node_before_the_birth() {
        let spans = told(0, |c| {
            // A shim outlives what it was started for, and the pod waited for hours.
            c.processes[0].end_ms = 100_000.0;
            c.processes[1].start_ms = -5.0;
            c.status.phases[0].start_ms = -7_200_000.0;
        });
        let by_id: BTreeMap<_, _> = spans.iter().map(|s| (s.span_id.clone(), s)).collect();
        let alone: Vec<_> =
            spans.iter().filter(|s| s.parent_span_id.is_empty()).map(|s| s.name.as_str()).collect();
        assert!(alone[0].starts_with("birth of") && alone[1..] == ["scheduled"], "{alone:?}");
        for span in &spans {
            let Some(parent) = by_id.get(&span.parent_span_id) else { continue };
            let within = parent.start_time_unix_nano <= span.start_time_unix_nano
                && span.end_time_unix_nano <= parent.end_time_unix_nano;
            assert!(within, "{} is not within {}", span.name, parent.name);
        }
    }
}
