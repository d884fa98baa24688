//! OTLP records become reports.

use kernel_gossip::api::{BirthOutcome, PodBirthCertificateStatus, Severity, SignalKind, SlowPhase, Source};
use kernel_gossip::reconciler::ingest::Reason;
use kernel_gossip::reconciler::ingest::decode::{Decoded, RECORDS_MAX, decode};
use kernel_gossip::signals::{SignalType, Transition, Whisper};
use kernel_gossip::sinks::event::AttrValue;
use kernel_gossip::sinks::names::{BIRTH_EVENT, birth, resource, whisper as attr};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;

use super::now;
use crate::bed::whisper::{any, container, event, throttled};

fn whisper() -> Whisper {
    throttled(&container("shop", "web-0", "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1", "main"), now())
}

fn decoded(logs: &ResourceLogs) -> Decoded {
    let mut out = Decoded::default();
    decode(logs, now(), &mut out);
    out
}

fn set(attributes: &mut Vec<KeyValue>, name: &str, value: Option<AttrValue>) {
    attributes.retain(|kv| kv.key != name);
    if let Some(value) = value {
        attributes.push(KeyValue { key: name.into(), value: Some(any(value)), ..Default::default() });
    }
}

/// The standard event with one attribute changed or taken away, of the record or of the resource.
fn changed(name: &str, value: Option<AttrValue>) -> ResourceLogs {
    let mut logs = event(&whisper(), "n1");
    set(
        &mut logs.resource.as_mut().unwrap().attributes,
        name,
        value.clone().filter(|_| name.starts_with("k8s.")),
    );
    if !name.starts_with("k8s.") {
        set(&mut logs.scope_logs[0].log_records[0].attributes, name, value);
    }
    logs
}

#[test]
fn what_an_agent_says_arrives_whole() {
    let w = whisper();
    let out = decoded(&event(&w, "n1"));
    assert!(out.refused.is_empty(), "{:?}", out.refused);
    let [r] = out.reports.as_slice() else { panic!("{out:?}") };
    assert_eq!(
        (r.source, r.namespace.as_str(), r.pod.as_str(), r.container.as_str()),
        (Source::Kernel, "shop", "web-0", "main")
    );
    assert_eq!(r.uid.as_deref(), w.who.pod_uid.as_deref());
    assert_eq!((r.kind, r.severity, r.active), (SignalKind::CpuThrottle, Severity::Critical, true));
    assert_eq!(r.at, now());
    assert_eq!(r.since.as_second(), now().as_second());
    let (c, e) = (r.numbers.cpu.as_ref().unwrap(), &w.evidence);
    assert_eq!(r.numbers.window_seconds, Some(10.0));
    assert_eq!(c.throttled_percent, e.throttled_percent);
    assert_eq!(c.throttled_full_percent, e.throttled_full_percent);
    assert_eq!(c.throttled_seconds, e.throttled_seconds);
    assert_eq!(c.stalls, e.stalls.map(|n| n as i64));
    assert_eq!(c.stall_p99_seconds, e.stall_p99_seconds);
    assert_eq!(c.periods, e.periods.map(|n| n as i64));
    assert_eq!(c.throttled_periods, e.throttled_periods.map(|n| n as i64));
    assert_eq!((c.usage_cores, c.demand_cores), (e.usage_cores, e.demand_cores));
    assert_eq!((c.limit_cores, c.request_cores), (e.limit_cores, e.request_cores));
    assert_eq!((c.wait_seconds, c.wait_throttle_seconds), (e.wait_seconds, e.wait_throttle_seconds));
    assert_eq!(
        (c.wait_neighbour_seconds, c.wait_own_seconds),
        (e.wait_neighbour_seconds, e.wait_own_seconds)
    );
    assert_eq!(c.wait_unattributed_seconds, e.wait_unattributed_seconds);
    assert_eq!(c.contended_seconds, e.contended_seconds);
    let [n] = r.neighbours.as_slice() else { panic!() };
    assert_eq!(
        (n.name.as_str(), n.namespace.as_str(), n.pod.as_str(), n.percent),
        ("bank/ledger/main", "bank", "ledger", 1.0)
    );
    assert_eq!(r.history, w.history);
}

