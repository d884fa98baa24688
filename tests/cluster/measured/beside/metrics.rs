//! What the metrics say, beside what the kernel counted: a pod that burns, its cgroup's own counter.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{KernelWhisper, object_name};
use kernel_gossip::signals::{HistoryPoint, Transition, Whisper};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::bed::cgroup::{Version, cpu_tree};
use crate::bed::whisper;
use crate::cluster::bed::reconciler::{Reconciler, main_of, status, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

/// What `kubectl top` reads.
async fn pod_metrics(client: &Client, pod: &Pod) -> Option<Value> {
    let (ns, name) = (pod.namespace().unwrap(), pod.name_any());
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{ns}/pods/{name}");
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.ok()
}

/// The container's cgroup, below a tree's root.
fn cgroup(pod: &Pod) -> String {
    let id =
        pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone().unwrap();
    let id = id.trim_start_matches("containerd://");
    format!("kubepods/burstable/pod{}/{id}", pod.uid().unwrap())
}

/// CPU used since the container exists, ns, as the kernel's file has it now.
fn used(cgroup: &str) -> HistoryPoint {
    let cpu = cpu_tree().mount.join(cgroup);
    let stat = |key: &str| -> u64 {
        let text = std::fs::read_to_string(cpu.join("cpu.stat")).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    };
    let (cpu_usage_ns, throttled_ns) = match cpu_tree().version {
        Version::V1 => {
            let usage = cpu_tree().mount.with_file_name("cpuacct").join(cgroup).join("cpuacct.usage");
            let usage = std::fs::read_to_string(usage).unwrap();
            (usage.trim().parse().unwrap(), stat("throttled_time "))
        }
        Version::V2 => (stat("usage_usec ") * 1000, stat("throttled_usec ") * 1000),
    };
    let unix_ns = Timestamp::now().as_nanosecond() as u64;
    HistoryPoint { unix_ns, cpu_usage_ns, throttled_ns, throttled_wall_ns: None }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn metrics_and_kernel_over_the_same_window() {
    let (client, ns) = (client().await, Namespace::new("metrics"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    ns.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "burner"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "testbed.local/busybox:1", "command": ["sh", "-c", "while :; do :; done"],
            "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}},
        }]},
    }));
    let pods: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    let pod = eventually("the burner running", async || {
        let pod = pods.get("burner").await.unwrap();
        let running = pod.status.as_ref()?.container_statuses.as_ref()?[0].state.as_ref()?.running.is_some();
        running.then_some(pod)
    })
    .await;

    // Before metrics-server knows the pod: absent is said as absent.
    let who = main_of(&pod);
    let dir = cgroup(&pod);
    let mut history = vec![used(&dir)];
    let started = whisper::throttled(&who, Timestamp::now());
    agent.say(&[Whisper { history: history.clone(), ..started.clone() }]).await;
    let kw = whisper_of(&client, &pod, "a whisper", |_| true).await;
    let said = status(&kw).conditions.iter().find(|c| c.type_ == "MetricsSaid").unwrap();
    if status(&kw).metrics_say.is_none() {
        // The first answer of a busy server may come too late.
        assert_eq!(said.status, "False");
        assert!(["PodUnknown", "TooSlow"].contains(&said.reason.as_str()), "{said:?}");
    }

    // The agent's history is a second's samples, of the kernel's own counter here. The window the
    // metrics are about began after the burner.
    let first = history[0].unix_ns;
    let top = loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        history.push(used(&dir));
        assert!(history.len() < 300, "metrics-server says nothing of the pod");
        let Some(top) = pod_metrics(&client, &pod).await else { continue };
        let end: Timestamp = top["timestamp"].as_str().unwrap().parse().unwrap();
        let window: kube::core::Duration = top["window"].as_str().unwrap().parse().unwrap();
        let begin = end.as_nanosecond() as u64 - std::time::Duration::from(window).as_nanos() as u64;
        // The timestamp is cut to whole seconds.
        if begin > first && end.as_nanosecond() as u64 + 1_000_000_000 < history.last().unwrap().unix_ns {
            break top;
        }
    };
    // An answer that comes too late, or is newer than the history, is asked for with the next word.
    let mut again = Whisper { transition: Transition::Repeated, ..started };
    let whispers: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let kw = loop {
        again.at.unix_ns = Timestamp::now().as_nanosecond() as u64;
        agent.say(&[Whisper { history: history.clone(), ..again.clone() }]).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let kw = whispers.get(&object_name("burner", "kw")).await.unwrap();
        let say = status(&kw).metrics_say.as_ref();
        if say.is_some_and(|say| say.containers[0].kernel_cpu_cores.is_some()) {
            break kw;
        }
        history.push(used(&dir));
        assert!(history.len() < 300, "the metrics and the kernel never said of one window: {kw:?}");
    };
    let say = status(&kw).metrics_say.as_ref().unwrap();
    // Another scrape may have come between the questions.
    let top = match pod_metrics(&client, &pod).await {
        Some(newer) if newer["timestamp"] == say.timestamp.0.to_string() => newer,
        _ => top,
    };
    assert_eq!(top["timestamp"], say.timestamp.0.to_string());
    let nano = |quantity: &str| quantity.trim_end_matches('n').parse::<f64>().unwrap() / 1e9;
    let cores = nano(top["containers"][0]["usage"]["cpu"].as_str().unwrap());
    assert!((say.cpu_cores - cores).abs() < 1e-6, "{} and {cores}", say.cpu_cores);
    assert!((say.cpu_percent.unwrap() - cores / 0.2 * 100.0).abs() < 1e-3);
    let window: kube::core::Duration = top["window"].as_str().unwrap().parse().unwrap();
    assert!((say.window - std::time::Duration::from(window).as_secs_f64()).abs() < 1e-3);
    let kernel = say.containers[0].kernel_cpu_cores.expect("the history covers the window");
    let off = (kernel / cores - 1.0) * 100.0;
    println!("metrics {cores:.4} cores, kernel {kernel:.4} over {} s: {off:+.2} %", say.window);
    assert!(off.abs() <= 3.0, "metrics {cores}, kernel {kernel}");
    assert!(say.containers[0].kernel_throttled_cores.unwrap() > 0.0);
    let said = status(&kw).conditions.iter().find(|c| c.type_ == "MetricsSaid").unwrap();
    assert_eq!(said.status, "True");
}
