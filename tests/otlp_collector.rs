//! What the OpenTelemetry Collector and Prometheus make of what the agent exports.

mod common;
#[path = "../src/sinks/testdata.rs"]
mod testdata;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use clap::Parser;
use common::process::{Running, output};
use common::{free_address, repository, tool, until};
use kernel_gossip::attribution::{Attributed, Workload};
use kernel_gossip::kernel::Instant;
use kernel_gossip::signals::{SignalType, Transition, Whisper};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::names::metric::{self, Kind};
use kernel_gossip::sinks::otlp::config::Retry;
use kernel_gossip::sinks::otlp::queue::Lane;
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig, OtlpSink};
use serde_json::Value;
use tempfile::TempDir;

const QUEUE: usize = 1 << 20;

/// The collector with `otel-collector/agent.yaml`, which also writes down what it takes.
struct Collector {
    running: Running,
    taken: PathBuf,
}

impl Collector {
    fn start(otlp: SocketAddr, prometheus: SocketAddr, dir: &Path, name: &str) -> Collector {
        Collector::start_with(otlp, prometheus, dir, name, "")
    }

    /// `extra`: more of its configuration, YAML.
    fn start_with(
        otlp: SocketAddr,
        prometheus: SocketAddr,
        dir: &Path,
        name: &str,
        extra: &str,
    ) -> Collector {
        let (taken, more) = (dir.join(format!("{name}.json")), dir.join(format!("{name}.yaml")));
        let text = format!(
            "exporters: {{file: {{path: {}}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             metrics: {{exporters: [prometheus, file]}}\n    logs: {{exporters: [debug, file]}}\n{extra}\n",
            taken.display()
        );
        fs::write(&more, text).expect("write the configuration");
        let mut running = Running::start(
            tool("otelcol")
                .arg("--config")
                .arg(configuration())
                .arg("--config")
                .arg(more)
                .env("OTLP_ADDRESS", otlp.to_string())
                .env("PROMETHEUS_ADDRESS", prometheus.to_string()),
        );
        running.says("Everything is ready");
        Collector { running, taken }
    }

    /// The requests it took so far, as OTLP's JSON.
    fn taken(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.taken).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Resource and record of every event.
    fn events(&self) -> Vec<(Value, Value)> {
        self.each("resourceLogs", "scopeLogs", "logRecords")
    }

    /// Resource and metric of every metric.
    fn metrics(&self) -> Vec<(Value, Value)> {
        self.each("resourceMetrics", "scopeMetrics", "metrics")
    }

    fn each(&self, resources: &str, scopes: &str, items: &str) -> Vec<(Value, Value)> {
        let mut all = Vec::new();
        for resource in self.taken().iter().flat_map(|request| array(&request[resources])) {
            for item in array(&resource[scopes]).flat_map(|scope| array(&scope[items])) {
                all.push((resource["resource"].clone(), item.clone()));
            }
        }
        all
    }

    fn texts(&self) -> Vec<String> {
        let text = |(_, event): (Value, Value)| event["body"]["stringValue"].as_str().map(str::to_owned);
        self.events().into_iter().filter_map(text).collect()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The value of an attribute of a resource, record or data point.
fn attribute<'a>(of: &'a Value, name: &str) -> &'a Value {
    let found = array(&of["attributes"]).find(|a| a["key"] == name);
    found.map_or(&Value::Null, |a| &a["value"])
}

fn configuration() -> PathBuf {
    repository().join("otel-collector/agent.yaml")
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

fn start(endpoint: SocketAddr) -> OtlpSink {
    let flags =
        ["agent".into(), format!("--otlp-endpoint=http://{endpoint}"), format!("--otlp-queue={QUEUE}")];
    let flags = Flags::try_parse_from(flags).expect("flags");
    let mut config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
    config.retry = Retry { first: Duration::from_millis(50), longest: Duration::from_millis(200) };
    OtlpSink::start(config, Some("node-1".into())).expect("started")
}

/// A reading `s` seconds after a boot 2,000 s ago: Prometheus refuses what is long past.
fn reading(all: &[Arc<Workload>], s: u64) -> Attributed {
    Attributed { at: moment(s), ..testdata::reading(all, s) }
}

fn moment(s: u64) -> Instant {
    static BOOT: OnceLock<u64> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        testdata::second(now - 2000)
    });
    Instant { mono_ns: testdata::second(s), unix_ns: boot + testdata::second(s) }
}

fn whisper(who: &Arc<Workload>) -> Whisper {
    Whisper { at: moment(1060), ..testdata::whisper(who, SignalType::CpuThrottle, Transition::Started, 1057) }
}

