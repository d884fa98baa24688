//! A pod that loses packets, told by the agent: the share is the one of the rule that drops them.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bed::cgroup::Cgroup;
use crate::bed::net::Nets;
use crate::bed::process::Running;
use crate::bed::{free_address, http, kernel_gossip};
use serde_json::Value;

pub(super) const UID_A: &str = "11111111-aaaa-4444-8888-000000000001";
pub(super) const UID_B: &str = "11111111-bbbb-4444-8888-000000000002";

pub(super) fn pod(uid: &str, id: char) -> Cgroup {
    Cgroup::at(&format!("kubepods/besteffort/pod{uid}/{}", id.to_string().repeat(64)))
}

pub(super) fn agent(arguments: &[&str]) -> Running {
    let mut command: Command = kernel_gossip();
    command.args(["agent", "--output", "json"]).args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name == "KUBECONFIG") {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    Running::start(&mut command)
}

pub(super) fn number(said: &Value, name: &str) -> f64 {
    said[name].as_f64().unwrap_or_else(|| panic!("no {name} in {said:#}"))
}

/// One in twenty of the packets that a pod sends is dropped in the host's FORWARD: that pod is told, with 5 %, the reason
/// and the direction, and the one it talks to is not; its interfaces say nothing. It is over once the rule is gone.
#[test]
fn a_pod_that_loses_packets_is_told_with_the_share_of_the_rule() {
    if procfs::KernelVersion::current().expect("version") < procfs::KernelVersion::new(6, 1, 0) {
        println!("a kernel that gives no reasons");
        return;
    }
    let nets = Nets::of(true, pod(UID_A, 'a'), pod(UID_B, 'b'));
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "signals: {packet_drop: {hold: 5s, repeat: 2s}}\n").expect("written");
    let address = free_address();
    let path = config.path().to_string_lossy().into_owned();
    let mut agent = agent(&["--config", &path, "--prometheus", &address.to_string()]);
    agent.says("watching");
    nets.host
        .iptables("-A FORWARD -p udp --dport 7000 -m statistic --mode nth --every 20 --packet 0 -j DROP");
    let over = AtomicBool::new(false);
    let pods: Vec<String> = std::thread::scope(|scope| {
        let (over, a, b, to) = (&over, &nets.a, &nets.b, nets.address_b.as_str());
        // The one sends through the host; the other takes that, and talks to itself.
        scope.spawn(move || {
            a.inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..10 {
                        let _ = socket.send_to(b"packet", (to, 7000));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        });
        scope.spawn(move || {
            b.inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:7000").expect("a socket");
                socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a limit");
                while !over.load(Ordering::Relaxed) {
                    let own = socket.send_to(b"to itself", "127.0.0.1:7000").is_ok();
                    while own
                        && socket.recv(&mut [0; 6]).is_ok_and(|n| n > 0)
                        && !over.load(Ordering::Relaxed)
                    {}
                }
            });
        });
        let mut told = Vec::new();
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut said = Value::Null;
            agent.line("a whole window", |line| {
                let Ok(new) = serde_json::from_str::<Value>(&line.text) else { return false };
                if new["kernel_gossip.whisper.signal"] != "packet_drop" {
                    return false;
                }
                told.push(new["k8s.pod.uid"].as_str().unwrap_or_default().to_owned());
                said = new;
                said["k8s.pod.uid"] == UID_A && told.iter().filter(|uid| *uid == UID_A).count() >= 9
            });
            said
        }));
        let metrics = http::try_get(address, "/metrics", "").map(|shown| shown.body);
        let quiet = nets.a.interface_drops();
        nets.host.iptables("-F FORWARD");
        over.store(true, Ordering::Relaxed);
        let said = said.expect("a whisper");
        let percent = number(&said, "kernel_gossip.network.dropped.percent");
        println!("{percent:.2} %: {}", said["body"]);
        assert!((4.5..=5.5).contains(&percent), "{said:#}");
        let sent = number(&said, "kernel_gossip.network.dropped.sent.packets");
        assert_eq!(sent, number(&said, "kernel_gossip.network.dropped.packets"), "{said:#}");
        assert_eq!(said["kernel_gossip.network.dropped.reason"], "NETFILTER_DROP", "{said:#}");
        assert_eq!(quiet, 0, "the usual metrics");
        assert_eq!(number(&said, "kernel_gossip.network.interface.dropped.packets"), 0.0, "{said:#}");
        let metrics = metrics.expect("metrics");
        // What else is on this machine may have drops too.
        let told_of = |line: &&str| {
            line.starts_with("kernel_gossip_network_dropped_total{")
                && ["NETFILTER_DROP", "sent", UID_A].iter().all(|part| line.contains(part))
        };
        assert!(metrics.lines().any(|line| told_of(&line)), "{metrics}");
        told
    });
    // Of other tests' pods it may tell as well.
    assert!(!pods.iter().any(|uid| uid == UID_B), "{pods:?}");
    agent.line("its end", |line| {
        serde_json::from_str::<Value>(&line.text).is_ok_and(|said| {
            said["kernel_gossip.whisper.signal"] == "packet_drop"
                && said["kernel_gossip.whisper.transition"] == "resolved"
        })
    });
}
