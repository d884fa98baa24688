//! What the reconciler asks of the API server is what its roles grant: no more, and no less.

use std::collections::BTreeSet;

use kernel_gossip::api::KernelWhisper;
use kernel_gossip::signals::{Transition, Whisper};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::faults::{self, restricted};
use crate::cluster::bed::rbac::{self, Proxy, Use};
use crate::cluster::bed::reconciler::{Reconciler, apply_in, throttled, whisper_of};
use crate::cluster::bed::render::kustomize;
use crate::cluster::bed::{Namespace, OWNER, client, eventually};

const ACCOUNT: &str = "kernel-gossip-operator";

/// A proxy to the API server with the rights that the manifests give the reconciler.
pub async fn proxy(ns: &Namespace) -> Proxy {
    bind(ns, &kustomize("k8s"));
    Proxy::start(&ns.0, ACCOUNT).await
}

/// Gives the namespace's account of that name the roles that the manifests give it.
fn bind(ns: &Namespace, manifests: &[Value]) {
    apply_in(
        Some(&ns.0),
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}),
    );
    for kind in ["ClusterRole", "Role"] {
        let role = manifests.iter().find(|m| m["kind"] == kind && m["metadata"]["name"] == ACCOUNT).unwrap();
        let meta = json!({"name": format!("{}-roles", ns.0), "labels": {OWNER: ns.0}});
        apply_in(
            Some(&ns.0),
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, "rules": role["rules"],
            }),
        );
        apply_in(
            Some(&ns.0),
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": ns.0}],
            }),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_roles_grant_what_is_used_and_nothing_else() {
    let (client, ns) = (client().await, Namespace::new("roles"));
    let manifests = kustomize("k8s");
    bind(&ns, &manifests);
    let proxy = Proxy::start(&ns.0, ACCOUNT).await;
    let config = proxy.kubeconfig();
    let arguments = ["--leader-election=true", "--namespace", &ns.0, "--keep-resolved=2s"];
    let r = Reconciler::start(&ns, &arguments, &[("KUBECONFIG", config.path().to_str().unwrap())]);
    r.until_ready().await;
    let token = ns.caller("agent", &["/otlp/cluster", "/webhook/ebpf"]);
    let mut agent = r.agent(&token).await;
    let birth = || {
        json!({
            "type": "pod_creation", "pod_name": "web", "namespace": ns.0, "mounts": 3,
            "timestamp": jiff::Timestamp::now().to_string(),
        })
    };
    let first = ns.pod(&client, "web").await;
    agent.say(&[throttled(&first)]).await;
    whisper_of(&client, &first, "a whisper", |_| true).await;
    assert_eq!(r.post("/webhook/ebpf", Some(&token), &birth()).await.0, 202);

    // Another pod of the name: its objects replace those that are there.
    for object in ["kw/web-kw", "pbc/web-pbc"] {
        ns.kubectl(&["patch", object, "--type=merge", "-p", r#"{"metadata":{"ownerReferences":null}}"#]);
    }
    ns.kubectl(&["delete", "pod", "web"]);
    let second = ns.pod(&client, "web").await;
    let w = throttled(&second);
    agent.say(std::slice::from_ref(&w)).await;
    whisper_of(&client, &second, "the second's whisper", |kw| {
        Some(&kw.spec.pod_uid) == second.uid().as_ref()
    })
    .await;
    assert_eq!(r.post("/webhook/ebpf", Some(&token), &birth()).await.0, 202);
    // What is asked of others for a whisper is not waited for long: it is asked again with the next.
    let asked = BTreeSet::from([Use::new("metrics.k8s.io", "pods", "get"), Use::new("", "nodes", "get")]);
    let mut again = w;
    let answered = async || asked.is_subset(&proxy.used()).then_some(());
    agent.repeat(&mut again, "answer of the Metrics API and of the node", answered).await;
    let mut over = Whisper { transition: Transition::Resolved, ..again };
    over.at.unix_ns += 1_000_000;
    agent.say(&[over]).await;
    eventually("its deletion", async || {
        let deletions = "kernel_gossip_reconciler_writes_total{object=\"whisper_delete\",result=\"ok\"}";
        (r.metric(deletions).await == 1.0).then_some(())
    })
    .await;

    let granted = rbac::granted_to(&manifests, ACCOUNT);
    // The leader renews and rests.
    eventually("the use of all rights", async || granted.is_subset(&proxy.used()).then_some(())).await;
    assert_eq!((proxy.used(), proxy.denied()), (granted, BTreeSet::new()));
}

/// To list and to write is allowed: it does its work, says what it lacks once, and that it has it again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_watch_alone_is_refused() {
    let (client, ns) = (client().await, Namespace::new("nowatch"));
    let config = restricted(&ns, "watch").await;
    let mut r = Reconciler::start(&ns, &[], &[("KUBECONFIG", config.path())]);
    r.until_ready().await;
    let said = r.process.says("watching KernelWhispers").text;
    assert!(said.contains(" WARN ") && said.contains("not allowed (RBAC)"), "{said}");
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    agent.say(&[throttled(&pod)]).await;
    let first = whisper_of(&client, &pod, "a whisper", |_| true).await;

    apply_in(None, &faults::rights(&ns.0, "none"));
    let said = r.process.says("watching KernelWhispers").text;
    assert!(said.contains("works again"), "{said}");
    // An object that somebody deletes is noticed now, and made anew.
    ns.kubectl(&["delete", "kw", "web-kw"]);
    let mut again = throttled(&pod);
    let whispers: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let anew = async || whispers.get("web-kw").await.ok().filter(|kw| kw.uid() != first.uid());
    agent.repeat(&mut again, "new object", anew).await;
    assert_eq!(r.warnings().len(), 1, "{:#?}", r.warnings());
}
