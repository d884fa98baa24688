//! Whispers as an agent says them over OTLP.

use std::sync::Arc;

use kernel_gossip::api::PodBirthCertificateStatus;
use kernel_gossip::attribution::{Workload, WorkloadKind};
use kernel_gossip::birth::certificate::Certificate;
use kernel_gossip::evidence::{CpuNumbers, SignalEvidence};
use kernel_gossip::kernel::Instant;
use kernel_gossip::names::{BIRTH_EVENT, WHISPER_EVENT};
use kernel_gossip::signals::{HistoryPoint, Neighbour, Severity, SignalKind, Transition, Whisper};
use kernel_gossip::sinks::event::{
    AttrValue, Attribute, birth_attributes, resource_attributes, whisper_attributes,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// A container as the agent names it.
pub fn container(namespace: &str, pod: &str, uid: &str, name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        kind: WorkloadKind::Container,
        cgroup: format!("/kubepods/burstable/pod{uid}/{:0>64}", "1"),
        namespace: Some(namespace.into()),
        pod: Some(pod.into()),
        pod_uid: Some(uid.into()),
        container: Some(name.into()),
        container_id: Some(format!("{:0>64}", "1")),
        owner: None,
        unit: None,
        cpu_limit: Some(0.2),
        cpu_request: Some(0.1),
        confirmed: true,
    })
}

/// A throttled container: 80 % of the last 10 s, said now, begun now.
pub fn throttled(who: &Arc<Workload>, now: jiff::Timestamp) -> Whisper {
    let unix_ns = u64::try_from(now.as_nanosecond()).unwrap();
    let at = Instant { mono_ns: 0, unix_ns };
    let second = 1_000_000_000;
    Whisper {
        signal: SignalKind::CpuThrottle,
        severity: Severity::Critical,
        transition: Transition::Started,
        who: who.clone(),
        since: at,
        at,
        evidence: SignalEvidence {
            window_seconds: Some(10.0),
            cpu: Some(CpuNumbers {
                throttled_percent: Some(80.0),
                throttled_full_percent: Some(80.0),
                throttled_seconds: Some(8.0),
                stalls: Some(99),
                stall_p99_seconds: Some(0.125),
                periods: Some(100),
                throttled_periods: Some(99),
                period_seconds: Some(0.1),
                usage_cores: Some(0.2),
                demand_cores: Some(1.0),
                limit_cores: Some(0.2),
                request_cores: Some(0.1),
                wait_seconds: Some(8.1),
                wait_throttle_seconds: Some(8.0),
                wait_neighbour_seconds: Some(0.1),
                wait_own_seconds: Some(0.0),
                wait_unattributed_seconds: Some(0.0),
                taken_hypervisor_seconds: Some(0.2),
                taken_interrupts_seconds: Some(0.01),
                contended_seconds: Some(0.05),
                lost_cores: Some(0.005),
                ..CpuNumbers::default()
            }),
            ..Default::default()
        },
        neighbours: vec![Neighbour { who: container("bank", "ledger", "u9", "main"), percent: 1.0 }],
        history: (0..120)
            .map(|i| HistoryPoint {
                unix_ns: unix_ns - (119 - i) * second,
                cpu_usage_ns: i * second / 5,
                throttled_ns: i * second / 5 * 4,
                throttled_wall_ns: Some(i * second / 5 * 4),
            })
            .collect(),
    }
}

/// The event of it.
pub fn event(whisper: &Whisper, node: &str) -> ResourceLogs {
    let attributes = whisper_attributes(whisper).collect();
    logs(&whisper.who, node, WHISPER_EVENT, whisper.at, attributes)
}

/// The event of a birth that is said now.
pub fn birth(who: &Arc<Workload>, status: &PodBirthCertificateStatus, now: jiff::Timestamp) -> ResourceLogs {
    let at = Instant { mono_ns: 0, unix_ns: u64::try_from(now.as_nanosecond()).unwrap() };
    let certificate = Certificate {
        who: (**who).clone(),
        zero: at,
        at,
        status: status.clone(),
        processes: Vec::new(),
        nth: 0,
        restart: false,
    };
    logs(who, "kg-node", BIRTH_EVENT, at, birth_attributes(&certificate))
}

fn logs(
    who: &Workload,
    node: &str,
    event_name: &str,
    at: Instant,
    attributes: Vec<Attribute>,
) -> ResourceLogs {
    let record = LogRecord {
        time_unix_nano: at.unix_ns,
        event_name: event_name.into(),
        attributes: attributes.into_iter().map(key_value).collect(),
        ..Default::default()
    };
    let attributes = resource_attributes(who, Some(node)).map(key_value).collect();
    ResourceLogs {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_logs: vec![ScopeLogs { log_records: vec![record], ..Default::default() }],
        ..Default::default()
    }
}

fn key_value((key, value): Attribute) -> KeyValue {
    KeyValue { key: key.into(), value: Some(any(value)), ..Default::default() }
}

pub fn any(value: AttrValue) -> AnyValue {
    let array = |values: Vec<AnyValue>| Value::ArrayValue(ArrayValue { values });
    let value = match value {
        AttrValue::Str(s) => Value::StringValue(s.into_owned()),
        AttrValue::Int(n) => Value::IntValue(n),
        AttrValue::Double(x) => Value::DoubleValue(x),
        AttrValue::StrArray(all) => array(all.into_iter().map(|s| any(s.into())).collect()),
        AttrValue::IntArray(all) => array(all.into_iter().map(|n| any(AttrValue::Int(n))).collect()),
        AttrValue::DoubleArray(all) => array(all.into_iter().map(|x| any(x.into())).collect()),
    };
    AnyValue { value: Some(value) }
}
