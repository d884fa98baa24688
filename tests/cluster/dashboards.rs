//! Dashboards with the pods of a real node: births, and workloads by their names. The rest of grafana/ is tested in
//! tests/host/dashboards. With `KG_PICTURES=DIR` the load goes on for five minutes, and what each dashboard then shows is
//! written there, for tests/testbed/grafana-render.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::bed::grafana::{Shown, dashboards, picture, until_data};
use crate::bed::process::Running;
use crate::bed::prometheus::{Prometheus, shipped_job};
use crate::bed::stats::StatsEnabled;
use crate::bed::{free_address, kernel_gossip, repository, tool, until};
use crate::cluster::bed::Namespace;
use crate::cluster::bed::agent::bundles;
use crate::cluster::bed::births::until_watching;

const COLLECTED: &str = "kernel-gossip-collector";
const DIRECT: &str = "kernel-gossip-machines";

/// A pod whose container runs this script.
fn pod(namespace: &Namespace, name: &str, script: &str, limit: Option<&str>) {
    let mut container =
        json!({"name": "app", "image": "testbed.local/busybox:1", "command": ["sh", "-c", script]});
    if let Some(limit) = limit {
        container["resources"] = json!({"limits": {"cpu": limit}, "requests": {"cpu": "10m"}});
    }
    namespace.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}));
}

const LOOP: &str = "while :; do :; done";

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn births_and_pods_are_shown_by_either_way() {
    let dir = TempDir::new().unwrap();
    let namespace = Namespace::throttled("dashboards");
    let pictures = std::env::var_os("KG_PICTURES").map(PathBuf::from);
    let _stats = pictures.is_some().then(StatsEnabled::new);
    let [otlp, collected, direct] = std::array::from_fn(|_| free_address());
    let mut collector = Running::start(
        tool("otelcol")
            .arg("--config")
            .arg(repository().join("otel-collector/agent.yaml"))
            .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
            .env("KERNEL_GOSSIP_PROMETHEUS", collected.to_string()),
    );
    collector.says("Everything is ready");
    let mut agent = Running::start(
        kernel_gossip()
            .args(["agent", "--node-name=kg-node", "--output=none", "--otlp-interval=1000"])
            .arg(format!("--otlp-endpoint=http://{otlp}"))
            .arg(format!("--prometheus={direct}"))
            .arg("--runtime-root")
            .arg(bundles()),
    );
    until_watching(&mut agent);
    let jobs = [shipped_job(COLLECTED, collected), shipped_job(DIRECT, direct)];
    let prometheus =
        Prometheus::start(dir.path(), &jobs, &[&repository().join("grafana/rules/kernel-gossip.yaml")]);
    let ask = |query: &str| {
        prometheus.api("query", &[("query", query)]).unwrap()["result"].as_array().unwrap().clone()
    };

    pod(&namespace, "limited", LOOP, Some("200m"));
    // The first is no growth of a counter, the others are.
    until("the first birth, by either way", || {
        (ask("kernel_gossip_birth_duration_seconds_count").len() >= 2).then_some(())
    });
    pod(&namespace, "victim", LOOP, None);
    // The API server answers, and the kernel counts segments.
    let talk = "while :; do nc -w 1 $KUBERNETES_SERVICE_HOST 443 < /dev/null; sleep 0.2; done";
    pod(&namespace, "talking", talk, None);
    pod(&namespace, "noisy", &format!("for i in 1 2 3; do {LOOP} & done; wait"), None);

    for dashboard in dashboards().iter().filter(|d| ["births", "workload"].contains(&&*d.name)) {
        for way in [COLLECTED, DIRECT] {
            let mut given = vec![("cluster", way)];
            if dashboard.name == "workload" {
                given.push(("namespace", &*namespace.0));
            }
            let empty = until_data(&prometheus, dashboard, &given);
            println!("{} by {way}: empty: {empty:?}", dashboard.name);
        }
    }
    if let Some(pictures) = pictures {
        draw(&prometheus, &namespace, &pictures);
    }
}

/// Five minutes more, a birth in each half of one.
fn draw(prometheus: &Prometheus, namespace: &Namespace, to: &Path) {
    for n in 0..10 {
        pod(namespace, &format!("web-{n}"), "sleep 600", None);
        std::thread::sleep(Duration::from_secs(30));
    }
    for dashboard in dashboards() {
        let mut given = vec![("cluster", COLLECTED)];
        if dashboard.name == "workload" {
            given.extend([("namespace", &*namespace.0), ("pod", "limited")]);
        }
        let shown = picture(prometheus, &dashboard, Shown::now(300.0, 5.0), &given);
        std::fs::write(to.join(format!("{}.json", dashboard.name)), shown.to_string()).unwrap();
    }
}
