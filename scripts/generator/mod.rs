//! What each generated file is made from. Used by `scripts/generate` and by the test that holds the committed files
//! to it.

mod metrics_page;
mod metrics_registry;
pub mod registry;

use std::path::{Path, PathBuf};

use anyhow::Result;
use kernel_gossip::api;

/// A file of the repository, by its name from the top.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Every generated file: its name, and its text as the code has it.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("k8s/crds/kernel.gossip.io.yaml", api::crds_yaml()),
        ("docs/semconv/registry/metrics.yaml", metrics_registry::text()?),
        ("docs/metrics.md", metrics_page::text()?),
    ])
}
