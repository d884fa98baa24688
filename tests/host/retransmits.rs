//! A pod that sends segments again, told by the agent: the share is the one of the rule that drops them, and a transfer
//! without losses is nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::drops::{agent, number, pod};
use crate::bed::net::Nets;
use crate::bed::{free_address, http, until};
use serde_json::Value;

// Pods of each test's own: tests run side by side.
const LOSING: &str = "22222222-aaaa-4444-8888-000000000001";
const TALKING: &str = "22222222-bbbb-4444-8888-000000000002";
const SENDING: &str = "33333333-aaaa-4444-8888-000000000001";
const TAKING: &str = "33333333-bbbb-4444-8888-000000000002";

/// This kernel has the walk that finds namespaces.
fn tells() -> bool {
    let tells = procfs::KernelVersion::current().expect("version") >= procfs::KernelVersion::new(6, 1, 0);
    if !tells {
        println!("a kernel without an iterator over cgroups");
    }
    tells
}

/// One in twenty of the packets that a pod sends on connections is dropped in the host's FORWARD: that pod is told, with its
/// share and the waits, and the one it talks to, which sends as much, with less, if at all.
#[test]
fn a_pod_whose_segments_are_lost_is_told_with_the_share() {
    if !tells() {
        return;
    }
    let nets = Nets::of(true, pod(LOSING, 'c'), pod(TALKING, 'd'));
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "signals: {tcp_retransmit: {hold: 5s, repeat: 2s}}\n").expect("written");
    let address = free_address();
    let path = config.path().to_string_lossy().into_owned();
    let mut agent = agent(&["--config", &path, "--prometheus", &address.to_string()]);
    agent.says("watching");
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let over = AtomicBool::new(false);
    let (said, told) = std::thread::scope(|scope| {
        let (over, a, to) = (&over, &nets.a, format!("{}:7001", nets.address_b));
        // Questions and answers on connections that last: each that is lost is waited for.
        for _ in 0..8 {
            let (to, listener) = (to.clone(), &listener);
            scope.spawn(move || {
                let mut asking = a.inside(|| TcpStream::connect(to).expect("connected"));
                while !over.load(Ordering::Relaxed) {
                    let _ = asking.write_all(b"question");
                    let _ = asking.read_exact(&mut [0; 6]);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
            scope.spawn(move || {
                let (mut answering, _) = listener.accept().expect("accepted");
                while answering.read_exact(&mut [0; 8]).is_ok() {
                    let _ = answering.write_all(b"answer");
                }
            });
        }
        nets.host
            .iptables("-A FORWARD -p tcp --dport 7001 -m statistic --mode nth --every 20 --packet 9 -j DROP");
        let mut told = Vec::new();
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut said = Value::Null;
            agent.line("a whole window", |line| {
                let Ok(new) = serde_json::from_str::<Value>(&line.text) else { return false };
                if new["kernel_gossip.whisper.signal"] != "tcp_retransmit" {
                    return false;
                }
                told.push(new.clone());
                said = new;
                said["k8s.pod.uid"] == LOSING
                    && told.iter().filter(|said| said["k8s.pod.uid"] == LOSING).count() >= 9
            });
            said
        }));
        let metrics = http::try_get(address, "/metrics", "").map(|shown| shown.body);
        nets.host.iptables("-F FORWARD");
        over.store(true, Ordering::Relaxed);
        let metrics = metrics.expect("metrics");
        let of_a = |name: &str| metrics.lines().any(|line| line.starts_with(name) && line.contains(LOSING));
        assert!(of_a("kernel_gossip_network_tcp_segments_total{"), "{metrics}");
        assert!(of_a("kernel_gossip_network_tcp_events_total{"), "{metrics}");
        (said.expect("a whisper"), told)
    });
    let of = |name: &str| number(&said, &format!("kernel_gossip.network.tcp.{name}"));
    println!("{}", said["body"]);
    // Of what is sent again one in twenty is lost, too; a timer that fires early sends what is not lost.
    assert!((4.0..=8.0).contains(&of("retransmitted.percent")), "{said:#}");
    // A quiet machine repairs nearly all by a probe, which is known with the next acknowledgement: in the next window, of a few.
    let (waits, again) = (of("timeouts") + of("tail_losses"), of("retransmitted.segments"));
    assert!(waits >= 3.0 && waits <= 1.1 * again, "{said:#}");
    // With a question the acknowledgement of an answer is lost, and some answers are sent again for want of it: fewer.
    let others = told.iter().filter(|said| said["k8s.pod.uid"] == TALKING);
    let percent = |said: &Value| number(said, "kernel_gossip.network.tcp.retransmitted.percent");
    assert!(others.clone().all(|said| percent(said) < of("retransmitted.percent")), "{told:#?}");
    agent.line("its end", |line| {
        serde_json::from_str::<Value>(&line.text).is_ok_and(|said| {
            said["kernel_gossip.whisper.signal"] == "tcp_retransmit"
                && said["kernel_gossip.whisper.transition"] == "resolved"
        })
    });
}

/// A gigabyte from one pod to the other, without a loss: no whisper of either, whatever the kernel sends again.
#[test]
fn a_clean_gigabyte_is_no_whisper() {
    if !tells() {
        return;
    }
    let nets = Nets::of(false, pod(SENDING, 'e'), pod(TAKING, 'f'));
    let address = free_address();
    let mut agent = agent(&["--prometheus", &address.to_string()]);
    agent.says("watching");
    let counted = || {
        let shown = http::get(address, "/metrics", "").body;
        let of_a = |name: &str| {
            let line = shown.lines().find(|line| line.starts_with(name) && line.contains(SENDING))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Some((
            of_a("kernel_gossip_network_tcp_segments_total{")?,
            of_a("kernel_gossip_network_tcp_retransmitted_total{")?,
        ))
    };
    until("the pod's counters", counted);
    let listener = nets.b.inside(|| TcpListener::bind("0.0.0.0:7001").expect("a socket"));
    let files = || nets.a.counter("Tcp", "OutSegs") + nets.a.counter("Tcp", "RetransSegs");
    let before = files();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nets.a.inside(|| {
                let mut stream = TcpStream::connect(format!("{}:7001", nets.address_b)).expect("connected");
                (0..1024).for_each(|_| stream.write_all(&[b'x'; 1 << 20]).expect("to write"));
            });
        });
        let (mut stream, _) = listener.accept().expect("accepted");
        let taken = std::io::copy(&mut stream, &mut std::io::sink()).expect("all of it");
        assert_eq!(taken, 1 << 30);
    });
    let sent = (files() - before) as f64;
    let (_, again) =
        until("all of it in the metrics", || counted().filter(|(segments, _)| *segments >= sent));
    let waits =
        ["TCPTimeouts", "TCPLossProbes", "TCPLossProbeRecovery"].map(|name| nets.a.counter("TcpExt", name));
    println!(
        "{sent} segments, {again} of them again; timeouts, probes, losses that a probe repaired: {waits:?}"
    );
    let said: Vec<_> = agent
        .lines()
        .into_iter()
        .filter(|line| line.text.contains(SENDING) || line.text.contains(TAKING))
        .collect();
    let of_network = |text: &str| text.contains("tcp_retransmit") || text.contains("packet_drop");
    assert!(!said.iter().any(|line| of_network(&line.text)), "{said:?}");
}
