//! Remediation on a real cluster: pods that the kernel throttles, resized in place by the executor, and
//! pods that must be left alone. The evidence is what the kernel's own files say of the containers.

mod conflicts;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bed;
use crate::cluster::bed::Namespace;
use crate::cluster::bed::containers::{Container, Window, pod, remediation_role, template};
use crate::cluster::bed::rbac::{self, Use};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kernel_gossip::advice::Kind;
use kernel_gossip::api::{Remediation, RemediationState as State, ResourceStep};
use kernel_gossip::quantity;
use kernel_gossip::reconciler::report::{Evidence, NodeFacts};
use kernel_gossip::reconciler::resize::{
    self, ANNOTATION, Candidate, Mode, ResizeMetrics, ResizeOptions, Update,
};
use kernel_gossip::signals::kinds::recommend;
use kernel_gossip::testlog;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One thread that wants a CPU all the time.
const BUSY: &str = "while :; do :; done";

/// The executor under test with the writer's end of it, which stores what it is told to.
struct Executor {
    candidates: mpsc::Sender<Candidate>,
    updates: mpsc::Receiver<Update>,
    run: JoinHandle<()>,
    standing: Option<Remediation>,
}

impl Executor {
    async fn start(options: ResizeOptions) -> Executor {
        Executor::with(Client::try_default().await.unwrap(), options)
    }

    fn with(client: Client, options: ResizeOptions) -> Executor {
        testlog::keep();
        let (candidates, candidate_queue) = mpsc::channel(8);
        let (update_queue, updates) = mpsc::channel(8);
        let run = tokio::spawn(resize::run(
            client,
            options,
            ResizeMetrics::default(),
            candidate_queue,
            update_queue,
        ));
        Executor { candidates, updates, run, standing: None }
    }

    async fn report(&self, evidence: &Evidence) {
        let recommendation = recommend(evidence, NodeFacts::default());
        let candidate =
            Candidate { evidence: evidence.clone(), recommendation, standing: self.standing.clone() };
        self.candidates.send(candidate).await.unwrap();
    }

    /// The next status, stored at once.
    async fn next(&mut self) -> Remediation {
        let update = tokio::time::timeout(bed::PATIENCE, self.updates.recv()).await;
        self.store(update.expect("no update in time").expect("the executor runs"))
    }

    /// Reports until it is judged: while the executor is still busy with the report before, it lets
    /// another one pass.
    async fn told(&mut self, evidence: &Evidence) -> Remediation {
        loop {
            self.report(evidence).await;
            if let Ok(update) = tokio::time::timeout(Duration::from_secs(1), self.updates.recv()).await {
                return self.store(update.expect("the executor runs"));
            }
        }
    }

    fn store(&mut self, update: Update) -> Remediation {
        let r = update.remediation;
        println!("{:?} {}: {}", r.state, r.reason, r.message);
        self.standing = Some(r.clone());
        update.written.send(true).unwrap();
        r
    }

    /// The states gone through until this one.
    async fn until(&mut self, state: State) -> (Vec<State>, Remediation) {
        let mut states = Vec::new();
        loop {
            let r = self.next().await;
            states.push(r.state);
            if r.state == state {
                return (states, r);
            }
        }
    }

    /// Until windows count: the API server keeps whole seconds, so the step counts from the next one.
    async fn in_force(&self) {
        let since = self.standing.as_ref().unwrap().last_transition_time.0;
        let wait = since.duration_since(Timestamp::now());
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
    }

    /// Ends the executor and gives what it still had to say.
    async fn end(self) -> Vec<Update> {
        let Executor { candidates, mut updates, run, .. } = self;
        drop(candidates);
        let mut rest = Vec::new();
        while let Some(update) = updates.recv().await {
            rest.push(update);
        }
        run.await.unwrap();
        rest
    }
}

/// The defaults, without cool-downs.
fn options() -> ResizeOptions {
    ResizeOptions {
        mode: Mode::Apply,
        cooldown: Duration::ZERO,
        unasked: Duration::ZERO,
        rollback_cooldown: Duration::ZERO,
        ..ResizeOptions::default()
    }
}

