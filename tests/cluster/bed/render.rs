//! The manifests as `kubectl apply -k` would send them.

use serde_json::Value;

use crate::bed::{kubectl, process, repository};

/// The objects of a kustomization, named from the top of the repository.
pub fn kustomize(directory: &str) -> Vec<Value> {
    let dir = repository().join(directory);
    let yaml = process::output(kubectl().arg("kustomize").arg(&dir));
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&yaml).unwrap_or_else(|e| panic!("{directory}: {e}"));
    assert!(!objects.is_empty(), "{directory} is empty");
    objects
}
