//! Hostile input: a million cases over both ways in (`KG_FUZZ_CASES`, fewer by default). Nothing may
//! panic, what is taken must be an object the API server would take too, and nobody gets in without a token.

use std::time::Instant;

use axum::body::{Body, to_bytes};
use http::{HeaderValue, Request};
use jiff::Timestamp;
use kernel_gossip::api::Source;
use kernel_gossip::evidence::{Type, Value as Number};
use kernel_gossip::names::birth::CERTIFICATE as BIRTH_CERTIFICATE;
use kernel_gossip::reconciler::ingest::certificate::Certified;
use kernel_gossip::reconciler::ingest::decode::{Decoded, decode};
use kernel_gossip::reconciler::ingest::webhook::{BODY_MAX, Event, event::parse};
use kernel_gossip::signals::{SignalKind, Whisper};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::http::{services, throttle_now};
use super::{Downstream, now, webhook};
use crate::bed::whisper::{any, birth, container, event, throttled};

/// Cases of each of the two ways in.
fn cases() -> u64 {
    let all =
        std::env::var("KG_FUZZ_CASES").map_or(20_000, |n| n.parse().expect("KG_FUZZ_CASES is a number"));
    all / 2
}

/// A different stream each run; printed, so that a failure can be run again with `KG_SEED`.
fn rng() -> StdRng {
    let seed = std::env::var("KG_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("KG_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A certificate may be stored as it is: no text or list longer than the schema has it, no number that is none, and
/// none below zero but moments before the zero of the timeline.
fn may_be_stored(birth: &Certified) {
    let status = &birth.status;
    assert_eq!(status.source, Source::Kernel, "whatever its sender says");
    assert!(status.timeline.len() <= 512 && status.phases.len() <= 64 && status.restarts.len() <= 16);
    assert!(status.timeline.iter().all(|s| (1..=128).contains(&s.action.chars().count())));
    bounded("", &serde_json::to_value(status).unwrap());
}

fn bounded(field: &str, value: &Value) {
    const MOMENTS: [&str; 4] = ["timestampMs", "startMs", "execMs", "listenMs"];
    match value {
        Value::Null => panic!("{field} is a number that is none"),
        Value::Number(n) => assert!(n.as_f64().unwrap() >= 0.0 || MOMENTS.contains(&field), "{field}: {n}"),
        Value::String(s) => assert!(s.chars().count() <= 512, "{field}"),
        Value::Array(all) => all.iter().for_each(|v| bounded(field, v)),
        Value::Object(all) => all.iter().for_each(|(field, v)| bounded(field, v)),
        Value::Bool(_) => {}
    }
}

/// A birth as its agent certifies it.
fn certificate() -> Value {
    json!({
        "source": "kernel", "outcome": "complete", "total": "521 ms", "startedAt": "2026-11-21T05:59:58Z",
        "slow": {"severity": "warning", "phase": "image", "tookMs": 5000.0, "usualMs": 900.0},
        "failure": {"phase": "sandbox", "container": "main", "reason": "Exited", "message": "exit status 1"},
        "phases": [{"name": "sandbox", "startMs": 0.0, "durationMs": 409.5, "uncertaintyMs": 12.0}],
        "timeline": [
            {"timestampMs": -3.5, "actor": "scheduler", "action": "bound"},
            {"timestampMs": 0.0, "actor": "kubelet", "action": "mkdir", "details": "pod cgroup"},
        ],
        "kernelStats": {
            "totalSyscalls": 4711, "bySyscall": {"openat": 900}, "namespacesCreated": 5, "byNamespace": {"net": 1},
            "cgroupWrites": 37, "mounts": 22, "processes": 9, "cpuMs": 80.5, "totalDurationMs": 521.5,
        },
        "breakdown": [{"actor": "cni", "phase": "sandbox", "processes": 4, "syscalls": 300, "cpuMs": 8.0}],
        "containers": [{"name": "main", "program": "/bin/web", "execMs": 518.0, "listenMs": 521.0, "port": 8080}],
        "restarts": [{"container": "main", "at": "2026-11-21T05:59:59Z", "execMs": 40.0}],
        "missing": [{"part": "mounts", "why": "the tracepoint is not there"}],
    })
}

#[test]
fn births() {
    let mut rng = rng();
    let who = container("shop", "web-0", "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1", "main");
    let seed = birth(&who, &serde_json::from_value(certificate()).unwrap(), now());
    // Each is some kilobytes of JSON.
    let (start, mut taken, cases) = (Instant::now(), 0, cases() / 5);
    for _ in 0..cases {
        let mut own = certificate();
        for _ in 0..rng.random_range(0..4) {
            mutate_json(&mut own, &mut rng);
        }
        let mut logs = seed.clone();
        let attributes = &mut logs.scope_logs[0].log_records[0].attributes;
        let json = attributes.iter_mut().find(|kv| kv.key == BIRTH_CERTIFICATE).unwrap();
        json.value = Some(any(own.to_string().into()));
        let mut request = ExportLogsServiceRequest { resource_logs: vec![logs] };
        if rng.random_ratio(1, 4) {
            mutate_request(&mut request, &mut rng);
        }
        let mut out = Decoded::default();
        for logs in &request.resource_logs {
            decode(logs, now(), &mut out);
        }
        out.refused.iter().for_each(|r| one_line(&r.to_string()));
        for certified in out.births {
            taken += 1;
            may_be_stored(&certified);
        }
    }
    done("births", cases, start, taken);
}

/// Values of `Authorization` that are no valid token of anybody: nobody reviews one here.
fn authorization(rng: &mut StdRng) -> Vec<u8> {
    let mut value = ["Bearer a.b.c", "bearer  e30.e30.x", "Basic YTpi", "Bearer", "Negotiate x", ""]
        [rng.random_range(0..6)]
    .as_bytes()
    .to_vec();
    match rng.random_range(0..4) {
        0 => mutate_bytes(&mut value, rng),
        1 => value = text(rng).into_bytes(),
        2 => value.extend(text(rng).into_bytes()),
        _ => {}
    }
    value
}

/// Says what a request could be let in by, in this place or another: a header or two.
fn hostile(path: &str, kind: &str, body: Vec<u8>, rng: &mut StdRng) -> Request<Body> {
    const NAMES: [&str; 6] = [
        "authorization",
        "proxy-authorization",
        "x-forwarded-client-cert",
        "x-remote-user",
        "impersonate-user",
        "cookie",
    ];
    let mut request = Request::post(path).header("content-type", kind).header("te", "trailers");
    for _ in 0..rng.random_range(0..3) {
        if let Ok(value) = HeaderValue::from_bytes(&authorization(rng)) {
            request = request.header(NAMES[rng.random_range(0..NAMES.len())], value.clone());
            request = if rng.random() { request.header(NAMES[0], value) } else { request };
        }
    }
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn without_a_valid_token_nothing_changes() {
    let mut rng = rng();
    let mut s = services(false);
    let at = Timestamp::now();
    let w = throttled(&container("shop", "web", "a1", "main"), at);
    let message = request(&w).encode_to_vec();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(&message);
    let json = throttle_now().into_bytes();
    let (start, cases) = (Instant::now(), cases());
    for _ in 0..cases {
        let (app, path, kind, body) = match rng.random_range(0..4) {
            0 => (&s.webhook, "/webhook/pixie", "application/json", &json),
            1 => (&s.webhook, "/webhook/ebpf", "application/json", &json),
            2 => (&s.otlp, "/v1/logs", "application/x-protobuf", &message),
            _ => (
                &s.otlp,
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                "application/grpc",
                &frame,
            ),
        };
        let answer = app.clone().oneshot(hostile(path, kind, body.clone(), &mut rng)).await.unwrap();
        let (head, body) = answer.into_parts();
        let said = match head.headers.get("grpc-message") {
            Some(said) => said.to_str().unwrap().replace("%20", " "),
            None => String::from_utf8_lossy(&to_bytes(body, 1 << 20).await.unwrap()).into_owned(),
        };
        // Turned away at the door: behind it the pod would be asked for.
        let door = said.contains("authorization: ") || said.contains("the token cannot be reviewed now");
        assert!(door, "{:?} {said:?}", head.status);
        assert!(s.through.try_recv().is_err());
    }
    println!("credentials: {cases} cases in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn webhook() {
    let mut rng = rng();
    let mut down = Downstream::new();
    let seeds = [webhook::throttle(), webhook::memory(), webhook::network(), webhook::creation()];
    let start = Instant::now();
    for _ in 0..cases() {
        let mut body = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(0..4) {
            mutate_json(&mut body, &mut rng);
        }
        let mut bytes = body.to_string().into_bytes();
        if rng.random_ratio(1, 4) {
            mutate_bytes(&mut bytes, &mut rng);
        }
        bytes.truncate(BODY_MAX);
        match parse(&bytes, now()) {
            Ok(Event::Report(report)) => drop(down.take(*report)),
            Ok(Event::Birth(_)) => {}
            Err(refusal) => one_line(&refusal.to_string()),
        }
    }
    done("webhook", cases(), start, down.taken);
}

#[test]
fn otlp() {
    let mut rng = rng();
    let mut down = Downstream::new();
    let who = container("shop", "web-0", "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1", "main");
    let start = Instant::now();
    for _ in 0..cases() {
        let mut w = throttled(&who, now());
        w.history.truncate(rng.random_range(0..8));
        w.signal = SignalKind::ALL[rng.random_range(0..SignalKind::ALL.len())];
        // Now and then the numbers of all kinds.
        if rng.random_ratio(1, 4) {
            w.evidence = w.evidence.with_all(|field| match field.kind {
                Type::Double => Number::Double(1.5),
                Type::Int => Number::Int(7),
                Type::Text => Number::Text("node".into()),
            });
        }
        let mut request = request(&w);
        for _ in 0..rng.random_range(0..4) {
            mutate_request(&mut request, &mut rng);
        }
        if rng.random_ratio(1, 4) {
            let mut bytes = request.encode_to_vec();
            mutate_bytes(&mut bytes, &mut rng);
            let Ok(decoded) = ExportLogsServiceRequest::decode(bytes.as_slice()) else { continue };
            request = decoded;
        }
        let mut out = Decoded::default();
        for logs in &request.resource_logs {
            decode(logs, now(), &mut out);
        }
        out.refused.iter().for_each(|r| one_line(&r.to_string()));
        out.reports.into_iter().for_each(|r| drop(down.take(r)));
    }
    done("OTLP", cases(), start, down.taken);
}

fn done(what: &str, cases: u64, start: Instant, taken: u64) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {cases} cases in {seconds:.1} s, {taken} reports taken");
    // Else the mutations break everything and nothing behind the first check is tried.
    assert!(taken > cases / 20 && taken < cases * 2, "{taken} of {cases} taken");
}

fn one_line(refusal: &str) {
    assert!(refusal.len() < 1500 && !refusal.contains(['\n', '\r', '\u{1b}']), "{refusal:?}");
}

fn request(w: &Whisper) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest { resource_logs: vec![event(w, "n1")] }
}

fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..9) {
        0 => String::new(),
        1 => "a".repeat(rng.random_range(1..400)),
        2 => "../../etc".into(),
        3 => "A_b".into(),
        4 => "\u{0}\n\r\u{1b}[31m".into(),
        5 => "ä€𝄞".repeat(rng.random_range(1..200)),
        6 => "2026-11-21T06:00:00Z".into(),
        7 => ["cpu_throttle", "warning", "resolved", "oom_kill", "active"][rng.random_range(0..5)].into(),
        _ => (0..rng.random_range(0..20)).map(|_| rng.random::<char>()).collect(),
    }
}