async fn pods(namespace: &Namespace) -> Api<Pod> {
    Api::namespaced(Client::try_default().await.unwrap(), &namespace.0)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_throttled_pod_is_resized_without_a_restart_and_the_kernel_verifies_it() {
    let namespace = Namespace::throttled("helps");
    namespace.apply(&pod("busy", BUSY, true));
    namespace.running("busy");
    let container = Container::of(&pods(&namespace).await, "busy").await;
    let identity = |path: &str| namespace.get("pod/busy", path);
    let before = identity("{.status.containerStatuses[0].containerID} {.metadata.uid}");
    assert_eq!(container.quota(), 20_000);

    // With the rights that the manifests give remediation, and no others.
    let role = remediation_role(&namespace);
    let proxy = rbac::Proxy::start(&namespace.0, "default").await;
    let mut executor = Executor::with(proxy.client(), options());
    let throttled = container.throttled().await;
    executor.report(&throttled).await;
    let (states, r) = executor.until(State::Verifying).await;
    assert_eq!(states, [State::Proposed, State::Applied, State::Verifying]);
    let to = quota_us(&r);
    assert!(to > 20_000);
    assert_eq!((r.steps, container.quota()), (1, to), "the kernel's quota is the new one");

    executor.in_force().await;
    let after = container.watch(6).await;
    let r = executor.told(&after).await;
    assert_eq!(r.state, State::Verified);
    assert!(r.before_throttled_percent.is_some() && r.after_throttled_percent.is_some());
    assert_eq!(identity("{.status.containerStatuses[0].containerID} {.metadata.uid}"), before);
    assert_eq!(identity("{.status.containerStatuses[0].restartCount}"), "0");
    assert_eq!(identity("{.spec.containers[0].resources.limits.cpu}"), format!("{}m", to / 100));
    assert_eq!(identity("{.spec.containers[0].resources.requests.cpu}"), "100m");
    assert!(executor.end().await.is_empty());
    assert_eq!(namespace.events("busy"), ["Resized", "ResizeInForce", "ResizeVerified"]);
    let mut used = proxy.used();
    // Asked only of a node that takes its time: what_the_node_does_not_carry_out_is_undone.
    used.insert(Use::new("", "pods", "watch"));
    assert_eq!(used, rbac::grants(&role), "used, and granted by k8s/components/remediation/rbac.yaml");
    assert_eq!(proxy.denied(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_step_that_did_not_help_is_undone() {
    let namespace = Namespace::throttled("undone");
    // Busy while it is told to be. A window is a burst and the rest after it, both as long as the
    // kernel's counters say, whatever else the machine does.
    let load = "while :; do if [ -e /tmp/burst ]; then :; else sleep 0.1; fi; done";
    namespace.apply(&pod("bursts", load, true));
    namespace.running("bursts");
    let container = Container::of(&pods(&namespace).await, "bursts").await;
    let burst = async |enough: &dyn Fn(&Window) -> bool| {
        let begin = container.numbers();
        namespace.kubectl(&["exec", "bursts", "--", "touch", "/tmp/burst"]);
        container.since(begin, enough).await;
        namespace.kubectl(&["exec", "bursts", "--", "rm", "/tmp/burst"]);
        begin
    };

    // Stopped a little of the time: so little that the recommendation just takes it.
    let mut executor = Executor::start(options()).await;
    let begin = burst(&|w| w.throttled_periods >= 8 && w.throttled >= 0.15).await;
    let before = container.since(begin, |w| w.throttled_percent <= 2.0 && w.seconds >= 6.0).await;
    executor.report(&before).await;
    let (_, r) = executor.until(State::Verifying).await;
    assert!(quota_us(&r) > 20_000 && container.quota() == quota_us(&r));

    // Stopped for more of the time although the limit is higher, and using no more than it could before:
    // as much as makes 3 % of a window in which it used 180m. A busy machine stops it less often.
    executor.in_force().await;
    let begin =
        burst(&|w| w.throttled >= 0.03 * w.usage_cores * w.seconds / 0.18 && w.throttled >= 1.0).await;
    let after = container.since(begin, |w| w.usage_cores <= 0.18).await;
    let r = executor.told(&after).await;
    assert_eq!((r.state, r.reason.as_str()), (State::RolledBack, "DidNotHelp"));
    bed::until("old quota", || (container.quota() == 20_000).then_some(()));
    assert_eq!(namespace.get("pod/bursts", "{.spec.containers[0].resources.limits.cpu}"), "200m");
    assert_eq!(namespace.get("pod/bursts", "{.status.containerStatuses[0].restartCount}"), "0");
    assert!(executor.end().await.is_empty());
    assert_eq!(namespace.events("bursts"), ["Resized", "ResizeInForce", "ResizeRolledBack"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_server_that_cannot_resize_is_said_to_be_one() {
    let namespace = Namespace::throttled("old");
    namespace.apply(&pod("busy", BUSY, true));
    namespace.running("busy");
    let container = Container::of(&pods(&namespace).await, "busy").await;
    // An older server, as far as this one answers for what it does not have: RBAC is asked first.
    let mut role = remediation_role(&namespace);
    let rules = role["rules"].as_array_mut().unwrap();
    rules.push(json!({"apiGroups": [""], "resources": ["pods/unheard-of"], "verbs": ["patch"]}));
    namespace.apply(&role);
    let proxy = rbac::Proxy::start(&namespace.0, "default").await;
    proxy.lacks("/resize", "/unheard-of");
    let mut executor = Executor::with(proxy.client(), options());
    executor.report(&container.throttled().await).await;
    let (states, r) = executor.until(State::Refused).await;
    assert_eq!((states.len(), r.reason.as_str()), (2, "NotSupported"));
    assert!(executor.end().await.is_empty());
    assert_eq!(container.quota(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn what_nobody_permits_any_more_is_not_undone() {
    let namespace = Namespace::throttled("barred");
    namespace.apply(&pod("busy", BUSY, true));
    namespace.running("busy");
    let container = Container::of(&pods(&namespace).await, "busy").await;
    // A step so small that it could not help, taken by a reconciler that is gone.
    let cores = |cores| Some(ResourceStep { cpu_limit_cores: Some(cores), ..ResourceStep::default() });
    let standing = Remediation {
        state: State::Verifying,
        reason: "Actuated".into(),
        message: String::new(),
        container: Some("app".into()),
        from: cores(0.199),
        to: cores(0.2),
        before_throttled_percent: Some(1.0),
        after_throttled_percent: None,
        last_transition_time: Time(Timestamp::now()),
        cooldown_until: None,
        steps: 1,
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    // No more than could be used before the step, as a busy machine or its own limit has it.
    let throttled = container.until(|w| w.throttled_periods >= 20 && w.usage_cores <= 0.202).await;
    let limit = || namespace.get("pod/busy", "{.spec.containers[0].resources.limits.cpu}");
    let judged = async |mode| {
        let mut executor = Executor::start(ResizeOptions { mode, ..options() }).await;
        executor.standing = Some(standing.clone());
        let r = executor.told(&throttled).await;
        assert!(executor.end().await.is_empty());
        (r.state, r.reason)
    };
    assert_eq!(judged(Mode::DryRun).await, (State::DryRun, "WouldUndo".into()));
    assert_eq!(limit(), "200m");
    namespace.kubectl(&["annotate", "pod", "busy", &format!("{ANNOTATION}-")]);
    assert_eq!(judged(Mode::Apply).await, (State::Refused, "NotAskedAnyMore".into()));
    assert_eq!((limit().as_str(), container.quota()), ("200m", 20_000));
    // Permitted, the same is undone.
    namespace.kubectl(&["annotate", "pod", "busy", &format!("{ANNOTATION}=resize")]);
    assert_eq!(judged(Mode::Apply).await, (State::RolledBack, "DidNotHelp".into()));
    assert_eq!(limit(), "199m");
    assert_eq!(namespace.events("busy"), ["WouldUndoResize", "ResizeRefused", "ResizeRolledBack"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn what_the_node_does_not_carry_out_is_undone() {
    let namespace = Namespace::alone("pending");
    let mut guaranteed = pod("calm", "sleep 3600", true);
    let resources = json!({"cpu": "200m", "memory": "32Mi"});
    guaranteed["spec"]["containers"][0]["resources"] = json!({"limits": resources, "requests": resources});
    namespace.apply(&guaranteed);
    namespace.running("calm");
    let container = Container::of(&pods(&namespace).await, "calm").await;
    let report = container.watch(1).await;
    let mut other = pod("other", "sleep 3600", false);
    other["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    namespace.apply(&other);
    namespace.running("other");

    // All of the node, asked for by a reconciler that is gone. (More than all, the API server refuses by
    // itself from 1.36 on.)
    let milli = allocatable_milli();
    let cpu = format!("{milli}m");
    let patch = json!({"spec": {"containers": [{"name": "app", "resources": {"limits": {"cpu": cpu}, "requests": {"cpu": cpu}}}]}});
    namespace.kubectl(&["patch", "pod", "calm", "--subresource", "resize", "-p", &patch.to_string()]);
    let said = r#"{.status.conditions[?(@.type=="PodResizePending")].reason}"#;
    bed::until("word of the kubelet", || (namespace.get("pod/calm", said) == "Deferred").then_some(()));

    let cores = |milli: i64| {
        let cores = Some(milli as f64 / 1e3);
        Some(ResourceStep { cpu_limit_cores: cores, cpu_request_cores: cores, ..ResourceStep::default() })
    };
    remediation_role(&namespace);
    let proxy = rbac::Proxy::start(&namespace.0, "default").await;
    let options = ResizeOptions { pending_max: Duration::from_secs(5), ..options() };
    let mut executor = Executor::with(proxy.client(), options);
    executor.standing = Some(Remediation {
        state: State::Applied,
        reason: "Accepted".into(),
        message: String::new(),
        container: Some("app".into()),
        from: cores(200),
        to: cores(milli),
        before_throttled_percent: None,
        after_throttled_percent: None,
        last_transition_time: Time(Timestamp::now()),
        cooldown_until: None,
        steps: 1,
    });
    let r = executor.told(&report).await;
    assert_eq!((r.state, r.reason.as_str()), (State::RolledBack, "Deferred"));
    assert!(executor.end().await.is_empty());
    assert!(proxy.used().contains(&Use::new("", "pods", "watch")));
    assert_eq!(proxy.denied(), BTreeSet::new());
    let spec = namespace.get("pod/calm", "{.spec.containers[0].resources}");
    let spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
    assert_eq!(spec, json!({"limits": resources, "requests": resources}));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn pods_that_must_be_left_alone_are() {
    let namespace = Namespace::alone("refused");
    let annotated = json!({ANNOTATION: "resize"});
    namespace.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": annotated}, "spec": template(BUSY)},
        },
    }));
    namespace.kubectl(&["rollout", "status", "deployment/web"]);
    let name = namespace.get("pods", "{.items[0].metadata.name}");
    let container = Container::of(&pods(&namespace).await, &name).await;
    let throttled = container.throttled().await;
    assert_eq!(recommend(&throttled, NodeFacts::default()).kind, Kind::RaiseLimit);

    let mut executor = Executor::start(options()).await;
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limits"}, "spec": {"hard": {"limits.cpu": "210m"}},
    });
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "range"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "200m"}}]},
    });
    for (object, kind, reason) in [
        (hpa, "hpa/web", "HorizontalPodAutoscaler"),
        (quota, "resourcequota/limits", "ResourceQuota"),
        (range, "limitrange/range", "LimitRange"),
    ] {
        namespace.apply(&object);
        if reason == "ResourceQuota" {
            let counted = || namespace.get("resourcequota/limits", r"{.status.used.limits\.cpu}");
            bed::until("counted quota", || (counted() == "200m").then_some(()));
        }
        let r = executor.told(&throttled).await;
        assert_eq!((r.state, r.reason.as_str()), (State::Refused, reason));
        namespace.kubectl(&["delete", kind]);
    }

    // The rest of the node, but for 10m.
    let node = namespace.get("nodes", "{.items[0].metadata.name}");
    let requests = namespace.kubectl(&[
        "get",
        "pods",
        "-A",
        "-o",
        "jsonpath={.items[*].spec.containers[*].resources.requests.cpu}",
    ]);
    let free = allocatable_milli() - requests.split_whitespace().map(milli).sum::<i64>();
    let mut filler = pod("filler", "sleep 3600", false);
    filler["spec"]["nodeName"] = json!(node);
    filler["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{}m", free - 10)}});
    namespace.apply(&filler);
    namespace.running("filler");
    let r = executor.told(&throttled).await;
    assert_eq!((r.state, r.reason.as_str()), (State::Refused, "NodeFull"));
    namespace.kubectl(&["delete", "pod/filler"]);

    assert!(executor.end().await.is_empty());
    assert_eq!(container.quota(), 20_000);
    assert_eq!(namespace.events(&name), ["ResizeRefused"; 4]);

    // Nobody asks for it any more: nothing is said at all.
    namespace.kubectl(&["annotate", "pod", &name, &format!("{ANNOTATION}-")]);
    let executor = Executor::start(options()).await;
    executor.report(&throttled).await;
    assert!(executor.end().await.is_empty());
    assert_eq!(namespace.get(&format!("pod/{name}"), "{.spec.containers[0].resources.limits.cpu}"), "200m");

    // All of it was in the way, and nothing else: once somebody asks, the next report does, however long the
    // cool-down is.
    let dry = ResizeOptions { mode: Mode::DryRun, cooldown: ResizeOptions::default().cooldown, ..options() };
    let mut dry = Executor::start(dry).await;
    dry.report(&throttled).await;
    namespace.kubectl(&["annotate", "namespace", &namespace.0, &format!("{ANNOTATION}=resize")]);
    let r = dry.told(&throttled).await;
    assert!(r.state == State::DryRun && quota_us(&r) > 20_000);
    assert!(dry.end().await.is_empty());
    assert_eq!(container.quota(), 20_000, "a dry run changes nothing");
}

/// The quota that carries out what a status says it is to become, in microseconds a period of 0.1 s.
fn quota_us(r: &Remediation) -> u64 {
    (r.to.as_ref().unwrap().cpu_limit_cores.unwrap() * 1e5).round() as u64
}

/// CPU the test bed's only node has for pods, millicores.
fn allocatable_milli() -> i64 {
    let nodes = ["get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"];
    milli(&bed::process::output(bed::kubectl().args(nodes)))
}

fn milli(text: &str) -> i64 {
    quantity::milli(&Quantity(text.into())).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_static_pod_is_left_alone() {
    let namespace = Namespace::throttled("static");
    let node = namespace.get("nodes", "{.items[0].metadata.name}");
    let mut manifest = pod("busy", BUSY, true);
    manifest["metadata"]["namespace"] = json!(namespace.0);
    // Where the test bed's kubelet looks for them.
    let dir = bed::testbed_dir().join("cluster/state/manifests");
    let file = tempfile::Builder::new().prefix("kg-act").suffix(".json").tempfile_in(dir).unwrap();
    serde_json::to_writer(&file, &manifest).unwrap();
    let name = format!("busy-{node}");
    namespace.running(&name);
    let container = Container::of(&pods(&namespace).await, &name).await;
    let mut executor = Executor::start(options()).await;
    executor.report(&container.throttled().await).await;
    let r = executor.next().await;
    assert_eq!((r.state, r.reason.as_str()), (State::Refused, "StaticPod"));
    assert!(executor.end().await.is_empty());
    assert_eq!(container.quota(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: scripts/test cluster"]
async fn a_reconciler_that_dies_in_between_is_succeeded() {
    let namespace = Namespace::throttled("succeeded");
    namespace.apply(&pod("busy", BUSY, true));
    namespace.running("busy");
    let container = Container::of(&pods(&namespace).await, "busy").await;
    let throttled = container.throttled().await;

    // Dies once the status is stored, before the patch: nothing has happened, the next one begins anew.
    let mut first = Executor::start(options()).await;
    first.report(&throttled).await;
    let update = first.updates.recv().await.unwrap();
    assert_eq!(update.remediation.state, State::Proposed);
    first.run.abort();
    assert!(first.run.await.is_err());
    drop(update.written);
    let stored = Some(update.remediation);
    assert_eq!(container.quota(), 20_000);
    let mut second = Executor { standing: stored.clone(), ..Executor::start(options()).await };
    second.report(&throttled).await;
    let (states, r) = second.until(State::Verifying).await;
    assert_eq!((states.len(), r.steps, container.quota()), (3, 1, quota_us(&r)));
    second.end().await;

    // Dies after the patch, before it could say so: the next one goes on from there, with no second step.
    let mut third = Executor { standing: stored, ..Executor::start(options()).await };
    third.report(&throttled).await;
    let (states, r) = third.until(State::Verifying).await;
    assert_eq!(states, [State::Applied, State::Verifying]);
    assert_eq!((r.steps, container.quota()), (1, quota_us(&r)));

    // Somebody else changes the limit: it is theirs, and not undone.
    namespace.kubectl(&[
        "patch",
        "pod",
        "busy",
        "--subresource",
        "resize",
        "-p",
        r#"{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"300m"}}}]}}"#,
    ]);
    third.end().await;
    let mut fourth = Executor { standing: Some(r), ..Executor::start(options()).await };
    fourth.standing.as_mut().unwrap().state = State::Applied;
    fourth.report(&throttled).await;
    let r = fourth.next().await;
    assert_eq!((r.state, r.reason.as_str()), (State::Refused, "ChangedByOthers"));
    assert_eq!(namespace.get("pod/busy", "{.spec.containers[0].resources.limits.cpu}"), "300m");
}
