//! `kernel-gossip check` tries the OTLP receivers: real ones, over real sockets, with everything wrong that may be.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use kernel_gossip::sinks::otlp::probe::{Tried, try_receivers};
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Identity, ServerTlsConfig};

use crate::bed::process::Running;
use crate::bed::receiver::{Answer, Export, Receiver};
use crate::bed::{free_address, kernel_gossip, tool};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// Tries the receiver of metrics and events (the test's own takes no traces) at this endpoint.
async fn tried(endpoint: &str, flags: &[&str], variables: &[(&str, &str)]) -> Tried {
    let both = [format!("--otlp-metrics-endpoint={endpoint}"), format!("--otlp-logs-endpoint={endpoint}")];
    let flags = both.iter().map(String::as_str).chain(flags.iter().copied());
    let flags = Flags::try_parse_from(std::iter::once("x").chain(flags)).expect("flags");
    let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    let config = OtlpConfig::new(&flags.otlp, env).expect("good").expect("an endpoint");
    let mut all = try_receivers(&config).await;
    assert_eq!(all.len(), 1, "one receiver, one end: {all:?}");
    assert_eq!(all[0].kinds, ["metrics", "events"]);
    all.remove(0)
}

fn says(tried: &Tried, error: &str, what_to_do: &str) {
    let (said, advice) = (tried.error.as_deref(), tried.what_to_do.as_deref());
    assert!(said.is_some_and(|e| e.contains(error)), "{error:?} in {tried:?}");
    assert!(advice.is_some_and(|a| a.contains(what_to_do)), "{what_to_do:?} in {tried:?}");
    assert!(!tried.refused_at_start, "{tried:?}");
}

#[tokio::test]
async fn a_receiver_gets_empty_requests_with_the_token() {
    let mut receiver = Receiver::start().await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    fs::write(token.path(), "secret").expect("written");
    let file = format!("--otlp-token-file={}", token.path().display());
    let good = tried(&receiver.endpoint(), &[&file], &[]).await;
    assert_eq!((good.error, good.what_to_do), (None, None));
    for _ in 0..2 {
        let arrived = receiver.next().await;
        let token = arrived.metadata.get("authorization").expect("sent along");
        assert_eq!(token, "Bearer secret");
        let parts = match arrived.said {
            Export::Metrics(metrics) => metrics.resource_metrics.len(),
            Export::Logs(logs) => logs.resource_logs.len(),
        };
        assert_eq!(parts, 0, "nothing to store");
    }
    receiver.answer(
        [Status::unauthenticated("no such token"), Status::unauthenticated("no such token")]
            .map(Answer::Refuse),
    );
    says(&tried(&receiver.endpoint(), &[], &[]).await, "no such token", "--otlp-token-file");
    receiver.answer(
        [Status::permission_denied("not you"), Status::permission_denied("not you")].map(Answer::Refuse),
    );
    says(&tried(&receiver.endpoint(), &[], &[]).await, "not you", "what the token or the headers may do");
}

#[tokio::test]
async fn a_receiver_that_does_not_take_a_kind_of_data_is_told_of_by_kind() {
    let receiver = Receiver::start().await;
    let flags = Flags::try_parse_from(["x", "--otlp-endpoint", &receiver.endpoint()]).expect("flags");
    let config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
    let all = try_receivers(&config).await;
    let kinds: Vec<_> = all.iter().map(|t| (t.kinds.as_slice(), t.error.is_some())).collect();
    assert_eq!(kinds, [(&["metrics", "events"][..], false), (&["traces"], true)], "{all:?}");
    says(&all[1], "Unimplemented", "pipeline");
}

#[tokio::test]
async fn who_is_not_there_or_does_not_answer_is_told() {
    let nobody = format!("http://{}", free_address());
    says(&tried(&nobody, &[], &[]).await, "Connection refused", "nobody listens there");
    // RFC 6761: this name never resolves.
    says(&tried("http://receiver.invalid:4317", &[], &[]).await, "dns error", "host's name");
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    says(&tried(&endpoint, &["--otlp-timeout=300"], &[]).await, "", "firewall");
    // However long requests may take, `check` does not.
    let begun = Instant::now();
    says(&tried(&endpoint, &["--otlp-timeout=600000"], &[]).await, "", "firewall");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// A certificate authority, and a certificate of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        Authority { issuer, dir: tempfile::tempdir().expect("a directory") }
    }

    /// The flag that makes it trusted.
    fn trusted(&self) -> String {
        let path = self.dir.path().join("ca.pem");
        fs::write(&path, self.issuer.pem()).expect("written");
        format!("--otlp-certificate={}", path.display())
    }

    /// With the authority's own certificate.
    fn own(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(self.issuer.pem(), self.issuer.key().serialize_pem()))
    }

    /// A receiver that proves to be `name`.
    async fn receiver(&self, name: &str, old: bool) -> Receiver {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if old {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
        Receiver::start_on(([127, 0, 0, 1], 0).into(), Some(tls)).await
    }
}

