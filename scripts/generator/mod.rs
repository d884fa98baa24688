//! What each generated file is made from. Used by `scripts/generate` and by the test that holds the committed files
//! to it.

mod evidence;
mod grafana;
mod metrics_page;
mod metrics_registry;
pub mod registry;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kernel_gossip::{api, config};

/// Around the part of a page that is made here; the rest of it is written by hand.
const BEGIN: &str = "<!-- generated: scripts/generate -->\n";
const END: &str = "<!-- end -->\n";

/// A file of the repository, by its name from the top.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Every generated file: its name, and its text as the code has it.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    let defaults = config::default_yaml();
    let settings = "docs/configuration.md";
    let mut files = vec![
        ("k8s/crds/kernel.gossip.io.yaml", api::crds_yaml()),
        ("docs/semconv/registry/evidence.yaml", evidence::text()?),
        ("docs/semconv/registry/metrics.yaml", metrics_registry::text()?),
        ("docs/metrics.md", metrics_page::text()?),
        (settings, between_marks(settings, &format!("```yaml\n{defaults}```\n"))?),
        ("docs/default.yaml", defaults),
        ("docs/config.schema.json", config::schema()),
    ];
    files.extend(grafana::files()?);
    Ok(files)
}

/// The page as it is, with this text between its marks.
fn between_marks(name: &str, text: &str) -> Result<String> {
    let page = std::fs::read_to_string(path(name)).with_context(|| format!("cannot read {name}"))?;
    let parts = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = parts.with_context(|| {
        format!(
            "{name} lacks the lines {} and {}: put them where the defaults stand",
            BEGIN.trim(),
            END.trim()
        )
    })?;
    Ok(format!("{head}{BEGIN}{text}{END}{tail}"))
}
