//! A kill within a container that lives on: Kubernetes says nothing of it, the object does.

use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{Severity, SignalKind};
use kube::Api;
use serde_json::json;

use crate::cluster::bed::agent::{Agent, create, pod, running};
use crate::cluster::bed::reconciler::{Reconciler, status, whisper_of};
use crate::cluster::bed::{Namespace, client};

const LIMIT: i64 = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_child_that_is_killed_is_an_object_while_its_container_lives() {
    let (client, ns) = (client().await, Namespace::new("oom"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = Agent::start(&ns, r.otlp, "");
    agent.process.says("watching");
    let mut eater = pod("eater", "tail /dev/zero; while :; do sleep 1; done", "1");
    let resources = &mut eater["spec"]["containers"][0]["resources"];
    (resources["limits"]["memory"], resources["requests"]["memory"]) = (json!("32Mi"), json!("16Mi"));
    create(&client, &ns, eater).await;
    let pod = running(&client, &ns, "eater").await;
    let of_the_kill = |kw: &kernel_gossip::api::KernelWhisper| status(kw).signal == SignalKind::OomKill;
    let kw = whisper_of(&client, &pod, "the kill", of_the_kill).await;
    let said = status(&kw);
    println!("{}\n{}\n{:?}", said.insight, said.kernel_evidence, said.recommendation);
    assert_eq!(said.severity, Severity::Warning, "{said:?}");
    let memory =
        said.signals.iter().find(|s| s.kind == SignalKind::OomKill).map(|s| s.evidence.memory().clone());
    let memory = memory.expect("its numbers");
    assert_eq!((memory.oom_kills, memory.limit_bytes), (Some(1), Some(LIMIT)), "{memory:?}");
    assert_eq!(memory.oom_ended.as_deref(), Some("process"), "{memory:?}");
    assert!(memory.oom_victims.is_some_and(|v| v.starts_with("tail (")), "the child");
    // A pod of one container has the same limit twice, and its sandbox uses some of the pod's.
    assert!(matches!(memory.oom_limit.as_deref(), Some("own" | "pod")), "{:?}", memory.oom_limit);
    assert!(memory.oom_anon_bytes.is_some_and(|held| held > LIMIT / 2 && held <= LIMIT));
    assert!(said.insight.contains("The kernel killed tail ("), "{}", said.insight);
    let advice = said.recommendation.as_deref().unwrap_or_default();
    assert!(advice.contains("memory limit of 32 MiB") && advice.contains("48Mi"), "{advice}");
    let api: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    let now = api.get("eater").await.unwrap().status.and_then(|s| s.container_statuses).unwrap();
    assert!(
        now[0].restart_count == 0 && now[0].state.as_ref().is_some_and(|s| s.running.is_some()),
        "{now:?}"
    );
}
