//! The two services as callers meet them, in one process, before any API server is asked: the client
//! here leads nowhere.

use std::io::Write;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::{Method, Request, StatusCode};
use kernel_gossip::reconciler::ingest::otlp::MESSAGE_MAX;
use kernel_gossip::reconciler::ingest::webhook::{self, BODY_MAX, Webhook};
use kernel_gossip::reconciler::ingest::{Authorizer, Intake, otlp};
use kernel_gossip::reconciler::lead::health::Health;
use kernel_gossip::reconciler::lead::leader::Role;
use kernel_gossip::reconciler::lead::serve::VerifiedPeer;
use kernel_gossip::reconciler::telemetry::Telemetry;
use kernel_gossip::reconciler::write::births::Births;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::bed::whisper::{container, event, throttled};

pub struct Services {
    pub webhook: axum::Router,
    pub otlp: axum::Router,
    /// What came through: must stay empty.
    pub through: mpsc::Receiver<kernel_gossip::reconciler::report::ResolvedReport>,
    _role: watch::Sender<Role>,
    open: watch::Sender<bool>,
}

pub fn services(anonymous: bool) -> Services {
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let telemetry = Telemetry::register(&mut Default::default());
    let intake = Arc::new(Intake::new(client.clone(), None, telemetry.clone()));
    let (out, through) = mpsc::channel(10);
    intake.open(out);
    let authorizer = Arc::new(Authorizer::new(client.clone(), "kernel-gossip".into()));
    let births = Arc::new(Births::new(client));
    let (_role, role) = watch::channel(Role::Leader { term: 0 });
    let (open, opened) = watch::channel(true);
    let webhook = webhook::router(Webhook {
        intake: intake.clone(),
        births: births.clone(),
        authorizer: (!anonymous).then(|| authorizer.clone()),
        health: Arc::new(Health::new(role, opened)),
        telemetry: telemetry.clone(),
    });
    Services { webhook, otlp: otlp::router(intake, births, authorizer, telemetry), through, _role, open }
}

async fn ask(app: &axum::Router, request: Request<Body>) -> (StatusCode, String) {
    read(app.clone().oneshot(request).await.unwrap()).await
}

async fn read(answer: axum::response::Response) -> (StatusCode, String) {
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(Method::POST).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

pub fn throttle_now() -> String {
    let mut body = super::webhook::throttle();
    body["timestamp"] = jiff::Timestamp::now().to_string().into();
    body.to_string()
}

#[tokio::test]
async fn without_a_good_token_nothing_comes_through() {
    let mut s = services(false);
    let tokens: &[(Option<&str>, StatusCode)] = &[
        (None, StatusCode::UNAUTHORIZED),
        (Some("Bearer x"), StatusCode::UNAUTHORIZED),
        (Some("Basic a.b.c"), StatusCode::UNAUTHORIZED),
        // Has the shape of a token, but nobody can say whether it is one.
        (Some("Bearer a.b.c"), StatusCode::SERVICE_UNAVAILABLE),
    ];
    for (token, wanted) in tokens {
        let mut headers = vec![JSON];
        headers.extend(token.map(|t| ("authorization", t)));
        for path in ["/webhook/pixie", "/webhook/ebpf"] {
            let answer = s.webhook.clone().oneshot(post(path, &headers, throttle_now())).await.unwrap();
            let later = *wanted == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(answer.headers().contains_key("retry-after"), later, "{path} {token:?}");
            let (status, line) = read(answer).await;
            assert_eq!(status, *wanted, "{path} {token:?}: {line}");
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        }
    }
    let w = throttled(&container("shop", "web", "a1", "main"), jiff::Timestamp::now());
    let message = ExportLogsServiceRequest { resource_logs: vec![event(&w, "n1")] }.encode_to_vec();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    for (token, wanted) in [(None, "16"), (Some("Bearer x"), "16"), (Some("Bearer a.b.c"), "14")] {
        let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        headers.extend(token.map(|t| ("authorization", t)));
        let answer = s.otlp.clone().oneshot(post(path, &headers, frame.clone())).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], wanted, "{token:?}");
    }
    let message = &frame[5..];
    for (token, wanted) in tokens {
        let mut headers = vec![PROTOBUF];
        headers.extend(token.map(|t| ("authorization", t)));
        let answer = s.otlp.clone().oneshot(post("/v1/logs", &headers, message.to_vec())).await.unwrap();
        assert_eq!(answer.status(), *wanted, "OTLP over HTTP, {token:?}");
        assert!(answer.headers().get("grpc-status").is_none());
    }
    assert!(s.through.try_recv().is_err());
}

