//! A container that reads again and again what its memory limit makes it drop: the object says that it is a limit, and advises one
//! by what it reads back.

use kernel_gossip::api::SignalKind;
use serde_json::json;

use crate::cluster::bed::agent::{Agent, create, pod, running};
use crate::cluster::bed::reconciler::{Reconciler, status, whisper_of};
use crate::cluster::bed::{Namespace, client};

const LIMIT: i64 = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn memory_pressure_is_an_object_with_its_cause_and_advice() {
    let (client, ns) = (client().await, Namespace::new("memory"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = Agent::start(&ns, r.otlp, "");
    agent.process.says("watching");
    let script = "dd if=/dev/zero of=/file bs=1M count=96; while :; do cat /file > /dev/null; done";
    let mut reader = pod("reader", script, "1");
    let resources = &mut reader["spec"]["containers"][0]["resources"];
    (resources["limits"]["memory"], resources["requests"]["memory"]) = (json!("32Mi"), json!("16Mi"));
    create(&client, &ns, reader).await;
    let pod = running(&client, &ns, "reader").await;
    let refaulted = |kw: &kernel_gossip::api::KernelWhisper| {
        let said = status(kw);
        let of = said.signals.iter().find(|s| s.kind == SignalKind::MemoryPressure);
        of.is_some_and(|s| s.evidence.memory().refaults.is_some_and(|n| n > 1024))
    };
    let kw = whisper_of(&client, &pod, "the pressure", refaulted).await;
    let said = status(&kw);
    println!("{}\n{}\n{:?}", said.insight, said.kernel_evidence, said.recommendation);
    let signal = said.signals.iter().find(|s| s.kind == SignalKind::MemoryPressure).expect("it");
    let memory = signal.evidence.memory();
    // The pod's limit is the sum of its containers', and has the sandbox in it besides: it is reached first.
    assert!(matches!(memory.pressure_cause.as_deref(), Some("own" | "above")), "{memory:?}");
    assert_eq!(memory.limit_bytes, Some(LIMIT), "{memory:?}");
    assert!(memory.working_set_bytes.is_some_and(|held| held <= LIMIT), "{memory:?}");
    assert!(memory.reclaim_own_seconds.is_some_and(|s| s > 0.1), "{memory:?}");
    let advice = said.recommendation.as_deref().unwrap_or_default();
    // On a busy node it is of what weighs more.
    assert!(said.signals.len() > 1 || advice.contains("pages it had to drop"), "{advice}");
}
