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
        iptables(&format!("-I INPUT {rule}"));
        Rule(rule.to_owned())
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let mut command = Command::new("nsenter");
        command.args(["--net=/run/netns/kg-node", "iptables", "-D", "INPUT"]);
        let _ = command.args(self.0.split_whitespace()).output();
    }
}

/// The node's own address on the pods' bridge.
fn gateway() -> String {
    let output = Command::new("nsenter")
        .args(["--net=/run/netns/kg-node", "ip", "-4", "-o", "addr", "show", "scope", "global"])
        .output()
        .expect("nsenter");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bridge = text.lines().find(|line| line.contains(" pods0 ")).unwrap_or_else(|| panic!("{text}"));
    let address = bridge.split_whitespace().nth(3).and_then(|net| net.split('/').next());
    address.unwrap_or_else(|| panic!("{text}")).to_owned()
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
    // They ask the node itself: what goes between pods of one bridge, no rule sees here.
    let asked = gateway();
    let mut pods = Vec::new();
    // Fifty questions a second each, whose answers the kernel gives.
    for name in ["lossy", "clean-1", "clean-2"] {
        create(&client, &ns, pod(name, &format!("ping -i 0.02 {asked} > /dev/null"), "1")).await;
        pods.push(running(&client, &ns, name).await);
    }
    let from = address(&pods[0]);
    // Of 20 questions two are dropped, and so 18 answers come: of 38 packets two.
    let _rule =
        Rule::add(&format!("-s {from} -p icmp -m statistic --mode nth --every 10 --packet 4 -j DROP"));
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
    assert_eq!(network.dropped_sent_packets, network.dropped_packets, "{network:?}");
    assert_eq!(network.interface_dropped_packets, Some(0), "{network:?}");
    assert!(signal.severity >= Severity::Warning && signal.container.is_empty(), "{signal:?}");
    let advice = said.recommendation.as_deref().unwrap_or_default();
    assert!(advice.contains("packets (") && advice.contains("NETFILTER_DROP"), "{advice}");
    let all = Api::<KernelWhisper>::namespaced(client, &ns.0).list(&ListParams::default()).await.unwrap();
    let of_network = |kw: &&KernelWhisper| {
        let signals = kw.status.iter().flat_map(|status| &status.signals);
        signals.into_iter().any(|s| matches!(s.kind, SignalKind::PacketDrop | SignalKind::TcpRetransmit))
    };
    let names: Vec<_> = all.iter().filter(of_network).map(|kw| kw.spec.pod_name.clone()).collect();
    assert_eq!(names, ["lossy"]);
}
