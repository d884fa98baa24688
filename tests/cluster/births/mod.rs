//! Births on the test bed's node: containerd, runc, the kubelet and CNI plugins at work, the agent and the reconciler
//! as processes, and the certificates read from the API server.

mod beside;
mod cost;
pub mod trace;
mod waves;

use crate::bed::process::{Running, output};
use crate::bed::{kernel_gossip, until};
use crate::cluster::bed::births::{Bed, containerd_ms, ctr, kill, pod};
use kernel_gossip::api::PodBirthCertificateStatus;
use serde_json::{Value, json};

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_pods_certificate_is_what_the_agent_and_containerd_saw() {
    let mut bed = Bed::new("birth-whole", &[]);
    let mut events = Running::start(&mut ctr(&["events"]));
    let mut web = pod("web", "testbed.local/web:1", json!([]));
    web["spec"]["initContainers"] = json!([{"name": "first", "image": "testbed.local/busybox:1", "command": ["/bin/sh", "-c", "echo here"]}]);
    bed.namespace.apply(&web);
    let status = bed.certificate("web");
    assert_eq!(status["outcome"], "complete", "{status}");
    assert_eq!(status["missing"], Value::Null, "{status}");
    let uid = bed.namespace.get("pod/web", "{.metadata.uid}");
    assert_eq!(status["traceId"], uid.replace('-', ""));

    // The object says what the agent said.
    let said = bed.said("web");
    let own: PodBirthCertificateStatus =
        serde_json::from_value(said["kernel_gossip.birth.certificate"].clone()).unwrap();
    let mut there: PodBirthCertificateStatus = serde_json::from_value(status.clone()).unwrap();
    (there.observed_generation, there.conditions) = (None, Vec::new());
    assert_eq!(there, own);
    let sum: i64 =
        status["breakdown"].as_array().unwrap().iter().filter_map(|b| b["syscalls"].as_i64()).sum();
    assert_eq!(status["kernelStats"]["totalSyscalls"], sum);

    // In the order in which it happens; two containers one after the other.
    let phases: Vec<_> = status["phases"].as_array().unwrap().iter().collect();
    let at = |name: &str, container: &str| {
        let of = |p: &&&Value| p["name"] == name && p["container"].as_str().unwrap_or_default() == container;
        let found = phases.iter().find(of).unwrap_or_else(|| panic!("{name} {container}: {phases:?}"));
        let (start, took) = (found["startMs"].as_f64().unwrap(), found["durationMs"].as_f64().unwrap());
        assert!(took >= 0.0);
        (start, start + took)
    };
    let order = [
        at("cgroup", ""),
        at("sandbox", ""),
        at("create", "first"),
        at("start", "first"),
        at("init", "first"),
        at("create", "web"),
        at("start", "web"),
        at("listen", "web"),
    ];
    assert!(order.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1 + 1e-3), "{order:?}");
    assert!(at("ready", "").1 >= at("start", "web").1);
    let containers = status["containers"].as_array().unwrap();
    let names: Vec<_> = containers.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "web"]);
    assert!(containers.iter().all(|c| c["image"] == "present"), "the node has it: {containers:?}");
    let web = containers.last().unwrap();
    assert_eq!(web["port"], 8080);
    let id = bed.namespace.get("pod/web", "{.status.containerStatuses[0].containerID}");
    assert_eq!(id, format!("containerd://{}", web["id"].as_str().unwrap()));

    // The container's own view of its mounts. (An exec'd program is in the same namespace.)
    let mounts = bed.namespace.kubectl(&["exec", "web", "--", "cat", "/proc/1/mountinfo"]).lines().count();
    assert_eq!(web["mounts"], mounts as i64);

    // containerd's own word: it says that a task was created once runc has returned, and when it read what the
    // program wrote. (Not that it was started: runc returns while its child is still on the way to the program.)
    let first = &containers[0];
    let zero = said["zero"].as_f64().unwrap();
    let exec = zero + first["execMs"].as_f64().unwrap();
    let id = first["id"].as_str().unwrap();
    let created =
        events.line("/tasks/create", |l| l.text.contains("/tasks/create") && l.text.contains(id)).text;
    let created = containerd_ms(&created);
    let log = bed.namespace.kubectl(&["logs", "web", "-c", "first", "--timestamps"]);
    let wrote: jiff::Timestamp = log.split(' ').next().unwrap().parse().unwrap();
    let wrote = wrote.as_nanosecond() as f64 / 1e6;
    println!("start of the program: {:.3} ms before it wrote a line", wrote - exec);
    assert!(created <= exec && exec <= wrote, "created {created}, exec {exec}, wrote {wrote}");
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_certificate_is_shown_by_the_command() {
    let bed = Bed::new("birth-shown", &[]);
    bed.namespace.apply(&pod("shown", "testbed.local/web:1", json!([])));
    let status = bed.certificate("shown");
    let page = tempfile::NamedTempFile::new().unwrap();
    let show = |arguments: &[&str]| {
        let mut command = kernel_gossip();
        command.args(["birth", "shown", "--namespace", &bed.namespace.0]).args(arguments);
        output(&mut command)
    };
    let text = show(&["--html", page.path().to_str().unwrap()]);
    let total = status["total"].as_str().unwrap();
    let syscalls = status["kernelStats"]["totalSyscalls"].to_string();
    for told in ["shown in namespace", "on kg-node", total, &format!("{syscalls} syscalls"), "listen main"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let page = std::fs::read_to_string(page.path()).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains(total) && page.contains(&syscalls));
    let json: Value = serde_json::from_str(&show(&["--output", "json"])).unwrap();
    assert_eq!((&json["namespace"], &json["podName"]), (&json!(bed.namespace.0), &json!("shown")));
    assert_eq!(json["podUid"], bed.namespace.get("pod/shown", "{.metadata.uid}"));
    assert_eq!(json["nodeName"], "kg-node");
    let of = |json: &Value| serde_json::from_value::<PodBirthCertificateStatus>(json.clone()).unwrap();
    assert_eq!(of(&json), of(&status));
    let none = kernel_gossip().args(["birth", "nobody", "--namespace", &bed.namespace.0]).output().unwrap();
    let error = String::from_utf8(none.stderr).unwrap();
    assert!(!none.status.success() && error.trim_end().lines().count() == 1, "{error}");
    assert!(error.contains("--wait 1m"), "{error}");
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn births_that_fail_say_where_and_why() {
    let bed = Bed::new("birth-failed", &[]);
    // A volume that the node has no program to mount by: the kubelet says so in an event alone.
    let mut mount = pod("mount", "testbed.local/busybox:1", json!(["/bin/sh", "-c", "sleep 600"]));
    mount["spec"]["volumes"] = json!([{"name": "n", "nfs": {"server": "127.0.0.1", "path": "/none"}}]);
    mount["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "n", "mountPath": "/n"}]);
    bed.namespace.apply(&mount);
    let mut missing = pod("missing", "testbed.local/nothing:1", json!([]));
    missing["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent".into();
    bed.namespace.apply(&missing);
    bed.namespace.apply(&pod("exits", "testbed.local/busybox:1", json!(["/bin/sh", "-c", "exit 3"])));
    bed.namespace.apply(&pod("nothing", "testbed.local/busybox:1", json!(["/no/such/program"])));

    let failure = |status: &Value, phase: &str| {
        assert_eq!(status["outcome"], "failed", "{status}");
        let failure = &status["failure"];
        assert_eq!((&failure["phase"], &failure["container"]), (&json!(phase), &json!("main")), "{failure}");
        let born =
            status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Born").unwrap().clone();
        assert_eq!(born["status"], "False");
        failure.clone()
    };
    let missing = failure(&bed.certificate("missing"), "image");
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&missing["reason"].as_str().unwrap()), "{missing}");
    let exits = failure(&bed.certificate("exits"), "listen");
    let message = exits["message"].as_str().unwrap();
    assert!(message.starts_with("exit status 3, ") && message.contains("after its start"), "{message}");
    let nothing = failure(&bed.certificate("nothing"), "start");
    assert!(nothing["message"].as_str().unwrap().contains("no such file"), "{nothing}");
    let mount = bed.certificate("mount");
    let of = (&mount["outcome"], &mount["failure"]["phase"], &mount["failure"]["reason"]);
    assert_eq!(of, (&json!("failed"), &json!("volumes"), &json!("FailedMount")), "{mount}");
    assert!(mount["failure"]["message"].as_str().unwrap().contains(": exit status "), "{mount}");
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_birth_that_fails_at_first_becomes_complete() {
    let mut bed = Bed::new("birth-retried", &[]);
    let once = "test -e /m/once || { touch /m/once; exit 7; }; exec sleep 600";
    let mut pod = pod("retried", "testbed.local/busybox:1", json!(["/bin/sh", "-c", once]));
    pod["spec"]["volumes"] = json!([{"name": "m", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "m", "mountPath": "/m"}]);
    bed.namespace.apply(&pod);
    // The object may be of both already when it is first looked at.
    let first = bed.said("retried")["kernel_gossip.birth.certificate"].clone();
    // So may what is said first, on a busy node.
    if first["outcome"] == "failed" {
        assert!(first["failure"]["message"].as_str().unwrap().starts_with("exit status 7, "), "{first}");
    } else {
        assert_eq!(first["missing"][0]["part"], "retries", "{first}");
    }
    let status: Value = until("the birth that was tried again", || {
        let status = bed.certificate("retried");
        (status["outcome"] == "complete").then_some(status)
    });
    assert_eq!((&status["failure"], &status["restarts"]), (&Value::Null, &Value::Null), "{status}");
    assert_eq!(status["missing"][0]["part"], "retries", "{status}");
    assert!(status["phases"].as_array().unwrap().iter().any(|p| p["name"] == "ready"), "{status}");
}

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn a_restart_is_no_birth() {
    let bed = Bed::new("birth-restart", &[]);
    bed.namespace.apply(&pod("again", "testbed.local/web:1", json!([])));
    let born = bed.certificate("again");
    let object = |path: &str| bed.namespace.get("podbirthcertificate/again-pbc", path);
    let uid = object("{.metadata.uid}");
    // One that a busy node lets the agent notice late claims nothing that was not seen; then another is looked at.
    let seen = (0..3_usize).any(|n| {
        kill(&bed.namespace, "again");
        let restart = until("restart", || {
            let restarts: Value = serde_json::from_str(&object("{.status.restarts}")).ok()?;
            restarts.get(n).cloned()
        });
        assert_eq!(restart["container"], "main");
        assert!(restart["failure"].is_null(), "{restart}");
        restart["execMs"].as_f64().is_some()
    });
    assert!(seen, "{}", object("{.status}"));
    assert_eq!(object("{.metadata.uid}"), uid, "the same certificate");
    assert_eq!(object("{.status.total}"), born["total"], "of the same birth");
}
