//! The Kubernetes objects, group `kernel.gossip.io/v1alpha1`: [`KernelWhisper`] (kw) and
//! [`PodBirthCertificate`] (pbc). `kernel-gossip crds` prints their definitions, `k8s/crds/` holds them.
//!
//! Inside belongs what stands in the objects, and what they and their labels are called. What is written into them, and when,
//! does not.

pub mod kernel_whisper;
mod names;
pub mod pod_birth_certificate;
pub mod remediation;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use sha2::{Digest, Sha256};

pub use crate::evidence::{
    BirthNumbers, CpuNumbers, MemoryNumbers, NeighbourShare, NetworkNumbers, Severity, SignalEvidence,
    SignalKind, Source, WhisperState,
};
pub use kernel_whisper::*;
pub use names::{is_label, is_object_name};
pub use pod_birth_certificate::*;
pub use remediation::*;

/// The API group of every object here.
pub const GROUP: &str = "kernel.gossip.io";
/// Its only version.
pub const VERSION: &str = "v1alpha1";
/// The field manager of every server-side apply, and the component of every Event.
pub const FIELD_MANAGER: &str = "kernel-gossip";
/// Label on every object: the name of the pod it is about, cut to what a label value holds.
pub const LABEL_POD: &str = "kernel.gossip.io/pod";

/// Longest name of an object (a DNS subdomain).
const NAME_MAX: usize = 253;

/// Name of the object about a pod: `<pod>-<suffix>`. A pod's name may fill all 253 characters; then
/// its head stays and the rest becomes 10 hex digits of its SHA-256, so that two long names stay apart.
pub fn object_name(pod: &str, suffix: &str) -> String {
    let plain = pod.len() + 1 + suffix.len();
    if plain <= NAME_MAX {
        return format!("{pod}-{suffix}");
    }
    let hash = Sha256::digest(pod.as_bytes());
    let keep = NAME_MAX - suffix.len() - 12;
    // A subdomain's labels end in a letter or digit: no `.` or `-` before the hash's own dash.
    // A pod's name is ASCII, as the API server sees to.
    let head = pod.get(..keep).unwrap_or(pod).trim_end_matches(['.', '-']);
    let hex: String = hash[..5].iter().map(|b| format!("{b:02x}")).collect();
    format!("{head}-{hex}-{suffix}")
}

/// Both definitions, as the API server takes them.
pub fn crds() -> [CustomResourceDefinition; 2] {
    [KernelWhisper::crd(), PodBirthCertificate::crd()]
}

/// What `kernel-gossip crds` prints and `k8s/crds/kernel.gossip.io.yaml` holds: both definitions, one
/// YAML document each.
pub fn crds_yaml() -> String {
    let documents = crds().map(|crd| {
        // Plain data of our own: serializing it cannot fail, and the tests print it.
        serde_saphyr::to_string(&crd)
            .unwrap_or_else(|e| format!("# {} cannot be printed: {e}\n", crd.spec.names.plural))
    });
    documents.join("---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_have_what_people_use() {
        for (crd, short, columns) in [
            (
                KernelWhisper::crd(),
                "kw",
                vec!["Pod", "Signal", "Kernel", "Metrics", "Severity", "State", "Age"],
            ),
            (
                PodBirthCertificate::crd(),
                "pbc",
                vec!["Pod", "Node", "Total", "Syscalls", "Namespaces", "Cgroup-Writes", "Mounts", "Age"],
            ),
        ] {
            assert_eq!(crd.spec.group, GROUP);
            assert_eq!(crd.spec.names.short_names, Some(vec![short.to_string()]));
            assert_eq!(crd.spec.names.categories, Some(vec!["gossip".to_string()]));
            let v = &crd.spec.versions[0];
            assert_eq!(v.name, VERSION);
            assert!(v.subresources.as_ref().unwrap().status.is_some());
            let shown: Vec<_> = v
                .additional_printer_columns
                .iter()
                .flatten()
                .filter(|c| c.priority.unwrap_or(0) == 0)
                .map(|c| c.name.as_str())
                .collect();
            assert_eq!(shown, columns);
            assert_eq!(v.selectable_fields.as_ref().unwrap()[0].json_path, ".spec.nodeName");
        }
    }

    #[test]
    fn kinds_are_written_as_they_are_called() {
        for kind in SignalKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn object_names_fit_and_differ() {
        assert_eq!(object_name("web-0", "kw"), "web-0-kw");
        let (a, b) = ("a".repeat(253), format!("{}b", "a".repeat(252)));
        let (na, nb) = (object_name(&a, "kw"), object_name(&b, "kw"));
        assert_eq!(na.len(), 253);
        assert!(na.ends_with("-kw") && nb.ends_with("-kw") && na != nb);
        assert_eq!(object_name(&"a".repeat(250), "kw").len(), 253);
        let dots = format!("{}{}", "a".repeat(200), ".b".repeat(26));
        let n = object_name(&dots, "pbc");
        assert!(n.len() <= 253 && !n.contains(".-") && !n.contains("--"), "{n}");
    }
}
