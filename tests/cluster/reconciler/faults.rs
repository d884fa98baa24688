//! What goes wrong in a cluster: each fault is said once, and nothing active is lost.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use kernel_gossip::api::{BirthOutcome, PodBirthCertificate, PodBirthCertificateStatus, Source};
use kernel_gossip::signals::Whisper;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bed::{self, kubectl, process::output};
use crate::cluster::bed::reconciler::{Reconciler, apply_in, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, OWNER, client, eventually, install_definitions};

/// A kubeconfig beside the cluster's own: another way to the server, or another user.
pub struct Kubeconfig(tempfile::NamedTempFile);

impl Kubeconfig {
    fn new(change: impl FnOnce(&mut serde_json::Value)) -> Kubeconfig {
        let text = output(kubectl().args(["config", "view", "--raw", "-o", "json"]));
        let mut config = serde_json::from_str(&text).unwrap();
        change(&mut config);
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, &config).unwrap();
        Kubeconfig(file)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

/// A way to the API server that can be cut.
struct Road {
    open: watch::Sender<bool>,
    config: Kubeconfig,
}

impl Road {
    async fn new() -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = String::new();
        let config = Kubeconfig::new(|c| {
            let cluster = &mut c["clusters"][0]["cluster"];
            server = cluster["server"].as_str().unwrap().trim_start_matches("https://").to_owned();
            cluster["tls-server-name"] = server.split(':').next().unwrap().into();
            cluster["server"] = format!("https://127.0.0.1:{port}").into();
        });
        let (open, opened) = watch::channel(true);
        let server: Arc<str> = server.into();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (server, mut opened) = (server.clone(), opened.clone());
                tokio::spawn(async move {
                    if !*opened.borrow_and_update() {
                        return;
                    }
                    let Ok(mut there) = TcpStream::connect(&*server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                        _ = opened.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Road { open, config }
    }
}

/// The warnings that are about one thing.
fn about<'a>(warnings: &'a [String], what: &str) -> Vec<&'a String> {
    warnings.iter().filter(|w| w.contains(what)).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_api_server_goes_away() {
    let (client, ns) = (client().await, Namespace::new("away"));
    let road = Road::new().await;
    let r = Reconciler::start(&ns, &[], &[("KUBECONFIG", road.config.path())]);
    r.until_ready().await;
    let (pod, unknown) = (ns.pod(&client, "web").await, ns.pod(&client, "unknown").await);
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;

    road.open.send_replace(false);
    // Of a pod that is known it is taken, and written when that is possible again; of another the
    // sender is told to come again.
    let mut news = Whisper { severity: kernel_gossip::signals::Severity::Warning, ..w };
    news.at.unix_ns += 1_000_000;
    agent.say(&[news]).await;
    let refused = agent.send(&[throttled(&unknown)]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let retried = "kernel_gossip_reconciler_writes_total{object=\"whisper\",result=\"retried\"}";
    eventually("another try", async || (r.metric(retried).await >= 2.0).then_some(())).await;
    assert_eq!(r.get("/health").await.unwrap().0, 200);

    road.open.send_replace(true);
    agent.say(&[throttled(&unknown)]).await;
    whisper_of(&client, &pod, "the news", |kw| status(kw).severity == kernel_gossip::api::Severity::Warning)
        .await;
    whisper_of(&client, &unknown, "the other's whisper", |_| true).await;
    let warnings = r.warnings();
    for what in ["writing objects", "looking up pods"] {
        assert_eq!(about(&warnings, what).len(), 1, "{what}: {warnings:#?}");
    }
    assert!(about(&warnings, "watching KernelWhispers").len() <= 1, "{warnings:#?}");
    let said = |what: &str| r.process.lines().iter().any(|l| l.text.contains(what));
    eventually("word of it", async || said("writing objects: works again").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_api_server_goes_away_for_longer_than_the_lease() {
    let (client, ns) = (client().await, Namespace::new("lease"));
    let road = Road::new().await;
    let arguments = ["--leader-election=true", "--namespace", &ns.0, "--lease-name", "test"];
    let r = Reconciler::start(&ns, &arguments, &[("KUBECONFIG", road.config.path())]);
    r.until_ready().await;
    let (pod, other) = (ns.pod(&client, "web").await, ns.pod(&client, "other").await);
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let (w, over) = (throttled(&pod), throttled(&other));
    agent.say(&[w.clone(), over.clone()]).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    whisper_of(&client, &other, "a whisper", |_| true).await;

    // For a moment: it leads on, and what is said is taken.
    road.open.send_replace(false);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(r.metric("kernel_gossip_reconciler_leading ").await, 1.0);
    let mut over = Whisper { transition: kernel_gossip::signals::Transition::Resolved, ..over };
    over.at.unix_ns += 1_000_000;
    let mut news = Whisper { severity: kernel_gossip::signals::Severity::Warning, ..w };
    news.at.unix_ns += 1_000_000;
    agent.say(&[news, over]).await;

    // For longer: another might lead, so nothing is taken.
    eventually("a pause", async || {
        (r.metric("kernel_gossip_reconciler_leading ").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(r.get("/ready").await.unwrap().0, 503);
    let refused = agent.send(&[throttled(&pod)]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;

    // Nobody did: what was taken is written, though nobody says it again.
    road.open.send_replace(true);
    whisper_of(&client, &pod, "the news", |kw| status(kw).severity == kernel_gossip::api::Severity::Warning)
        .await;
    whisper_of(&client, &other, "its end", |kw| {
        status(kw).state == kernel_gossip::api::WhisperState::Resolved
    })
    .await;
    r.until_ready().await;
    agent.say(&[throttled(&pod)]).await;
    let says: Vec<_> = r.process.lines().into_iter().map(|l| l.text).collect();
    let count = |what: &str| says.iter().filter(|l| l.contains(what)).count();
    assert_eq!((count("this replica leads"), count("the Lease ran out")), (1, 1), "{says:#?}");
    let warnings = r.warnings();
    for what in ["holding the Lease", "writing objects"] {
        assert_eq!(about(&warnings, what).len(), 1, "{what}: {warnings:#?}");
    }
    assert_eq!(count("holding the Lease: works again"), 1, "{says:#?}");
}

fn complete() -> PodBirthCertificateStatus {
    let mut birth = PodBirthCertificateStatus::of(Source::Kernel);
    birth.outcome = Some(BirthOutcome::Complete);
    birth.total = Some("607 ms".into());
    birth
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_birth_that_may_not_be_written_holds_up_no_whisper() {
    let (client, ns) = (client().await, Namespace::new("barred-rights"));
    let config = restricted(&ns, "births").await;
    let r = Reconciler::start(&ns, &[], &[("KUBECONFIG", config.path())]);
    r.until_ready().await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    agent.certify(&pod, &complete()).await.expect("taken: to send it again would not help");
    agent.say(&[throttled(&pod)]).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    let warnings = r.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("birth in"), "{warnings:#?}");

    apply_in(None, &rights(&ns.0, "none"));
    let api: kube::Api<PodBirthCertificate> = kube::Api::namespaced(client, &ns.0);
    eventually("the certificate", async || api.get_opt("web-pbc").await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_birth_that_is_taken_outlives_the_reconciler() {
    let (client, ns) = (client().await, Namespace::new("births"));
    let road = Road::new().await;
    let r = Reconciler::start(&ns, &[], &[("KUBECONFIG", road.config.path())]);
    r.until_ready().await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    // So that pod and token are known while nobody can be asked.
    agent.say(&[throttled(&pod)]).await;

    road.open.send_replace(false);
    let birth = complete();
    let early = agent.certify(&pod, &birth).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::Unavailable, "taken, and not written: {early}");
    // What it had in memory goes with it; the sender has the birth still.
    let r = r.killed_and_started();
    road.open.send_replace(true);
    r.until_ready().await;
    eventually("the certificate's taking", async || agent.clone().certify(&pod, &birth).await.ok()).await;
    let api: kube::Api<PodBirthCertificate> = kube::Api::namespaced(client, &ns.0);
    let there = api.get("web-pbc").await.expect("written, as it is taken");
    assert_eq!(there.status.and_then(|s| s.total).as_deref(), Some("607 ms"));
}

/// The definitions, which other tests need: there again when this is dropped, whatever happens.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        install_definitions();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster, and takes its definitions away for a moment"]
async fn the_definitions_are_missing_at_the_start() {
    let (client, ns) = (client().await, Namespace::alone("crds"));
    let pod = ns.pod(&client, "web").await;
    let token = ns.caller("agent", &["/otlp/cluster"]);
    let restored = Restored;
    output(kubectl().args(["delete", "crd", "kernelwhispers.kernel.gossip.io", "--wait=true"]));
    let mut r = Reconciler::start(&ns, &[], &[]);
    r.process.says("install the CRDs");
    let (code, why) = eventually("an answer", async || r.get("/ready").await).await;
    assert!(code == 503 && why.contains("reads the objects"), "{code} {why}");
    let mut agent = r.agent(&token).await;
    let early = agent.send(&[throttled(&pod)]).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::Unavailable, "{early}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(r.warnings().len(), 1, "{:#?}", r.warnings());
    drop(restored);
    agent.say(&[throttled(&pod)]).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    assert_eq!(r.warnings().len(), 1, "{:#?}", r.warnings());
}

/// A service account with the rights of the reconciler, but for `without`, and a kubeconfig of it.
pub async fn restricted(ns: &Namespace, without: &str) -> Kubeconfig {
    let client = client().await;
    let role = format!("{}-operator", ns.0);
    let meta = json!({"name": role, "labels": {OWNER: ns.0}});
    apply_in(
        Some(&ns.0),
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}}),
    );
    apply_in(None, &rights(&ns.0, without));
    apply_in(
        None,
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": ns.0}],
        }),
    );
    let accounts: kube::Api<k8s_openapi::api::core::v1::ServiceAccount> =
        kube::Api::namespaced(client, &ns.0);
    let request = TokenRequest::default();
    let token = accounts.create_token_request("operator", &Default::default(), &request).await.unwrap();
    let token = token.status.unwrap().token;
    Kubeconfig::new(|c| c["users"][0]["user"] = json!({"token": token}))
}

/// The rights the reconciler uses, as docs/reconciler.md lists them.
pub fn rights(ns: &str, without: &str) -> serde_json::Value {
    let rules = [
        ("pods", json!({"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]})),
        ("metrics", json!({"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["get"]})),
        (
            "whispers",
            json!({
                "apiGroups": ["kernel.gossip.io"], "resources": ["kernelwhispers"],
                "verbs": ["get", "list", "create", "patch", "delete"],
            }),
        ),
        (
            "watch",
            json!({"apiGroups": ["kernel.gossip.io"], "resources": ["kernelwhispers"], "verbs": ["watch"]}),
        ),
        (
            "births",
            json!({
                "apiGroups": ["kernel.gossip.io"], "resources": ["podbirthcertificates"],
                "verbs": ["get", "create", "patch", "delete"],
            }),
        ),
        (
            "status",
            json!({
                "apiGroups": ["kernel.gossip.io"],
                "resources": ["kernelwhispers/status", "podbirthcertificates/status"], "verbs": ["patch"],
            }),
        ),
        (
            "tokens",
            json!({
                "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"],
            }),
        ),
        (
            "access",
            json!({
                "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"],
            }),
        ),
        (
            "leases",
            json!({
                "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"],
            }),
        ),
    ];
    let rules: Vec<_> =
        rules.into_iter().filter(|(name, _)| *name != without).map(|(_, rule)| rule).collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": format!("{ns}-operator"), "labels": {OWNER: ns}}, "rules": rules,
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn with_the_documented_rights_nothing_is_refused() {
    let (client, ns) = (client().await, Namespace::new("rights"));
    let config = restricted(&ns, "none").await;
    let arguments = ["--leader-election=true", "--namespace", &ns.0, "--keep-resolved=2s"];
    let r = Reconciler::start(&ns, &arguments, &[("KUBECONFIG", config.path())]);
    r.until_ready().await;
    let pod = ns.pod(&client, "web").await;
    let token = ns.caller("agent", &["/otlp/cluster", "/webhook/ebpf"]);
    let mut agent = r.agent(&token).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    let birth = json!({
        "type": "pod_creation", "pod_name": "web", "namespace": ns.0, "mounts": 3,
        "timestamp": jiff::Timestamp::now().to_string(),
    });
    assert_eq!(r.post("/webhook/ebpf", Some(&token), &birth).await.0, 202);
    eventually("a certificate", async || {
        r.metric("kernel_gossip_reconciler_writes_total{object=\"birth\",result=\"ok\"}")
            .await
            .eq(&1.0)
            .then_some(())
    })
    .await;
    // To the end of its life: replaced, resolved, deleted.
    let mut over = Whisper { transition: kernel_gossip::signals::Transition::Resolved, ..w };
    over.at.unix_ns += 1_000_000;
    agent.say(&[over]).await;
    eventually("its deletion", async || {
        r.metric("kernel_gossip_reconciler_writes_total{object=\"whisper_delete\",result=\"ok\"}")
            .await
            .eq(&1.0)
            .then_some(())
    })
    .await;
    assert_eq!(r.warnings(), Vec::<String>::new());
    let (end, lines, _) = r.process.terminate();
    assert!(end.success() && lines.iter().any(|l| l.text.contains("the Lease is released")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn rights_are_taken_away() {
    let (client, ns) = (client().await, Namespace::new("rbac"));
    let config = restricted(&ns, "none").await;
    let r = Reconciler::start(&ns, &[], &[("KUBECONFIG", config.path())]);
    r.until_ready().await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;

    apply_in(None, &rights(&ns.0, "status"));
    // The authorizer learns of it by a watch of its own.
    let taken = ["patch", "kernelwhispers.kernel.gossip.io", "--subresource=status"];
    let allowed = || bed::allowed(&ns.0, "operator", &taken);
    eventually("the end of the right", async || (!allowed()).then_some(())).await;
    let mut news = Whisper { severity: kernel_gossip::signals::Severity::Warning, ..w };
    news.at.unix_ns += 1_000_000;
    agent.say(&[news]).await;
    eventually("a second try", async || {
        (r.metric("kernel_gossip_reconciler_writes_total{object=\"whisper\",result=\"retried\"}").await
            >= 3.0)
            .then_some(())
    })
    .await;
    let warnings = r.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("not allowed (RBAC)"), "{warnings:#?}");
    assert_eq!(r.get("/health").await.unwrap().0, 200);

    apply_in(None, &rights(&ns.0, "none"));
    whisper_of(&client, &pod, "the news", |kw| status(kw).severity == kernel_gossip::api::Severity::Warning)
        .await;
    assert_eq!(r.warnings().len(), 1);
}
