//! What `kernel-gossip check` says of an API server that it cannot ask. (Of kernels: tests/kernel/check.rs.)

use std::process::Command;

use kernel_gossip::kernel::facts::Facts;
use kernel_gossip::kernel::plan::Plan;

use crate::bed::kernel_gossip;

fn check() -> Command {
    let mut command = kernel_gossip();
    command.args(["check", "--output", "json"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command
}

fn report(check: &mut Command) -> (Facts, Plan) {
    let out = check.output().expect("run");
    let mut report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let facts = serde_json::from_value(report["facts"].take()).expect("facts");
    (facts, serde_json::from_value(report["plan"].take()).expect("a plan"))
}

#[test]
fn an_api_server_that_does_not_answer_is_told() {
    let kubeconfig = tempfile::NamedTempFile::new().expect("a file");
    // Port 9, discard: nobody listens there.
    let text = "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}], \
        clusters: [{name: k, cluster: {server: 'http://127.0.0.1:9'}}], \
        contexts: [{name: c, context: {cluster: k, user: u}}]}";
    std::fs::write(kubeconfig.path(), text).expect("write");
    let (facts, planned) = report(check().env("KUBECONFIG", kubeconfig.path()));
    let error = facts.kubernetes.error.as_deref().unwrap_or_default();
    let told = ["Connection refused", "no answer within"]; // a slow machine gives up first
    assert!(told.iter().any(|part| error.contains(part)), "{:?}", facts.kubernetes);
    assert_eq!(planned.kubernetes.hook().map(|hook| hook.version.clone()), Some(None));

    let named = kubeconfig.path().to_string_lossy();
    let by_flag = || report(check().args(["--kubeconfig", &named])).0;
    assert!(by_flag().kubernetes.error.is_some(), "asked by the flag as by the variable");

    std::fs::write(kubeconfig.path(), "no: [kubeconfig").expect("write");
    assert!(by_flag().kubernetes.error.is_some_and(|e| e.starts_with(&format!("{named}: "))));
    let (facts, _) = report(check().env("KUBECONFIG", kubeconfig.path()));
    assert!(facts.kubernetes.error.is_some_and(|e| e.starts_with("$KUBECONFIG: ")));
}
