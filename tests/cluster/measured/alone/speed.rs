//! How fast a whisper is seen, and how much one reconciler carries. Figures are printed
//! (`--nocapture`), not judged; that nothing is lost and nothing grows is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{KernelWhisper, WhisperState};
use kernel_gossip::signals::{Transition, Whisper};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::bed::{PATIENCE, kubectl, process::output};
use crate::cluster::bed::reconciler::{Agent, Reconciler, apply_in, throttled};
use crate::cluster::bed::{Namespace, client, eventually};

/// A node that is only a name: pods on it exist for the API server and cost no machine anything.
struct Node(String);

impl Node {
    fn new(name: &str) -> Node {
        apply_in(
            None,
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": true}}),
        );
        Node(name.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = kubectl().args(["delete", "node", &self.0, "--wait=false"]).output();
    }
}

/// So many pods on a node that is only a name.
async fn pods(client: &Client, ns: &Namespace, node: &Node, many: usize) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    let (api, node) = (&api, &node.0);
    futures::stream::iter(0..many)
        .map(|i| async move {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{i}")},
                "spec": {
                    "nodeName": node, "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "main", "image": "none", "resources": {"limits": {"cpu": "200m"}}}],
                },
            });
            api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
        })
        .buffered(16)
        .collect()
        .await
}

/// The value below which so many percent lie.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn from_report_to_object() {
    const MANY: usize = 50;
    let (client, ns) = (client().await, Namespace::alone("latency"));
    let node = Node::new("kg-test-latency");
    let r = Reconciler::ready(&ns, &[]).await;
    let all = pods(&client, &ns, &node, MANY).await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let mut seen = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());

    let mut said: HashMap<String, Instant> = HashMap::new();
    let mut took = Vec::new();
    let mut next = tokio::time::interval(Duration::from_millis(100));
    let mut waiting = all.iter();
    while took.len() < MANY {
        tokio::select! {
            _ = next.tick(), if said.len() < MANY => {
                let pod = waiting.next().unwrap();
                said.insert(pod.name_any(), Instant::now());
                agent.say(&[throttled(pod)]).await;
            }
            kw = seen.try_next() => {
                let kw = kw.unwrap().unwrap();
                if kw.status.as_ref().is_some_and(|s| s.state == WhisperState::Active) {
                    took.push(said[&kw.spec.pod_name].elapsed());
                }
            }
        }
    }
    took.sort();
    let [p50, p99, max] = [50, 99, 100].map(|p| percentile(&took, p));
    println!("from report to object, {MANY} whispers: median {p50:.1?}, p99 {p99:.1?}, longest {max:.1?}");
}

/// What is the case at one moment.
#[derive(Debug)]
struct Sample {
    seconds: f64,
    queue: f64,
    resident_mb: f64,
    active: f64,
    reports: f64,
    writes: f64,
}

impl Sample {
    async fn take(r: &Reconciler, start: Instant) -> Sample {
        let m =
            |name: &'static str| async move { r.metric(&format!("kernel_gossip_reconciler_{name}")).await };
        Sample {
            seconds: start.elapsed().as_secs_f64(),
            queue: m("queue_length").await,
            resident_mb: m("resident_memory_bytes").await / 1e6,
            active: m("active_signals").await,
            reports: m("reports_total").await,
            writes: m("writes_total").await,
        }
    }
}

