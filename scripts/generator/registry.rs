//! The semantic-convention registry in docs/semconv/registry, as far as it is read here.

#![allow(dead_code, reason = "the test of the registry reads more of it than the generator")]

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kernel_gossip::names::metric::{self, Metric};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
pub struct File {
    #[serde(default)]
    pub groups: Vec<Group>,
    #[serde(default)]
    pub imports: Imports,
}

#[derive(Debug, Default, Deserialize)]
pub struct Imports {
    #[serde(default)]
    pub metrics: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Group {
    #[serde(rename = "type")]
    pub kind: String,
    pub display_name: Option<String>,
    pub metric_name: Option<String>,
    pub name: Option<String>,
    pub brief: String,
    pub note: Option<String>,
    pub instrument: Option<String>,
    pub unit: Option<String>,
    #[serde(default)]
    pub attributes: Vec<Attribute>,
}

impl Group {
    /// The names of its attributes, in their order.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().filter_map(|a| a.reference.as_deref())
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Attribute {
    pub id: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<Type>,
    #[serde(default)]
    pub brief: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Type {
    Simple(String),
    Enum { members: Vec<Member> },
}

#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub value: String,
    pub brief: String,
}

/// The file of what whispers say, made from the code.
pub const EVIDENCE: &str = "evidence.yaml";

/// One of the registry's files.
pub fn file(name: &str) -> Result<File> {
    let path = super::path("docs/semconv/registry").join(name);
    // As the code has it, where it is made from the code: what is on the disk may be older.
    let text = match name {
        EVIDENCE => super::evidence::text()?,
        _ => std::fs::read_to_string(&path).with_context(|| path.display().to_string())?,
    };
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| path.display().to_string())
}

/// The attributes of the project's own.
pub fn own_attributes() -> Result<BTreeMap<String, Attribute>> {
    let files = [file("attributes.yaml")?, file(EVIDENCE)?];
    let groups = files.into_iter().flat_map(|f| f.groups).filter(|g| g.kind == "attribute_group");
    groups
        .flat_map(|g| g.attributes)
        .map(|a| {
            let id = a.id.clone().with_context(|| format!("an attribute without an id: {a:?}"))?;
            Ok((id, a))
        })
        .collect()
}

/// Every metric of the code's table.
pub fn all_metrics() -> impl Iterator<Item = &'static Metric> {
    metric::WORKLOAD.iter().chain(&metric::AGENT).copied()
}
