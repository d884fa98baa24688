//! Who may report, and for whom.

use jiff::Timestamp;
use kernel_gossip::api::{KernelWhisper, PodBirthCertificate, Source};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::cluster::bed::reconciler::{Agent, Reconciler, openssl, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

fn throttle(namespace: &str, pod: &str) -> Value {
    json!({
        "type": "cpu_throttle", "pod_name": pod, "namespace": namespace, "container_name": "main",
        "throttle_percentage": 82, "actual_cpu_usage": 0.9, "reported_cpu_usage": 0.2,
        "period_seconds": 30, "timestamp": Timestamp::now().to_string(),
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_webhook_takes_tokens_that_rbac_allows() {
    let (client, ns) = (client().await, Namespace::new("webhook"));
    let r = Reconciler::ready(&ns, &[]).await;
    let pod = ns.pod(&client, "web").await;
    let good = ns.caller("ebpf", &["/webhook/ebpf"]);
    let not_allowed = ns.token("default", &["--audience", "kernel-gossip"]);
    let other_audience = ns.token("ebpf", &[]);
    let body = throttle(&ns.0, "web");
    for (token, path, wanted) in [
        (None, "/webhook/ebpf", 401),
        (Some("a.b.c"), "/webhook/ebpf", 401),
        (Some(other_audience.as_str()), "/webhook/ebpf", 401),
        (Some(not_allowed.as_str()), "/webhook/ebpf", 403),
        (Some(good.as_str()), "/webhook/pixie", 403),
    ] {
        let (code, line) = r.post(path, token, &body).await;
        assert_eq!(code, wanted, "{path}: {line}");
    }
    let all: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    assert!(
        all.list(&Default::default()).await.unwrap().items.is_empty(),
        "an object from a call that was turned away"
    );

    assert_eq!(r.post("/webhook/ebpf", Some(&good), &body).await.0, 202);
    let kw = whisper_of(&client, &pod, "a reported whisper", |_| true).await;
    assert_eq!(status(&kw).signals[0].source, Source::Reported);
    assert!(status(&kw).remediation.is_none());

    for (body, wanted, named) in [
        (throttle(&ns.0, "nobody"), 404, "pod_name"),
        (throttle("no-such-namespace", "web"), 403, "namespace"),
        (
            {
                let mut b = throttle(&ns.0, "web");
                b["container_name"] = "other".into();
                b
            },
            422,
            "container_name",
        ),
        (
            {
                let mut b = throttle(&ns.0, "web");
                b["throttle_percentage"] = 130.into();
                b
            },
            422,
            "throttle_percentage",
        ),
    ] {
        let (code, line) = r.post("/webhook/ebpf", Some(&good), &body).await;
        assert_eq!(code, wanted, "{line}");
        assert!(line.contains(named), "{line}");
    }
    assert_eq!(
        all.list(&Default::default()).await.unwrap().items.len(),
        1,
        "a pod that does not exist creates nothing"
    );

    let birth = json!({
        "type": "pod_creation", "pod_name": "web", "namespace": ns.0, "timestamp": Timestamp::now().to_string(),
        "total_syscalls": 4711, "total_duration_ms": 521.4,
        "timeline": [{"timestamp_ms": 0, "actor": "kubelet", "action": "mkdir"}],
    });
    assert_eq!(r.post("/webhook/ebpf", Some(&good), &birth).await.0, 202);
    let births: Api<PodBirthCertificate> = Api::namespaced(client.clone(), &ns.0);
    let pbc = eventually("a certificate", async || {
        births.get_opt("web-pbc").await.unwrap().filter(|p| p.status.is_some())
    })
    .await;
    assert_eq!(pbc.owner_references()[0].uid, pod.uid().unwrap());
    let s = pbc.status.unwrap();
    assert_eq!(
        (s.source, s.total.as_deref(), s.kernel_stats.unwrap().total_syscalls),
        (Source::Reported, Some("521 ms"), Some(4711))
    );
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn an_agent_speaks_for_its_own_node_only() {
    let (client, ns) = (client().await, Namespace::new("node"));
    let r = Reconciler::ready(&ns, &[]).await;
    let pod = ns.pod(&client, "web").await;
    ns.caller("agent", &["/otlp/node"]);
    let bound = |to: &str| {
        ns.token(
            "agent",
            &["--audience", "kernel-gossip", "--bound-object-kind", "Pod", "--bound-object-name", to],
        )
    };
    let unbound = ns.token("agent", &["--audience", "kernel-gossip"]);
    let refused = r.agent(&unbound).await.send(&[throttled(&pod)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a token bound to no node: {refused}");
    let refused = r.agent("").await.send(&[throttled(&pod)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    // A token of a pod of this node, and a pod of another.
    ns.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"},
        "spec": {"serviceAccountName": "agent", "terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "main", "image": "testbed.local/pause:1"}]},
    }));
    eventually("the agent's pod", async || {
        let node = ns.kubectl(&["get", "pod", "agent", "-o", "jsonpath={.spec.nodeName}"]);
        (node == "kg-node").then_some(())
    })
    .await;
    ns.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "elsewhere"},
        "spec": {"nodeName": "kg-test-no-node", "containers": [{"name": "main", "image": "testbed.local/pause:1"}]},
    }));
    let elsewhere: k8s_openapi::api::core::v1::Pod =
        Api::namespaced(client.clone(), &ns.0).get("elsewhere").await.unwrap();
    let mut agent = r.agent(&bound("agent")).await;
    let answer =
        agent.send(&[throttled(&elsewhere), throttled(&pod)]).await.unwrap().partial_success.unwrap();
    assert_eq!(answer.rejected_log_records, 1);
    assert!(answer.error_message.contains("runs on kg-test-no-node"), "{}", answer.error_message);
    whisper_of(&client, &pod, "its own node's whisper", |_| true).await;
    let all: Api<KernelWhisper> = Api::namespaced(client, &ns.0);
    assert!(all.get_opt("elsewhere-kw").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_client_certificate_stands_for_a_token() {
    let (client, ns) = (client().await, Namespace::new("mtls"));
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for ca in ["ca", "other"] {
        openssl(
            d,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-noenc",
                "-days",
                "2",
                "-subj",
                &format!("/CN={ca}"),
                "-keyout",
                &format!("{ca}.key"),
                "-out",
                &format!("{ca}.crt"),
            ],
        );
    }
    for (name, ca, usage) in
        [("server", "ca", "serverAuth"), ("agent", "ca", "clientAuth"), ("stranger", "other", "clientAuth")]
    {
        let extension =
            format!("subjectAltName=DNS:reconciler\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(d.join("ext"), extension).unwrap();
        openssl(
            d,
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-noenc",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.csr"),
            ],
        );
        openssl(
            d,
            &[
                "x509",
                "-req",
                "-in",
                &format!("{name}.csr"),
                "-CA",
                &format!("{ca}.crt"),
                "-CAkey",
                &format!("{ca}.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "ext",
                "-out",
                &format!("{name}.crt"),
            ],
        );
    }
    let file = |name: &str| d.join(name).to_str().unwrap().to_owned();
    let read = |name: &str| std::fs::read(d.join(name)).unwrap();
    let r = Reconciler::ready(
        &ns,
        &[
            "--tls-cert",
            &file("server.crt"),
            "--tls-key",
            &file("server.key"),
            "--tls-client-ca",
            &file("ca.crt"),
        ],
    )
    .await;
    let pod = ns.pod(&client, "web").await;
    let agent = |who: Option<&str>, token: &str| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.crt")))
            .domain_name("reconciler");
        if let Some(who) = who {
            tls = tls.identity(Identity::from_pem(read(&format!("{who}.crt")), read(&format!("{who}.key"))));
        }
        let channel = Channel::from_shared(format!("https://{}", r.otlp))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect_lazy();
        Agent::over(channel, token)
    };
    let w = || [throttled(&pod)];
    assert_eq!(agent(None, "").send(&w()).await.unwrap_err().code(), Code::Unauthenticated);
    let stranger = agent(Some("stranger"), "").send(&w()).await.unwrap_err();
    assert!(
        matches!(stranger.code(), Code::Unavailable | Code::Unknown | Code::Cancelled),
        "the handshake fails: {stranger:?}"
    );
    let all: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    assert!(all.list(&Default::default()).await.unwrap().items.is_empty());
    agent(Some("agent"), "").say(&w()).await;
    whisper_of(&client, &pod, "a whisper", |_| true).await;
    // TLS without a certificate: the token counts.
    let token = ns.caller("agent", &["/otlp/cluster"]);
    agent(None, &token).say(&w()).await;
}