/// Agents of 110 pods, 2 % of which whisper, said again each minute; each second some begin and as many end. `KG_SCALE_NODES` says how
/// many agents (1,000), `KG_SCALE_SECONDS` for how long (30).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn many_nodes() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let nodes: usize = number("KG_SCALE_NODES", 1000);
    let seconds = number("KG_SCALE_SECONDS", 30);
    let whispering = nodes * 110 * 2 / 100;
    // Whispers that begin a second, and that end: each lasts some five minutes.
    let churn = whispering / 300;
    let (client, ns) = (client().await, Namespace::alone("scale"));
    let node = Node::new("kg-test-scale");
    let r = Reconciler::ready(&ns, &[]).await;
    let all = pods(&client, &ns, &node, whispering + whispering / 10).await;
    let token = ns.caller("agent", &["/otlp/cluster"]);
    let mut agents: Vec<Agent> = Vec::new();
    for _ in 0..nodes {
        agents.push(r.agent(&token).await);
    }

    // All at once: the worst that can happen.
    let mut rng = StdRng::seed_from_u64(7);
    let mut whispers: Vec<Option<Whisper>> = all.iter().map(|_| None).collect();
    let start = Instant::now();
    let batches = (0..whispering).map(|i| {
        let w = throttled(&all[i]);
        whispers[i] = Some(w.clone());
        let mut agent = agents[i % nodes].clone();
        async move { agent.say(&[w]).await }
    });
    let batches: Vec<_> = batches.collect();
    futures::stream::iter(batches).buffer_unordered(200).collect::<Vec<_>>().await;
    let taken = start.elapsed();
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    // However long that takes here: as long as it writes.
    let (mut written, mut since) = (0.0, Instant::now());
    loop {
        let now = r.metric("kernel_gossip_reconciler_writes_total{object=\"whisper\",result=\"ok\"}").await;
        if now >= whispering as f64 && r.metric("kernel_gossip_reconciler_queue_length").await == 0.0 {
            break;
        }
        if now > written {
            (written, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{written} of {whispering} written, and no more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let burst = Sample::take(&r, start).await;
    println!(
        "{whispering} whispers at once over {nodes} connections: taken in {taken:.1?}, {} objects written after {:.1} s; {burst:?}",
        burst.writes, burst.seconds
    );

    // Steady: each active one once a minute, and churn.
    let start = Instant::now();
    let mut samples = vec![Sample::take(&r, start).await];
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 0..seconds {
        tick.tick().await;
        let mut batch: HashMap<usize, Vec<Whisper>> = HashMap::new();
        let now = Timestamp::now().as_nanosecond() as u64;
        let active: Vec<usize> = (0..all.len()).filter(|&i| whispers[i].is_some()).collect();
        for &i in active.iter().filter(|&&i| i % 60 == second % 60) {
            let w = whispers[i].as_mut().unwrap();
            (w.transition, w.at.unix_ns) = (Transition::Repeated, now);
            batch.entry(i % nodes).or_default().push(w.clone());
        }
        for _ in 0..churn {
            let end = active[rng.random_range(0..active.len())];
            if let Some(mut w) = whispers[end].take() {
                (w.transition, w.at.unix_ns) = (Transition::Resolved, now + 1);
                batch.entry(end % nodes).or_default().push(w);
            }
            let silent: Vec<usize> = (0..all.len()).filter(|&i| whispers[i].is_none() && i != end).collect();
            let begin = silent[rng.random_range(0..silent.len())];
            let w = throttled(&all[begin]);
            whispers[begin] = Some(w.clone());
            batch.entry(begin % nodes).or_default().push(w);
        }
        let sends = batch.into_iter().map(|(n, ws)| {
            let mut agent = agents[n].clone();
            async move { agent.say(&ws).await }
        });
        futures::future::join_all(sends).await;
        if (second + 1) % 10 == 0 {
            samples.push(Sample::take(&r, start).await);
        }
    }
    for pair in samples.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        let rate = |x: f64| x / (b.seconds - a.seconds);
        println!(
            "{:.0} s: {:.0} events/s, {:.0} writes/s, queue {}, {} active, {:.1} MB resident",
            b.seconds,
            rate(b.reports - a.reports),
            rate(b.writes - a.writes),
            b.queue,
            b.active,
            b.resident_mb
        );
    }

    // Nothing is lost and nothing grows: every object says what its agent said last.
    eventually("an empty queue", async || {
        (r.metric("kernel_gossip_reconciler_queue_length").await == 0.0).then_some(())
    })
    .await;
    let (first, last) = (&samples[samples.len() / 2], samples.last().unwrap());
    assert!(last.resident_mb <= first.resident_mb * 1.15 + 2.0, "memory grows: {first:?} {last:?}");
    for lost in [
        "put_back_total",
        "cases_dropped_total",
        "refused_total",
        "writes_total{object=\"whisper\",result=\"given_up\"}",
    ] {
        assert_eq!(r.metric(&format!("kernel_gossip_reconciler_{lost}")).await, 0.0, "{lost}");
    }
    eventually("objects as said", async || {
        let there = api.list(&Default::default()).await.unwrap();
        // An object that has just been made is without a status until the write after it.
        let said: HashMap<_, _> =
            there.iter().map(|kw| (kw.spec.pod_name.as_str(), kw.status.as_ref().map(|s| s.state))).collect();
        let right = all.iter().zip(&whispers).all(|(pod, w)| match (said.get(pod.name_any().as_str()), w) {
            (Some(state), w) => state.is_some_and(|s| (s == WhisperState::Active) == w.is_some()),
            (None, w) => w.is_none(),
        });
        right.then_some(())
    })
    .await;
    assert_eq!(r.warnings(), Vec::<String>::new());
    output(kubectl().args(["-n", &ns.0, "delete", "pods", "--all", "--wait=false"]));
}
