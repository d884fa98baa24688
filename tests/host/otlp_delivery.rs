//! Delivery over OTLP against a real receiver that fails in every way a receiver can.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::bed::receiver::{self, Answer, Receiver};
use clap::Parser;
use kernel_gossip::api::BirthOutcome;
use kernel_gossip::signals::{SignalKind, Transition};
use kernel_gossip::sinks::otlp::config::Retry;
use kernel_gossip::sinks::otlp::queue::{Lane, LaneSize};
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig, OtlpSink, Unsent};
use kernel_gossip::sinks::telemetry::{self, SelfStats};
use kernel_gossip::sinks::testdata;
use kernel_gossip::sinks::{Sinks, SinksConfig};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

fn config(flags: &[&str]) -> OtlpConfig {
    let flags = Flags::try_parse_from(std::iter::once(&"x").chain(flags)).expect("flags");
    let mut config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
    config.retry = Retry { first: Duration::from_millis(10), longest: Duration::from_millis(50) };
    config
}

fn start(flags: &[&str]) -> OtlpSink {
    OtlpSink::start(config(flags), Some("node-1".into())).expect("started")
}

/// Says whisper number `n`, whose text is its number.
fn say(sink: &OtlpSink, n: usize) {
    let who = testdata::container("shop", "web", "app");
    let whisper = testdata::whisper(&who, SignalKind::CpuThrottle, Transition::Started, 100);
    sink.whisper(&whisper, n.to_string());
}

fn texts(arrived: &receiver::Arrived) -> Vec<String> {
    let body = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| match record.body?.value? {
        Value::StringValue(text) => Some(text),
        _ => None,
    };
    arrived.records().into_iter().filter_map(body).collect()
}

/// Ends it: by itself, long before the time it has.
async fn flush(sink: &OtlpSink) -> Unsent {
    let flush = sink.flush(Duration::from_secs(3600));
    tokio::time::timeout(Duration::from_secs(60), flush).await.expect("an end")
}

async fn end(sink: OtlpSink) {
    assert_eq!(flush(&sink).await, Unsent::default());
}

#[tokio::test]
async fn headers_compression_and_a_renewed_token_arrive() {
    let mut receiver = Receiver::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "first").expect("write");
    let sink = start(&[
        "--otlp-endpoint",
        &receiver.endpoint(),
        "--otlp-header=x-tenant=a%20b",
        "--otlp-token-file",
        token.to_str().expect("a path"),
    ]);
    say(&sink, 1);
    let arrived = receiver.next().await;
    assert_eq!(texts(&arrived), ["1"]);
    let header = |name: &str| arrived.metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    assert_eq!(header("authorization"), "Bearer first");
    assert_eq!(header("x-tenant"), "a b");
    assert_eq!(header("grpc-encoding"), "gzip");
    assert!(header("user-agent").starts_with("kernel-gossip/"), "{}", header("user-agent"));
    assert!(header("grpc-timeout").starts_with("10"), "{}", header("grpc-timeout"));

    std::fs::write(&token, "second").expect("write");
    let later = SystemTime::now() + Duration::from_secs(2);
    File::options().write(true).open(&token).and_then(|f| f.set_modified(later)).expect("set time");
    say(&sink, 2);
    let arrived = receiver.next().await;
    assert_eq!(arrived.metadata.get("authorization").expect("a header"), "Bearer second");
    end(sink).await;
}

