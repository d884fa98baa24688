//! Pods that work in short bursts of several threads: the Metrics API shows them half idle, the kernel shows
//! them stopped, and over the Metrics API's own window both count the same CPU time.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kernel_gossip::api::{KernelWhisper, MetricsSay, WhisperState};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::bed;
use crate::cluster::bed::agent::{Agent, create, running};
use crate::cluster::bed::reconciler::Reconciler;
use crate::cluster::bed::{Namespace, client};

/// Threads that start together, and what each works, in ticks of 10 ms.
const SHAPES: [(usize, u32); 2] = [(2, 2), (4, 1)];
const EACH: usize = 3;
/// What one burst of either works, s of CPU. The Metrics API says in whole seconds of when its numbers are: there may
/// be a burst more or less in one of the two counts.
const BURST: f64 = 0.04;

/// The demo's pod with other bursts: shorter ones, and more of them.
fn burst(name: &str, threads: usize, ticks: u32) -> Value {
    let manifest = std::fs::read_to_string(bed::repository().join("k8s/demo/cpu-throttle.yaml")).unwrap();
    let mut pod: Value = serde_json::to_value(serde_saphyr::from_str::<Value>(&manifest).unwrap()).unwrap();
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = "testbed.local/busybox:1".into();
    let script = container["command"][2].as_str().unwrap();
    let demo = "while :; do burst 2 & burst 1 & wait; sleep 0.1; done";
    assert!(script.contains(demo), "the demo's script has changed");
    let several = format!("burst {ticks} & ").repeat(threads);
    let script = script.replace(demo, &format!("while :; do {several}wait; sleep 0.25; done"));
    container["command"][2] = script.into();
    container["resources"]["limits"]["cpu"] = "200m".into();
    pod["metadata"]["name"] = name.into();
    pod
}

/// What the Metrics API says of each pod of the namespace now.
async fn metrics(client: &Client, ns: &str) -> Vec<Value> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{ns}/pods");
    let list: Value = client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
    list["items"].as_array().unwrap().clone()
}

/// What the kernel says of the time; nothing once it is over.
fn stopped(kw: &KernelWhisper) -> f64 {
    let status = kw.status.as_ref().unwrap();
    let truth = status.kernel_truth.as_ref().filter(|_| status.state == WhisperState::Active);
    truth.and_then(|t| t.throttled_percent).unwrap_or(0.0)
}

fn nano_cores(metrics: &Value) -> f64 {
    let quantity = metrics["containers"][0]["usage"]["cpu"].as_str().unwrap();
    quantity.strip_suffix('n').unwrap().parse::<f64>().unwrap() / 1e9
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn pods_that_burst_look_idle_and_are_stopped() {
    let (client, ns) = (client().await, Namespace::alone("bursts"));
    let r = Reconciler::ready(&ns, &[]).await;
    // Said more often than a minute apart, so that an object with the metrics' word is not waited for that long.
    let _agent = Agent::start(&ns, r.otlp, "signals: {cpu_throttle: {repeat: 5s}}");
    let names: Vec<_> = SHAPES
        .iter()
        .flat_map(|(threads, ticks)| {
            (0..EACH).map(move |i| (format!("bursts-{threads}-{i}"), *threads, *ticks))
        })
        .collect();
    for (name, threads, ticks) in &names {
        create(&client, &ns, burst(name, *threads, *ticks)).await;
    }
    for (name, ..) in &names {
        running(&client, &ns, name).await;
    }

    // Everything the Metrics API says meanwhile, by pod and timestamp.
    let mut said: HashMap<(String, String), Value> = HashMap::new();
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let mut windows: HashMap<String, BTreeMap<Timestamp, (f64, MetricsSay)>> = HashMap::new();
    let end = Instant::now() + 4 * bed::PATIENCE;
    while windows.len() < names.len() {
        assert!(Instant::now() < end, "only these have it all: {:?}", windows.keys());
        tokio::time::sleep(Duration::from_secs(1)).await;
        for m in metrics(&client, &ns.0).await {
            let key = |path: &str| m.pointer(path).unwrap().as_str().unwrap().to_owned();
            said.insert((key("/metadata/name"), key("/timestamp")), m);
        }
        for kw in api.list(&ListParams::default()).await.unwrap() {
            let Some(say) = kw.status.as_ref().and_then(|s| s.metrics_say.clone()) else { continue };
            let heard = said.contains_key(&(kw.spec.pod_name.clone(), say.timestamp.0.to_string()));
            // A machine that is busy with other things does not let it burst for a while.
            let idle = say.cpu_percent.is_some_and(|p| p < 80.0);
            if heard && idle && stopped(&kw) >= 15.0 && say.containers[0].kernel_cpu_cores.is_some() {
                let of_pod = windows.entry(kw.spec.pod_name.clone()).or_default();
                of_pod.entry(say.timestamp.0).or_insert((stopped(&kw), say));
            }
        }
    }

    let (mut by_metrics, mut by_kernel) = (0.0, 0.0);
    for (name, (stopped, say)) in names.iter().flat_map(|(n, ..)| windows[n].values().map(move |w| (n, w))) {
        let top = &said[&(name.clone(), say.timestamp.0.to_string())];
        let window: kube::core::Duration = top["window"].as_str().unwrap().parse().unwrap();
        assert!((say.window - Duration::from(window).as_secs_f64()).abs() < 1e-3, "{name}: {say:?} {top}");
        let cores = nano_cores(top);
        assert!((say.cpu_cores - cores).abs() < 1e-6, "{name}: {say:?} {top}");

        let percent = say.cpu_percent.unwrap();
        let kernel = say.containers[0].kernel_cpu_cores.unwrap();
        let off = (kernel / cores - 1.0) * 100.0;
        println!(
            "{name}: kubectl top {percent:.0} % of its limit; stopped {stopped:.0} % of the time; {cores:.4} cores over \
             {:.1} s, the kernel counts {kernel:.4}: {off:+.2} %",
            say.window
        );
        let a_burst = BURST / say.window / cores * 100.0;
        assert!(off.abs() <= 3.0 + a_burst, "{name}: {off:.2} %, of which a burst is {a_burst:.2}");
        by_metrics += cores * say.window;
        by_kernel += kernel * say.window;
    }
    let off = (by_kernel / by_metrics - 1.0) * 100.0;
    println!("all windows: {off:+.2} %");
    assert!(off.abs() <= 3.0, "metrics {by_metrics} s of CPU, kernel {by_kernel} s");
    assert_eq!(r.warnings(), Vec::<String>::new());
}
