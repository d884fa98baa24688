//! What an export of 1,000 containers costs: time to encode, bytes, requests.
//!
//! `cargo bench --bench encode`. Prints figures, passes no verdict.

#[path = "../src/sinks/testdata.rs"]
mod testdata;

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use kernel_gossip::attribution::NamedBlame;
use kernel_gossip::signals::{SignalType, Transition};
use kernel_gossip::sinks::culprits::NAMED;
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::encode::{MAX_REQUEST, Request, Requests, whisper_event, workload_metrics};

const CONTAINERS: usize = 1000;
const ROUNDS: u64 = 30;

fn main() {
    let all: Vec<_> =
        (0..CONTAINERS).map(|i| testdata::container("shop", &format!("web-{i}"), "app")).collect();
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let (mut observing, mut encoding, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut reading = testdata::reading(&all, round * 10);
        // Everyone has all the neighbours that are named, and as many for the rest.
        reading.blame.clear();
        for (i, victim) in all.iter().enumerate() {
            reading.blame.extend((1..=2 * NAMED).map(|k| NamedBlame {
                victim: victim.clone(),
                culprit: all[(i + k) % CONTAINERS].clone(),
                ns: testdata::second(round) / 10,
            }));
        }
        observing.push(timed(|| ledger.observe(&reading)).0);
        let (time, made) = timed(|| encode(&mut ledger));
        encoding.push(time);
        requests = made;
    }
    let bytes: usize = requests.iter().map(|r| r.body.len()).sum();
    let items: usize = requests.iter().map(|r| r.items).sum();
    let (zipping, zipped) = timed(|| requests.iter().map(|r| gzip(&r.body)).sum::<usize>());
    println!("{CONTAINERS} containers, {items} data points, {} requests", requests.len());
    println!("{:<24} {:>9.2} ms (median of {ROUNDS})", "observe a reading", median(observing));
    println!("{:<24} {:>9.2} ms (median of {ROUNDS})", "encode", median(encoding));
    println!("{:<24} {:>9.2} ms", "gzip", milliseconds(zipping));
    println!("{:<24} {:>9} bytes, gzip {zipped}", "size", bytes);

    let said = testdata::whisper(&all[0], SignalType::CpuThrottle, Transition::Started, 100);
    let (time, event) = timed(|| {
        let mut requests = Requests::new(MAX_REQUEST);
        for _ in 0..CONTAINERS {
            requests.event(whisper_event(&said, "it was throttled".into(), Some("node-1"), 0));
        }
        requests.finish().0
    });
    let bytes: usize = event.iter().map(|r| r.body.len()).sum();
    let each = milliseconds(time) * 1000.0 / CONTAINERS as f64;
    println!("{:<24} {each:>9.2} µs, {} bytes", "a whisper with history", bytes / CONTAINERS);
}

fn encode(ledger: &mut Ledger) -> Vec<Request> {
    let mut requests = Requests::new(MAX_REQUEST);
    ledger.export(|account| requests.metrics(workload_metrics(account, Some("node-1")).expect("known")));
    requests.finish().0
}

/// What [`CompressionEncoding::Gzip`](tonic::codec::CompressionEncoding::Gzip) makes of it, in bytes.
fn gzip(body: &[u8]) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory").len()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    milliseconds(all[all.len() / 2])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