#[tokio::test]
async fn a_partial_success_is_counted_and_not_sent_again() {
    let mut receiver = Receiver::start().await;
    let sink = start(&["--otlp-endpoint", &receiver.endpoint(), "--otlp-compression=none"]);
    receiver.answer([Answer::Partly(1, "no room for one of them")]);
    say(&sink, 1);
    let arrived = receiver.next().await;
    assert!(arrived.metadata.get("grpc-encoding").is_none_or(|e| e == "identity"));
    say(&sink, 2);
    assert_eq!(texts(&receiver.next().await), ["2"]);
    assert_eq!(flush(&sink).await, Unsent::default());
    let outcomes = sink.outcomes(Lane::Events);
    assert_eq!(outcomes.rejected_items.load(Ordering::Relaxed), 1);
    assert_eq!(outcomes.delivered.load(Ordering::Relaxed), 2);
    assert_eq!(outcomes.delivered_items.load(Ordering::Relaxed), 1);
    assert_eq!(outcomes.retried.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_receiver_that_asks_to_wait_is_left_alone_as_long() {
    let mut receiver = Receiver::start().await;
    let sink = start(&["--otlp-endpoint", &receiver.endpoint()]);
    let wait = Duration::from_millis(700);
    let details = ErrorDetails::with_retry_info(Some(wait));
    receiver.answer([
        Answer::Refuse(Status::with_error_details(Code::ResourceExhausted, "later", details.clone())),
        Answer::Refuse(Status::with_error_details(Code::Unavailable, "later still", details)),
    ]);
    say(&sink, 1);
    let attempts = [receiver.next().await, receiver.next().await, receiver.next().await];
    for (before, after) in attempts.iter().zip(&attempts[1..]) {
        // Its own waiting would be a tenth of that at most.
        assert!(after.at - before.at >= wait, "{:?}", after.at - before.at);
        assert_eq!(texts(before), texts(after));
    }
    assert_eq!(attempts[2].refused, None);
    end(sink).await;
}

#[tokio::test]
async fn every_code_worth_another_attempt_gets_one_and_no_other_does() {
    let mut receiver = Receiver::start().await;
    let sink = start(&["--otlp-endpoint", &receiver.endpoint()]);
    let again = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
        // Of an event, which is said once: a collector short of memory may not say for how long.
        Code::ResourceExhausted,
    ];
    let never = [
        Code::Unknown,
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::Unimplemented,
        Code::Internal,
        Code::Unauthenticated,
    ];
    for (n, code) in again.into_iter().chain(never).enumerate() {
        receiver.answer([Answer::Refuse(Status::new(code, "told to"))]);
        say(&sink, n);
        let arrived = receiver.next().await;
        assert_eq!((arrived.refused, texts(&arrived)), (Some(code), vec![n.to_string()]));
        if again.contains(&code) {
            let arrived = receiver.next().await;
            assert_eq!((arrived.refused, texts(&arrived)), (None, vec![n.to_string()]), "{code:?}");
        }
    }
    let too_large = "grpc: received message larger than max (5 vs. 4)";
    receiver.answer([Answer::Refuse(Status::resource_exhausted(too_large))]);
    say(&sink, 99);
    assert_eq!(texts(&receiver.next().await), ["99"]);
    // Had one of the others been sent again, it would arrive before this.
    say(&sink, 100);
    assert_eq!(texts(&receiver.next().await), ["100"]);
    assert_eq!(flush(&sink).await, Unsent::default());
    let outcomes = sink.outcomes(Lane::Events);
    assert_eq!(outcomes.refused_items.load(Ordering::Relaxed), never.len() as u64 + 1);
    assert_eq!(outcomes.retried.load(Ordering::Relaxed), again.len() as u64);
    assert_eq!(outcomes.delivered_items.load(Ordering::Relaxed), again.len() as u64 + 1);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_asked_again() {
    let mut receiver = Receiver::start().await;
    let sink = start(&["--otlp-endpoint", &receiver.endpoint(), "--otlp-timeout=300"]);
    receiver.answer([Answer::Silence, Answer::Silence]);
    say(&sink, 1);
    for _ in 0..3 {
        assert_eq!(texts(&receiver.next().await), ["1"]);
    }
    end(sink).await;
}

/// As when the receiver's machine is gone without a word: nobody closes the connection.
#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    let sink = start(&["--otlp-endpoint", &endpoint, "--otlp-timeout=300"]);
    say(&sink, 1);
    let (_silent, _) = listener.accept().await.expect("a connection");
    let mut receiver = Receiver::start_listening(listener, None);
    assert_eq!(texts(&receiver.next().await), ["1"]);
    end(sink).await;
}

/// Nothing is lost while the receiver is gone, as long as there is room; then metrics go first.
#[tokio::test]
async fn what_was_said_meanwhile_arrives_when_the_receiver_is_back() {
    let receiver = Receiver::start().await;
    let address = receiver.address;
    receiver.stop().await;
    let sink = start(&["--otlp-endpoint", &format!("http://{address}"), "--otlp-queue=1048576"]);
    let all: Vec<_> = (0..200).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = kernel_gossip::sinks::ledger::Ledger::new(testdata::moment(0), true);
    for s in 1..=10 {
        ledger.observe(&testdata::reading(&all, s * 60));
        sink.metrics_now(&mut ledger);
        for n in 0..5 {
            say(&sink, usize::try_from(s).expect("small") * 5 - 5 + n);
        }
    }
    let waiting = |lane| sink.waiting(lane);
    assert_eq!(waiting(Lane::Events).items, 50);
    let LaneSize { dropped, .. } = waiting(Lane::Metrics);
    assert!(dropped > 0, "ten times 200 containers do not fit into 1 MiB");
    assert!(waiting(Lane::Events).bytes + waiting(Lane::Metrics).bytes <= 1 << 20);

    let mut receiver = Receiver::start_on(address, None).await;
    let mut said = Vec::new();
    while said.len() < 50 {
        said.extend(texts(&receiver.next().await));
    }
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(said, expected, "all of them, in order");
    end(sink).await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_receiver_that_is_gone() {
    let receiver = Receiver::start().await;
    let endpoint = receiver.endpoint();
    receiver.stop().await;
    let sink = start(&["--otlp-endpoint", &endpoint]);
    (0..3).for_each(|n| say(&sink, n));
    let unsent = flush(&sink).await;
    assert_eq!((unsent.events, unsent.data_points), (3, 0));

    // Nor for one that never answers.
    let receiver = Receiver::start().await;
    receiver.answer([Answer::Silence]);
    let sink = start(&["--otlp-endpoint", &receiver.endpoint(), "--otlp-timeout=600000"]);
    say(&sink, 1);
    assert_eq!(sink.flush(Duration::from_millis(300)).await.events, 1);
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key).expect("a CA");
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &authority).expect("a certificate").pem(), key.serialize_pem())
    };
    let (server, client) = (issue("localhost"), issue("agent"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("a path").to_owned()
    };
    let ca = file("ca.pem", &authority.pem());
    let (certificate, key) = (file("client.pem", &client.0), file("client.key", &client.1));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&server.0, &server.1))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    let mut receiver = Receiver::start_on(([127, 0, 0, 1], 0).into(), Some(tls)).await;
    let endpoint = format!("--otlp-endpoint=https://localhost:{}", receiver.address.port());
    let ca = format!("--otlp-certificate={ca}");

    // Without a certificate it is not let in, and goes on trying.
    let stranger = start(&[&endpoint, &ca]);
    say(&stranger, 1);
    let known = start(&[
        &endpoint,
        &ca,
        &format!("--otlp-client-certificate={certificate}"),
        &format!("--otlp-client-key={key}"),
    ]);
    say(&known, 2);
    assert_eq!(texts(&receiver.next().await), ["2"]);
    end(known).await;
    assert_eq!(flush(&stranger).await.events, 1);

    let refused = OtlpSink::start(config(&[&endpoint, "--otlp-certificate=/no/such/ca"]), None);
    let error = refused.expect_err("no such file").to_string();
    assert!(error.contains("/no/such/ca: No such file"), "{error}");
}

