//! `/metrics` and `/health` as a client meets them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bed::http::get;
use crate::bed::until;
use kernel_gossip::sinks::frames::Frames;
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::prometheus::{PrometheusSink, address};
use kernel_gossip::sinks::telemetry::SelfStats;
use kernel_gossip::sinks::testdata;

const ANY_PORT: &str = "127.0.0.1:0";

struct Served {
    ledger: Arc<Mutex<Ledger>>,
    stats: Arc<SelfStats>,
    sink: PrometheusSink,
    runtime: tokio::runtime::Runtime,
}

fn frames() -> Arc<Frames> {
    Arc::new(Frames::new(None, testdata::moment(0)))
}

/// Serves `n` containers; health fails when the last reading is older than `healthy_within`.
fn serve(n: usize, healthy_within: Duration) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let all: Vec<_> = (0..n).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(testdata::moment(0), false);
    ledger.observe(&testdata::reading(&all, 10));
    let (ledger, stats) = (Arc::new(Mutex::new(ledger)), Arc::new(SelfStats::default()));
    let sink = {
        let _entered = runtime.enter();
        let address = address(ANY_PORT).expect("an address");
        PrometheusSink::start(address, ledger.clone(), stats.clone(), frames(), healthy_within)
            .expect("served")
    };
    Served { ledger, stats, sink, runtime }
}

#[test]
fn metrics_are_served_in_the_format_asked_for() {
    let served = serve(2, Duration::MAX);
    let plain = get(served.sink.address(), "/metrics", "");
    assert_eq!(plain.status, 200);
    assert!(plain.head.contains("text/plain; version=0.0.4"), "{}", plain.head);
    let line = "kernel_gossip_cpu_run_time_seconds_total{namespace=\"shop\",pod=\"web-1\",container=\"app\",kind=\"container\"} 2";
    assert!(plain.body.contains(line), "{}", plain.body);
    assert!(plain.body.contains("# TYPE kernel_gossip_cpu_run_time_seconds_total counter"));
    let open = get(served.sink.address(), "/metrics", "Accept: application/openmetrics-text\r\n");
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"));
    assert!(open.body.contains("# TYPE kernel_gossip_cpu_run_time_seconds counter"));
    assert_eq!(get(served.sink.address(), "/", "").status, 404);
}

#[test]
fn health_follows_the_readings() {
    let served = serve(1, Duration::MAX);
    let before = get(served.sink.address(), "/health", "");
    assert_eq!((before.status, &*before.body), (503, "no reading\n"));
    served.stats.observe(&testdata::reading(&[], 10));
    let after = get(served.sink.address(), "/health", "");
    assert_eq!((after.status, &*after.body), (200, "ok\n"));

    let served = serve(1, Duration::ZERO);
    served.stats.observe(&testdata::reading(&[], 10));
    let stale = get(served.sink.address(), "/health", "");
    assert_eq!((stale.status, &*stale.body), (503, "no reading for 0 s\n"));
}

/// A client that has asked for /metrics, sees the answer begin, and reads none of it.
fn slow_client(served: &Served) -> TcpStream {
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        // Or the kernel would take the whole answer in its place.
        socket.set_recv_buffer_size(4096)?;
        socket.connect(served.sink.address()).await?.into_std()
    };
    let mut stream = served.runtime.block_on(connect).expect("connected");
    stream.set_nonblocking(false).expect("blocking");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    stream.peek(&mut [0]).expect("an answer");
    stream
}

/// Clients that ask and do not read take all answers there are; readings go on, and the next client is told.
#[test]
fn slow_clients_hold_neither_the_ledger_nor_ever_more_memory() {
    let served = serve(2000, Duration::MAX);
    let slow: Vec<TcpStream> = (0..3).map(|_| slow_client(&served)).collect();
    served.ledger.try_lock().expect("nobody holds it").observe(&testdata::reading(&[], 11));
    let refused = get(served.sink.address(), "/metrics", "");
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 5"), "{}", refused.head);
    assert_eq!(get(served.sink.address(), "/health", "").status, 503, "still answered");
    drop(slow);
    // The server notices when it next writes to them.
    let again =
        until("an answer", || Some(get(served.sink.address(), "/metrics", "")).filter(|a| a.status == 200));
    let refused = "kernel_gossip_agent_losses_total{kernel_gossip_agent_loss_reason=\"scrape_refused\"} ";
    let line = again.body.lines().find(|l| l.starts_with(refused)).expect("the refusal is counted");
    assert_ne!(line.strip_prefix(refused), Some("0"));
}

#[test]
fn a_bad_address_is_one_clear_line() {
    for text in ["", "9464", "host:9464", ":x", "127.0.0.1", "1.2.3.4:99999"] {
        let error = address(text).expect_err(text).to_string();
        assert_eq!(
            error,
            format!(
                "--prometheus {text:?}: no address: write HOST:PORT or :PORT, such as 127.0.0.1:9464 or :9464"
            )
        );
    }
    for (text, expected) in [(":9464", "[::]:9464"), ("localhost:1", "127.0.0.1:1"), ("[::1]:2", "[::1]:2")] {
        assert_eq!(address(text).expect(text), expected.parse::<SocketAddr>().expect("an address"));
    }
    let served = serve(0, Duration::MAX);
    let taken = served.sink.address();
    let _entered = served.runtime.enter();
    let (ledger, stats) = (served.ledger.clone(), served.stats.clone());
    let again = PrometheusSink::start(taken, ledger, stats, frames(), Duration::MAX);
    let error = again.expect_err("in use").to_string();
    assert_eq!(
        error,
        format!("--prometheus {taken}: already in use: choose another port, or stop the program that has it")
    );
}
