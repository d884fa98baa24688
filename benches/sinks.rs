//! What publishing 1,000 containers costs: `cargo bench --bench sinks`. Times are the best of many runs on
//! one thread; compare those of one run only.

use std::hint::black_box;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use kernel_gossip::attribution::{Sample, Workload};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::encode::{MAX_REQUEST, Request, Requests, workload_metrics};
use kernel_gossip::sinks::prometheus::registry;
use kernel_gossip::sinks::telemetry::SelfStats;
use kernel_gossip::sinks::testdata;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use prost::Message;

const CONTAINERS: usize = 1000;
const RUNS: usize = 20;

/// The shortest of some runs, and what the last one gave.
fn best<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let began = Instant::now();
        let result = black_box(run());
        (began.elapsed(), result)
    };
    let first = timed();
    (1..RUNS).map(|_| timed()).fold(first, |(time, _), (next, result)| (time.min(next), result))
}

fn gzip(bytes: &[u8]) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory").len()
}

fn encode(ledger: &mut Ledger) -> Vec<Request> {
    let mut requests = Requests::new(MAX_REQUEST);
    ledger.export(|account| requests.metrics(workload_metrics(account, Some("node-1")).expect("metrics")));
    requests.finish().0
}

/// Encodes what the SDK collects; keeps the size.
struct Size(Arc<Mutex<usize>>);

impl PushMetricExporter for Size {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        *self.0.lock().expect("unpoisoned") =
            ExportMetricsServiceRequest::from(metrics).encode_to_vec().len();
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// The SDK with as many points: counters with the names of a container as attributes, as it has one Resource.
fn sdk(points: usize) -> (Duration, usize) {
    let size = Arc::new(Mutex::new(0));
    let reader = PeriodicReader::builder(Size(size.clone())).with_interval(Duration::from_secs(3600)).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = provider.meter("bench");
    for i in 0..points / CONTAINERS {
        let counter = meter.f64_counter(format!("kernel_gossip.cpu.some{i}.time")).with_unit("s").build();
        for n in 0..CONTAINERS {
            let who = testdata::container("shop", &format!("web-{n}"), "app");
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let attributes = [
                KeyValue::new("k8s.namespace.name", text(&who.namespace)),
                KeyValue::new("k8s.pod.name", text(&who.pod)),
                KeyValue::new("k8s.pod.uid", text(&who.pod_uid)),
                KeyValue::new("k8s.container.name", text(&who.container)),
                KeyValue::new("container.id", text(&who.container_id)),
                KeyValue::new("k8s.node.name", "node-1"),
            ];
            counter.add(n as f64, &attributes);
        }
    }
    let (time, ()) = best(|| provider.force_flush().expect("collected"));
    let size = *size.lock().expect("unpoisoned");
    (time, size)
}

/// A sample whose counters have the digits real ones have.
fn varied(who: &Arc<Workload>, seed: u64) -> Sample {
    let mut sample = testdata::sample(who, 1000 + seed % 100_000);
    let mut state = seed;
    let mut some = |value: &mut u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *value += (state >> 33) % (*value / 4 + 1);
    };
    let stat = &mut sample.stat;
    if let Some(cpu) = &mut sample.cpu {
        for value in [
            &mut cpu.run,
            &mut cpu.wait,
            &mut cpu.throttle,
            &mut cpu.neighbour,
            &mut cpu.own,
            &mut cpu.unattributed,
            &mut cpu.throttled_per_cpu,
            &mut cpu.throttled_wall,
            &mut cpu.throttled_full,
        ] {
            some(value);
        }
        cpu.wait_histogram.counts[4..24].fill(1000 + seed);
        cpu.wait_histogram.counts[4..24].iter_mut().for_each(&mut some);
        cpu.stall_histogram.counts[16..22].fill(100 + seed);
        cpu.stall_histogram.counts[16..22].iter_mut().for_each(&mut some);
    }
    [&mut stat.cpu_usage, &mut stat.throttled].into_iter().flatten().for_each(&mut some);
    for pressure in [&mut stat.cpu_pressure, &mut stat.memory_pressure, &mut stat.io_pressure] {
        pressure.iter_mut().for_each(|p| some(&mut p.some));
    }
    sample
}

fn main() {
    let all: Vec<_> =
        (0..CONTAINERS).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let mut reading = testdata::reading(&all, 10);
    for (i, sample) in reading.samples.iter_mut().enumerate() {
        // No two alike, or they would compress to nothing.
        *sample = varied(&sample.who, i as u64 * 7919 + 1);
    }
    let (observe, ()) = best(|| {
        reading.at.mono_ns += testdata::second(1);
        ledger.observe(&reading);
    });
    println!("{CONTAINERS} containers, one of them with {} neighbours", reading.blame.len());
    println!("take a reading       {observe:>10.1?}");

    let (time, requests) = best(|| encode(&mut ledger));
    let points: usize = requests.iter().map(|r| r.items).sum();
    let bytes: usize = requests.iter().map(|r| r.body.len()).sum();
    let (zip, zipped) = best(|| requests.iter().map(|r| gzip(&r.body)).sum::<usize>());
    println!(
        "OTLP: encode         {time:>10.1?}   {points} points, {bytes} bytes in {} requests",
        requests.len()
    );
    println!("OTLP: gzip           {zip:>10.1?}   {zipped} bytes");
    let (sdk, size) = sdk(points);
    println!("the SDK, as many     {sdk:>10.1?}   {size} bytes in 1 request");
    println!("the SDK takes {:.1} times as long", sdk.as_secs_f64() / time.as_secs_f64());

    let ledger = Arc::new(Mutex::new(ledger));
    let (copy, _) = best(|| ledger.lock().expect("unpoisoned").accounts().len());
    println!("/metrics: copy       {copy:>10.1?}   the only part that holds up a reading");
    let registry = registry(ledger, Arc::new(SelfStats::default()));
    let (text, length) = best(|| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
        text.len()
    });
    println!("/metrics: text       {text:>10.1?}   {length} bytes");
}
