//! A namespace of the cluster for one test.
#![allow(dead_code, reason = "each test binary is a crate of its own and uses a part of this one")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{self, kubectl, process};

/// A namespace of the test's own, deleted with what is in it.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(name: &str) -> Namespace {
        Namespace::secured(name, "privileged")
    }

    /// With this level of pod security.
    pub fn secured(name: &str, level: &str) -> Namespace {
        common::testbed();
        let namespace = Namespace(format!("kg-act-{name}"));
        // What an interrupted run left behind.
        process::output(kubectl().args(["delete", "namespace", &namespace.0, "--ignore-not-found"]));
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.0, "labels": labels}});
        feed(kubectl().args(["create", "-f", "-"]), &object.to_string()).expect("a namespace");
        common::until("service account", || {
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
        common::until("running pod", || {
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
        let _ = kubectl().args(["delete", "namespace", &self.0, "--wait=false"]).output();
        let roles = ["delete", "--ignore-not-found", "clusterrole,clusterrolebinding", &self.0];
        let _ = kubectl().args(roles).output();
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
