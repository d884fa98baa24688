//! The whole way of a number: a container of the cluster with a CPU limit, the kernel, the agent, the collector as we
//! ship it, Prometheus' text.

use crate::bed::process::Running;
use crate::bed::{free_address, http, kernel_gossip, repository, tool, until};
use crate::cluster::bed::Namespace;
use serde_json::{Value, json};

/// The sample of this metric with all these labels, if it is shown.
fn sample(shown: &str, metric: &str, labels: &[String]) -> Option<f64> {
    let of_it = |line: &&str| {
        line.starts_with(&format!("{metric}{{")) && labels.iter().all(|label| line.contains(label.as_str()))
    };
    let line = shown.lines().find(of_it)?;
    line.rsplit_once("} ")?.1.split(' ').next()?.parse().ok()
}

#[test]
#[ignore = "needs the cluster and otelcol: scripts/test cluster"]
fn a_limited_pod_is_told_of_everywhere_by_its_name() {
    let namespace = Namespace::throttled("agent");
    let (otlp, prometheus, own) = (free_address(), free_address(), free_address());
    let mut collector = Running::start(
        tool("otelcol")
            .arg("--config")
            .arg(repository().join("otel-collector/agent.yaml"))
            .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
            .env("KERNEL_GOSSIP_PROMETHEUS", prometheus.to_string()),
    );
    collector.says("Everything is ready");
    let mut agent = Running::start(
        kernel_gossip()
            .args(["agent", "--output", "json", "--node-name", "kg-node", "--prometheus", &own.to_string()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
    );
    until("the agent's server", || std::net::TcpStream::connect(own).ok());
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited", "labels": {"app": "limited"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "burner", "image": "testbed.local/busybox:1", "command": ["sh", "-c", "while :; do :; done"],
             "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "10m"}}},
            {"name": "quiet", "image": "testbed.local/pause:1"},
        ]},
    }));
    namespace.running("limited");
    let uid = namespace.get("pod/limited", "{.metadata.uid}");

    let mut said = Value::Null;
    agent.line("a whisper about it", |line| {
        if !line.to_stderr && line.text.contains(&uid) && line.text.contains("\"cpu_throttle\"") {
            said = serde_json::from_str(&line.text).expect("a line of JSON");
        }
        !said.is_null()
    });
    for (name, value) in [
        ("k8s.namespace.name", namespace.0.as_str()),
        ("k8s.pod.name", "limited"),
        ("k8s.container.name", "burner"),
        ("k8s.node.name", "kg-node"),
    ] {
        assert_eq!(said[name], value, "{said:#}");
    }
    assert_eq!(said["kernel_gossip.cpu.limit"], 0.2, "{said:#}");

    let ours = "kernel_gossip_cpu_throttled_per_cpu_time_seconds_total";
    let kernels = "kernel_gossip_cpu_throttled_reported_time_seconds_total";
    let namespace = &namespace.0;
    let of_agent = [
        format!("{{namespace=\"{namespace}\""),
        "pod=\"limited\"".to_owned(),
        "container=\"burner\"".to_owned(),
    ];
    let of_collector = [format!("k8s_pod_uid=\"{uid}\""), "k8s_container_name=\"burner\"".to_owned()];
    for (address, labels) in [(own, &of_agent[..]), (prometheus, &of_collector[..])] {
        let (stalls, reported) = until("both numbers", || {
            let shown = http::try_get(address, "/metrics", "").ok()?.body;
            let (ours, kernels) = (sample(&shown, ours, labels)?, sample(&shown, kernels, labels)?);
            (ours > 5.0).then_some((ours, kernels))
        });
        println!("{address}: stalls {stalls:.3} s, cpu.stat {reported:.3} s");
        // Of one reading; a stall in progress is in one of them.
        assert!((stalls - reported).abs() <= 0.02 * reported + 0.2, "{stalls} is not {reported} s");
    }
}