/// opentelemetry-collector#2061, #4676: with TLS 1.3 the receiver refuses after the handshake, when the first request is on its way.
#[tokio::test]
async fn a_receiver_that_wants_a_client_certificate_says_so() {
    let ours = Authority::new("ours");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let issuer: &Issuer<'_, KeyPair> = &ours.issuer;
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let tls_config = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()))
        .client_ca_root(tonic::transport::Certificate::from_pem(ours.issuer.pem()));
    let receiver = Receiver::start_on(([127, 0, 0, 1], 0).into(), Some(tls_config)).await;
    let flags =
        Flags::try_parse_from(["x", "--otlp-endpoint", &tls(&receiver), &ours.trusted()]).expect("flags");
    let config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
    for tried in try_receivers(&config).await {
        says(&tried, "", "client certificate");
    }
}

fn tls(receiver: &Receiver) -> String {
    format!("https://localhost:{}", receiver.address.port())
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_told() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (trusted, foreign) = (ours.trusted(), other.trusted());
    let good = ours.receiver("localhost", false).await;
    assert_eq!(tried(&tls(&good), &[&trusted], &[]).await.error, None);
    says(&tried(&tls(&good), &[&foreign], &[]).await, "UnknownIssuer", "--otlp-certificate");
    // lnd#5450, kube#1767: what `openssl req -x509` makes is an authority's certificate, and was named.
    let own = Receiver::start_on(([127, 0, 0, 1], 0).into(), Some(ours.own())).await;
    says(&tried(&tls(&own), &[&trusted], &[]).await, "CaUsedAsEndEntity", "CA:FALSE");
    let elsewhere = ours.receiver("elsewhere.example", false).await;
    says(&tried(&tls(&elsewhere), &[&trusted], &[]).await, "elsewhere.example", "for another name");
    let old = ours.receiver("localhost", true).await;
    says(&tried(&tls(&old), &[&trusted], &[]).await, "expired", "not valid now");
    // TLS spoken to one without, and the other way round.
    let plain = Receiver::start().await;
    says(&tried(&tls(&plain), &[&trusted], &[]).await, "InvalidContentType", "it speaks no TLS");
    let without = format!("http://localhost:{}", good.address.port());
    says(&tried(&without, &[], &[]).await, "", "it speaks TLS: write https://");
}

#[tokio::test]
async fn a_server_of_http_is_told_as_that() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    // HTTP/1 alone, as most are without TLS.
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new("no gRPC".to_owned()))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            // It ends with an error: what it is told is no HTTP/1.
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    says(&tried(&endpoint, &[], &[]).await, "", "it speaks HTTP, not gRPC");
    server.abort();
    // HTTP/2 too, without gRPC: axum's.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    says(&tried(&endpoint, &[], &[]).await, "", "it speaks HTTP, not gRPC");
    server.abort();
}

/// A proxy that connects to this address, whatever name it is asked for, or refuses with this answer.
async fn proxy(to: Option<SocketAddr>, refusal: &'static str) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.expect("a line");
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_lowercase());
        }
        let Some(to) = to else {
            stream.write_all(format!("HTTP/1.1 {refusal}\r\n\r\n").as_bytes()).await.expect("answered");
            return head;
        };
        let mut receiver = TcpStream::connect(to).await.expect("the receiver");
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.expect("answered");
        tokio::spawn(async move { copy_bidirectional(&mut stream, &mut receiver).await });
        head
    });
    (address, asked)
}

