//! A pod's certificate, compared with what strace of containerd, and of all that it starts, sees of the same start.

use std::collections::BTreeMap;
use std::fs;

use kernel_gossip::api::{Actor, PodBirthCertificateStatus};
use serde_json::{Value, json};

use crate::bed::process::Running;
use crate::bed::strace::{self, Strace, sum};
use crate::bed::testbed_dir;
use crate::cluster::bed::births::{Bed, pod};
use crate::cluster::births::trace::{Jaeger, ns};

#[test]
#[ignore = "needs the cluster, jaeger and strace: scripts/test cluster"]
fn a_pods_system_calls_and_cgroup_writes_equal_what_strace_saw() {
    let jaeger = Jaeger::start();
    let bed = Bed::alone("birth-straced", &["--otlp-traces-endpoint", &jaeger.endpoint]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("strace");
    let containerd = fs::read_to_string(testbed_dir().join("cluster/state/run/containerd")).unwrap();
    let containerd = containerd.split(' ').next().unwrap();
    let mut tracer = Running::start(strace::to(&out).args(["-p", containerd]));
    tracer.line("attached", |l| l.text.contains(&format!("Process {containerd} attached")));
    bed.namespace.apply(&pod("traced", "testbed.local/busybox:1", json!(["/bin/sh", "-c", "sleep 600"])));
    let status = bed.certificate("traced");
    assert_eq!((&status["outcome"], &status["missing"]), (&json!("complete"), &Value::Null), "{status}");
    tracer.terminate();
    let strace = Strace::read(&fs::read_to_string(&out).unwrap());

    // Each program of a process that ended meanwhile; what lives on goes on to call. Not the kubelet's own, mount.
    let spans = jaeger.spans(status["traceId"].as_str().unwrap());
    let mut programs: BTreeMap<u32, Vec<&Value>> = BTreeMap::new();
    for span in &spans {
        if let Some(process) = int(span, "process.pid")
            && attribute(span, "kernel_gossip.birth.actor").unwrap()["stringValue"] != "kubelet"
        {
            programs.entry(process as u32).or_default().push(span);
        }
    }
    let (mut all_ours, mut all_theirs, mut ended) = (0, 0, 0);
    println!("| program | certificate | strace |\n|---|---|---|");
    for (process, spans) in &mut programs {
        spans.sort_by_key(|span| ns(span, "startTimeUnixNano"));
        let Some(theirs) = strace.calls.get(process) else {
            panic!("strace did not see process {process}: {spans:?}");
        };
        assert_eq!(theirs.len() - 1, spans.len(), "programs of process {process}: {spans:?}");
        if !strace.ended.contains(process) {
            continue;
        }
        for (span, theirs) in spans.iter().zip(&theirs[1..]) {
            let ours = int(span, "kernel_gossip.birth.syscalls").unwrap();
            let theirs = sum(theirs);
            println!("| {} | {ours} | {theirs} |", span["name"].as_str().unwrap());
            // A thread that is killed on its way into a call is seen by one and not the other.
            assert!(ours.abs_diff(theirs) <= 1 + theirs / 100, "{span}: {theirs}");
            (all_ours, all_theirs, ended) = (all_ours + ours, all_theirs + theirs, ended + 1);
        }
    }
    println!("| {ended} programs | {all_ours} | {all_theirs} |");
    assert!(ended >= 8, "runc and the CNI plugins, twice each at least");
    assert!(all_ours.abs_diff(all_theirs) * 100 <= all_theirs, "{all_ours} is not {all_theirs}");

    // Writes to the cgroups of this pod by all but the kubelet, which is not traced.
    let uid = bed.namespace.get("pod/traced", "{.metadata.uid}");
    let theirs = strace.written(&uid);
    let status: PodBirthCertificateStatus = serde_json::from_value(status).unwrap();
    let mut ours: BTreeMap<&str, u64> = BTreeMap::new();
    for part in status.breakdown.iter().filter(|part| part.actor != Actor::Kubelet) {
        for (file, count) in &part.by_cgroup_file {
            *ours.entry(file.as_str()).or_default() += *count as u64;
        }
    }
    println!("cgroup writes by file: {ours:?}");
    assert!(!ours.is_empty() && ours == theirs, "{ours:?} is not {theirs:?}: {:?}", strace.cgroup_writes);
}

fn attribute<'s>(span: &'s Value, key: &str) -> Option<&'s Value> {
    span["attributes"].as_array()?.iter().find(|a| a["key"] == key).map(|a| &a["value"])
}

/// A number among a span's attributes.
fn int(span: &Value, key: &str) -> Option<u64> {
    attribute(span, key)?["intValue"].as_str()?.parse().ok()
}
