//! What `kernel-gossip check` says of an API server that it cannot ask, and of cgroup trees. (Of kernels: tests/kernel/check.rs.)

use std::process::{Command, Output};

use kernel_gossip::kernel::facts::{Facts, Trial};
use kernel_gossip::kernel::plan::Plan;
use kernel_gossip::kernel::rehearsal::Rehearsal;

use crate::bed::cgroup::Cgroup;
use crate::bed::kernel_gossip;
use crate::bed::process::without_capabilities;

fn check(arguments: &[&str]) -> Command {
    let mut command = kernel_gossip();
    command.arg("check").args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command
}

fn json() -> Command {
    check(&["--output", "json"])
}

/// The program as root without any capability.
fn powerless(command: &mut Command) -> Output {
    without_capabilities(command).output().expect("run")
}

fn report(check: &mut Command) -> (Facts, Plan) {
    let out = check.output().expect("run");
    let mut report: serde_json::Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
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
    let (facts, planned) = report(json().env("KUBECONFIG", kubeconfig.path()));
    let error = facts.kubernetes.error.as_deref().unwrap_or_default();
    let told = ["Connection refused", "no answer within"]; // a slow machine gives up first
    assert!(told.iter().any(|part| error.contains(part)), "{:?}", facts.kubernetes);
    assert_eq!(planned.kubernetes.hook().map(|hook| hook.version.clone()), Some(None));

    let named = kubeconfig.path().to_string_lossy();
    let by_flag = || report(json().args(["--kubeconfig", &named])).0;
    assert!(by_flag().kubernetes.error.is_some(), "asked by the flag as by the variable");

    std::fs::write(kubeconfig.path(), "no: [kubeconfig").expect("write");
    assert!(by_flag().kubernetes.error.is_some_and(|e| e.starts_with(&format!("{named}: "))));
    let (facts, _) = report(json().env("KUBECONFIG", kubeconfig.path()));
    assert!(facts.kubernetes.error.is_some_and(|e| e.starts_with("$KUBECONFIG: ")));
}

#[test]
fn where_no_cgroup_can_be_named_it_fails() {
    let out = check(&["--cgroup-root", "/proc/self/ns"]).output().expect("run");
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("cgroups have no names"), "{text}");
    assert!(text.contains("\nNo cgroup can be named here: "), "{text}");
}

#[test]
fn a_host_with_nothing_to_read_is_an_error() {
    let out = powerless(&mut check(&["--cgroup-root", "/proc/self/ns"]));
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("no cgroup tree is mounted at --cgroup-root /proc/self/ns or below it\n"),
        "{text}"
    );
    assert!(text.contains("cannot run here"), "{text}");
}

/// A wrong root, with every right: the scheduler could be read, but of nobody.
#[test]
fn a_mistyped_cgroup_root_is_an_error_that_names_it() {
    let out = check(&["--cgroup-root", "/nonexistent/cgroup"]).output().expect("run");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("--cgroup-root /nonexistent/cgroup: No such file or directory"), "{text}");
}

#[test]
fn a_cgroup_root_may_be_any_path_that_leads_there() {
    let (found, _) = report(&mut json());
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join("cgroups");
    std::os::unix::fs::symlink("/sys/fs/cgroup", &link).expect("linked");
    let link = link.to_string_lossy();
    for (root, from) in [
        (&*link, "/"),
        ("../fs/cgroup", "/sys/kernel"),
        ("/sys/fs/../fs/cgroup/", "/"),
        ("sys/fs/cgroup", "/"),
    ] {
        let (named, _) = report(json().args(["--cgroup-root", root]).current_dir(from));
        assert_eq!(
            named.cgroups.iter().collect::<Vec<_>>(),
            found.cgroups.iter().collect::<Vec<_>>(),
            "{root}"
        );
    }
}

#[test]
fn a_cgroup_root_holds_what_is_mounted_below_it() {
    let (named, _) = report(json().args(["--cgroup-root", "/sys/fs/cgroup"]));
    let (found, _) = report(&mut json());
    assert_eq!(named.cgroups.iter().collect::<Vec<_>>(), found.cgroups.iter().collect::<Vec<_>>());
    // And nothing that is mounted beside it.
    for (_, tree) in found.cgroups.iter() {
        let (one, _) = report(json().arg("--cgroup-root").arg(&tree.mount));
        let elsewhere = one.cgroups.iter().find(|(_, other)| !other.mount.starts_with(&tree.mount));
        assert_eq!(elsewhere, None, "{}", tree.mount.display());
    }
}

#[test]
fn a_shape_it_does_not_know_is_shown() {
    let parent = Cgroup::new("shape");
    let group = parent.child("docker-of-another-kind.scope");
    let out = json().output().expect("run");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let shapes = report["unknown_cgroup_shapes"].as_array().expect("a list");
    assert!(shapes.iter().any(|shape| shape == group.path().as_str()), "{shapes:?}");
}

/// What is said with so many files of `tp_btf`, as a small program tries it, and of the probe of births; `None`: that is not even
/// planned.
fn births_with(files: u32) -> (Trial, Option<Rehearsal>) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={files}:{files}")).arg(env!("CARGO_BIN_EXE_kernel-gossip"));
    command.args(["check", "--output", "json"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let out = command.output().expect("prlimit");
    let mut report: serde_json::Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let facts: Facts = serde_json::from_value(report["facts"].take()).expect("facts");
    let all: Vec<Rehearsal> = serde_json::from_value(report["programs"].take()).expect("programs");
    (facts.trials.tp_btf, all.into_iter().find(|program| program.probe == "births"))
}

/// What small programs of each kind are allowed, the real ones may still not get: one file too few for the last of them.
#[test]
fn a_program_that_does_not_load_is_named_with_its_errno() {
    let loads = |files| births_with(files).1.is_some_and(|births| births.error.is_none());
    let (mut too_few, mut enough) = (24, 152);
    assert!(!loads(too_few) && loads(enough));
    while enough - too_few > 1 {
        let between = too_few.midpoint(enough);
        *(if loads(between) { &mut enough } else { &mut too_few }) = between;
    }
    let (trial, births) = births_with(too_few);
    assert_eq!(trial, Trial::Works);
    let births = births.unwrap_or_else(|| panic!("not planned with {too_few} files"));
    let error = births.error.as_deref().unwrap_or_default();
    assert!(error.contains("(os error 24)"), "{too_few} files: {births:?}"); // EMFILE
    assert!(births.what_to_do.is_some_and(|text| text.contains("more files")), "{error}");
}