fn float(rng: &mut StdRng) -> f64 {
    const SPECIAL: [f64; 12] = [
        0.0,
        -0.0,
        -1.0,
        100.0,
        100.4,
        101.0,
        1e-320,
        1e300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e6,
    ];
    if rng.random() { SPECIAL[rng.random_range(0..SPECIAL.len())] } else { f64::from_bits(rng.random()) }
}

fn int(rng: &mut StdRng) -> i64 {
    const SPECIAL: [i64; 7] = [0, -1, 1, i64::MAX, i64::MIN, 1 << 50, 1_795_000_000_000_000_000];
    if rng.random() { SPECIAL[rng.random_range(0..SPECIAL.len())] } else { rng.random() }
}

fn mutate_bytes(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] = rng.random(),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, rng.random()),
            _ => {
                let end = (at + rng.random_range(0..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.extend(copy);
            }
        }
    }
}

fn any_json(rng: &mut StdRng, depth: u32) -> Value {
    match rng.random_range(0..8) {
        0 => Value::Null,
        1 => json!(rng.random::<bool>()),
        2 => json!(int(rng)),
        3 => json!(float(rng)),
        4 | 5 => json!(text(rng)),
        6 if depth > 0 => {
            Value::Array((0..rng.random_range(0..4)).map(|_| any_json(rng, depth - 1)).collect())
        }
        _ if depth > 0 => {
            let fields = (0..rng.random_range(0..4)).map(|_| (text(rng), any_json(rng, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

fn mutate_json(body: &mut Value, rng: &mut StdRng) {
    let Some(fields) = body.as_object_mut().filter(|f| !f.is_empty()) else {
        *body = any_json(rng, 3);
        return;
    };
    let key = fields.keys().nth(rng.random_range(0..fields.len())).unwrap().clone();
    match rng.random_range(0..6) {
        0 => drop(fields.remove(&key)),
        1 => drop(fields.insert(text(rng), any_json(rng, 2))),
        0..=3 if fields[&key].is_object() => mutate_json(&mut fields[&key], rng),
        2 | 3 if fields[&key].is_number() => drop(fields.insert(key, json!(rng.random_range(0.0..110.0)))),
        2 | 3 if fields[&key].is_array() && fields[&key].as_array().is_some_and(|a| !a.is_empty()) => {
            let all = fields[&key].as_array_mut().unwrap();
            let at = rng.random_range(0..all.len());
            mutate_json(&mut all[at], rng);
        }
        _ => drop(fields.insert(key, any_json(rng, 3))),
    }
}

fn any_otlp(rng: &mut StdRng, depth: u32) -> AnyValue {
    let value = match rng.random_range(0..8) {
        0 => None,
        1 => Some(Any::BoolValue(rng.random())),
        2 => Some(Any::IntValue(int(rng))),
        3 => Some(Any::DoubleValue(float(rng))),
        4 => Some(Any::BytesValue(vec![rng.random(); 9])),
        5 if depth > 0 => {
            let values = (0..rng.random_range(0..700)).map(|_| any_otlp(rng, depth - 1)).collect();
            Some(Any::ArrayValue(ArrayValue { values }))
        }
        _ => Some(Any::StringValue(text(rng))),
    };
    AnyValue { value }
}

fn mutate_request(request: &mut ExportLogsServiceRequest, rng: &mut StdRng) {
    let Some(logs) = request.resource_logs.first_mut() else { return };
    let Some(record) = logs.scope_logs.first_mut().and_then(|s| s.log_records.first_mut()) else { return };
    match rng.random_range(0..12) {
        0 => logs.resource = None,
        1 => record.time_unix_nano = rng.random(),
        2 => {
            let off: i64 = rng.random_range(-4_000_000_000_000..400_000_000_000);
            record.time_unix_nano = record.time_unix_nano.wrapping_add_signed(off);
        }
        3 => record.event_name = text(rng),
        4 => {
            let more = LogRecord { event_name: text(rng), ..record.clone() };
            logs.scope_logs[0].log_records.push(more);
        }
        5 => {
            let attributes = record.attributes.clone();
            record.attributes.extend(attributes);
        }
        6 => {
            if let Some(resource) = &mut logs.resource {
                mutate_attributes(&mut resource.attributes, rng);
            }
        }
        _ => mutate_attributes(&mut record.attributes, rng),
    }
}

fn mutate_attributes(attributes: &mut Vec<KeyValue>, rng: &mut StdRng) {
    if attributes.is_empty() {
        return;
    }
    let at = rng.random_range(0..attributes.len());
    match rng.random_range(0..6) {
        0 => drop(attributes.swap_remove(at)),
        1 => attributes[at].value = None,
        2 => attributes[at].key = text(rng),
        3 => match attributes[at].value.as_mut().and_then(|v| v.value.as_mut()) {
            Some(Any::ArrayValue(array)) if !array.values.is_empty() => {
                let i = rng.random_range(0..array.values.len());
                array.values[i] = any_otlp(rng, 0);
            }
            Some(Any::DoubleValue(x)) => *x = rng.random_range(0.0..120.0),
            Some(Any::IntValue(n)) => *n = n.wrapping_add(rng.random_range(-1_000_000_000..1_000_000_000)),
            _ => {}
        },
        _ => attributes[at].value = Some(any_otlp(rng, 1)),
    }
}

/// Kept: what the clock says in these tests is within what the checks take.
#[test]
fn the_standard_inputs_are_taken() {
    let at: Timestamp = now();
    let mut out = Decoded::default();
    decode(&event(&throttled(&container("shop", "web", "a1", "main"), at), "n1"), at, &mut out);
    assert_eq!(out.reports.len(), 1);
    for body in [webhook::throttle(), webhook::memory(), webhook::network(), webhook::creation()] {
        parse(body.to_string().as_bytes(), at).unwrap();
    }
}
