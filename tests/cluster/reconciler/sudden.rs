//! Processes that die in the middle of it: the API server, and the reconciler within a write.

use std::process::Command;

use kernel_gossip::api::{KernelWhisper, Severity, WhisperState};
use kernel_gossip::signals::{self, Transition, Whisper};
use kube::{Api, Client, ResourceExt};

use super::faults::restricted;
use super::rights;
use crate::bed::{self, kubectl, process::output};
use crate::cluster::bed::rbac::{Side, Use};
use crate::cluster::bed::reconciler::{Reconciler, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

/// The cluster's API server while it is dead. It runs again when this goes, however the test ends.
struct NoApiServer;

impl NoApiServer {
    fn killed() -> NoApiServer {
        let dead = NoApiServer;
        program("kill");
        dead
    }
}

impl Drop for NoApiServer {
    fn drop(&mut self) {
        program("start");
        // Others want it as well: the node, and those who find the metrics API by it.
        bed::until("an API server that is ready", || {
            let ready = [
                &["get", "--raw=/readyz"][..],
                &["wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=1s"],
                &["wait", "--for=condition=Ready", "node/kg-node", "--timeout=1s"],
            ];
            ready.iter().all(|args| kubectl().args(*args).output().unwrap().status.success()).then_some(())
        });
    }
}

fn program(what: &str) {
    output(Command::new(bed::testbed().join("program")).args([what, "kube-apiserver"]));
}

/// Every whisper of the namespace.
async fn whispers(client: &Client, ns: &Namespace) -> Vec<KernelWhisper> {
    Api::namespaced(client.clone(), &ns.0).list(&Default::default()).await.unwrap().items
}

/// The same whisper, said once more so much later.
fn again(w: &Whisper, nanoseconds: u64) -> Whisper {
    let mut w = Whisper { transition: Transition::Repeated, ..w.clone() };
    w.at.unix_ns += nanoseconds;
    w
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster, and kills its API server"]
async fn the_api_server_is_killed() {
    let (client, ns) = (client().await, Namespace::alone("killed"));
    // With rights that RBAC has to know again: an administrator is let in before it does.
    let config = restricted(&ns, "none").await;
    let r = Reconciler::start(&ns, &[], &[("KUBECONFIG", config.path())]);
    r.until_ready().await;
    let (pod, unknown) = (ns.pod(&client, "web").await, ns.pod(&client, "unknown").await);
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let before = whisper_of(&client, &pod, "a whisper", |_| true).await;

    let dead = NoApiServer::killed();
    let news = Whisper { severity: signals::Severity::Warning, ..again(&w, 1_000_000) };
    agent.say(&[news]).await;
    let refused = agent.send(&[throttled(&unknown)]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let retried = "kernel_gossip_reconciler_writes_total{object=\"whisper\",result=\"retried\"}";
    eventually("a second try", async || (r.metric(retried).await >= 2.0).then_some(())).await;
    assert_eq!(r.get("/health").await.unwrap().0, 200);
    drop(dead);

    agent.say(&[throttled(&unknown)]).await;
    let after = whisper_of(&client, &pod, "the news", |kw| status(kw).severity == Severity::Warning).await;
    whisper_of(&client, &unknown, "the other's whisper", |_| true).await;
    assert_eq!((after.uid(), status(&after).state), (before.uid(), WhisperState::Active));
    let (now, then) = (&status(&after).signals, &status(&before).signals);
    assert_eq!((now.len(), now[0].count, &now[0].since), (1, 1, &then[0].since));
    assert_eq!(whispers(&client, &ns).await.len(), 2, "one for each pod");

    // The same process still, which says of each thing it does once that it fails and once that it works.
    let said = |part: &str| r.process.lines().iter().filter(|l| l.text.contains(part)).count();
    let does = ["writing objects", "looking up pods", "watching KernelWhispers"];
    for what in does {
        eventually(what, async || (said(&format!("{what}: works again")) > 0).then_some(())).await;
        assert_eq!(
            (said(&format!("{what}: the API server cannot be reached")), said(&format!("{what}: "))),
            (1, 2)
        );
    }
    // (Of the Metrics API it need not have asked again.)
    let warnings = r.warnings();
    assert!(warnings.iter().all(|w| w.contains("the API server cannot be reached")), "{warnings:#?}");
    assert!(r.process.terminate().0.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn it_is_killed_within_a_write() {
    let (client, ns) = (client().await, Namespace::new("within"));
    let proxy = rights::proxy(&ns).await;
    let config = proxy.kubeconfig();
    let mut r = Reconciler::start(&ns, &[], &[("KUBECONFIG", config.path().to_str().unwrap())]);
    r.until_ready().await;
    let token = ns.caller("agent", &["/otlp/cluster"]);
    let (object, status_of) = ("kernelwhispers", "kernelwhispers/status");
    let moments = [
        // What is there of it when it is killed: nothing, the object alone (twice), all.
        ("nothing", object, Side::Request),
        ("object", object, Side::Answer),
        ("unfinished", status_of, Side::Request),
        ("untold", status_of, Side::Answer),
    ];
    for (many, (name, resource, side)) in (1..).zip(moments) {
        let pod = ns.pod(&client, name).await;
        let mut holding = proxy.holds(Use::new("kernel.gossip.io", resource, "patch"), side);
        let w = throttled(&pod);
        r.agent(&token).await.say(std::slice::from_ref(&w)).await;
        let held = holding.reached().await;
        r = r.killed_and_started();
        drop(held);
        r.until_ready().await;
        let left = whispers(&client, &ns).await.into_iter().find(|kw| kw.spec.pod_name == name);
        assert_eq!(left.is_some(), name != "nothing", "{name}");
        let complete = left.as_ref().is_some_and(|kw| kw.status.is_some());
        assert_eq!(complete, name == "untold", "{name}");

        // The next one knows of it before anybody says it again.
        let active = async || r.metric("kernel_gossip_reconciler_active_signals").await;
        eventually("what is known", async || {
            (active().await >= (many - usize::from(!complete)) as f64).then_some(())
        })
        .await;

        // What an agent says each minute.
        r.agent(&token).await.say(&[again(&w, 1_000_000)]).await;
        let kw = whisper_of(&client, &pod, "a whisper", |_| true).await;
        if let Some(left) = left {
            assert_eq!(kw.uid(), left.uid(), "{name}: it is made complete, not made anew");
        }
        let signals = &status(&kw).signals;
        // The API keeps whole seconds.
        let since = i64::try_from(w.since.unix_ns / 1_000_000_000).unwrap();
        assert_eq!((status(&kw).state, signals.len(), signals[0].count), (WhisperState::Active, 1, 1));
        assert_eq!(signals[0].since.0.as_second(), since, "{name}");
        assert_eq!(whispers(&client, &ns).await.len(), many, "{name}: one for each pod");
    }
    // News of one that is there: the next one says it, for the agent says it again.
    let pod = ns.pod(&client, "news").await;
    let w = throttled(&pod);
    r.agent(&token).await.say(std::slice::from_ref(&w)).await;
    let before = whisper_of(&client, &pod, "a whisper", |_| true).await;
    let mut holding = proxy.holds(Use::new("kernel.gossip.io", status_of, "patch"), Side::Request);
    let news = Whisper { severity: signals::Severity::Warning, ..again(&w, 1_000_000) };
    r.agent(&token).await.say(std::slice::from_ref(&news)).await;
    let held = holding.reached().await;
    r = r.killed_and_started();
    drop(held);
    r.until_ready().await;
    r.agent(&token).await.say(&[again(&news, 1_000_000)]).await;
    let after = whisper_of(&client, &pod, "the news", |kw| status(kw).severity == Severity::Warning).await;
    assert_eq!((after.uid(), status(&after).state), (before.uid(), WhisperState::Active));
    assert_eq!(status(&after).signals[0].since, status(&before).signals[0].since);
    assert_eq!(r.warnings(), Vec::<String>::new());
}
