//! OTLP records become reports.

use kernel_gossip::api::{BirthOutcome, PodBirthCertificateStatus, Severity, SignalKind, SlowPhase, Source};
use kernel_gossip::names::{BIRTH_EVENT, birth, resource, whisper as attr};
use kernel_gossip::reconciler::ingest::Reason;
use kernel_gossip::reconciler::ingest::decode::{Decoded, RECORDS_MAX, decode};
use kernel_gossip::signals::{HistoryPoint, Slow, Transition, Whisper};
use kernel_gossip::sinks::event::AttrValue;
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
    let (c, e) = (r.numbers.cpu.as_ref().unwrap(), w.evidence.cpu());
    assert_eq!(r.numbers.window_seconds, Some(10.0));
    assert_eq!(c.throttled_percent, e.throttled_percent);
    assert_eq!(c.throttled_full_percent, e.throttled_full_percent);
    assert_eq!(c.throttled_seconds, e.throttled_seconds);
    assert_eq!(c.stalls, e.stalls);
    assert_eq!(c.stall_p99_seconds, e.stall_p99_seconds);
    assert_eq!(c.periods, e.periods);
    assert_eq!(c.throttled_periods, e.throttled_periods);
    assert_eq!((c.usage_cores, c.demand_cores), (e.usage_cores, e.demand_cores));
    assert_eq!((c.limit_cores, c.request_cores), (e.limit_cores, e.request_cores));
    assert_eq!((c.wait_seconds, c.wait_throttle_seconds), (e.wait_seconds, e.wait_throttle_seconds));
    assert_eq!(
        (c.wait_neighbour_seconds, c.wait_own_seconds),
        (e.wait_neighbour_seconds, e.wait_own_seconds)
    );
    assert_eq!(c.wait_unattributed_seconds, e.wait_unattributed_seconds);
    assert_eq!(
        (c.taken_hypervisor_seconds, c.taken_interrupts_seconds),
        (e.taken_hypervisor_seconds, e.taken_interrupts_seconds)
    );
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
    for signal in SignalKind::ALL {
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

    let record = &mut logs.scope_logs[0].log_records[0];
    set(&mut record.attributes, birth::CERTIFICATE, None);
    let out = decoded(&logs);
    assert_eq!(out.refused[0].field.as_deref(), Some(birth::CERTIFICATE));
}

/// A slow birth is a whisper like any other, of the pod as a whole.
#[test]
fn a_slow_birth_arrives_as_a_whisper() {
    let slow = Slow { severity: Severity::Warning, phase: "image".into(), took_ms: 5000.0, usual_ms: 900.0 };
    let mut said = whisper();
    (said.signal, said.severity, said.evidence) = (SignalKind::SlowBirth, slow.severity, slow.evidence());
    (said.neighbours, said.history) = (Vec::new(), Vec::new());
    let out = decoded(&event(&said, "n1"));
    let [r] = out.reports.as_slice() else { panic!("{out:?}") };
    assert_eq!((r.kind, r.severity, r.active), (SignalKind::SlowBirth, Severity::Warning, true));
    let birth = r.numbers.birth.clone().expect("numbers");
    assert_eq!(
        (birth.phase.as_deref(), birth.phase_seconds, birth.usual_seconds),
        (Some("image"), Some(5.0), Some(0.9))
    );
    assert_eq!(r.numbers.cpu, None);
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
        ("kernel_gossip.cpu.throttled.percent", Some(130.0.into()), Reason::BadField),
        ("kernel_gossip.cpu.throttled.percent", Some((-1.0).into()), Reason::BadField),
        ("kernel_gossip.cpu.throttled.percent", Some(nan.into()), Reason::BadField),
        ("kernel_gossip.cpu.usage", Some(f64::INFINITY.into()), Reason::BadField),
        ("kernel_gossip.cpu.demand", Some(1e300.into()), Reason::BadField),
        ("kernel_gossip.cpu.stall.count", Some(AttrValue::Int(-1)), Reason::BadField),
        ("kernel_gossip.cpu.periods", Some(1.5.into()), Reason::BadField),
    ];
    for (name, value, reason) in cases {
        let out = decoded(&changed(name, value.clone()));
        let [refusal] = out.refused.as_slice() else { panic!("{name} {value:?} was taken: {out:?}") };
        assert_eq!(refusal.reason, *reason, "{name} {value:?}: {refusal}");
        let line = refusal.to_string();
        assert!(line.contains(name) && !line.contains('\n') && line.len() < 700, "{line}");
    }
}

