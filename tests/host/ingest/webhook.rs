//! Webhook bodies become reports.

use kernel_gossip::api::{Actor, Severity, SignalKind, Source};
use kernel_gossip::reconciler::ingest::Reason;
use kernel_gossip::reconciler::ingest::webhook::Event;
use kernel_gossip::reconciler::ingest::webhook::event::parse;
use kernel_gossip::reconciler::report::Report;
use serde_json::{Value, json};

use super::now;

pub fn throttle() -> Value {
    json!({
        "type": "cpu_throttle", "pod_name": "web-0", "namespace": "shop", "container_name": "main",
        "throttle_percentage": 82.5, "actual_cpu_usage": 0.9, "reported_cpu_usage": 0.2,
        "period_seconds": 30, "timestamp": "2026-11-21T05:59:58Z",
    })
}

pub fn memory() -> Value {
    json!({
        "type": "memory_pressure", "pod_name": "web-0", "namespace": "shop", "container_name": "main",
        "pressure_percentage": 12, "memory_usage_bytes": 1000, "memory_limit_bytes": 2000,
        "working_set_bytes": 900, "refaults": 7, "period_seconds": 10, "timestamp": "2026-11-21T05:59:58Z",
        "severity": "critical",
    })
}

pub fn network() -> Value {
    json!({
        "type": "network_issue", "pod_name": "web-0", "namespace": "shop", "dropped_packets": 12,
        "drop_percentage": 0.5, "retransmit_percentage": 3, "reason": "NO_SOCKET",
        "period_seconds": 10, "timestamp": "2026-11-21T05:59:58Z", "state": "resolved",
    })
}

pub fn creation() -> Value {
    json!({
        "type": "pod_creation", "pod_name": "web-0", "namespace": "shop", "timestamp": "2026-11-21T05:59:58Z",
        "total_syscalls": 4711, "namespaces_created": 5, "cgroups_created": 14, "cgroup_writes": 37, "mounts": 22,
        "processes": 9, "total_duration_ms": 521.5,
        "timeline": [
            {"timestamp_ms": -3.5, "actor": "scheduler", "action": "bound"},
            {"timestamp_ms": 0, "actor": "kubelet", "action": "mkdir", "details": "pod cgroup"},
        ],
    })
}