#[tokio::test]
async fn a_hosted_receiver_is_reached_through_the_proxy() {
    let ours = Authority::new("ours");
    let trusted = ours.trusted();
    let receiver = ours.receiver("otlp.hosted.example", false).await;
    let (address, asked) = proxy(Some(receiver.address), "").await;
    // Only the proxy knows where this name leads to. One kind alone: it takes one connection.
    let flags = ["x", "--otlp-metrics-endpoint=https://otlp.hosted.example:443", &trusted];
    let flags = Flags::try_parse_from(flags).expect("flags");
    let with = |proxy: String, except: &'static str| {
        let env = move |name: &str| match name {
            "HTTPS_PROXY" => Some(proxy.clone()),
            "NO_PROXY" => Some(except.to_owned()),
            _ => None,
        };
        OtlpConfig::new(&flags.otlp, env).expect("good").expect("an endpoint")
    };
    let through = with(format!("http://me:s3cret@{address}"), "");
    assert!(!format!("{through:?}").contains("s3cret"), "{through:?}");
    let good = try_receivers(&through).await.remove(0);
    assert_eq!(good.error, None);
    let head = asked.await.expect("asked");
    assert!(head[0].starts_with("connect otlp.hosted.example:443 "), "{head:?}");
    let password = "proxy-authorization: basic bwu6cznjcmv0"; // me:s3cret, in lower case
    assert!(head.iter().any(|line| line == password), "{head:?}");

    let (address, _asked) = proxy(None, "403 Forbidden").await;
    let refused = try_receivers(&with(format!("http://{address}"), "")).await.remove(0);
    says(&refused, "", "NO_PROXY");
    let nobody = with(format!("http://{}", free_address()), "");
    says(
        &try_receivers(&nobody).await.remove(0),
        "Connection refused",
        "the proxy (HTTPS_PROXY) is not reached",
    );
    // Excepted, it is not found without the proxy.
    let direct = try_receivers(&with(format!("http://{address}"), ".hosted.example")).await.remove(0);
    says(&direct, "dns error", "host's name");
}

/// The program itself: its words and its exit code, which an endpoint that is not there does not change.
#[test]
fn check_tells_of_receivers_and_of_settings_that_are_refused() {
    let check = |endpoint: &str| {
        let mut command = kernel_gossip();
        command.arg("check").env("HOME", "/nonexistent").env_remove("KUBECONFIG");
        let output = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().expect("run");
        (String::from_utf8(output.stdout).expect("text"), output.status.success())
    };
    let nobody = format!("http://{}/", free_address());
    let (text, runs) = check(&nobody);
    let line = format!("✗ otlp       unreachable  {nobody} (metrics, events, traces)\n");
    assert!(text.contains(&line) && text.contains("-> nobody listens there"), "{text}");
    let (bad, bad_runs) = check("ftp://x");
    assert!(bad.contains("✗ otlp       refused      OTEL_EXPORTER_OTLP_ENDPOINT\n"), "{bad}");
    assert!(!bad_runs, "the agent would not start");
    let (none, none_runs) = check("");
    assert!(!none.contains("otlp"), "{none}");
    assert_eq!(runs, none_runs, "what is to be sent is kept");
}

/// The real collector, on its gRPC port and on its HTTP port: both are reached, and nothing comes out of it.
#[test]
#[ignore = "needs otelcol: scripts/test host"]
fn the_real_collector_is_tried_and_gets_nothing_to_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let (grpc, http) = (free_address(), free_address());
    let stored = dir.path().join("stored.json");
    let pipeline = "{receivers: [otlp], exporters: [file]}";
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{grpc}'}}, http: {{endpoint: '{http}'}}}}}}}}\n\
         exporters: {{file: {{path: {}, flush_interval: 20ms}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{metrics: {pipeline}, logs: {pipeline}, traces: {pipeline}}}\n",
        stored.display()
    );
    let config = dir.path().join("config.yaml");
    fs::write(&config, text).expect("written");
    let mut collector = Running::start(tool("otelcol").arg("--config").arg(&config));
    collector.says("Everything is ready");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tried = |address: SocketAddr| {
        let endpoint = format!("http://{address}");
        let flags = Flags::try_parse_from(["x", "--otlp-endpoint", &endpoint]).expect("flags");
        let config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
        runtime.block_on(try_receivers(&config))
    };
    let good = tried(grpc);
    let kinds = vec!["metrics", "events", "traces"];
    let expected = Tried {
        endpoint: format!("http://{grpc}/"),
        kinds,
        refused_at_start: false,
        error: None,
        what_to_do: None,
    };
    assert_eq!(good, [expected]);
    for tried in tried(http) {
        says(&tried, "", "it speaks HTTP, not gRPC");
    }
    let (ended, _, _) = collector.terminate();
    assert!(ended.success(), "{ended}");
    assert_eq!(fs::read_to_string(&stored).unwrap_or_default(), "", "nothing was stored");
}