#[test]
fn every_signal_and_transition() {
    for signal in SignalType::ALL {
        for transition in
            [Transition::Started, Transition::Changed, Transition::Repeated, Transition::Resolved]
        {
            let w = Whisper { signal, transition, ..whisper() };
            let out = decoded(&event(&w, "n1"));
            let [r] = out.reports.as_slice() else { panic!("{out:?}") };
            assert_eq!((r.kind.as_str(), r.active), (signal.as_str(), transition != Transition::Resolved));
        }
    }
}

#[test]
fn what_is_none_of_ours_is_ignored() {
    let mut other = event(&whisper(), "n1");
    other.scope_logs[0].log_records[0].event_name = "kernel_gossip.else".into();
    let mut nameless = event(&whisper(), "n1");
    nameless.scope_logs[0].log_records[0].event_name.clear();
    let no_pod = changed(resource::POD, None);
    for logs in [other, nameless.clone(), no_pod] {
        let out = decoded(&logs);
        assert_eq!((out.reports.len(), out.refused.len(), out.ignored), (0, 0, 1));
    }
    // Some pipelines carry the name as an attribute.
    let record = &mut nameless.scope_logs[0].log_records[0];
    set(&mut record.attributes, "event.name", Some("kernel_gossip.whisper".into()));
    assert_eq!(decoded(&nameless).reports.len(), 1);
}

#[test]
fn a_birth_arrives_whole() {
    let mut logs = event(&whisper(), "n1");
    let mut own = PodBirthCertificateStatus::of(Source::Kernel);
    own.outcome = Some(BirthOutcome::Complete);
    own.total = Some("607 ms".into());
    own.slow = Some(SlowPhase {
        severity: Severity::Warning,
        phase: "image".into(),
        took_ms: 5000.0,
        usual_ms: 900.0,
    });
    let record = &mut logs.scope_logs[0].log_records[0];
    record.event_name = BIRTH_EVENT.into();
    set(&mut record.attributes, birth::CERTIFICATE, Some(serde_json::to_string(&own).unwrap().into()));
    let out = decoded(&logs);
    let [certified] = out.births.as_slice() else { panic!("{out:?}") };
    assert_eq!((certified.pod.as_str(), &certified.status), ("web-0", &own));
    let slow = certified.slow().expect("a whisper too");
    assert_eq!((slow.kind, slow.severity, slow.active), (SignalKind::SlowBirth, Severity::Warning, true));
    assert_eq!(slow.numbers.birth.map(|b| (b.phase, b.phase_seconds)), Some(("image".into(), 5.0)));

    let record = &mut logs.scope_logs[0].log_records[0];
    set(&mut record.attributes, birth::CERTIFICATE, None);
    let out = decoded(&logs);
    assert_eq!(out.refused[0].field.as_deref(), Some(birth::CERTIFICATE));
}

