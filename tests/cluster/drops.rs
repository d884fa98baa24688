//! A pod whose packets are lost on the node: its object says the share and the reason, of it alone.

use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{KernelWhisper, Severity, SignalKind};
use kube::Api;
use kube::api::ListParams;

use crate::cluster::bed::agent::{Agent, create, pod, running};
use crate::cluster::bed::reconciler::{Reconciler, status, whisper_of};
use crate::cluster::bed::{Namespace, client};

/// Rules in the node's own network, gone with it.
struct Rule(String);

/// iptables in the node's network namespace.
fn iptables(arguments: &str) -> String {
    let output = Command::new("nsenter")
        .args(["--net=/run/netns/kg-node", "iptables"])
        .args(arguments.split_whitespace())
        .output()
        .expect("nsenter");
    assert!(output.status.success(), "iptables {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Rule {
    fn add(rule: &str) -> Rule {
        iptables(&format!("-I FORWARD {rule}"));
        Rule(rule.to_owned())
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let mut command = Command::new("nsenter");
        command.args(["--net=/run/netns/kg-node", "iptables", "-D", "FORWARD"]);
        let _ = command.args(self.0.split_whitespace()).output();
    }
}

fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_pod_whose_packets_are_lost_is_an_object_and_its_neighbours_are_not() {
    let (client, ns) = (client().await, Namespace::new("drops"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = Agent::start(&ns, r.otlp, "signals: {packet_drop: {repeat: 2s}}");
    agent.process.says("watching");
    create(&client, &ns, pod("asked", "sleep 3600", "1")).await;
    let asked = address(&running(&client, &ns, "asked").await);
    let mut pods = Vec::new();
    // Fifty questions a second each, whose answers the kernel gives.
    for name in ["lossy", "clean-1", "clean-2"] {
        create(&client, &ns, pod(name, &format!("ping -i 0.02 {asked} > /dev/null"), "1")).await;
        pods.push(running(&client, &ns, name).await);
    }
    let from = address(&pods[0]);
    let nth = "-p icmp -m statistic --mode nth --every 20 --packet 9 -j DROP";
    let rules = [Rule::add(&format!("-s {from} {nth}")), Rule::add(&format!("-d {from} {nth}"))];
    let whole = |kw: &KernelWhisper| {
        let said = status(kw).signals.iter().find(|s| s.kind == SignalKind::PacketDrop);
        said.is_some_and(|s| s.evidence.network().drop_percent.is_some_and(|percent| percent >= 4.5))
    };
    let kw = whisper_of(&client, &pods[0], "the losses", whole).await;
    let said = status(&kw);
    println!("{}\n{}\n{:?}", said.insight, said.kernel_evidence, said.recommendation);
    let signal = said.signals.iter().find(|s| s.kind == SignalKind::PacketDrop).expect("the signal");
    let network = signal.evidence.network();
    assert!(network.drop_percent.is_some_and(|percent| (4.5..=5.5).contains(&percent)), "{network:?}");
    assert_eq!(network.reason.as_deref(), Some("NETFILTER_DROP"), "{network:?}");
    // As many answers as questions, but for those that were not asked.
    let (sent, received) = (network.dropped_sent_packets, network.dropped_received_packets);
    let both = sent.zip(received).expect("both ways");
    assert!(both.0 > 0 && both.1 > 0 && (both.0 - both.1).abs() <= 5, "{network:?}");
    assert_eq!(network.interface_dropped_packets.unwrap_or_default(), 0, "{network:?}");
    assert!(signal.severity >= Severity::Warning && signal.container.is_empty(), "{signal:?}");
    let advice = said.recommendation.as_deref().unwrap_or_default();
    assert!(advice.contains("packets (") && advice.contains("NETFILTER_DROP"), "{advice}");
    drop(rules);
    let all = Api::<KernelWhisper>::namespaced(client, &ns.0).list(&ListParams::default()).await.unwrap();
    let of_network = |kw: &&KernelWhisper| {
        let signals = kw.status.iter().flat_map(|status| &status.signals);
        signals.into_iter().any(|s| matches!(s.kind, SignalKind::PacketDrop | SignalKind::TcpRetransmit))
    };
    let names: Vec<_> = all.iter().filter(of_network).map(|kw| kw.spec.pod_name.clone()).collect();
    assert_eq!(names, ["lossy"]);
}