/// What one container's numbers are after a minute, in Prometheus and with the collector's own words for them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs otelcol: scripts/test host"]
async fn metrics_and_whispers_reach_the_collector_and_prometheus() {
    let dir = TempDir::new().expect("a directory");
    let (otlp, exposed) = (free_address(), free_address());
    let collector = Collector::start(otlp, exposed, dir.path(), "collector");
    let sink = start(otlp);
    let all = ["web-0", "web-1"].map(|pod| testdata::container("shop", pod, "app"));
    let mut ledger = Ledger::new(moment(1000), true);
    ledger.observe(&reading(&all, 1010));
    ledger.observe(&reading(&all, 1060));
    let said = whisper(&all[0]);
    ledger.whisper(&said);
    sink.metrics_now(&mut ledger);
    sink.whisper(&said, "web-0 was throttled".into());
    assert_eq!(sink.flush(Duration::from_secs(30)).await, Default::default());

    until("event", || (!collector.events().is_empty()).then_some(()));
    let events = collector.events();
    assert_eq!(events.len(), 1);
    let (resource, event) = &events[0];
    assert_eq!(attribute(resource, "k8s.pod.name")["stringValue"], "web-0");
    assert_eq!(attribute(resource, "k8s.node.name")["stringValue"], "node-1");
    assert_eq!(event["eventName"], "kernel_gossip.whisper");
    assert_eq!(attribute(event, "event.name")["stringValue"], "kernel_gossip.whisper");
    assert_eq!(event["body"]["stringValue"], "web-0 was throttled");
    assert_eq!(event["timeUnixNano"], said.at.unix_ns.to_string());
    assert_eq!(event["severityText"], "ERROR");
    assert_eq!(attribute(event, "kernel_gossip.cpu.throttled.percent")["doubleValue"], 79.5);
    let history = attribute(event, "kernel_gossip.history.time");
    assert_eq!(array(&history["arrayValue"]["values"]).count(), said.history.len());

    until("metrics", || (!collector.metrics().is_empty()).then_some(()));
    let metrics = collector.metrics();
    let of = |name: &str| -> &Value {
        let wanted = |(resource, metric): &&(Value, Value)| {
            metric["name"] == name && attribute(resource, "k8s.pod.name")["stringValue"] == "web-0"
        };
        &metrics.iter().find(wanted).unwrap_or_else(|| panic!("no {name}")).1
    };
    for m in metric::WORKLOAD {
        assert_eq!(
            (of(m.name)["unit"].as_str(), of(m.name)["description"].as_str()),
            (Some(m.unit), Some(m.description))
        );
    }
    let run = &of("kernel_gossip.cpu.run.time")["sum"];
    assert_eq!((&run["isMonotonic"], &run["aggregationTemporality"]), (&true.into(), &2.into()));
    assert_eq!(run["dataPoints"][0]["asDouble"], 212.0);
    assert_eq!(run["dataPoints"][0]["startTimeUnixNano"], moment(1000).unix_ns.to_string());

    prometheus_answers(exposed, dir.path());
    drop(collector.running);
}

/// Prometheus reads the collector at `exposed`, and every metric is under the name the table gives.
fn prometheus_answers(exposed: SocketAddr, dir: &Path) {
    let config = dir.join("prometheus.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: collector\n  \
         scrape_native_histograms: true\n  static_configs: [{{targets: ['{exposed}']}}]\n"
    );
    fs::write(&config, text).expect("write the configuration");
    let address = free_address();
    let mut server = Running::start(
        tool("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}")),
    );
    server.says("Server is ready to receive web requests");
    let url = format!("http://{address}");
    let ask = |expression: &str| -> Vec<Value> {
        let answer = output(tool("promtool").args(["query", "instant", "--format=json", &url, expression]));
        serde_json::from_str(&answer).expect("JSON")
    };
    let value =
        |expression: &str| -> Option<f64> { ask(expression).first()?["value"][1].as_str()?.parse().ok() };
    let web = r#"{k8s_namespace_name="shop",k8s_pod_name="web-0",k8s_container_name="app"}"#;
    until("sample", || value(&format!("kernel_gossip_cpu_run_time_seconds_total{web}")));
    for m in metric::WORKLOAD {
        let name = m.prometheus();
        let found = match m.kind {
            Kind::Histogram => value(&format!("histogram_count({name}{web})")),
            Kind::Counter | Kind::UpDownCounter | Kind::Gauge => value(&format!("{name}{web}")),
        };
        assert!(found.is_some(), "Prometheus has no {name}");
    }
    let run = value(&format!("kernel_gossip_cpu_run_time_seconds_total{web}"));
    assert_eq!(run, Some(212.0));
    let own = r#"kernel_gossip_cpu_wait_time_seconds_total{k8s_pod_name="web-0",kernel_gossip_cpu_wait_cause="own"}"#;
    assert_eq!(value(own), Some(106.0));
    assert_eq!(value(&format!("kernel_gossip_cpu_limit{web}")), Some(0.5));
    // All waits were 8 ms: in (2^-7, 2^-6] s.
    let median = value(&format!("histogram_quantile(0.5, kernel_gossip_cpu_wait_duration_seconds{web})"));
    assert!(median.is_some_and(|s| s > 1.0 / 128.0 && s <= 1.0 / 64.0), "{median:?}");
    assert_eq!(
        value(&format!("histogram_count(kernel_gossip_cpu_wait_duration_seconds{web})")),
        Some(106_000.0)
    );
}

