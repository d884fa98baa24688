//! What a birth waits for, and what is done beside it.

use serde_json::{Value, json};

use crate::bed::until;
use crate::cluster::bed::births::{Bed, pod};

fn phases<'a>(status: &'a Value, name: &str) -> Vec<&'a Value> {
    status["phases"].as_array().unwrap().iter().filter(|p| p["name"] == name).collect()
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_hook_is_waited_for_and_counted_beside() {
    let bed = Bed::new("birth-hook", &[]);
    let mut hook = pod("hook", "testbed.local/busybox:1", json!(["/bin/sh", "-c", "sleep 600"]));
    hook["spec"]["containers"][0]["lifecycle"] =
        json!({"postStart": {"exec": {"command": ["/bin/sh", "-c", "sleep 3"]}}});
    let second = json!({"name": "second", "image": "testbed.local/busybox:1", "command": ["/bin/sh", "-c", "sleep 600"]});
    hook["spec"]["containers"].as_array_mut().unwrap().push(second);
    bed.namespace.apply(&hook);
    let status = bed.certificate("hook");
    assert_eq!(status["outcome"], "complete", "{status}");
    assert!(phases(&status, "image").is_empty(), "the node has it: {status}");
    let waits = phases(&status, "wait");
    let second = waits.iter().find(|p| p["container"] == "second").unwrap();
    assert!(second["durationMs"].as_f64().unwrap() >= 3_000.0, "{waits:?}");
    let beside = status["beside"].as_array().unwrap();
    let exec = |actor: &str| beside.iter().find(|c| c["actor"] == actor && c["phase"] == "exec").unwrap();
    assert!(
        exec("container")["syscalls"].as_i64().unwrap() > 0 && exec("runtime")["programs"].as_i64() > Some(0)
    );
    let sum: i64 =
        status["breakdown"].as_array().unwrap().iter().filter_map(|b| b["syscalls"].as_i64()).sum();
    assert_eq!(status["kernelStats"]["totalSyscalls"], sum);
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_secret_that_is_missing_is_told_within_seconds_and_then_it_is_born() {
    let mut bed = Bed::new("birth-secret", &[]);
    let mut waits = pod("waits", "testbed.local/web:1", json!([]));
    waits["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "nope"}}]);
    waits["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}]);
    bed.namespace.apply(&waits);
    let said = bed.said("waits");
    let failure = &said["kernel_gossip.birth.certificate"]["failure"];
    assert_eq!((&failure["phase"], &failure["reason"]), (&json!("volumes"), &json!("FailedMount")), "{said}");
    assert!(failure["message"].as_str().unwrap().contains("\"nope\" not found"), "{failure}");
    let after = said["kernel_gossip.birth.certificate"]["kernelStats"]["totalDurationMs"].as_f64().unwrap();
    assert!(after < 20_000.0, "{after} ms: the kubelet says so within a second, and it is asked after two");
    bed.namespace.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nope"}}));
    let status: Value = until("the birth", || {
        let status = bed.certificate("waits");
        (status["outcome"] == "complete").then_some(status)
    });
    assert_eq!(status["missing"][0]["part"], "retries", "{status}");
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_job_is_counted_to_its_end_by_whatever_runs_in_it() {
    let bed = Bed::new("birth-job", &[]);
    let calls = |n| format!("i=0; while [ $i -lt {n} ]; do umask 22; i=$((i+1)); done");
    let by_children = format!("/bin/sh -c '{0}'; /bin/sh -c '{0}'; true", calls(5_000));
    let of = |name: &str, script: &str| {
        let mut job = pod(name, "testbed.local/busybox:1", json!(["/bin/sh", "-c", script]));
        job["spec"]["restartPolicy"] = "Never".into();
        bed.namespace.apply(&job);
        let status = bed.certificate(name);
        assert_eq!((&status["outcome"], &status["missing"]), (&json!("complete"), &Value::Null), "{status}");
        let parts = status["breakdown"].as_array().unwrap();
        let own = parts.iter().find(|p| p["actor"] == "container" && p["phase"] == "listen").unwrap();
        own["bySyscall"]["umask"].as_i64().unwrap()
    };
    let (own, children) = (of("own", &calls(10_000)), of("children", &by_children));
    // Some shells make several for one.
    assert!(own >= 10_000 && own == children, "{own} by the container's program, {children} by what it runs");
}