/// The last numbers leave with the agent, its own among them.
#[tokio::test]
async fn the_last_numbers_are_sent_at_the_end() {
    let mut receiver = Receiver::start().await;
    let otlp = Some(config(&["--otlp-endpoint", &receiver.endpoint()]));
    let sinks = Sinks::start(SinksConfig {
        node: Some("node-1".into()),
        otlp,
        prometheus: None,
        started: testdata::moment(1),
        interval: Duration::from_secs(1),
    })
    .expect("started");
    let all = [testdata::container("shop", "web", "app")];
    sinks.publish(&testdata::reading(&all, 10));
    let value = |arrived: &receiver::Arrived, name: &str| {
        arrived.metrics().into_iter().find(|m| m.name == name).map(|m| format!("{:?}", m.data))
    };
    let run = "kernel_gossip.cpu.run.time";
    assert!(value(&receiver.next().await, run).is_some_and(|v| v.contains("AsDouble(2.0)")));
    // Less than an interval later.
    sinks.publish(&testdata::reading(&all, 20));
    assert_eq!(sinks.flush(Duration::from_secs(30)).await, Default::default());
    let mut last = (None, None);
    while last.0.is_none() || last.1.is_none() {
        let arrived = receiver.next().await;
        last.0 = last.0.or_else(|| value(&arrived, run));
        last.1 = last.1.or_else(|| value(&arrived, "process.memory.usage"));
    }
    assert!(last.0.is_some_and(|v| v.contains("AsDouble(4.0)")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_telemetry_comes_from_the_sdk() {
    let mut receiver = Receiver::start().await;
    let sink = Arc::new(start(&["--otlp-endpoint", &receiver.endpoint()]));
    let stats = Arc::new(SelfStats::default());
    let provider = telemetry::start(&stats, &sink, Some("node-1"));
    stats.observe(&testdata::reading(&[testdata::unit("x.service")], 10));
    stats.reading_took(Duration::from_millis(3));
    stats.birth(&testdata::birth(Some(BirthOutcome::Complete), false));
    provider.force_flush().expect("collected");
    let arrived = receiver.next().await;
    let mut found: Vec<_> = arrived.metrics().into_iter().map(|m| m.name).collect();
    found.sort();
    let mut expected: Vec<_> = kernel_gossip::names::metric::AGENT.iter().map(|m| m.name).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let receiver::Export::Metrics(metrics) = arrived.said else { panic!("metrics") };
    let resource = format!("{:?}", metrics.resource_metrics[0].resource);
    assert!(resource.contains("kernel-gossip") && resource.contains("node-1"), "{resource}");
    provider.shutdown().expect("ended");
}

/// Why the traces of births are not given to the package opentelemetry-otlp (docs/architecture.md): it tells nothing of an
/// answer by which a queue could go.
#[tokio::test(flavor = "multi_thread")]
async fn the_package_tells_nothing_of_a_partial_success_nor_how_long_to_wait() {
    use opentelemetry_otlp::{MetricExporter, RetryPolicy, WithExportConfig, WithTonicConfig};
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
    let mut receiver = Receiver::start().await;
    let wait = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
    let later = Status::with_error_details(Code::Unavailable, "come again in 7 s", wait);
    receiver.answer([Answer::Partly(3, "too old"), Answer::Refuse(later)]);
    let builder = MetricExporter::builder().with_tonic().with_endpoint(receiver.endpoint());
    let exporter = builder.with_retry_policy(RetryPolicy::disabled()).build().expect("an exporter");
    exporter.export(&ResourceMetrics::default()).await.expect("3 were rejected, and it is well");
    let error = exporter.export(&ResourceMetrics::default()).await.expect_err("refused").to_string();
    assert!(error.contains("Unavailable") && !error.contains('7'), "{error}");
    for _ in 0..2 {
        receiver.next().await;
    }
}

/// The token and the headers of all metrics go with the agent's own, what variables say besides does not; after a
/// failure the next export has them all.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_telemetry_has_the_token_and_goes_again_after_a_failure() {
    let mut receiver = Receiver::start().await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "first").expect("written");
    let file = format!("--otlp-token-file={}", token.path().display());
    let sink = Arc::new(start(&["--otlp-endpoint", &receiver.endpoint(), &file, "--otlp-header=tenant=a"]));
    let stats = Arc::new(SelfStats::default());
    let provider = telemetry::start(&stats, &sink, Some("node-1"));
    receiver.answer([Answer::Refuse(Status::unavailable("not now"))]);
    for (refused, said) in [(Some(Code::Unavailable), "Bearer first"), (None, "Bearer second")] {
        provider.force_flush().expect("a failure is not the SDK's");
        let arrived = receiver.next().await;
        let value = |name: &str| {
            let all = arrived.metadata.get_all(name);
            all.iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>()
        };
        assert_eq!(arrived.refused, refused);
        assert_eq!((value("authorization"), value("tenant")), (vec![said], vec!["a"]));
        assert!(arrived.metrics().iter().any(|m| m.name == "process.memory.usage"));
        std::fs::write(token.path(), "second").expect("written");
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(token.path()).and_then(|f| f.set_modified(later)).expect("set time");
    }
    let outcomes = sink.outcomes(Lane::Metrics);
    let counted = [&outcomes.retried, &outcomes.delivered].map(|n| n.load(Ordering::Relaxed));
    assert_eq!(counted, [1, 1]);
    provider.shutdown().expect("ended");
}

/// Two receivers that speak no gRPC: an HTTP server, and one that wants no TLS.
#[tokio::test]
async fn a_receiver_of_another_protocol_is_told_with_what_to_do() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    kernel_gossip::testlog::keep();
    for (scheme, wanted) in [("http", "HTTP port (4318"), ("https", "--otlp-insecure")] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let endpoint = format!("{scheme}://{}", listener.local_addr().expect("its address"));
        let http = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let _ = stream.read(&mut [0; 512]).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let sink = start(&["--otlp-endpoint", &endpoint]);
        say(&sink, 1);
        let told =
            || kernel_gossip::testlog::lines().iter().any(|l| l.contains(&endpoint) && l.contains(wanted));
        tokio::time::timeout(Duration::from_secs(20), async {
            while !told() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{scheme}: not told in {:#?}", kernel_gossip::testlog::lines()));
        http.abort();
    }
}