#[test]
fn what_cannot_be_true_is_refused_and_named() {
    let nan = f64::NAN;
    let cases: &[(&'static str, Option<AttrValue>, Reason)] = &[
        (resource::NAMESPACE, None, Reason::Malformed),
        (resource::NAMESPACE, Some("Shop".into()), Reason::BadField),
        (resource::NAMESPACE, Some("../kube-system".into()), Reason::BadField),
        (resource::POD, Some("web_0".into()), Reason::BadField),
        (resource::POD, Some("a".repeat(254).into()), Reason::BadField),
        (resource::POD_UID, None, Reason::Malformed),
        (resource::POD_UID, Some("u/1".into()), Reason::BadField),
        (resource::CONTAINER, Some("main;rm".into()), Reason::BadField),
        (attr::SIGNAL, None, Reason::Malformed),
        (attr::SIGNAL, Some("cpu_gossip".into()), Reason::UnknownSignal),
        (attr::SIGNAL, Some(1u64.into()), Reason::BadField),
        (attr::SEVERITY, Some("fatal".into()), Reason::BadField),
        (attr::STATE, Some("started".into()), Reason::BadField),
        (attr::SINCE, None, Reason::Malformed),
        (attr::SINCE, Some(AttrValue::Int(-1)), Reason::BadField),
        (attr::SINCE, Some(AttrValue::Int(i64::MAX)), Reason::BadField),
        (attr::WINDOW, Some(0.0.into()), Reason::BadField),
        (attr::WINDOW, Some(nan.into()), Reason::BadField),
        (attr::THROTTLED_PERCENT, Some(130.0.into()), Reason::BadField),
        (attr::THROTTLED_PERCENT, Some((-1.0).into()), Reason::BadField),
        (attr::THROTTLED_PERCENT, Some(nan.into()), Reason::BadField),
        (attr::USAGE, Some(f64::INFINITY.into()), Reason::BadField),
        (attr::DEMAND, Some(1e300.into()), Reason::BadField),
        (attr::STALLS, Some(AttrValue::Int(-1)), Reason::BadField),
        (attr::PERIODS, Some(1.5.into()), Reason::BadField),
        (attr::NEIGHBOUR_NAMES, Some(AttrValue::StrArray(vec![])), Reason::BadField),
        (attr::NEIGHBOUR_NAMES, Some(AttrValue::StrArray(vec!["a\nb".into()])), Reason::BadField),
        (attr::NEIGHBOUR_NAMES, Some(AttrValue::StrArray(vec!["x".repeat(513)])), Reason::BadField),
        (attr::NEIGHBOUR_PERCENTS, Some(AttrValue::DoubleArray(vec![nan])), Reason::BadField),
        (attr::HISTORY_TIME, Some(AttrValue::IntArray(vec![1, 2, 3])), Reason::BadField),
        (attr::HISTORY_CPU_USAGE, Some("x".into()), Reason::BadField),
    ];
    for (name, value, reason) in cases {
        let out = decoded(&changed(name, value.clone()));
        let [refusal] = out.refused.as_slice() else { panic!("{name} {value:?} was taken: {out:?}") };
        assert_eq!(refusal.reason, *reason, "{name} {value:?}: {refusal}");
        let line = refusal.to_string();
        assert!(line.contains(name) && !line.contains('\n') && line.len() < 700, "{line}");
    }
}

#[test]
fn times_far_off_are_refused() {
    for seconds in [-3700i64, 310] {
        let mut logs = event(&whisper(), "n1");
        let record = &mut logs.scope_logs[0].log_records[0];
        record.time_unix_nano = record.time_unix_nano.wrapping_add_signed(seconds * 1_000_000_000);
        assert_eq!(decoded(&logs).refused.len(), 1, "{seconds} s off");
    }
    for time in [0, u64::MAX] {
        let mut logs = event(&whisper(), "n1");
        logs.scope_logs[0].log_records[0].time_unix_nano = time;
        assert_eq!(decoded(&logs).refused.len(), 1);
    }
}

#[test]
fn a_history_that_falls_back_begins_anew() {
    let mut w = whisper();
    for p in &mut w.history[..100] {
        p.cpu_usage_ns += 1 << 50;
    }
    let out = decoded(&event(&w, "n1"));
    assert_eq!(out.reports[0].history, w.history[100..]);
    w.history[110].unix_ns = w.history[109].unix_ns;
    assert_eq!(decoded(&event(&w, "n1")).refused.len(), 1, "time must rise");
    let w = Whisper { history: vec![], ..whisper() };
    assert!(decoded(&event(&w, "n1")).reports[0].history.is_empty());
}

#[test]
fn a_refused_record_does_not_hide_the_others() {
    let mut logs = event(&whisper(), "n1");
    let good = logs.scope_logs[0].log_records[0].clone();
    let mut bad = good.clone();
    bad.time_unix_nano = 0;
    logs.scope_logs[0].log_records = vec![bad.clone(), good.clone(), bad];
    logs.scope_logs.push(logs.scope_logs[0].clone());
    let out = decoded(&logs);
    assert_eq!((out.reports.len(), out.refused.len()), (2, 4));

    logs.scope_logs.truncate(1);
    let slim =
        opentelemetry_proto::tonic::logs::v1::LogRecord { event_name: "x".into(), ..Default::default() };
    logs.scope_logs[0].log_records = vec![slim; RECORDS_MAX + 7];
    let out = decoded(&logs);
    assert_eq!((out.ignored, out.unread), (RECORDS_MAX as u64, 7));
    logs.scope_logs[0].log_records = vec![good];
    let many = KeyValue { key: "k".into(), ..Default::default() };
    logs.scope_logs[0].log_records[0].attributes.extend(vec![many; 128]);
    assert_eq!(decoded(&logs).refused[0].reason, Reason::TooMuch);
}
