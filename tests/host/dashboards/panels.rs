//! Every panel shows data of the real agent: by its own page, and through the collector.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::bed::cgroup::{Burners, Cgroup};
use crate::bed::grafana::{Shown, dashboards, until_data, values};
use crate::bed::net::Nets;
use crate::bed::process::Running;
use crate::bed::prometheus::{Prometheus, shipped_job};
use crate::bed::stats::StatsEnabled;
use crate::bed::{free_address, kernel_gossip, repository, tool, until};

const COLLECTED: &str = "kernel-gossip-collector";
const DIRECT: &str = "kernel-gossip-machines";

/// A container of a pod as containerd makes it: its cgroup, and its files (recorded) with these names.
fn container(runtime: &Path, number: u32, pod: &str) -> Cgroup {
    let (uid, id) =
        (format!("{number:08}-0000-4000-8000-{:012}", std::process::id()), format!("{number:0>64}"));
    let recorded = repository().join("tests/fixtures/attribution/containerd-container.json");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(recorded).expect("recorded")).expect("JSON");
    for (key, value) in [
        ("container-name", "app"),
        ("sandbox-name", pod),
        ("sandbox-namespace", "shop"),
        ("sandbox-uid", &uid),
    ] {
        config["annotations"][format!("io.kubernetes.cri.{key}")] = value.into();
    }
    let dir = runtime.join("io.containerd.runtime.v2.task/k8s.io").join(&id);
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("config.json"), config.to_string()).expect("written");
    Cgroup::at(&format!("kg-test-dashboards-{}-0/kubepods/burstable/pod{uid}/{id}", std::process::id()))
}

/// One is stopped by its limit, one kept waiting by a noisy neighbour, and one connects to another, twenty times a second.
struct Load {
    _burners: Vec<Burners>,
    _cgroups: Vec<Cgroup>,
    over: Arc<AtomicBool>,
    talker: Option<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.talker.take().map(JoinHandle::join);
    }
}

fn load(runtime: &Path) -> Load {
    let [limited, victim, noisy] =
        [(1, "limited"), (2, "victim"), (3, "noisy")].map(|(n, pod)| container(runtime, n, pod));
    let ms = Duration::from_millis(1);
    // So little that it is stopped also where others leave it little of a CPU.
    limited.limit(Some(5 * ms), 100 * ms);
    let burners = vec![limited.burn(2, None), victim.burn(1, Some(0)), noisy.burn(3, Some(0))];
    let nets = Nets::of(false, container(runtime, 4, "talker"), container(runtime, 5, "silent"));
    let over = Arc::new(AtomicBool::new(false));
    let talker = std::thread::spawn({
        let over = over.clone();
        move || {
            let nets = nets; // whole, with the other end
            let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
            nets.a.inside(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(_asks) = TcpStream::connect(format!("{}:7001", nets.address_b)) {
                        let _answers = listener.accept();
                    }
                    std::thread::sleep(50 * ms);
                }
            });
        }
    });
    Load { _burners: burners, _cgroups: vec![limited, victim, noisy], over, talker: Some(talker) }
}

#[test]
#[ignore = "needs otelcol and prometheus: scripts/test host"]
fn every_panel_shows_data_by_either_way() {
    let dir = TempDir::new().expect("a directory");
    // The time of BPF programs is counted while somebody wants it.
    let _stats = StatsEnabled::new();
    let [otlp, collected, direct] = std::array::from_fn(|_| free_address());
    let mut collector = Running::start(
        tool("otelcol")
            .arg("--config")
            .arg(repository().join("otel-collector/agent.yaml"))
            .env("KERNEL_GOSSIP_OTLP", otlp.to_string())
            .env("KERNEL_GOSSIP_PROMETHEUS", collected.to_string()),
    );
    collector.says("Everything is ready");
    let runtime = dir.path().join("runtime");
    let load = load(&runtime);
    let mut agent = kernel_gossip();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name == "KUBECONFIG") {
        agent.env_remove(name);
    }
    agent.args(["agent", "--output=json", "--otlp-interval=1000"]);
    agent.arg(format!("--otlp-endpoint=http://{otlp}")).arg(format!("--prometheus={direct}"));
    agent.arg("--runtime-root").arg(&runtime);
    let _agent = Running::start(agent.env("HOME", "/nonexistent").env("NODE_NAME", "127.0.0.1"));

    let rules = repository().join("grafana/rules/kernel-gossip.yaml");
    let jobs = [shipped_job(COLLECTED, collected), shipped_job(DIRECT, direct)];
    let prometheus = Prometheus::start(dir.path(), &jobs, &[&rules]);
    until("whispers of both kinds", || {
        let active = prometheus.api(
            "query",
            &[(
                "query",
                "count by (cluster, kernel_gossip_whisper_signal) (kernel_gossip_whisper_active{kernel_gossip_whisper_signal=~'cpu_.*'} == 1)",
            )],
        );
        (active.ok()?["result"].as_array()?.len() == 4).then_some(())
    });

    // The agent's own come with the next export.
    until("the agent's own metrics, by either way", || {
        let known =
            prometheus.api("query", &[("query", "count by (cluster) (kernel_gossip_agent_workload_known)")]);
        (known.ok()?["result"].as_array()?.len() == 2).then_some(())
    });

    for dashboard in dashboards() {
        // tests/cluster/dashboards.rs has births.
        if dashboard.name == "births" {
            continue;
        }
        for way in [COLLECTED, DIRECT] {
            // Not of the pods alone: on cgroup v1 these have no files of usage and pressure.
            let given = [("cluster", way)];
            let empty = until_data(&prometheus, &dashboard, &given);
            println!("{} by {way}: empty: {empty:?}", dashboard.name);
        }
    }

    let workload = dashboards().into_iter().find(|d| d.name == "workload").expect("shipped");
    for way in [COLLECTED, DIRECT] {
        let victim = [
            ("cluster", way),
            ("node", "127.0.0.1"),
            ("namespace", "shop"),
            ("pod", "victim"),
            ("container", "app"),
        ];
        values(&prometheus, &workload, Shown::now(60.0, 1.0), &victim);
    }

    // Every rule can be evaluated, and those that record do.
    let groups = prometheus.api("rules", &[]).expect("rules");
    for rule in groups["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|g| g["rules"].as_array().expect("rules"))
    {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    drop(load);
}