fn taken(body: &Value) -> Report {
    match parse(body.to_string().as_bytes(), now()) {
        Ok(Event::Report(report)) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reports() {
    let r = taken(&throttle());
    assert_eq!(
        (r.source, r.namespace.as_str(), r.pod.as_str(), r.container.as_str()),
        (Source::Reported, "shop", "web-0", "main")
    );
    assert_eq!(
        (r.kind, r.severity, r.active, r.uid.clone()),
        (SignalKind::CpuThrottle, Severity::Critical, true, None)
    );
    let cpu = r.numbers.cpu.unwrap();
    assert_eq!(
        (cpu.throttled_percent, cpu.usage_cores, cpu.reported_usage_cores),
        (Some(82.5), Some(0.9), Some(0.2))
    );
    assert_eq!(r.numbers.window_seconds, Some(30.0));

    let r = taken(&memory());
    assert_eq!((r.kind, r.severity), (SignalKind::MemoryPressure, Severity::Critical));
    let m = r.numbers.memory.unwrap();
    assert_eq!(
        (m.pressure_percent, m.usage_bytes, m.limit_bytes, m.working_set_bytes, m.refaults),
        (Some(12.0), Some(1000), Some(2000), Some(900), Some(7))
    );

    let r = taken(&network());
    assert_eq!(
        (r.kind, r.severity, r.active, r.container.as_str()),
        (SignalKind::NetworkIssue, Severity::Warning, false, "")
    );
    let n = r.numbers.network.unwrap();
    assert_eq!(
        (n.dropped_packets, n.drop_percent, n.retransmit_percent, n.reason.as_deref()),
        (Some(12), Some(0.5), Some(3.0), Some("NO_SOCKET"))
    );

    let Ok(Event::Birth(b)) = parse(creation().to_string().as_bytes(), now()) else { panic!() };
    assert_eq!(
        (b.stats.total_syscalls, b.stats.cgroup_writes, b.stats.total_duration_ms),
        (Some(4711), Some(37), Some(521.5))
    );
    assert_eq!(
        (b.timeline.len(), b.timeline[0].timestamp_ms, b.timeline[1].actor),
        (2, -3.5, Actor::Kubelet)
    );
}

#[test]
fn a_mild_throttling_is_a_warning_unless_said_otherwise() {
    let mut b = throttle();
    b["throttle_percentage"] = json!(20);
    assert_eq!(taken(&b).severity, Severity::Warning);
    b["severity"] = json!("critical");
    assert_eq!(taken(&b).severity, Severity::Critical);
}

/// What kernels and tools have for "no limit" is no limit, and no reason to refuse the report.
#[test]
fn no_limit_is_said_in_many_ways() {
    let limits = [
        (json!(2000), Some(2000)),
        (json!(9_223_372_036_854_771_712_i64), None),
        (json!(9_223_372_036_854_710_272_i64), None),
        (json!(i64::MAX), None),
        (json!(u64::MAX), None),
        (json!(-1), None),
        (Value::Null, None),
    ];
    for (said, wanted) in limits {
        let mut body = memory();
        body["memory_limit_bytes"] = said.clone();
        let memory = taken(&body).numbers.memory.expect("numbers");
        assert_eq!((memory.limit_bytes, memory.usage_bytes), (wanted, Some(1000)), "{said}");
    }
}

/// A text decides nothing: it is made fit to be shown.
#[test]
fn a_text_that_is_too_long_or_hidden_is_cut() {
    let mut body = network();
    body["reason"] = json!(format!("a\n\u{1b}[31m{}", "x".repeat(1000)));
    let reason = taken(&body).numbers.network.and_then(|n| n.reason).expect("a reason");
    assert!(
        reason.len() <= 256 && reason.starts_with("a \u{fffd}[31mx") && reason.ends_with('…'),
        "{reason}"
    );
    let mut body = creation();
    body["timeline"][1]["details"] = json!("y".repeat(10_000));
    let Ok(Event::Birth(birth)) = parse(body.to_string().as_bytes(), now()) else { panic!("not taken") };
    assert_eq!(birth.timeline[1].details.as_deref().map(str::len), Some(512));
}

#[test]
fn refusals_name_the_field() {
    let long = "x".repeat(5000);
    let cases: &[(Value, &str, Value, &str, Reason)] = &[
        (throttle(), "throttle_percentage", json!(130), "throttle_percentage", Reason::BadField),
        (throttle(), "throttle_percentage", json!("many"), "", Reason::BadField),
        (throttle(), "throttle_percentage", Value::Null, "", Reason::BadField),
        (throttle(), "type", json!("cpu_gossip"), "type", Reason::UnknownSignal),
        (throttle(), "type", json!(long), "type", Reason::UnknownSignal),
        (throttle(), "namespace", json!("Shop"), "namespace", Reason::BadField),
        (throttle(), "pod_name", json!("web_0"), "pod_name", Reason::BadField),
        (throttle(), "pod_name", json!(""), "pod_name", Reason::BadField),
        (throttle(), "container_name", json!("a/b"), "container_name", Reason::BadField),
        (throttle(), "actual_cpu_usage", json!(-1), "actual_cpu_usage", Reason::BadField),
        (throttle(), "reported_cpu_usage", json!(1e300), "reported_cpu_usage", Reason::BadField),
        (throttle(), "period_seconds", json!(0), "period_seconds", Reason::BadField),
        (throttle(), "timestamp", json!("2026-11-20T06:00:00Z"), "timestamp", Reason::BadField),
        (throttle(), "timestamp", json!("2026-11-21T06:10:00Z"), "timestamp", Reason::BadField),
        (throttle(), "timestamp", json!("yesterday"), "", Reason::BadField),
        (throttle(), "severity", json!("fatal"), "", Reason::BadField),
        (throttle(), "throttle_percent", json!(5), "throttle_percent", Reason::BadField),
        (memory(), "pressure_percentage", json!(101), "pressure_percentage", Reason::BadField),
        (memory(), "memory_limit_bytes", json!(-5), "memory_limit_bytes", Reason::BadField),
        (network(), "drop_percentage", json!(1000), "drop_percentage", Reason::BadField),
        (network(), "reason", json!(7), "", Reason::BadField),
        (memory(), "memory_limit_bytes", json!(1.5), "memory_limit_bytes", Reason::BadField),
        (memory(), "memory_limit_bytes", json!(1i64 << 51), "memory_limit_bytes", Reason::BadField),
        (creation(), "mounts", json!(-1), "mounts", Reason::BadField),
        (creation(), "total_duration_ms", json!(1e13), "total_duration_ms", Reason::BadField),
        (
            creation(),
            "timeline",
            json!([{"timestamp_ms": 0, "actor": "ghost", "action": "x"}]),
            "",
            Reason::BadField,
        ),
        (
            creation(),
            "timeline",
            json!([{"timestamp_ms": 0, "actor": "cni", "action": ""}]),
            "timeline.action",
            Reason::BadField,
        ),
        (
            creation(),
            "timeline",
            json!(vec![json!({"timestamp_ms": 0, "actor": "cni", "action": "x"}); 513]),
            "timeline",
            Reason::BadField,
        ),
    ];
    for (body, field, value, named, reason) in cases {
        let mut body = body.clone();
        body[*field] = value.clone();
        let refusal = parse(body.to_string().as_bytes(), now()).expect_err(&format!("{field} {value}"));
        let line = refusal.to_string();
        assert_eq!(refusal.reason, *reason, "{line}");
        assert!(line.contains(named) && !line.contains('\n') && line.len() < 700, "{line}");
    }
    for field in [
        "pod_name",
        "namespace",
        "container_name",
        "throttle_percentage",
        "period_seconds",
        "timestamp",
        "type",
    ] {
        let mut body = throttle();
        body.as_object_mut().unwrap().remove(field);
        let refusal = parse(body.to_string().as_bytes(), now()).expect_err(field);
        assert!(refusal.to_string().contains(field), "{refusal}");
    }
    for text in ["", "{", "[]", "null", "\u{0}", "{\"type\":\"cpu_throttle\"", &"[".repeat(10_000)] {
        assert!(parse(text.as_bytes(), now()).is_err());
    }
    let at = "2026-11-21T05:59:58Z";
    for (nothing, field) in [
        (
            json!({"type": "network_issue", "pod_name": "w", "namespace": "s", "period_seconds": 1, "timestamp": at}),
            "dropped_packets",
        ),
        (json!({"type": "pod_creation", "pod_name": "w", "namespace": "s", "timestamp": at}), "timeline"),
    ] {
        let refusal = parse(nothing.to_string().as_bytes(), now()).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_deref()), (Reason::BadField, Some(field)));
    }
}
