//! The pod changes between the look at it and the resize.

use kernel_gossip::api::RemediationState as State;
use kernel_gossip::reconciler::resize::ANNOTATION;

use super::{BUSY, Executor, options, pods, quota_us};
use crate::bed;
use crate::cluster::bed::Namespace;
use crate::cluster::bed::containers::{Container, pod, remediation_role};
use crate::cluster::bed::rbac::{Held, Proxy, Side, Use};

fn resize() -> Use {
    Use::new("", "pods/resize", "patch")
}

/// The pod has been looked at, and its resize is on the way.
async fn about_to_resize(namespace: &Namespace, name: &str, proxy: &Proxy) -> (Container, Executor, Held) {
    namespace.running(name);
    let container = Container::of(&pods(namespace).await, name).await;
    let mut executor = Executor::with(proxy.client(), options());
    let throttled = container.throttled().await;
    let mut holding = proxy.holds(resize(), Side::Request);
    executor.report(&throttled).await;
    assert_eq!(executor.next().await.state, State::Proposed);
    let held = holding.reached().await;
    (container, executor, held)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_pod_that_changes_meanwhile_is_looked_at_again() {
    let namespace = Namespace::throttled("conflict");
    for name in ["labelled", "forbidden"] {
        namespace.apply(&pod(name, BUSY, true));
    }
    remediation_role(&namespace);
    let proxy = Proxy::start(&namespace.0, "default").await;
    let resize = resize();

    // Something else of it changes: the resize still holds, for the pod as it is now.
    let (container, mut executor, held) = about_to_resize(&namespace, "labelled", &proxy).await;
    namespace.kubectl(&["label", "pod", "labelled", "changed=meanwhile"]);
    held.let_through();
    let (states, r) = executor.until(State::Verifying).await;
    assert_eq!(states, [State::Applied, State::Verifying]);
    // The node may write its status between the second look and the second try, too.
    let answers = proxy.answers(&resize);
    assert!(answers.starts_with(&[409]) && answers.ends_with(&[200]) && answers.len() <= 3, "{answers:?}");
    bed::until("the new quota", || (container.quota() == quota_us(&r)).then_some(()));
    assert!(executor.end().await.is_empty());

    // What permits it goes: nothing is resized, and nothing tried again.
    let (container, executor, held) = about_to_resize(&namespace, "forbidden", &proxy).await;
    namespace.kubectl(&["annotate", "pod", "forbidden", &format!("{ANNOTATION}-")]);
    held.let_through();
    assert!(executor.end().await.is_empty());
    assert_eq!(proxy.answers(&resize)[answers.len()..], [409]);
    assert_eq!(container.quota(), 20_000);
    assert_eq!(namespace.get("pod/forbidden", "{.spec.containers[0].resources.limits.cpu}"), "200m");
}
