//! docs/install.md's SecurityContextConstraints against the agent as it is shipped: OpenShift admits no pod that asks for more
//! than it allows, and a permission that nothing asks for is one too many. (The rules: openshift/apiserver-library-go,
//! `pkg/securitycontextconstraints`.)

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::bed::repository;

fn yaml(path: &str, within: &str) -> Value {
    let text = fs::read_to_string(repository().join(path)).expect("a file");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|block| block.split("\n```").next());
    let of_page = blocks.into_iter().find(|block| block.contains(within));
    serde_saphyr::from_str(of_page.unwrap_or(&text)).expect("YAML")
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().expect("text").to_owned()).collect()
}

#[test]
fn the_page_allows_the_agent_what_it_asks_for_and_no_more() {
    let allowed = yaml("docs/install.md", "SecurityContextConstraints");
    let daemon_set = yaml("k8s/base/agent.yaml", "no block");
    let spec = &daemon_set["spec"]["template"]["spec"];
    let containers = spec["containers"].as_array().expect("containers");
    assert!(spec["initContainers"].is_null() && containers.len() == 1);
    let security = &containers[0]["securityContext"];

    let kinds = spec["volumes"].as_array().expect("volumes").iter().map(|volume| {
        let kind = volume.as_object().expect("a volume").keys().find(|key| *key != "name");
        kind.expect("its kind").clone()
    });
    // The token of its service account for the API server is one more of these.
    assert_eq!(kinds.chain(["projected".to_owned()]).collect::<BTreeSet<_>>(), words(&allowed["volumes"]));
    assert_eq!(words(&security["capabilities"]["add"]), words(&allowed["allowedCapabilities"]));
    assert_eq!(words(&security["capabilities"]["drop"]), words(&allowed["requiredDropCapabilities"]));
    for (asked, allowing) in [
        (&spec["hostNetwork"], "allowHostNetwork"),
        (&spec["hostPID"], "allowHostPID"),
        (&spec["hostIPC"], "allowHostIPC"),
        (&containers[0]["ports"][0]["hostPort"], "allowHostPorts"),
        (&security["privileged"], "allowPrivilegedContainer"),
        (&security["allowPrivilegeEscalation"], "allowPrivilegeEscalation"),
    ] {
        assert_eq!(!asked.is_null() && *asked != json!(false), allowed[allowing], "{allowing}");
    }
    assert_eq!(allowed["allowHostDirVolumePlugin"], true);
    assert_eq!(allowed["readOnlyRootFilesystem"], security["readOnlyRootFilesystem"]);
    assert_eq!(spec["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    assert_eq!(words(&allowed["seccompProfiles"]), words(&json!(["runtime/default"])));
    // It is root, as a namespace's range of users is not.
    assert_eq!(
        (&spec["securityContext"]["runAsUser"], &allowed["runAsUser"]["type"]),
        (&json!(0), &json!("RunAsAny"))
    );
    // What it does not say itself it is given, and no other type may read the host's files.
    assert_eq!(spec["securityContext"].get("seLinuxOptions").or(security.get("seLinuxOptions")), None);
    let given = json!({"type": "MustRunAs", "seLinuxOptions": {"type": "spc_t"}});
    assert_eq!(allowed["seLinuxContext"], given);
    let namespace = yaml("k8s/kustomization.yaml", "no block")["namespace"].clone();
    let account = [
        namespace.as_str().unwrap_or("kernel-gossip"),
        spec["serviceAccountName"].as_str().expect("an account"),
    ];
    assert_eq!(
        words(&allowed["users"]),
        words(&json!([format!("system:serviceaccount:{}:{}", account[0], account[1])]))
    );
}
