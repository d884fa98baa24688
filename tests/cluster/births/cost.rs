//! What certifying twenty births at once costs them, and what twenty that go on cost the agent beside a node that is busy
//! with other programs: figures, no verdict.
//! `cargo test --release --test cluster births::cost -- --ignored --nocapture` on the test bed's cluster.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::measure::{median, spent};
use crate::bed::process::Running;
use crate::bed::{kernel_gossip, kubectl, until};
use crate::cluster::bed::births::{pod, until_watching};
use crate::cluster::bed::{Namespace, feed};

const PODS: usize = 20;
const ROUNDS: usize = 8;

#[test]
#[ignore = "needs the cluster, and nothing else on it"]
fn cost_of_certifying_twenty_births_at_once() {
    let namespace = Namespace::alone("birth-cost");
    start(&namespace); // what the first has to fetch and to make, all others have
    let (mut off, mut on, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let without = |times: &mut Vec<Duration>| times.push(start(&namespace));
        let mut with = |times: &mut Vec<Duration>| {
            let mut agent =
                Running::start(kernel_gossip().args(["agent", "--node-name", "kg-node", "--output", "json"]));
            until_watching(&mut agent);
            let (before, _) = spent(agent.pid());
            times.push(start(&namespace));
            for _ in 0..PODS {
                agent.says("\"kernel_gossip.birth\"");
            }
            agents.push(spent(agent.pid()).0 - before);
        };
        // Each goes first as often as the other.
        if round % 2 == 0 {
            without(&mut off);
            with(&mut on);
        } else {
            with(&mut on);
            without(&mut off);
        }
    }
    println!("{PODS} pods at once until all are ready, s, without the agent: {off:.2?}");
    println!("with it: {on:.2?}; CPU of the agent, s a round: {agents:.2?}");
    let mean = |times: &[Duration]| times.iter().sum::<Duration>().div_f64(times.len() as f64);
    println!("means: {:.2?} without, {:.2?} with", mean(&off), mean(&on));
    let (off, on) = (median(off), median(on));
    println!("medians: {off:.2?} without, {on:.2?} with: {:.3}", on.as_secs_f64() / off.as_secs_f64());
}

/// Pods whose first container does not end, and a neighbour that does nothing but run short programs.
#[test]
#[ignore = "needs the cluster, and nothing else on it"]
fn cost_of_births_that_wait_beside_a_storm() {
    const SECONDS: u64 = 20;
    let namespace = Namespace::alone("birth-storm");
    let mut agent =
        Running::start(kernel_gossip().args(["agent", "--node-name", "kg-node", "--output", "json"]));
    until_watching(&mut agent);
    let waits = |n| {
        let mut pod = pod(&format!("p{n}"), "testbed.local/web:1", json!([]));
        pod["spec"]["initContainers"] = json!([{"name": "first", "image": "testbed.local/busybox:1", "command": ["/bin/sh", "-c", "sleep 600"]}]);
        pod
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": (0..PODS).map(waits).collect::<Vec<_>>()});
    feed(kubectl().args(["-n", &namespace.0, "create", "-f", "-"]), &list.to_string()).expect("created");
    until("their first containers", || {
        let phases = "{.items[*].status.initContainerStatuses[0].state.running.startedAt}";
        (namespace.get("pods", phases).split_whitespace().count() == PODS).then_some(())
    });
    for storm in [false, true] {
        let count = "i=0; while :; do /bin/true; i=$((i+1)); echo $i; done";
        let running = storm.then(|| Running::start(Command::new("/bin/sh").args(["-c", count])));
        let (before, _) = spent(agent.pid());
        std::thread::sleep(Duration::from_secs(SECONDS));
        let (after, resident) = spent(agent.pid());
        let programs = running.map_or(0, |r| r.lines().len());
        let share = (after - before) / SECONDS as f64 * 100.0;
        let rate = programs as f64 / SECONDS as f64;
        println!(
            "{PODS} births that wait, {rate:.0} programs a second: the agent {share:.1} % of a core, {resident:.0} MiB"
        );
    }
}

/// Starts them and waits until all are ready; how long that took. Then takes them away.
fn start(namespace: &Namespace) -> Duration {
    let items: Vec<Value> =
        (0..PODS).map(|n| pod(&format!("p{n}"), "testbed.local/web:1", json!([]))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let begin = Instant::now();
    feed(kubectl().args(["-n", &namespace.0, "create", "-f", "-"]), &list).expect("created");
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "pods", "--all"]);
    let took = begin.elapsed();
    namespace.kubectl(&["delete", "pods", "--all", "--wait"]);
    took
}