/// Who the neighbours are and what was before decorates a whisper: wrong, it is left out and counted, and the whisper is
/// taken.
#[test]
fn what_only_decorates_never_refuses_a_report() {
    let cases: &[(&'static str, AttrValue)] = &[
        (attr::NEIGHBOUR_NAMES, AttrValue::StrArray(vec![])),
        (attr::NEIGHBOUR_NAMES, AttrValue::StrArray(vec![String::new()])),
        (attr::NEIGHBOUR_NAMES, AttrValue::IntArray(vec![1])),
        (attr::NEIGHBOUR_NAMESPACES, AttrValue::StrArray(vec!["../kube-system".into()])),
        (attr::NEIGHBOUR_PERCENTS, AttrValue::DoubleArray(vec![f64::NAN])),
        (attr::HISTORY_TIME, AttrValue::IntArray(vec![1, 2, 3])),
        (attr::HISTORY_CPU_USAGE, "x".into()),
    ];
    for (name, value) in cases {
        let out = decoded(&changed(name, Some(value.clone())));
        assert!(out.refused.is_empty(), "{name} {value:?}: {:?}", out.refused);
        let [report] = out.reports.as_slice() else { panic!("{name} {value:?}: {out:?}") };
        let [left_out] = out.left_out.as_slice() else { panic!("{name} {value:?}: {out:?}") };
        let line = left_out.to_string();
        assert!(line.contains("kernel_gossip.") && !line.contains('\n') && line.len() < 700, "{line}");
        let neighbours = name.contains("neighbour");
        assert_eq!(
            (report.neighbours.is_empty(), report.history.is_empty()),
            (neighbours, !neighbours),
            "{name}"
        );
    }
}

/// Whatever a neighbour's cgroup is called (Docker in a pod in kind makes 564 bytes), and however the agent reads, the
/// reconciler takes what it says.
#[test]
fn a_neighbours_name_does_not_silence_a_whisper() {
    let path = |part: &str| format!("/{part}/{}/{}", "2".repeat(250), "3".repeat(250));
    for part in ["1".repeat(250), "a\tb\u{1b}[31m".into(), "x".repeat(64 << 10), "\u{202e}\u{e9}".repeat(300)]
    {
        let mut w = whisper();
        let mut who = container("x", "x", "x", "x").as_ref().clone();
        (who.namespace, who.pod, who.pod_uid, who.container, who.container_id) =
            (None, None, None, None, None);
        who.cgroup = path(&part);
        w.neighbours[0].who = std::sync::Arc::new(who);
        // Two minutes at ten readings a second.
        let first = w.history[0];
        w.history = (0..1200)
            .map(|i| HistoryPoint { unix_ns: first.unix_ns + i * 100_000_000 / 2, ..first })
            .collect();
        let out = decoded(&event(&w, "n1"));
        assert!(out.refused.is_empty() && out.left_out.is_empty(), "{:?} {:?}", out.refused, out.left_out);
        let [n] = out.reports[0].neighbours.as_slice() else { panic!("{out:?}") };
        assert!(
            n.name.len() <= 512 && n.name.ends_with("33") && !n.name.chars().any(char::is_control),
            "{}",
            n.name
        );
        assert_eq!(out.reports[0].history.len(), 600);
        // An agent of another version, which cuts nothing.
        let uncut = AttrValue::StrArray(vec![path(&part)]);
        let out = decoded(&changed(attr::NEIGHBOUR_NAMES, Some(uncut)));
        let [n] = out.reports[0].neighbours.as_slice() else { panic!("{out:?}") };
        assert!(n.name.len() <= 512 && out.refused.is_empty());
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
    let out = decoded(&event(&w, "n1"));
    assert_eq!((out.reports.len(), out.left_out.len()), (1, 1), "time must rise");
    assert!(out.reports[0].history.is_empty());
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
