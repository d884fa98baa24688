//! The OpenTelemetry Collector away or short of memory: nothing is lost that is not counted.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bed::process::{Running, output};
use crate::bed::{free_address, repository, tool, until};
use clap::Parser;
use kernel_gossip::attribution::Workload;
use kernel_gossip::signals::{SignalKind, Transition, Whisper};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::config::Retry;
use kernel_gossip::sinks::otlp::queue::Lane;
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig, OtlpSink};
use kernel_gossip::sinks::testdata;
use kernel_gossip::testlog;
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
                .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
                .env("KERNEL_GOSSIP_PROMETHEUS", prometheus.to_string()),
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

    /// The texts of the whispers it took, in order.
    fn texts(&self) -> Vec<String> {
        let taken = self.taken();
        let scopes =
            taken.iter().flat_map(|t| array(&t["resourceLogs"])).flat_map(|r| array(&r["scopeLogs"]));
        let records = scopes.flat_map(|scope| array(&scope["logRecords"]));
        records.filter_map(|record| record["body"]["stringValue"].as_str()).map(str::to_owned).collect()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
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

fn whisper(who: &Arc<Workload>) -> Whisper {
    testdata::whisper(who, SignalKind::CpuThrottle, Transition::Started, 100)
}

/// The lines about this receiver.
fn log(receiver: SocketAddr) -> Vec<String> {
    testlog::lines().into_iter().filter(|line| line.contains(&receiver.to_string())).collect()
}

/// No whisper is lost while the collector is away, what waits stays bounded, and of the metrics every point is
/// accounted for. The outage is told once, and its end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs otelcol: scripts/test host"]
async fn whispers_wait_for_a_collector_that_is_away() {
    testlog::keep();
    let dir = TempDir::new().expect("a directory");
    let (otlp, exposed) = (free_address(), free_address());
    let first = Collector::start(otlp, exposed, dir.path(), "first");
    let sink = start(otlp);
    let all: Vec<_> = (0..200).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let mut export = |s: u64| {
        ledger.observe(&testdata::reading(&all, s));
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
