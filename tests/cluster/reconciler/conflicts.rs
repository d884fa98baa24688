//! Others write at the same time: what is ours is written anew, what is theirs is left, and neither is done
//! over and over.

use kernel_gossip::api::{KernelWhisper, Severity, WhisperState};
use kernel_gossip::signals::{self, Transition, Whisper};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::rights;
use crate::cluster::bed::rbac::{Proxy, Side, Use};
use crate::cluster::bed::reconciler::{Reconciler, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

/// A reconciler behind a proxy, with the rights that the manifests give it.
async fn behind_proxy(ns: &Namespace, arguments: &[&str]) -> (Proxy, Reconciler) {
    let proxy = rights::proxy(ns).await;
    let config = proxy.kubeconfig();
    let r = Reconciler::start(ns, arguments, &[("KUBECONFIG", config.path().to_str().unwrap())]);
    r.until_ready().await;
    (proxy, r)
}

fn ours(resource: &str, verb: &str) -> Use {
    Use::new("kernel.gossip.io", resource, verb)
}

/// Another takes the object's place, with its name and its owner.
async fn replaced(api: &Api<KernelWhisper>, first: &KernelWhisper) -> KernelWhisper {
    api.delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let mut second = first.clone();
    second.metadata = kube::api::ObjectMeta {
        name: first.metadata.name.clone(),
        owner_references: first.metadata.owner_references.clone(),
        ..Default::default()
    };
    api.create(&PostParams::default(), &second).await.unwrap()
}

async fn written(r: &Reconciler, object: &str, result: &str) -> f64 {
    let name = "kernel_gossip_reconciler_writes_total";
    r.metric(&format!("{name}{{object=\"{object}\",result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn another_writes_the_same_fields() {
    let (client, ns) = (client().await, Namespace::new("fields"));
    let (proxy, r) = behind_proxy(&ns, &[]).await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let before = whisper_of(&client, &pod, "a whisper", |_| true).await;

    // By force, so that from here on the fields are another's: our next write is a conflict, were it not forced.
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let theirs = json!({
        "apiVersion": "kernel.gossip.io/v1alpha1", "kind": "KernelWhisper",
        "status": {"state": "resolved", "recommendation": "Nothing to see here."},
    });
    let params = PatchParams::apply("another").force();
    let seen = api.patch_status("web-kw", &params, &Patch::Apply(&theirs)).await.unwrap();
    assert_eq!(status(&seen).state, WhisperState::Resolved);

    let mut news =
        Whisper { transition: Transition::Changed, severity: signals::Severity::Warning, ..w.clone() };
    news.at.unix_ns += 1_000_000;
    agent.say(&[news]).await;
    let after = whisper_of(&client, &pod, "the news", |kw| status(kw).state == WhisperState::Active).await;
    assert_eq!((after.uid(), status(&after).severity), (before.uid(), Severity::Warning));
    assert_ne!(status(&after).recommendation, status(&seen).recommendation);
    let manager = |m: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| m.manager.clone();
    let managers: Vec<_> = after.managed_fields().iter().filter_map(manager).collect();
    assert!(!managers.contains(&"another".to_owned()), "{managers:?}");
    // Two writes, each once: it does not answer what another writes with a write of its own.
    eventually("two writes", async || (written(&r, "whisper", "ok").await >= 2.0).then_some(())).await;
    assert_eq!(proxy.answers(&ours("kernelwhispers/status", "patch")), [200, 200]);
    assert_eq!(written(&r, "whisper", "retried").await, 0.0);
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_object_is_made_anew_within_a_write() {
    let (client, ns) = (client().await, Namespace::new("anew"));
    let (proxy, r) = behind_proxy(&ns, &[]).await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let mut holding = proxy.holds(ours("kernelwhispers/status", "patch"), Side::Request);
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let held = holding.reached().await;

    // The object is there, its status on the way to it; another takes the object's place.
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let first = api.get("web-kw").await.unwrap();
    let second = replaced(&api, &first).await;
    assert_ne!(first.uid(), second.uid());
    held.let_through();

    let kw = whisper_of(&client, &pod, "a whisper", |_| true).await;
    assert_eq!((kw.uid(), status(&kw).state), (second.uid(), WhisperState::Active));
    eventually("the write's end", async || (written(&r, "whisper", "ok").await >= 1.0).then_some(())).await;
    let kw = api.get("web-kw").await.unwrap();
    assert_eq!(kw.labels(), first.labels(), "made whole, not only given a status");
    // Seen once that it is another, then written to that one: two times each, and no more.
    for resource in ["kernelwhispers", "kernelwhispers/status"] {
        let answers = proxy.answers(&ours(resource, "patch"));
        assert!(
            answers.len() == 2 && answers.iter().all(|s| [200, 201].contains(s)),
            "{resource}: {answers:?}"
        );
    }
    // Its end reaches the object that is there now.
    let mut over = Whisper { transition: Transition::Resolved, ..w };
    over.at.unix_ns += 1_000_000;
    agent.say(&[over]).await;
    let kw = whisper_of(&client, &pod, "its end", |kw| status(kw).state == WhisperState::Resolved).await;
    assert_eq!(kw.uid(), second.uid());
    assert_eq!(written(&r, "whisper", "retried").await, 0.0);
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn another_has_the_name_when_it_is_to_be_deleted() {
    let (client, ns) = (client().await, Namespace::new("name"));
    let (proxy, r) = behind_proxy(&ns, &["--keep-resolved=2s"]).await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let first = whisper_of(&client, &pod, "a whisper", |_| true).await;
    let mut holding = proxy.holds(ours("kernelwhispers", "delete"), Side::Request);
    let mut over = Whisper { transition: Transition::Resolved, ..w.clone() };
    over.at.unix_ns += 1_000_000;
    agent.say(&[over]).await;
    let held = holding.reached().await;

    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let second = replaced(&api, &first).await;
    held.let_through();

    let deleted = async || (written(&r, "whisper_delete", "ok").await >= 1.0).then_some(());
    eventually("the deletion's end", deleted).await;
    assert_eq!(proxy.answers(&ours("kernelwhispers", "delete")), [409], "asked once");
    assert_eq!(api.get("web-kw").await.unwrap().uid(), second.uid(), "another's is left");
    // It is taken for ours as soon as there is something to say.
    let mut begins = Whisper { transition: Transition::Started, ..w };
    begins.at.unix_ns += 2_000_000;
    begins.since = begins.at;
    agent.say(&[begins]).await;
    let kw =
        whisper_of(&client, &pod, "the next whisper", |kw| status(kw).state == WhisperState::Active).await;
    assert_eq!((kw.uid(), status(&kw).signals.len()), (second.uid(), 1));
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn two_take_the_lease_at_once() {
    let (client, ns) = (client().await, Namespace::new("election"));
    let lease = Use::new("coordination.k8s.io", "leases", "patch");
    let leads = async |r: &Reconciler| {
        r.get("/health").await.is_some() && r.metric("kernel_gossip_reconciler_leading ").await == 1.0
    };
    // Nobody waits long for a Lease: on a busy machine the other may not lead before one has given up.
    let mut tries = 0..5;
    let (proxy, one, two) = loop {
        tries.next().expect("one that waited until the other led");
        let proxy = rights::proxy(&ns).await;
        let config = proxy.kubeconfig();
        let mut holding = proxy.holds(lease.clone(), Side::Request);
        let replica = |replica, environment: &[(&str, &str)]| {
            let arguments = ["--leader-election=true", "--namespace", &ns.0, "--replica", replica];
            Reconciler::start(&ns, &arguments, environment)
        };
        // One has seen that nobody leads and is about to, when the other does.
        let one = replica("one", &[("KUBECONFIG", config.path().to_str().unwrap())]);
        let held = holding.reached().await;
        let two = replica("two", &[]);
        eventually("a leader", async || (leads(&two).await || leads(&one).await).then_some(())).await;
        if held.let_through() {
            break (proxy, one, two);
        }
        drop((one, two));
        ns.kubectl(&["delete", "lease", "--all"]);
    };
    eventually("an answer", async || (!proxy.answers(&lease).is_empty()).then_some(())).await;
    assert_eq!(proxy.answers(&lease)[0], 409);
    one.until_ready().await;
    assert!(leads(&two).await && !leads(&one).await);

    // What the follower is told, the leader writes.
    let pod = ns.pod(&client, "web").await;
    one.agent(&ns.caller("agent", &["/otlp/cluster"])).await.say(&[throttled(&pod)]).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    assert_eq!(one.metric("kernel_gossip_reconciler_writes_total").await, 0.0);
    assert_eq!((one.warnings(), two.warnings()), (Vec::new(), Vec::new()));
    assert_eq!(proxy.answers(&lease).len(), 1, "not tried again while another leads");
}
