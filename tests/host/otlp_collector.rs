//! The real OpenTelemetry Collector, with the configuration we ship, and the real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::bed::process::{Running, output};
use crate::bed::{free_address, http, repository, tool, until};
use clap::Parser;
use kernel_gossip::api::BirthOutcome;
use kernel_gossip::names::metric;
use kernel_gossip::signals::{SignalKind, Transition};
use kernel_gossip::sinks::otlp::config::Retry;
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig};
use kernel_gossip::sinks::testdata;
use kernel_gossip::sinks::{Sinks, SinksConfig};
use serde_json::Value;

/// A collector that also writes what it gets to files.
struct Collector {
    running: Running,
    otlp: SocketAddr,
    prometheus: SocketAddr,
    dir: PathBuf,
}

impl Collector {
    /// Starts one with `otel-collector/agent.yaml`, listening on these addresses.
    fn start(dir: &Path, otlp: SocketAddr, prometheus: SocketAddr) -> Collector {
        let files = dir.join("files.yaml");
        let (metrics, events) = (dir.join("metrics.json"), dir.join("events.json"));
        let text = format!(
            "exporters:\n  file/metrics: {{path: {}, append: true, flush_interval: 20ms}}\n  \
             file/events: {{path: {}, append: true, flush_interval: 20ms}}\n\
             service:\n  pipelines:\n    metrics: {{exporters: [prometheus, file/metrics]}}\n    \
             logs: {{exporters: [file/events]}}\n",
            metrics.display(),
            events.display()
        );
        fs::write(&files, text).expect("write");
        let mut running = Running::start(
            tool("otelcol")
                .arg("--config")
                .arg(repository().join("otel-collector/agent.yaml"))
                .arg("--config")
                .arg(&files)
                .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
                .env("KERNEL_GOSSIP_PROMETHEUS", prometheus.to_string()),
        );
        running.says("Everything is ready");
        Collector { running, otlp, prometheus, dir: dir.into() }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// The complete lines of a file, as JSON.
    fn file(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The log records written so far.
    fn records(&self) -> Vec<Value> {
        all(&self.file("events.json"), &["resourceLogs", "scopeLogs", "logRecords"])
    }

    fn metrics(&self) -> Vec<Value> {
        all(&self.file("metrics.json"), &["resourceMetrics", "scopeMetrics", "metrics"])
    }
}

/// The elements of nested arrays.
fn all(from: &[Value], path: &[&str]) -> Vec<Value> {
    path.iter().fold(from.to_vec(), |level, name| {
        level.iter().filter_map(|v| v[name].as_array()).flatten().cloned().collect()
    })
}

/// The sinks in a runtime of their own.
struct Agent {
    sinks: Sinks,
    runtime: tokio::runtime::Runtime,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

impl Agent {
    fn start(flags: &[&str], prometheus: Option<SocketAddr>) -> Agent {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let flags = Flags::parse_from(std::iter::once(&"x").chain(flags));
        let mut otlp = OtlpConfig::new(&flags.otlp, |_| None).expect("good");
        if let Some(otlp) = &mut otlp {
            otlp.retry = Retry { first: Duration::from_millis(20), longest: Duration::from_millis(200) };
        }
        let config = SinksConfig {
            node: Some("node-1".into()),
            otlp,
            prometheus,
            started: testdata::moment(1),
            interval: Duration::from_secs(1),
        };
        let sinks = {
            let _entered = runtime.enter();
            Sinks::start(config).expect("started")
        };
        Agent { sinks, runtime }
    }

    fn say(&self, n: usize) {
        let who = testdata::container("shop", "web", "app");
        let whisper = testdata::whisper(&who, SignalKind::CpuThrottle, Transition::Started, 100);
        self.sinks.whisper(&whisper, n.to_string());
    }

    /// Ends it; nothing may be left.
    fn flush(&self) {
        let unsent = self.runtime.block_on(self.sinks.flush(Duration::from_secs(60)));
        assert_eq!(unsent, Default::default());
    }
}

/// Now, so that no backend takes the numbers for stale.
fn now() -> kernel_gossip::kernel::Instant {
    let unix = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
    kernel_gossip::kernel::Instant {
        mono_ns: testdata::second(10_000),
        unix_ns: u64::try_from(unix).expect("this century"),
    }
}

#[test]
#[ignore = "needs otelcol: scripts/test host"]
fn metrics_and_whispers_arrive_under_their_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let collector = Collector::start(dir.path(), free_address(), free_address());
    let agent = Agent::start(&["--otlp-endpoint", &collector.endpoint()], None);
    let all = [testdata::container("shop", "web", "app"), testdata::container("batch", "noisy", "burner")];
    let mut reading = testdata::reading(&all, 10);
    reading.at = now();
    reading.samples[0].network = Some(testdata::network());
    agent.sinks.publish(&reading);
    agent.sinks.stats().reading_took(Duration::from_millis(1));
    agent.sinks.stats().birth(&testdata::birth(Some(BirthOutcome::Complete), false));
    agent.say(7);
    // The end exports once more, the whisper that is active now included.
    agent.flush();

    let record = until("a whisper", || collector.records().into_iter().next());
    assert_eq!(record["eventName"], "kernel_gossip.whisper");
    assert_eq!(record["body"]["stringValue"], "7");
    assert_eq!(record["severityText"], "ERROR");
    let attributes: BTreeSet<&str> = record["attributes"]
        .as_array()
        .expect("attributes")
        .iter()
        .filter_map(|a| a["key"].as_str())
        .collect();
    for name in ["event.name", "kernel_gossip.whisper.signal", "kernel_gossip.history.time"] {
        assert!(attributes.contains(name), "{attributes:?}");
    }

    let expected: BTreeSet<String> =
        metric::WORKLOAD.iter().chain(&metric::AGENT).map(|m| m.name.to_owned()).collect();
    until("every metric", || {
        let found: BTreeSet<String> =
            collector.metrics().iter().filter_map(|m| m["name"].as_str().map(str::to_owned)).collect();
        (found == expected).then_some(())
    });
    // The collector makes the names for Prometheus that we say it makes.
    // It has them a moment before or after its file has.
    let names: Vec<String> = metric::WORKLOAD.iter().chain(&metric::AGENT).map(|m| m.prometheus()).collect();
    let shown = until("every metric by those names", || {
        let shown = http::get(collector.prometheus, "/metrics", "").body;
        let types: BTreeSet<&str> =
            shown.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        names.iter().all(|name| types.contains(name.as_str())).then_some(shown)
    });
    let run = shown
        .lines()
        .find(|l| {
            l.starts_with("kernel_gossip_cpu_run_time_seconds_total{") && l.contains("k8s_pod_name=\"web\"")
        })
        .unwrap_or_else(|| panic!("no run time in\n{shown}"));
    assert!(run.ends_with(" 2"), "{run}");
    assert!(run.contains("k8s_container_name=\"app\"") && run.contains("k8s_node_name=\"node-1\""), "{run}");
}

#[test]
#[ignore = "needs otelcol: scripts/test host"]
fn a_collector_that_was_gone_gets_every_whisper() {
    let dir = tempfile::tempdir().expect("a directory");
    let collector = Collector::start(dir.path(), free_address(), free_address());
    let (otlp, prometheus) = (collector.otlp, collector.prometheus);
    let flags = ["--otlp-endpoint", &collector.endpoint(), "--otlp-queue=2097152", "--otlp-interval=1000"];
    let agent = Agent::start(&flags, Some(free_address()));
    agent.say(0);
    until("the first whisper", || collector.records().pop());
    let (status, ..) = collector.running.terminate();
    assert!(status.success(), "{status}");

    let all: Vec<_> = (0..300).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    for s in 0..10 {
        let mut reading = testdata::reading(&all, 10 + 10 * s);
        // Each is due.
        reading.at.mono_ns = testdata::second(10_000 + 10 * s);
        agent.sinks.publish(&reading);
        (0..12).for_each(|n| agent.say(1 + usize::try_from(s).expect("small") * 12 + n));
    }
    let value = |name: &str, labels: &str| -> f64 {
        let address = agent.sinks.metrics_address().expect("served");
        let text = http::get(address, "/metrics", "").body;
        let line = text.lines().find(|l| l.starts_with(name) && l.contains(labels));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} {labels}"))
    };
    let bytes = value("kernel_gossip_agent_queue_size_bytes", "metrics")
        + value("kernel_gossip_agent_queue_size_bytes", "events");
    assert!(bytes <= 2_097_152.0, "{bytes} bytes wait");
    assert!(value("kernel_gossip_agent_losses_total", "metrics_queue_full") > 0.0);
    assert_eq!(value("kernel_gossip_agent_losses_total", "events_queue_full"), 0.0);

    let collector = Collector::start(dir.path(), otlp, prometheus);
    let mut texts: Vec<usize> = until("every whisper", || {
        let all = collector.records();
        let text = |r: &Value| r["body"]["stringValue"].as_str().and_then(|s| s.parse().ok());
        (all.len() >= 121).then(|| all.iter().filter_map(text).collect())
    });
    texts.sort_unstable();
    assert_eq!(texts, (0..=120).collect::<Vec<_>>(), "each once");
    assert!(
        value("kernel_gossip_agent_exports_total", "events\",kernel_gossip_agent_export_outcome=\"retried")
            > 0.0
    );
    agent.flush();
}

/// Prometheus reads the same number from the agent itself and through the collector.
#[test]
#[ignore = "needs otelcol and prometheus: scripts/test host"]
fn prometheus_gives_the_values_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let collector = Collector::start(dir.path(), free_address(), free_address());
    let agent = Agent::start(&["--otlp-endpoint", &collector.endpoint()], Some(free_address()));
    let all = [testdata::container("shop", "web", "app"), testdata::container("batch", "noisy", "burner")];
    let mut reading = testdata::reading(&all, 10);
    reading.at = now();
    agent.sinks.publish(&reading);

    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, scrape_native_histograms: true}}\n\
         scrape_configs:\n- {{job_name: agent, static_configs: [{{targets: ['{}']}}]}}\n\
         - {{job_name: collector, static_configs: [{{targets: ['{}']}}]}}\n",
        agent.sinks.metrics_address().expect("served"),
        collector.prometheus
    );
    fs::write(&config, text).expect("write");
    let address = free_address();
    let mut prometheus = Running::start(
        tool("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}")),
    );
    prometheus.says("Server is ready to receive web requests");
    let ask = |query: &str| {
        let query: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let answer = http::get(address, &format!("/api/v1/query?query={query}"), "");
        let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    };
    for (query, expected) in [
        // From /metrics.
        (
            "kernel_gossip_cpu_run_time_seconds_total{job='agent',namespace='shop',pod='web',container='app'}",
            "2",
        ),
        (
            "kernel_gossip_cpu_wait_time_seconds_total{job='agent',pod='web',kernel_gossip_cpu_wait_cause='throttle'}",
            "3",
        ),
        (
            "kernel_gossip_cpu_neighbour_time_seconds_total{job='agent',kernel_gossip_neighbour_pod='noisy'}",
            "1",
        ),
        ("kernel_gossip_cpu_wait_duration_seconds_bucket{job='agent',pod='web',le='0.00390625'}", "0"),
        ("kernel_gossip_cpu_wait_duration_seconds_bucket{job='agent',pod='web',le='0.015625'}", "1000"),
        // Through the collector, where the histogram stays one of powers of two.
        (
            "kernel_gossip_cpu_run_time_seconds_total{job='collector',k8s_namespace_name='shop',k8s_pod_name='web'}",
            "2",
        ),
        (
            "kernel_gossip_cpu_wait_time_seconds_total{job='collector',k8s_pod_name='web',\
             kernel_gossip_cpu_wait_cause='throttle'}",
            "3",
        ),
        (
            "histogram_count(kernel_gossip_cpu_wait_duration_seconds{job='collector',k8s_pod_name='web'})",
            "1000",
        ),
        (
            "histogram_fraction(0.00390625, 0.0078125, kernel_gossip_cpu_wait_duration_seconds{job='collector',k8s_pod_name='web'})",
            "0",
        ),
        (
            "histogram_fraction(0.0078125, 0.015625, kernel_gossip_cpu_wait_duration_seconds{job='collector',k8s_pod_name='web'})",
            "1",
        ),
    ] {
        let result = until(query, || ask(query).pop());
        assert_eq!(result["value"][1], expected, "{query}: {result}");
    }
    agent.flush();
}

#[test]
#[ignore = "needs promtool and otelcol: scripts/test host"]
fn what_we_ship_passes_the_checks_of_others() {
    // Nobody is there; what waits is shown too.
    let nowhere = format!("--otlp-endpoint=http://{}", free_address());
    let agent = Agent::start(&[&nowhere], Some(free_address()));
    let all = [testdata::container("shop", "web", "app"), testdata::unit("x.service")];
    agent.sinks.publish(&testdata::reading(&all, 10));
    agent.say(1);
    let text = http::get(agent.sinks.metrics_address().expect("served"), "/metrics", "").body;
    let mut promtool = tool("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let said = promtool.wait_with_output().expect("promtool ends");
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && complaint.is_empty(), "{complaint}\n{text}");

    output(
        tool("otelcol").arg("validate").arg("--config").arg(repository().join("otel-collector/agent.yaml")),
    );
}
