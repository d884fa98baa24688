//! What the agent costs on a full node, and how fast it tells: figures, nothing passes or fails by them.
//! `cargo test --release --test budget agent -- --ignored --nocapture --test-threads=1`

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::bed::cgroup::Cgroup;
use crate::bed::measure::spent;
use crate::bed::process::Running;
use crate::bed::{free_address, kernel_gossip, tool, until};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// `pods` pods as the kubelet and a runtime lay them out, of this many containers each.
pub struct Pods {
    containers: Vec<Cgroup>,
    _pods: Vec<Cgroup>,
    _above: [Cgroup; 3],
}

impl Pods {
    pub fn make(pods: usize, containers: usize) -> Pods {
        let top = Cgroup::new("cost");
        let kubepods = top.child("kubepods");
        let burstable = kubepods.child("burstable");
        let pods: Vec<_> =
            (0..pods).map(|i| burstable.child(&format!("pod{i:08x}-0000-4000-8000-000000000000"))).collect();
        let inside = |(i, pod): (usize, &Cgroup)| -> Vec<Cgroup> {
            (0..containers).map(|j| pod.child(&format!("{:064x}", i * containers + j + 1))).collect()
        };
        let containers = pods.iter().enumerate().flat_map(inside).collect();
        Pods { containers, _pods: pods, _above: [burstable, kubepods, top] }
    }

    /// A process that goes through all of them again and again, so that each runs a little in every second.
    pub fn visit(&self, script_file: &Path) -> Running {
        let files: Vec<_> = self.containers.iter().map(|c| c.dir().join("cgroup.procs")).collect();
        let mut script = String::from("while :; do\n");
        for file in files {
            script.push_str(&format!("echo 0 > {}\n", file.display()));
        }
        script.push_str("sleep 0.2\ndone\n");
        std::fs::write(script_file, script).expect("write");
        Running::start(Command::new("sh").arg(script_file))
    }
}

fn cost(pods: usize, containers: usize) {
    let node = Pods::make(pods, containers);
    let dir = tempfile::tempdir().expect("a directory");
    let visitor = node.visit(&dir.path().join("visit"));
    let address = free_address();
    let collector = free_address();
    let config = dir.path().join("otelcol.yaml");
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{collector}'}}}}}}}}\nexporters: {{nop: }}\n\
         service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{metrics: {{receivers: [otlp], exporters: [nop]}}, \
         logs: {{receivers: [otlp], exporters: [nop]}}}}}}\n"
    );
    std::fs::write(&config, text).expect("write");
    let mut otelcol = Running::start(tool("otelcol").arg("--config").arg(&config));
    otelcol.line("the collector", |line| line.text.contains("Everything is ready"));
    let agent = Running::start(
        kernel_gossip()
            .args(["agent", "--output", "none", "--prometheus", &address.to_string()])
            .args(["--otlp-endpoint", &format!("http://{collector}")])
            .env_remove("KUBECONFIG")
            .env("HOME", "/nonexistent"),
    );
    until("the agent's server", || std::net::TcpStream::connect(address).ok());
    sleep(20 * SECOND);
    let (before, _) = spent(agent.pid());
    let start = Instant::now();
    let mut most = 0_f64;
    for _ in 0..4 {
        sleep(15 * SECOND);
        let scraped = Command::new("curl").args(["-sf", &format!("http://{address}/metrics")]).output();
        let lines = scraped.map_or(0, |out| out.stdout.iter().filter(|b| **b == b'\n').count());
        let (_, memory) = spent(agent.pid());
        most = most.max(memory);
        println!("{memory:.1} MiB resident, {lines} lines of /metrics");
    }
    let (after, _) = spent(agent.pid());
    let share = (after - before) / start.elapsed().as_secs_f64() * 100.0;
    println!(
        "{pods} pods, {} containers: {share:.2} % of a core, at most {most:.1} MiB resident",
        pods * containers
    );
    agent.terminate();
    drop(visitor);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_110_pods() {
    cost(110, 1);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_1000_cgroups() {
    cost(498, 1);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_1000_containers() {
    cost(500, 2);
}

/// From the moment a loop with a fifth of a CPU begins to the line in the terminal.
#[test]
#[ignore = "a measurement"]
fn cost_in_time_until_a_whisper_is_told() {
    let mut agent = Running::start(
        kernel_gossip()
            .args(["agent", "--output", "json"])
            .env_remove("KUBECONFIG")
            .env("HOME", "/nonexistent"),
    );
    let mut took = Vec::new();
    for round in 0..20 {
        let cgroup = Cgroup::new("latency");
        cgroup.limit(Some(20 * MS), 100 * MS);
        // Not in step with the readings.
        sleep(SECOND / 20 * round);
        let start = Instant::now();
        let burner = cgroup.burn(1, None);
        let path = cgroup.path();
        let line = agent.line("a whisper", |l| l.text.contains(&path) && l.text.contains("\"cpu_throttle\""));
        took.push((line.at - start).as_secs_f64());
        drop(burner);
    }
    took.sort_by(f64::total_cmp);
    println!("from the load's begin to the line, s: {took:.2?}");
    agent.terminate();
}
