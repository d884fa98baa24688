//! Two replicas: one writes, both take, and the end of the one loses nothing.

use jiff::Timestamp;
use kernel_gossip::api::WhisperState;
use kernel_gossip::signals::{Transition, Whisper};
use kube::ResourceExt;
use serde_json::json;

use crate::cluster::bed::reconciler::{Reconciler, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

fn replica(ns: &Namespace, name: &str) -> Reconciler {
    let arguments =
        ["--leader-election=true", "--namespace", &ns.0, "--replica", name, "--lease-name", "test"];
    Reconciler::start(ns, &arguments, &[])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_follower_hands_on_and_takes_over() {
    let (client, ns) = (client().await, Namespace::new("replicas"));
    let one = replica(&ns, "one");
    one.until_ready().await;
    let two = replica(&ns, "two");
    two.until_ready().await;
    assert_eq!(
        (
            one.metric("kernel_gossip_reconciler_leading ").await,
            two.metric("kernel_gossip_reconciler_leading ").await
        ),
        (1.0, 0.0)
    );

    // Both services of the follower reach the leader; probes and metrics are its own.
    let token = ns.caller("caller", &["/otlp/cluster", "/webhook/pixie"]);
    let (pod, other) = (ns.pod(&client, "web").await, ns.pod(&client, "other").await);
    let mut agent = two.agent(&token).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let before = whisper_of(&client, &pod, "a whisper", |_| true).await;
    let reported = json!({
        "type": "memory_pressure", "pod_name": "other", "namespace": ns.0, "container_name": "main",
        "pressure_percentage": 20, "period_seconds": 10, "timestamp": Timestamp::now().to_string(),
    });
    assert_eq!(two.post("/webhook/pixie", Some(&token), &reported).await.0, 202);
    whisper_of(&client, &other, "a reported whisper", |_| true).await;
    assert_eq!(two.metric("kernel_gossip_reconciler_reports_total").await, 0.0);
    assert_eq!(one.metric("kernel_gossip_reconciler_reports_total").await, 2.0);
    assert!(two.metric("kernel_gossip_reconciler_connections_total{end=\"forwarded\"}").await >= 2.0);

    // The leader dies; what is said meanwhile is taken once the other leads.
    one.process.signal(libc::SIGKILL);
    let mut news =
        Whisper { transition: Transition::Changed, severity: kernel_gossip::signals::Severity::Warning, ..w };
    news.at.unix_ns += 1_000_000;
    agent.say(std::slice::from_ref(&news)).await;
    eventually("another leader", async || {
        (two.metric("kernel_gossip_reconciler_leading ").await == 1.0).then_some(())
    })
    .await;
    let after = whisper_of(&client, &pod, "the news", |kw| {
        status(kw).severity == kernel_gossip::api::Severity::Warning
    })
    .await;
    assert_eq!(after.uid(), before.uid());
    assert_eq!((status(&after).state, status(&after).signals[0].count), (WhisperState::Active, 1));

    // Asked to end it gives the Lease back: the next one leads at once.
    let (end, lines, _) = two.process.terminate();
    assert!(end.success(), "{lines:?}");
    assert!(lines.iter().any(|l| l.text.contains("the Lease is released")), "{lines:?}");
    let three = replica(&ns, "three");
    three.until_ready().await;
    assert_eq!(three.metric("kernel_gossip_reconciler_leading ").await, 1.0);
}
