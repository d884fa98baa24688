//! Advice for evidence: what its tests share.

mod amounts;
mod commands;
mod properties;

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::evidence::{
    CpuNumbers, HistoryPoint, MemoryNumbers, NeighbourShare, Severity, SignalEvidence, SignalKind, Source,
};

const MIB: i64 = 1 << 20;

/// What is advised where it is not known whether the node resizes pods in place.
fn recommend(evidence: &Evidence, cpu_cores: Option<f64>) -> Recommendation {
    crate::signals::kinds::recommend(evidence, NodeFacts { cpu_cores, resizes: None })
}

/// The command, where there is one.
fn command(r: &Recommendation) -> Option<&str> {
    assert!(r.commands.len() <= 1, "{:?}", r.commands);
    r.commands.first().map(|c| c.line.as_str())
}

fn owner(api_version: &str, kind: &str, name: &str) -> Owner {
    Owner { api_version: api_version.into(), kind: kind.into(), name: name.into() }
}

fn pod(container: ContainerFacts) -> PodFacts {
    PodFacts {
        namespace: "shop".into(),
        name: "web-5d9c-x7".into(),
        uid: "u".into(),
        node: "n".into(),
        owner: Some(owner("apps/v1", "ReplicaSet", "web-5d9c")),
        template_hash: Some("5d9c".into()),
        containers: vec![ContainerFacts { name: "app".into(), ..container }],
        ..PodFacts::default()
    }
}

fn evidence(kind: SignalKind, pod: PodFacts, numbers: SignalEvidence) -> Evidence {
    Evidence {
        pod: Arc::new(pod),
        container: "app".into(),
        kind,
        source: Source::Kernel,
        severity: Severity::Critical,
        active: true,
        since: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        numbers,
        history: Arc::from([]),
    }
}

/// Throttled at `limit` over 10 s: seconds throttled per CPU, cores used, periods throttled.
fn throttle(limit: f64, throttled: f64, usage: f64, periods: i64) -> Evidence {
    let cpu = CpuNumbers {
        throttled_percent: Some((throttled * 10.0).min(90.0)),
        throttled_seconds: Some(throttled),
        stalls: Some(periods),
        periods: Some(100),
        throttled_periods: Some(periods),
        usage_cores: Some(usage),
        demand_cores: Some(usage + throttled / 10.0),
        limit_cores: Some(limit),
        request_cores: Some(limit / 2.0),
        ..CpuNumbers::default()
    };
    let numbers = SignalEvidence { window_seconds: Some(10.0), cpu: Some(cpu), ..SignalEvidence::default() };
    let facts = ContainerFacts {
        cpu_limit_cores: Some(limit),
        cpu_request_cores: Some(limit / 2.0),
        ..Default::default()
    };
    evidence(SignalKind::CpuThrottle, pod(facts), numbers)
}

fn cpu(e: &mut Evidence) -> &mut CpuNumbers {
    e.numbers.cpu.as_mut().unwrap()
}

fn facts(e: &mut Evidence) -> &mut PodFacts {
    Arc::get_mut(&mut e.pod).unwrap()
}

/// Seconds with (used, throttled) seconds of CPU each, as cumulative points.
fn history(seconds: &[(f64, f64)]) -> Arc<[HistoryPoint]> {
    let (mut used, mut throttled) = (0.0, 0.0);
    std::iter::once(&(0.0, 0.0))
        .chain(seconds)
        .enumerate()
        .map(|(i, (u, t))| {
            used += u * 1e9;
            throttled += t * 1e9;
            HistoryPoint {
                unix_ns: 1_000_000_000 * (i as u64 + 1),
                cpu_usage_ns: used as u64,
                throttled_ns: throttled as u64,
                throttled_wall_ns: Some(throttled as u64),
            }
        })
        .collect()
}

/// Waiting 10 s behind neighbours: seconds waited, cores used, request.
fn contention(wait: f64, usage: f64, request: Option<f64>, neighbours: &[(&str, f64)]) -> Evidence {
    let numbers = SignalEvidence {
        window_seconds: Some(10.0),
        cpu: Some(CpuNumbers {
            wait_neighbour_seconds: Some(wait),
            usage_cores: Some(usage),
            ..CpuNumbers::default()
        }),
        neighbours: neighbours
            .iter()
            .map(|(name, percent)| NeighbourShare {
                name: (*name).into(),
                withheld: false,
                percent: *percent,
            })
            .collect(),
        ..SignalEvidence::default()
    };
    let facts = ContainerFacts { cpu_request_cores: request, ..Default::default() };
    evidence(SignalKind::CpuContention, pod(facts), numbers)
}

fn memory(limit: Option<i64>, numbers: MemoryNumbers) -> Evidence {
    let kind = if numbers.oom_kills.is_some() { SignalKind::OomKill } else { SignalKind::MemoryPressure };
    let numbers =
        SignalEvidence { window_seconds: Some(10.0), memory: Some(numbers), ..SignalEvidence::default() };
    let facts = ContainerFacts { memory_limit_bytes: limit, ..Default::default() };
    evidence(kind, pod(facts), numbers)
}

fn limit_of(r: &Recommendation) -> Option<f64> {
    r.to.as_ref().and_then(|to| to.cpu_limit_cores)
}
