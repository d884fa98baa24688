//! From the kernel crossing a threshold to the object: two seconds at most at the 99th percentile of 50 whispers.
//! Figures are printed (`--nocapture`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use jiff::Timestamp;
use kernel_gossip::api::{KernelWhisper, WhisperState};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;

use crate::bed::PATIENCE;
use crate::cluster::bed::agent::{Agent, Burners};
use crate::cluster::bed::reconciler::Reconciler;
use crate::cluster::bed::{Namespace, client};

const MANY: usize = 50;
/// The rule's, as in the default configuration: this share of this window, ns.
const THRESHOLD: f64 = 2.5e9;
const WINDOW: f64 = 10e9;

/// A reading: when (ns), and the throttled time by the wall clock so far (ns).
type Point = (f64, f64);

/// The throttled time at a moment, taken to run evenly between readings.
fn wall(points: &[Point], at: f64) -> f64 {
    let next = points.partition_point(|p| p.0 < at);
    match (next.checked_sub(1).map(|before| points[before]), points.get(next)) {
        (None, Some(first)) => first.1,
        (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (at - a.0) / (b.0 - a.0),
        (Some(last), None) => last.1,
        (None, None) => 0.0,
    }
}

/// When the throttled time within the window reached the threshold: between two readings.
fn crossed(whisper: &Value) -> Timestamp {
    let of = |name: &str| whisper[name].as_array().unwrap_or_else(|| panic!("no {name}: {whisper:#}"));
    let time = |v: &Value| v.as_str().unwrap().parse::<Timestamp>().unwrap().as_nanosecond() as f64;
    let points: Vec<Point> = std::iter::zip(
        of("kernel_gossip.history.time").iter().map(time),
        of("kernel_gossip.history.throttled_wall").iter().map(|v| v.as_f64().unwrap()),
    )
    .collect();
    let within = |p: &Point| p.1 - wall(&points, p.0 - WINDOW);
    let next = points.iter().position(|p| within(p) >= THRESHOLD);
    let next = next.filter(|n| *n > 0).unwrap_or_else(|| panic!("{points:?} {whisper:#}"));
    let (a, b) = (&points[next - 1], &points[next]);
    let ns = a.0 + (b.0 - a.0) * (THRESHOLD - within(a)) / (within(b) - within(a));
    Timestamp::from_nanosecond(ns as i128).unwrap()
}

fn print(what: &str, mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let at = |percent: usize| all[(all.len() * percent).div_ceil(100) - 1];
    let (p50, p90, p99, max) = (at(50), at(90), at(99), at(100));
    println!(
        "{what}: median {p50:.2} s, p90 {p90:.2}, p99 {p99:.2}, longest {max:.2} ({} whispers)",
        all.len()
    );
    p99
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn from_the_kernel_to_the_object() {
    let (client, ns) = (client().await, Namespace::alone("way"));
    let r = Reconciler::ready(&ns, &[]).await;
    let burners = Burners::start(&client, &ns, MANY, "100m").await;
    // On a busy machine the neighbours would be told of first.
    let agent = Agent::start(&ns, r.otlp, "signals: {cpu_contention: {enabled: false}}");
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let mut seen = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());

    let mut visible: HashMap<String, (Instant, Timestamp)> = HashMap::new();
    let mut next = tokio::time::interval(Duration::from_millis(400));
    let (mut waiting, mut burning) = (burners.names.iter(), 0);
    let end = tokio::time::Instant::now() + 4 * PATIENCE;
    while visible.len() < MANY {
        tokio::select! {
            // More at once would keep each other from being throttled.
            _ = next.tick(), if burning < 8 => if let Some(name) = waiting.next() {
                burners.burn(name);
                burning += 1;
            },
            kw = seen.try_next() => {
                let kw = kw.unwrap().unwrap();
                let active = kw.status.as_ref().is_some_and(|s| s.state == WhisperState::Active);
                if active && !visible.contains_key(&kw.spec.pod_name) {
                    burners.rest(&kw.spec.pod_name);
                    burning -= 1;
                    visible.insert(kw.spec.pod_name, (Instant::now(), Timestamp::now()));
                }
            }
            () = tokio::time::sleep_until(end) => panic!("{} of {MANY} are there", visible.len()),
        }
    }

    let (mut all, mut read, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for (said_at, w) in agent.whispers(&ns.0) {
        let pod = w["k8s.pod.name"].as_str().unwrap();
        if w["kernel_gossip.whisper.signal"] != "cpu_throttle"
            || w["kernel_gossip.whisper.transition"] != "started"
        {
            continue;
        }
        let Some((at, wall)) = visible.get(pod).copied() else { continue };
        let reading: Timestamp = w["timestamp"].as_str().unwrap().parse().unwrap();
        all.push(wall.duration_since(crossed(&w)).as_secs_f64());
        read.push(wall.duration_since(reading).as_secs_f64());
        behind.push(at.saturating_duration_since(said_at).as_secs_f64());
    }
    assert_eq!(all.len(), MANY, "one whisper each: {:#?}", agent.process.lines().last());
    let all = print("from the threshold crossed in the kernel to the object in the API", all);
    print("of which from the agent's reading that saw it", read);
    print("of which from the agent's word", behind);
    assert_eq!(r.warnings(), Vec::<String>::new());
    assert!(all <= 2.0, "told within two seconds, 99 of 100: {all:.2} s");
}
