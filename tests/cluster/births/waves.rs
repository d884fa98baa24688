//! Many pods born together, with restarts and deletions in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::bed::process::{Running, output};
use crate::bed::{kubectl, until};
use crate::cluster::bed::births::{Bed, ctr, get, kill, pod};
use crate::cluster::bed::feed;
use crate::cluster::measured::alone::started::Apart;

/// Pods in all, and at once. `KG_BIRTH_PODS=200` for the whole of it.
const PODS: usize = 40;
const WAVE: usize = 20;

#[test]
#[ignore = "needs the cluster: scripts/test cluster"]
fn every_pod_is_certified_and_none_is_mixed_up() {
    let pods = std::env::var("KG_BIRTH_PODS").ok().and_then(|n| n.parse().ok()).unwrap_or(PODS);
    let bed = Bed::alone("birth-waves", &[]);
    let events = Running::start(&mut ctr(&["events"]));
    let ns = bed.namespace.0.clone();
    let mut certified = 0;
    for first in (0..pods).step_by(WAVE) {
        let names: Vec<String> = (first..(first + WAVE).min(pods)).map(|n| format!("p{n}")).collect();
        let items: Vec<Value> = names.iter().map(|n| pod(n, "testbed.local/web:1", json!([]))).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        feed(kubectl().args(["-n", &ns, "create", "-f", "-"]), &list.to_string()).expect("created");
        delete_while_born(&bed, &format!("gone{first}"));
        // Those of the wave before: some are killed, which restarts them, and the rest is deleted, while these are born.
        if first > 0 {
            let before: Vec<String> = (first - WAVE..first).map(|n| format!("p{n}")).collect();
            before[..3].iter().for_each(|name| kill(&bed.namespace, name));
            let mut delete = kubectl();
            delete.args(["-n", &ns, "delete", "--wait=false", "pod"]).args(&before[3..]);
            output(&mut delete);
        }
        let all: BTreeMap<String, Value> = until_long("certificates of the wave", || {
            let list = output(kubectl().args(["-n", &ns, "get", "podbirthcertificates", "-o", "json"]));
            let list: Value = serde_json::from_str(&list).ok()?;
            let of = |o: &Value| (o["spec"]["podName"].as_str().unwrap().to_owned(), o.clone());
            let said = |o: &&Value| o["status"]["outcome"].is_string();
            let all: BTreeMap<_, _> = list["items"].as_array()?.iter().filter(said).map(of).collect();
            names.iter().all(|n| all.contains_key(n)).then_some(all)
        });
        let pods = output(kubectl().args(["-n", &ns, "get", "pods", "-o", "json"]));
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let pods: BTreeMap<&str, &Value> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["metadata"]["name"].as_str().unwrap(), p))
            .collect();
        let mut ids = BTreeSet::new();
        for name in &names {
            let (object, pod) = (&all[name], pods[name.as_str()]);
            let status = &object["status"];
            assert_eq!(status["outcome"], "complete", "{name}: {status}");
            assert_eq!(object["spec"]["podUid"], pod["metadata"]["uid"], "{name}");
            assert_eq!(status["missing"], Value::Null, "{name}");
            let [container] = status["containers"].as_array().unwrap().as_slice() else {
                panic!("{name}: {status}")
            };
            let id = container["id"].as_str().unwrap();
            assert_eq!(
                pod["status"]["containerStatuses"][0]["containerID"],
                format!("containerd://{id}"),
                "{name}"
            );
            assert!(ids.insert(id.to_owned()), "{name}: a container of two pods");
            assert_eq!(container["port"], 8080, "{name}");
            let stats = &status["kernelStats"];
            // One sandbox and one container: what the node does for each is the same.
            assert_eq!(
                (&stats["namespacesCreated"], &stats["pivotRoots"]),
                (&json!(7), &json!(2)),
                "{name}: {stats}"
            );
            certified += 1;
        }
        if first > 0 {
            (first - WAVE..first - WAVE + 3).for_each(|n| restarted(&bed, &format!("p{n}")));
        }
    }
    assert_eq!(certified, pods);
    let lost = get(&bed.metrics);
    let lost: Vec<_> = lost
        .lines()
        .filter(|l| l.starts_with("kernel_gossip_agent_losses_total") && l.contains("reason=\"birth"))
        .filter(|l| !l.ends_with(" 0"))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    println!("{certified} of {pods} pods certified, none mixed, nothing lost");
    let births = bed.births();
    for first in (0..pods).step_by(WAVE) {
        deleted(&births, &format!("gone{first}"));
    }
    // Of twenty at once on two cores each waits for a CPU, the program or containerd: told here, judged in `started`.
    let apart = Apart::of(&births, &events);
    println!("{apart}");
    assert!(apart.programs() >= pods, "{apart}");
}

/// Makes a pod that is not born soon, and deletes it once its first program runs.
fn delete_while_born(bed: &Bed, name: &str) {
    let mut gone = pod(name, "testbed.local/web:1", json!([]));
    let command = ["/bin/sh", "-c", "sleep 600"];
    gone["spec"]["initContainers"] =
        json!([{"name": "first", "image": "testbed.local/busybox:1", "command": command}]);
    bed.namespace.apply(&gone);
    until_long("the program of a pod to be deleted", || {
        let object = format!("pod/{name}");
        let started =
            bed.namespace.get(&object, "{.status.initContainerStatuses[0].state.running.startedAt}");
        (!started.is_empty()).then_some(())
    });
    bed.namespace.kubectl(&["delete", "--wait=false", "pod", name]);
}

/// The certificate of a pod that was deleted says so; its object went with the pod.
fn deleted(births: &[Value], name: &str) {
    let own: Vec<_> = births.iter().filter(|b| b["k8s.pod.name"] == name).collect();
    let [said] = own.as_slice() else { panic!("{name}: {own:?}") };
    let status = &said["kernel_gossip.birth.certificate"];
    let failure = &status["failure"];
    assert_eq!(
        (&status["outcome"], &failure["reason"], &failure["phase"]),
        (&json!("unfinished"), &json!("Deleted"), &json!("init")),
        "{name}: {status}"
    );
    assert!(status["kernelStats"]["totalSyscalls"].as_i64() > Some(0), "{name}: {status}");
}

/// A pod whose program was killed was started again, and is the same birth.
fn restarted(bed: &Bed, name: &str) {
    let object = format!("podbirthcertificate/{name}-pbc");
    let restart: Value = until_long("the restart", || {
        serde_json::from_str(&bed.namespace.get(&object, "{.status.restarts[0]}")).ok()
    });
    assert_eq!(restart["container"], "main", "{name}: {restart}");
    assert!(restart["execMs"].is_number() && restart["failure"].is_null(), "{name}: {restart}");
}

/// Twenty pods on two cores take their time.
fn until_long<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    for _ in 0..5 {
        let end = std::time::Instant::now() + crate::bed::PATIENCE;
        while std::time::Instant::now() < end {
            if let Some(found) = probe() {
                return found;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    until(what, probe)
}
