//! What the tests on the cluster share: who has it to himself, and a namespace for each test.

pub mod agent;
pub mod births;
pub mod containers;
pub mod rbac;
pub mod reconciler;
pub mod render;

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};

use crate::bed::{self, PATIENCE, kubectl, process, repository};

/// Held by every test: with others, or alone by those that measure the node, need all of it, or break the cluster.
static CLUSTER: RwLock<()> = RwLock::new(());

/// While it is held the cluster is shared with other tests, or nobody else's.
#[expect(dead_code, reason = "held, not read")]
pub enum Hold {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Hold {
    pub fn shared() -> Hold {
        bed::testbed();
        Hold::Shared(CLUSTER.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes away what other tests and interrupted runs left, too: namespaces go on ending for seconds.
    pub fn alone() -> Hold {
        bed::testbed();
        let alone = Hold::Alone(CLUSTER.write().unwrap_or_else(PoisonError::into_inner));
        let names = process::output(kubectl().args(["get", "namespaces", "-o", "name"]));
        let left: Vec<_> = names.lines().filter(|name| name.starts_with("namespace/kg-test-")).collect();
        if !left.is_empty() {
            process::output(kubectl().args(["delete", "--ignore-not-found"]).args(left));
        }
        alone
    }
}

/// How many tests may have a pod throttled at once. Each wants a fifth of a CPU: of two, one of which something else may
/// keep busy, more would get less than their quotas, and never be stopped.
static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(3), Condvar::new());

/// One of those places.
struct Place;

impl Place {
    fn take() -> Place {
        let free = PLACES.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = PLACES.1.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        PLACES.1.notify_one();
    }
}

/// A namespace of the test's own, deleted with what is in it.
pub struct Namespace(pub String, #[expect(dead_code, reason = "held, not read")] Hold, Option<Place>);

/// The label of what a test makes outside its namespace, with the namespace as its value.
pub const OWNER: &str = "kg-test";

impl Namespace {
    pub fn new(name: &str) -> Namespace {
        Namespace::with(Hold::shared(), name, "privileged")
    }

    /// The same, for pods that are to be throttled.
    pub fn throttled(name: &str) -> Namespace {
        let place = Place::take();
        let mut namespace = Namespace::new(name);
        namespace.2 = Some(place);
        namespace
    }

    /// The same, while no other test runs on the cluster.
    pub fn alone(name: &str) -> Namespace {
        Namespace::with(Hold::alone(), name, "privileged")
    }

    /// With this level of pod security.
    pub fn secured(name: &str, level: &str) -> Namespace {
        Namespace::with(Hold::shared(), name, level)
    }

    /// Makes it, and sees to it that the project's definitions are there.
    fn with(hold: Hold, name: &str, level: &str) -> Namespace {
        static GIVEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.is_empty() {
            install_definitions();
        }
        assert!(given.insert(name.to_owned()), "two tests have a namespace {name}");
        drop(given);
        let namespace = Namespace(format!("kg-test-{name}"), hold, None);
        // What an interrupted run left behind.
        process::output(kubectl().args(["delete", "namespace", &namespace.0, "--ignore-not-found"]));
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.0, "labels": labels}});
        feed(kubectl().args(["create", "-f", "-"]), &object.to_string()).expect("a namespace");
        bed::until("service account", || {
            let got =
                kubectl().args(["-n", &namespace.0, "get", "serviceaccount", "default"]).output().ok()?;
            got.status.success().then_some(())
        });
        namespace
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        process::output(kubectl().args(["-n", &self.0]).args(args))
    }

    pub fn apply(&self, object: &Value) {
        feed(kubectl().args(["-n", &self.0, "apply", "-f", "-"]), &object.to_string()).expect("applied");
    }

    /// What a JSONPath gives of an object.
    pub fn get(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    pub fn running(&self, pod: &str) {
        let pod = format!("pod/{pod}");
        bed::until("running pod", || {
            let started = "jsonpath={.status.containerStatuses[0].state.running.startedAt}";
            let got = kubectl().args(["-n", &self.0, "get", &pod, "-o", started]).output().ok()?;
            (got.status.success() && !got.stdout.is_empty()).then_some(())
        });
    }

    /// The remediation's Events about a pod: their reasons, in the order they were written.
    pub fn events(&self, pod: &str) -> Vec<String> {
        let all = self.kubectl(&[
            "get", "events.events.k8s.io", "--sort-by=.eventTime",
            "-o", r#"jsonpath={range .items[?(@.reportingController=="kernel-gossip")]}{.regarding.name} {.reason}{"\n"}{end}"#,
        ]);
        all.lines().filter_map(|l| l.strip_prefix(&format!("{pod} "))).map(str::to_string).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mine = format!("{OWNER}={}", self.0);
        let _ = kubectl().args(["delete", "clusterrole,clusterrolebinding", "-l", &mine]).output();
        let _ = kubectl().args(["delete", "namespace", &self.0, "--wait=false"]).output();
    }
}

/// The project's custom resource definitions, served.
pub fn install_definitions() {
    let crds = repository().join("k8s/crds");
    process::output(kubectl().args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "-k",
        crds.to_str().unwrap(),
    ]));
    process::output(kubectl().args([
        "wait",
        "--for=condition=Established",
        "crd/kernelwhispers.kernel.gossip.io",
        "crd/podbirthcertificates.kernel.gossip.io",
        "--timeout=30s",
    ]));
}

pub async fn client() -> Client {
    bed::testbed();
    Client::try_default().await.unwrap()
}

/// Asks again and again until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a program with this input: its output, or what it had to complain of.
pub fn feed(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if out.status.success() { Ok(text(out.stdout)) } else { Err(text(out.stderr) + &text(out.stdout)) }
}