/// What the agent's log said, for the one test that reads it.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines about this receiver.
fn log(receiver: SocketAddr) -> Vec<String> {
    let text = String::from_utf8(LOG.lock().expect("not poisoned").clone()).expect("UTF-8");
    text.lines().filter(|line| line.contains(&receiver.to_string())).map(str::to_owned).collect()
}

/// No whisper is lost while the collector is away, what waits stays bounded, and of the metrics every point is
/// accounted for. The outage is told once, and its end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs otelcol: scripts/test host"]
async fn whispers_wait_for_a_collector_that_is_away() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let dir = TempDir::new().expect("a directory");
    let (otlp, exposed) = (free_address(), free_address());
    let first = Collector::start(otlp, exposed, dir.path(), "first");
    let sink = start(otlp);
    let all: Vec<_> = (0..200).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(moment(0), true);
    let mut export = |s: u64| {
        ledger.observe(&reading(&all, s));
        sink.metrics_now(&mut ledger);
    };
    let points = || sink.outcomes(Lane::Metrics).delivered_items.load(Ordering::Relaxed);
    let size = |lane| sink.waiting(lane);

    // The first reading has no neighbour but those there from the start: every later one is as large.
    export(10);
    sink.whisper(&whisper(&all[0]), "before".into());
    until("delivery", || (size(Lane::Metrics).items + size(Lane::Events).items == 0).then_some(()));
    let before = points();
    export(20);
    until("delivery", || (size(Lane::Metrics).items == 0).then_some(()));
    let each = points() - before;
    assert!(each > 200, "{each} points of 200 containers");
    until("first event", || (first.texts() == ["before"]).then_some(()));
    first.running.terminate();

    const ROUNDS: u64 = 20;
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        export(30 + round * 10);
        let text = round.to_string();
        sink.whisper(&whisper(&all[0]), text.clone());
        expected.push(text);
        let bytes = size(Lane::Metrics).bytes + size(Lane::Events).bytes;
        assert!(bytes <= QUEUE, "{bytes} bytes wait");
    }
    assert_eq!((size(Lane::Events).items, size(Lane::Events).dropped), (expected.len(), 0));
    assert!(size(Lane::Metrics).dropped > 0, "more than fits was said");
    until("outage in the log", || (!log(otlp).is_empty()).then_some(()));

    let second = Collector::start(otlp, exposed, dir.path(), "second");
    until("every whisper", || (second.texts().len() >= expected.len()).then_some(()));
    assert_eq!(second.texts(), expected, "each once, in order");
    assert_eq!(sink.flush(Duration::from_secs(30)).await, Default::default());
    let (metrics, outcomes) = (size(Lane::Metrics), sink.outcomes(Lane::Metrics));
    assert_eq!(outcomes.refused_items.load(Ordering::Relaxed), 0);
    assert_eq!(points() - before - each + metrics.dropped, ROUNDS * each);
    let retried: u64 = Lane::ALL.iter().map(|l| sink.outcomes(*l).retried.load(Ordering::Relaxed)).sum();
    assert!(retried > 0);

    let said = log(otlp);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("cannot be reached"), "{}", said[0]);
    assert!(said[1].contains("reachable again"), "{}", said[1]);
}

/// The memory limiter refuses for a while, not for good.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs otelcol: scripts/test host"]
async fn a_collector_short_of_memory_is_asked_again() {
    let dir = TempDir::new().expect("a directory");
    let (otlp, exposed) = (free_address(), free_address());
    // Less than the program itself takes, once it has measured that.
    let limit = "processors: {memory_limiter: {check_interval: 100ms, limit_mib: 1, spike_limit_mib: 0}}";
    let mut short = Collector::start_with(otlp, exposed, dir.path(), "short", limit);
    short.running.says("Refusing data");
    let sink = start(otlp);
    sink.whisper(&whisper(&testdata::container("shop", "web", "app")), "kept".into());
    let outcomes = sink.outcomes(Lane::Events);
    until("retries", || (outcomes.retried.load(Ordering::Relaxed) >= 2).then_some(()));
    assert_eq!(outcomes.refused.load(Ordering::Relaxed), 0);
    assert!(short.texts().is_empty());
    short.running.terminate();
    let well = Collector::start(otlp, exposed, dir.path(), "well");
    until("event", || (well.texts() == ["kept"]).then_some(()));
}

/// Also with its options on: the lines whose `#` has no space after it.
#[test]
#[ignore = "needs otelcol: scripts/test host"]
fn the_collector_takes_the_configuration_and_its_options() {
    let dir = TempDir::new().expect("a directory");
    let text = fs::read_to_string(configuration()).expect("the configuration");
    let option = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    let with_options: String = text.lines().map(|line| option(line) + "\n").collect();
    assert_ne!(with_options, text);
    let all = dir.path().join("options.yaml");
    fs::write(&all, with_options).expect("write");
    for path in [configuration(), all] {
        output(tool("otelcol").arg("validate").arg("--config").arg(path));
    }
}
