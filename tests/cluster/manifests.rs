//! The manifests, as they are applied: taken by a real API server under strict validation, admitted at the
//! level of pod security they claim, granting what is used and nothing else.

use std::collections::BTreeSet;

use crate::bed::grafana::dashboards;
use crate::bed::{self, kubectl, process, tool};
use crate::cluster::bed::rbac::{self, Use};
use crate::cluster::bed::render::kustomize;
use crate::cluster::bed::{Namespace, feed};
use clap::Parser;
use serde_json::{Value, json};

/// Every kustomization that can be applied.
const INSTALLS: [&str; 4] = ["k8s", "k8s/overlays/direct", "k8s/overlays/remediation", "k8s/demo"];

fn dry_run(object: &Value) -> Result<String, String> {
    let strict =
        ["apply", "--dry-run=server", "--validate=strict", "--server-side", "--force-conflicts", "-f", "-"];
    feed(kubectl().args(strict), &object.to_string())
}

fn name(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// The pod templates of an install, by what they belong to.
fn templates(objects: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    objects.iter().filter(|o| o["spec"]["template"].is_object()).map(|o| (name(o), &o["spec"]["template"]))
}

fn template<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    templates(objects).find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
#[ignore = "needs a cluster: scripts/test cluster"]
fn the_api_server_takes_every_install() {
    let namespace = Namespace::new("manifests");
    for install in INSTALLS {
        for mut object in kustomize(install) {
            if object["metadata"].get("namespace").is_some() {
                object["metadata"]["namespace"] = json!(namespace.0);
            }
            dry_run(&object).unwrap_or_else(|e| panic!("{install}: {}: {e}", name(&object)));
        }
    }
}

#[test]
#[ignore = "needs a cluster: scripts/test cluster"]
fn all_but_the_agent_are_restricted_and_the_agent_deviates_in_three_ways() {
    let namespace = Namespace::secured("restricted", "restricted");
    let objects = [kustomize("k8s"), kustomize("k8s/overlays/remediation")].concat();
    for (owner, template) in templates(&objects) {
        let mut pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": namespace.0}});
        pod["spec"] = template["spec"].clone();
        let spec = pod["spec"].as_object_mut().unwrap();
        spec.remove("serviceAccountName");
        spec.remove("priorityClassName");
        let verdict = dry_run(&pod);
        if owner != "DaemonSet kernel-observer" {
            verdict.unwrap_or_else(|e| panic!("{owner}: {e}"));
            continue;
        }
        let complaint = verdict.expect_err("the agent is not restricted");
        let named = |what: &str| complaint.contains(what);
        assert!(named("unrestricted capabilities") && named(r#""BPF", "PERFMON""#), "{complaint}");
        assert!(named("restricted volume types") && named("hostPath"), "{complaint}");
        assert!(named("runAsUser=0"), "{complaint}");
        for other in
            ["privileged", "allowPrivilegeEscalation", "seccompProfile", "hostPID", "hostNetwork", "hostPort"]
        {
            assert!(!named(&format!("{other} (")) && !named(&format!("{other}=")), "{complaint}");
        }
    }
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    Agent(kernel_gossip::agent::AgentArgs),
    Reconciler(kernel_gossip::reconciler::ReconcilerOptions),
}

#[test]
#[ignore = "needs kubectl: scripts/test cluster"]
fn the_programs_take_their_arguments() {
    for install in INSTALLS.into_iter().filter(|i| *i != "k8s/demo") {
        let objects = kustomize(install);
        for owner in ["DaemonSet kernel-observer", "Deployment kernel-gossip-operator"] {
            let container = &template(&objects, owner)["spec"]["containers"][0];
            let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
            let program = Program::try_parse_from(std::iter::once("kernel-gossip").chain(arguments));
            let program = program.unwrap_or_else(|e| panic!("{install}: {owner}: {e}"));
            let agent = matches!(program.command, Subcommand::Agent(_));
            assert_eq!(agent, owner.ends_with("observer"), "{install}: {owner}");
        }
    }
}

#[test]
#[ignore = "needs kubectl: scripts/test cluster"]
fn every_container_is_confined() {
    for install in INSTALLS.into_iter().filter(|i| *i != "k8s/demo") {
        for (owner, template) in templates(&kustomize(install)) {
            let spec = &template["spec"];
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{owner}");
            for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert!(spec.get(key).is_none(), "{owner}: {key}");
            }
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{owner}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{owner}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{owner}");
                let added = if owner == "DaemonSet kernel-observer" {
                    json!(["BPF", "PERFMON"])
                } else {
                    Value::Null
                };
                assert_eq!(context["capabilities"]["add"], added, "{owner}");
                let resources = &container["resources"];
                assert!(
                    resources["requests"]["cpu"].is_string() && resources["limits"]["memory"].is_string(),
                    "{owner}"
                );
                assert!(resources["limits"].get("cpu").is_none(), "{owner}: throttled");
                let image = container["image"].as_str().unwrap();
                assert!(
                    image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest" && !tag.contains('/')),
                    "{image}"
                );
                for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                    assert_eq!(mount["readOnly"], true, "{owner}: {mount}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs kube-score: tests/testbed/tools kube-score"]
fn kube_score_finds_nothing() {
    // Not followed, and why: a CPU limit would throttle; tags are fixed, so nothing is to be pulled again;
    // the agent is root of what it reads; its health is one thing; one collector has all series.
    let ignored = [
        "container-resources",
        "container-image-pull-policy",
        "container-security-context-user-group-id",
        "pod-probes-identical",
        "deployment-replicas",
    ];
    for install in ["k8s", "k8s/overlays/direct", "k8s/overlays/remediation"] {
        let yaml = process::output(kubectl().arg("kustomize").arg(bed::repository().join(install)));
        let mut score = tool("kube-score");
        score.args(["score", "-", "--output-format", "ci", "--exit-one-on-warning"]);
        for test in ignored {
            score.args(["--ignore-test", test]);
        }
        feed(&mut score, &yaml).unwrap_or_else(|said| {
            let found: Vec<_> =
                said.lines().filter(|l| l.contains("CRITICAL") || l.contains("WARNING")).collect();
            panic!("{install}: {}", found.join("\n"))
        });
    }
}

/// What each program asks of the API server, and where. The remediation's is not here: a test records what it
/// really asks (tests/cluster/resize). So does one for the reconciler (tests/cluster/reconciler/rights.rs), which
/// needs a cluster; this one says it without.
fn declared(service_account: &str) -> BTreeSet<Use> {
    let of = |resource| move |verb| Use::new("kernel.gossip.io", resource, verb);
    match service_account {
        // src/attribution: a watch of the node's pods, and the events of those that are born. The reconciler asks whether
        // it may speak of them.
        "kernel-observer" => [
            Use::new("", "pods", "list"),
            Use::new("", "pods", "watch"),
            Use::new("", "events", "list"),
            Use::new("", "/otlp/node", "post"),
        ]
        .into(),
        "kernel-gossip-collector" => BTreeSet::new(),
        "kernel-gossip-operator" => [
            Use::new("", "pods", "get"),
            Use::new("", "nodes", "get"),
            Use::new("metrics.k8s.io", "pods", "get"),
            Use::new("authentication.k8s.io", "tokenreviews", "create"),
            Use::new("authorization.k8s.io", "subjectaccessreviews", "create"),
            Use::new("coordination.k8s.io", "leases", "get"),
            Use::new("coordination.k8s.io", "leases", "create"),
            Use::new("coordination.k8s.io", "leases", "patch"),
            of("kernelwhispers/status")("patch"),
            of("podbirthcertificates/status")("patch"),
        ]
        .into_iter()
        .chain(["get", "list", "watch", "create", "patch", "delete"].map(of("kernelwhispers")))
        .chain(["get", "create", "patch", "delete"].map(of("podbirthcertificates")))
        .collect(),
        other => panic!("who is {other}?"),
    }
}

#[test]
#[ignore = "needs kubectl: scripts/test cluster"]
fn roles_grant_what_is_used_and_nothing_else() {
    let collected = kustomize("k8s");
    for who in ["kernel-observer", "kernel-gossip-collector", "kernel-gossip-operator"] {
        assert_eq!(rbac::granted_to(&collected, who), declared(who), "{who}");
    }
    let direct = kustomize("k8s/overlays/direct");
    assert_eq!(rbac::granted_to(&direct, "kernel-observer"), declared("kernel-observer"));
    for (install, objects) in [("k8s", &collected), ("k8s/overlays/direct", &direct)] {
        for object in objects.iter().filter(|o| o["rules"].is_array()) {
            for Use { group, resource, verb } in rbac::grants(object) {
                assert!(
                    ![&group, &resource, &verb].into_iter().any(|s| s == "*"),
                    "{install}: {}",
                    name(object)
                );
                assert!(resource != "secrets", "{install}: {}", name(object));
            }
        }
    }
}

#[test]
#[ignore = "needs kubectl: scripts/test cluster"]
fn the_overlays_differ_in_what_they_say_they_do() {
    let [collected, direct, remediation] = [INSTALLS[0], INSTALLS[1], INSTALLS[2]].map(kustomize);
    let agent = |objects: &[Value]| template(objects, "DaemonSet kernel-observer")["spec"].clone();
    let environment = |objects: &[Value], variable: &str| {
        let spec = agent(objects);
        let all = spec["containers"][0]["env"].as_array().unwrap().clone();
        all.into_iter().find(|e| e["name"] == variable).map(|e| e["value"].as_str().unwrap().to_string())
    };
    let token = |objects: &[Value]| agent(objects).to_string().contains("serviceAccountToken");
    // By the collector or straight to the reconciler: with the agent's token.
    let (by, straight) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT");
    let service = |name: &str| Some(format!("http://{name}.kernel-gossip.svc:4317"));
    assert_eq!((environment(&collected, by), token(&collected)), (service("kernel-gossip-collector"), true));
    assert_eq!(environment(&collected, straight), None);
    assert_eq!((environment(&direct, straight), token(&direct)), (service("kernel-gossip-operator"), true));
    assert_eq!(environment(&direct, by), None);

    let arguments = |objects: &[Value]| {
        template(objects, "Deployment kernel-gossip-operator")["spec"]["containers"][0]["args"].clone()
    };
    assert_eq!(arguments(&direct), json!(["reconciler"]));
    assert_eq!(arguments(&remediation), json!(["reconciler", "--remediation=apply"]));
    let may_resize = |objects: &[Value]| {
        rbac::granted_to(objects, "kernel-gossip-operator").contains(&Use::new("", "pods/resize", "patch"))
    };
    assert_eq!([&collected, &direct, &remediation].map(|o| may_resize(o)), [false, false, true]);
}

#[test]
#[ignore = "needs kubectl: scripts/test cluster"]
fn components_add_what_they_say() {
    let objects = kustomize("tests/fixtures/manifests/components");
    let agent = &template(&objects, "DaemonSet kernel-observer")["spec"]["containers"][0];
    let capabilities = json!(["BPF", "PERFMON", "SYS_RESOURCE"]);
    assert_eq!(agent["securityContext"]["capabilities"]["add"], capabilities);

    // Each monitor scrapes a port that the pods it selects have.
    let monitors: Vec<_> = objects.iter().filter(|o| o["kind"] == "PodMonitor").collect();
    assert_eq!(monitors.len(), 2);
    for monitor in monitors {
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let (_, pod) = templates(&objects)
            .find(|(_, t)| {
                wanted
                    .as_object()
                    .unwrap()
                    .iter()
                    .all(|(label, value)| t["metadata"]["labels"][label] == *value)
            })
            .unwrap_or_else(|| panic!("{} selects nothing", name(monitor)));
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
        assert!(ports.iter().any(|p| p["name"] == *port), "{}: no port {port}", name(monitor));
    }
    // Each dashboard is there as the sidecar looks for it, and small enough to be applied by the client: its last
    // applied state is an annotation of at most 256 KiB.
    let found: Vec<_> =
        objects.iter().filter(|o| o["metadata"]["labels"]["grafana_dashboard"] == "1").collect();
    let shipped = dashboards();
    assert_eq!(found.len(), shipped.len());
    for dashboard in shipped {
        let uid = dashboard.json["uid"].as_str().unwrap();
        let file = format!("{uid}.json");
        let map =
            found.iter().find(|o| o["data"].get(&file).is_some()).unwrap_or_else(|| panic!("no {file}"));
        let text = map["data"][&file].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), dashboard.json);
        assert!(map.to_string().len() < 256 * 1024, "{file}");
    }
    assert_eq!(objects.iter().filter(|o| o["kind"] == "PrometheusRule").count(), 1);
}

/// The definitions of the Prometheus operator, under strict validation.
#[test]
#[ignore = "needs a cluster: scripts/test cluster"]
fn the_prometheus_operator_takes_monitors_and_rules() {
    let namespace = Namespace::new("operator");
    let definitions = tool("prometheus-operator-crds").get_program().to_owned();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f"];
    process::output(kubectl().args(apply).arg(&definitions));
    let established = ["wait", "--for=condition=Established", "--timeout=30s", "-f"];
    process::output(kubectl().args(established).arg(&definitions));
    let mut objects = kustomize("tests/fixtures/manifests/components");
    objects.retain(|o| o["apiVersion"] == "monitoring.coreos.com/v1");
    assert_eq!(objects.len(), 3);
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(namespace.0);
        dry_run(object).unwrap_or_else(|e| panic!("{}: {e}", name(object)));
        object["spec"]["groupes"] = json!([]);
        dry_run(object).expect_err("a field that is not there");
    }
    process::output(kubectl().args(["delete", "-f"]).arg(&definitions));
}
