//! A whisper's life: seen, replaced with its pod, kept through a restart, over, forgotten.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{KernelWhisper, Severity, SignalKind, Source, WhisperState};
use kernel_gossip::signals::{Transition, Whisper};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::bed::{kubectl, process::output};
use crate::cluster::bed::reconciler::{Reconciler, status, throttled, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_whisper_becomes_an_object() {
    let (client, ns) = (client().await, Namespace::new("seen"));
    let r = Reconciler::ready(&ns, &[]).await;
    let pod = ns.pod(&client, "web").await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let kw = whisper_of(&client, &pod, "a whisper", |_| true).await;
    assert_eq!(kw.name_any(), "web-kw");
    let owner = &kw.owner_references()[0];
    assert_eq!((owner.kind.as_str(), Some(&owner.uid)), ("Pod", pod.uid().as_ref()));
    assert_eq!((kw.spec.pod_name.as_str(), kw.spec.node_name.as_str()), ("web", "kg-node"));
    let s = status(&kw);
    assert_eq!(
        (s.state, s.severity, s.signal),
        (WhisperState::Active, Severity::Critical, SignalKind::CpuThrottle)
    );
    assert_eq!(s.observed_generation, Some(1));
    let signal = &s.signals[0];
    assert_eq!((signal.container.as_str(), signal.source, signal.count), ("main", Source::Kernel, 1));
    assert_eq!(s.kernel_truth.as_ref().unwrap().throttled_percent, Some(80.0));
    assert!(s.recommendation.as_ref().unwrap().contains("kubectl"), "{:?}", s.recommendation);
    // By one field manager, object and status.
    let managers: Vec<_> = kw.managed_fields().iter().map(|m| m.manager.clone().unwrap()).collect();
    assert!(!managers.is_empty() && managers.iter().all(|m| m == "kernel-gossip"), "{managers:?}");
    // As people see it.
    let table = ns.kubectl(&["get", "gossip", "--no-headers"]);
    for shown in ["web", "cpu_throttle", "throttled 80 %", "critical", "active"] {
        assert!(table.contains(shown), "{table}");
    }
    let mine = ns.kubectl(&["get", "kw", "--field-selector=spec.nodeName=kg-node", "-o", "name"]);
    assert_eq!(mine.trim(), "kernelwhisper.kernel.gossip.io/web-kw");

    // The same once more is no news; the end of it is.
    agent.say(std::slice::from_ref(&w)).await;
    let mut over = Whisper { transition: Transition::Resolved, ..w };
    over.at.unix_ns += 1_000_000;
    agent.say(&[over.clone(), over]).await;
    let kw = whisper_of(&client, &pod, "a resolved whisper", |kw| status(kw).state == WhisperState::Resolved)
        .await;
    assert_eq!(status(&kw).signals[0].count, 1);
    assert_eq!(r.metric("kernel_gossip_reconciler_verdicts_total{verdict=\"duplicate\"}").await, 2.0);
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn the_api_server_holds_the_definitions_rules() {
    let ns = Namespace::new("rules");
    let kw = |name: &str, uid: &str| {
        json!({
            "apiVersion": "kernel.gossip.io/v1alpha1", "kind": "KernelWhisper", "metadata": {"name": name},
            "spec": {"podName": "web", "podUid": uid, "nodeName": "n1"},
        })
    };
    ns.apply(&kw("web-kw", "u1"));
    let refused = |object: &serde_json::Value, says: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, object).unwrap();
        let out =
            kubectl().args(["-n", &ns.0, "apply", "-f", file.path().to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains(says), "{said}");
    };
    refused(&kw("web", "u1"), "a KernelWhisper is named after its pod");
    refused(&kw("web-kw", "u2"), "immutable: another pod is another object");
    refused(&kw("other-kw", ""), "podUid");
    let status = json!({"status": {
        "state": "active", "severity": "fatal", "signal": "cpu_throttle", "insight": "", "kernelEvidence": "",
    }})
    .to_string();
    let out = kubectl()
        .args(["-n", &ns.0, "patch", "kw", "web-kw", "--subresource=status", "--type=merge", "-p", &status])
        .output()
        .unwrap();
    assert!(String::from_utf8(out.stderr).unwrap().contains("Unsupported value: \"fatal\""));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn another_pod_of_the_same_name_gets_another_object() {
    let (client, ns) = (client().await, Namespace::new("replaced"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let first = ns.pod(&client, "web").await;
    let w = throttled(&first);
    agent.say(std::slice::from_ref(&w)).await;
    let old = whisper_of(&client, &first, "the first whisper", |_| true).await;

    // The garbage collector is kept from it, so that the old object is there when the new pod whispers.
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let orphan = json!({"metadata": {"ownerReferences": null}});
    api.patch("web-kw", &PatchParams::default(), &Patch::Merge(&orphan)).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &ns.0);
    pods.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("the end of the pod", async || pods.get_opt("web").await.unwrap().is_none().then_some(()))
        .await;
    let second = ns.pod(&client, "web").await;
    assert_ne!(first.uid(), second.uid());

    agent.say(&[throttled(&second)]).await;
    let new = whisper_of(&client, &second, "the second's whisper", |kw| {
        Some(&kw.spec.pod_uid) == second.uid().as_ref()
    })
    .await;
    assert_ne!(old.uid(), new.uid());
    assert_eq!(new.owner_references()[0].uid, second.uid().unwrap());
    assert_eq!(status(&new).signals[0].count, 1);
    // What is still said of the first is not believed.
    let late =
        agent.send(&[Whisper { at: throttled(&first).at, ..w }]).await.unwrap().partial_success.unwrap();
    assert_eq!(late.rejected_log_records, 1);
    assert!(late.error_message.contains("of this UID is gone"), "{}", late.error_message);
    assert_eq!(r.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn a_restart_loses_nothing_and_silence_ends_a_whisper() {
    let (client, ns) = (client().await, Namespace::new("restart"));
    let r = Reconciler::ready(&ns, &["--stale-after=8s", "--keep-resolved=15s"]).await;
    let token = ns.caller("agent", &["/otlp/cluster"]);
    let (said_again, not_said) = (ns.pod(&client, "again").await, ns.pod(&client, "silent").await);
    let (again, silent) = (throttled(&said_again), throttled(&not_said));
    r.agent(&token).await.say(&[again.clone(), silent]).await;
    let before = whisper_of(&client, &said_again, "a whisper", |_| true).await;
    whisper_of(&client, &not_said, "a whisper", |_| true).await;

    let r = r.killed_and_started();
    r.until_ready().await;
    let mut agent = r.agent(&token).await;
    for second in 1..=4 {
        let mut repeated = Whisper { transition: Transition::Repeated, ..again.clone() };
        repeated.at.unix_ns = Timestamp::now().as_nanosecond() as u64;
        agent.say(&[repeated]).await;
        if second < 4 {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    }
    // Two seconds after the silent one's time has run out, it is over; the other goes on.
    let over =
        whisper_of(&client, &not_said, "an end by silence", |kw| status(kw).state == WhisperState::Resolved)
            .await;
    assert!(status(&over).signals[0].resolved_at.is_some());
    let after = whisper_of(&client, &said_again, "a whisper", |_| true).await;
    assert_eq!(after.uid(), before.uid(), "the same object");
    assert_eq!((status(&after).state, status(&after).signals[0].count), (WhisperState::Active, 1));
    assert_eq!(status(&after).signals[0].since, status(&before).signals[0].since);

    // Forgotten after its time; a new whisper makes a new object.
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    eventually("the end of the object", async || {
        api.get_opt("silent-kw").await.unwrap().is_none().then_some(())
    })
    .await;
    agent.say(&[throttled(&not_said)]).await;
    let anew = whisper_of(&client, &not_said, "a new whisper", |_| true).await;
    assert_ne!(anew.uid(), over.uid());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster"]
async fn an_object_somebody_deletes_or_changes_is_put_right() {
    let (client, ns) = (client().await, Namespace::new("deleted"));
    let r = Reconciler::ready(&ns, &[]).await;
    let mut agent = r.agent(&ns.caller("agent", &["/otlp/cluster"])).await;
    let pod = ns.pod(&client, "web").await;
    let w = throttled(&pod);
    agent.say(std::slice::from_ref(&w)).await;
    let before = whisper_of(&client, &pod, "a whisper", |_| true).await;

    // Somebody else writes to it all the while: none of our writes is lost or fails.
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let meddle = async {
        let mut n = 0u64;
        loop {
            n += 1;
            let label = json!({"metadata": {"labels": {"meddler": n.to_string()}}});
            api.patch("web-kw", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
            let text = json!({"status": {"insight": format!("nonsense {n}")}});
            api.patch_status("web-kw", &PatchParams::default(), &Patch::Merge(&text)).await.unwrap();
        }
    };
    let speak = async {
        for n in 0..4 {
            let mut news = w.clone();
            news.severity =
                [kernel_gossip::signals::Severity::Warning, kernel_gossip::signals::Severity::Critical]
                    [n % 2];
            news.at.unix_ns += (n as u64 + 1) * 1_000_000;
            agent.say(&[news]).await;
            let wanted = [Severity::Warning, Severity::Critical][n % 2];
            whisper_of(&client, &pod, "the news", |kw| status(kw).severity == wanted).await;
        }
    };
    tokio::select! {
        () = meddle => {}
        () = speak => {}
    }

    output(kubectl().args(["-n", &ns.0, "delete", "kw", "web-kw"]));
    // What is said before the reconciler hears of the deletion goes with the object, so it is said again, as agents do.
    let after = eventually("the whisper again", async || {
        let mut again = Whisper { transition: Transition::Repeated, ..w.clone() };
        again.at.unix_ns = Timestamp::now().as_nanosecond() as u64;
        agent.clone().say(&[again]).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        api.get_opt("web-kw").await.unwrap().filter(|kw| kw.status.is_some())
    })
    .await;
    assert_ne!(after.uid(), before.uid());
    assert_eq!(status(&after).state, WhisperState::Active);
    assert_eq!(r.warnings(), Vec::<String>::new());
}