/// The service over HTTP with the caller let in already, as for a verified client certificate.
#[tokio::test]
async fn otlp_over_http_says_what_is_wrong() {
    let mut s = services(false);
    let w = throttled(&container("shop", "web", "a1", "main"), jiff::Timestamp::now());
    let good = ExportLogsServiceRequest { resource_logs: vec![event(&w, "n1")] }.encode_to_vec();
    let zipped = |bytes: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    };
    const GZIP: (&str, &str) = ("content-encoding", "gzip");
    let bomb = zipped(&vec![0; MESSAGE_MAX + 1]);
    assert!(bomb.len() < 100_000);
    let later = StatusCode::SERVICE_UNAVAILABLE;
    for (what, headers, body, wanted) in [
        ("no type", vec![], good.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("JSON", vec![JSON], good.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("no protobuf", vec![PROTOBUF], b"nothing".to_vec(), StatusCode::BAD_REQUEST),
        ("cut off", vec![PROTOBUF], good[..good.len() - 1].to_vec(), StatusCode::BAD_REQUEST),
        ("too much", vec![PROTOBUF], vec![0; MESSAGE_MAX + 1], StatusCode::PAYLOAD_TOO_LARGE),
        ("too much once unpacked", vec![PROTOBUF, GZIP], bomb, StatusCode::PAYLOAD_TOO_LARGE),
        ("no gzip", vec![PROTOBUF, GZIP], good.clone(), StatusCode::BAD_REQUEST),
        // Nothing is wrong with it; whether the pod exists cannot be asked.
        ("good", vec![PROTOBUF], good.clone(), later),
        ("good, packed", vec![PROTOBUF, GZIP], zipped(&good), later),
    ] {
        let mut request = post("/v1/logs", &headers, body);
        request.extensions_mut().insert(VerifiedPeer);
        let answer = s.otlp.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), wanted, "{what}");
        assert_eq!(answer.headers()["content-type"], "application/x-protobuf", "{what}");
        assert_eq!(answer.headers().contains_key("retry-after"), wanted == later, "{what}");
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert!(!tonic_types::Status::decode(body).unwrap().message.is_empty(), "{what}");
    }
    // Only what is of no concern to us is taken without a question.
    let mut request = post("/v1/logs", &[PROTOBUF], ExportLogsServiceRequest::default().encode_to_vec());
    request.extensions_mut().insert(VerifiedPeer);
    let answer = s.otlp.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    assert_eq!(ExportLogsServiceResponse::decode(body).unwrap(), ExportLogsServiceResponse::default());
    assert!(s.through.try_recv().is_err());
}

/// A sender over HTTP that has the path wrong must not take its data for delivered.
#[tokio::test]
async fn what_is_not_served_over_http_is_not_found() {
    let mut s = services(false);
    for path in ["/", "/v1/log", "/v1/logs/", "/v1/metrics", "/v1/traces", "/x"] {
        for headers in [&[PROTOBUF][..], &[JSON], &[]] {
            let (status, line) = ask(&s.otlp, post(path, headers, "x")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert!(line.contains("/v1/logs"), "{line}");
        }
    }
    // By gRPC the answer is gRPC's own.
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let mut request = post(metrics, &[("content-type", "application/grpc"), ("te", "trailers")], "");
    request.extensions_mut().insert(VerifiedPeer);
    let answer = s.otlp.clone().oneshot(request).await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["grpc-status"]), (StatusCode::OK, &"12".parse().unwrap()));
    assert!(s.through.try_recv().is_err());
}

#[tokio::test]
async fn the_webhook_says_what_is_wrong() {
    let mut s = services(true);
    let good = throttle_now();
    let cases: Vec<(Request<Body>, StatusCode, &str)> = vec![
        (post("/webhook/other", &[JSON], good.clone()), StatusCode::NOT_FOUND, "/webhook/pixie"),
        (post("/webhook/ebpf", &[], good.clone()), StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"),
        (
            post("/webhook/ebpf", &[("content-type", "text/plain")], good.clone()),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type",
        ),
        (post("/webhook/ebpf", &[JSON], "{"), StatusCode::BAD_REQUEST, "body: is not JSON"),
        (post("/webhook/ebpf", &[JSON], "{}"), StatusCode::UNPROCESSABLE_ENTITY, "type"),
        (
            post("/webhook/ebpf", &[JSON], good.replace("82.5", "130")),
            StatusCode::UNPROCESSABLE_ENTITY,
            "throttle_percentage",
        ),
        (post("/webhook/ebpf", &[JSON], vec![b' '; BODY_MAX + 1]), StatusCode::PAYLOAD_TOO_LARGE, "body"),
        // Nothing is wrong with it; whether the pod exists cannot be asked.
        (
            post("/webhook/ebpf", &[("content-type", "application/json; charset=utf-8")], good),
            StatusCode::SERVICE_UNAVAILABLE,
            "try again",
        ),
    ];
    for (request, wanted, named) in cases {
        let (status, line) = ask(&s.webhook, request).await;
        assert_eq!(status, wanted, "{line}");
        assert!(line.contains(named) && line.matches('\n').count() == 1 && line.len() < 700, "{line:?}");
    }
    let get = Request::get("/webhook/ebpf").body(Body::empty()).unwrap();
    assert_eq!(ask(&s.webhook, get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert!(s.through.try_recv().is_err());
}

#[tokio::test]
async fn health_and_readiness() {
    let s = services(false);
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(ask(&s.webhook, get("/health")).await.0, StatusCode::OK);
    assert_eq!(ask(&s.webhook, get("/ready")).await.0, StatusCode::OK);
    s.open.send_replace(false);
    let (status, why) = ask(&s.webhook, get("/ready")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("reads the objects"), "{why}");
    assert_eq!(ask(&s.webhook, get("/health")).await.0, StatusCode::OK);
}
