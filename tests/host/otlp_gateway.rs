//! otel-collector/gateway.yaml: a gateway that is killed while its backends are away loses nothing of what it took.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use kernel_gossip::evidence::SignalKind;
use kernel_gossip::kernel::Instant;
use kernel_gossip::signals::Transition;
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig};
use kernel_gossip::sinks::{Sinks, SinksConfig, testdata};
use serde_json::Value;

use crate::bed::process::Running;
use crate::bed::prometheus::Prometheus;
use crate::bed::{free_address, repository, tool, until};

const WHISPERS: usize = 50;

struct Backends {
    metrics: SocketAddr,
    events: SocketAddr,
}

fn gateway(dir: &Path, otlp: SocketAddr, to: &Backends) -> Running {
    let mut running = Running::start(
        tool("otelcol")
            .arg("--config")
            .arg(repository().join("otel-collector/gateway.yaml"))
            .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
            .env("KERNEL_GOSSIP_QUEUE", dir.join("queue"))
            .env("KERNEL_GOSSIP_METRICS_TO", format!("http://{}/api/v1/otlp", to.metrics))
            .env("KERNEL_GOSSIP_EVENTS_TO", format!("http://{}", to.events)),
    );
    running.says("Everything is ready");
    running
}

/// A store of events: a collector that writes what it gets to a file.
fn store(dir: &Path, address: SocketAddr) -> Running {
    let config = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{address}'}}}}}}}}\n\
         exporters: {{file: {{path: '{}', flush_interval: 20ms}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
         logs: {{receivers: [otlp], exporters: [file]}}\n",
        dir.join("events.json").display()
    );
    let file = dir.join("store.yaml");
    fs::write(&file, config).expect("written");
    let mut running = Running::start(tool("otelcol").arg("--config").arg(file));
    running.says("Everything is ready");
    running
}

/// The whispers in the store, by their text.
fn stored(dir: &Path) -> Vec<usize> {
    let text = fs::read_to_string(dir.join("events.json")).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut found = Vec::new();
    for line in complete.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let records = line["resourceLogs"].as_array().into_iter().flatten();
        let records = records.flat_map(|r| r["scopeLogs"].as_array().into_iter().flatten());
        let records = records.flat_map(|s| s["logRecords"].as_array().into_iter().flatten());
        found.extend(records.filter_map(|r| r["body"]["stringValue"].as_str()?.parse::<usize>().ok()));
    }
    found
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// Says whispers and one reading, and ends once the gateway has taken all of it.
fn agent(otlp: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let flags = Flags::parse_from(["x", &format!("--otlp-endpoint=http://{otlp}")]);
    let sinks = {
        let _entered = runtime.enter();
        let config = SinksConfig {
            node: Some("node-1".into()),
            otlp: OtlpConfig::new(&flags.otlp, |_| None).expect("good"),
            prometheus: None,
            started: testdata::moment(1),
            interval: Duration::from_secs(1),
        };
        Sinks::start(config).expect("started")
    };
    let who = testdata::container("shop", "web", "app");
    let mut reading = testdata::reading(std::slice::from_ref(&who), 10);
    // Now, so that Prometheus does not take it for old.
    let unix = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
    reading.at =
        Instant { mono_ns: testdata::second(10_000), unix_ns: u64::try_from(unix).expect("this century") };
    sinks.publish(&reading);
    for n in 0..WHISPERS {
        let whisper = testdata::whisper(&who, SignalKind::CpuThrottle, Transition::Started, 100);
        sinks.whisper(&whisper, n.to_string());
    }
    let unsent = runtime.block_on(sinks.flush(Duration::from_secs(60)));
    assert_eq!(unsent, Default::default(), "the gateway took it");
}

#[test]
#[ignore = "needs otelcol and prometheus: scripts/test host"]
fn a_gateway_that_is_killed_keeps_what_it_took() {
    let dir = tempfile::tempdir().expect("a directory");
    let (otlp, to) = (free_address(), Backends { metrics: free_address(), events: free_address() });
    let first = gateway(dir.path(), otlp, &to);
    agent(otlp);
    first.signal(libc::SIGKILL);
    first.end();
    let _second = gateway(dir.path(), otlp, &to);

    let _store = store(dir.path(), to.events);
    let prometheus = Prometheus::receiving(dir.path(), to.metrics);
    let mut whispers = until("every whisper", || {
        let found = stored(dir.path());
        (found.len() >= WHISPERS).then_some(found)
    });
    whispers.sort_unstable();
    // One that was on its way when the gateway was killed may be there twice.
    whispers.dedup();
    assert_eq!(whispers, (0..WHISPERS).collect::<Vec<_>>());
    until("the reading, with its pod's names", || {
        let query = "kernel_gossip_cpu_run_time_seconds_total{k8s_namespace_name='shop',k8s_pod_name='web',k8s_container_name='app'}";
        let found = prometheus.api("query", &[("query", query)]).expect("an answer");
        (found["result"][0]["value"][1] == "2").then_some(())
    });
}
