//! docs/metrics.md: the metrics from the code's table, attributes, events, spans and the Resource from the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};
use kernel_gossip::names;
use kernel_gossip::names::metric::{self, Metric};

use super::registry::{Attribute, EVIDENCE, Group, Type, file, own_attributes};

pub fn text() -> Result<String> {
    let mut out = String::from(include_str!("metrics_head.md"));
    let own = own_attributes()?;
    writeln!(out, "\n## Workloads\n")?;
    out.push_str(include_str!("metrics_workloads.md"));
    metrics(&mut out, &metric::WORKLOAD, &own)?;
    writeln!(out, "\n## The agent itself\n")?;
    metrics(&mut out, &metric::AGENT, &own)?;
    let events = [file(EVIDENCE)?, file("events.yaml")?].into_iter().flat_map(|f| f.groups);
    for event in events.filter(|g| g.kind == "event") {
        let name = event.name.as_deref().context("events.yaml: an event without a name")?;
        writeln!(out, "\n## Event `{name}`\n\n{}", event.brief)?;
        writeln!(out, "{}\n", event.note.as_deref().unwrap_or_default())?;
        attributes_of(&mut out, &event, &own)?;
    }
    for spans in &file("spans.yaml")?.groups {
        writeln!(out, "\n## Traces of births\n\n{}\n", spans.brief)?;
        attributes_of(&mut out, spans, &own)?;
    }
    for resource in &file("resource.yaml")?.groups {
        writeln!(out, "\n## Resource\n\n{}\n", resource.brief)?;
        out.push_str("| attribute | meaning |\n|---|---|\n");
        for name in resource.references() {
            let meaning = own.get(name).map_or("OpenTelemetry's.", |a| a.brief.as_str());
            writeln!(out, "| `{name}` | {meaning} |")?;
        }
    }
    Ok(out)
}

/// A table of metrics, and one of the values their attributes have.
fn metrics(out: &mut String, metrics: &[&Metric], own: &BTreeMap<String, Attribute>) -> Result<()> {
    out.push_str(
        "| metric | unit | kind | meaning | attributes | in Prometheus |\n|---|---|---|---|---|---|\n",
    );
    for m in metrics {
        let short = |name: &&str| format!("`{}`", name.strip_prefix("kernel_gossip.").unwrap_or(name));
        let attributes = m.attributes.iter().map(short).collect::<Vec<_>>().join(", ");
        let (kind, unit, prometheus) = (m.kind.as_str(), m.unit, m.prometheus());
        writeln!(
            out,
            "| `{}` | {unit} | {kind} | {}. | {attributes} | `{prometheus}` |",
            m.name, m.description
        )?;
    }
    writeln!(out, "\nValues of attributes:\n\n| attribute | value | meaning |\n|---|---|---|")?;
    let used: BTreeSet<&str> = metrics.iter().flat_map(|m| m.attributes.iter().copied()).collect();
    for name in used {
        let attribute = own.get(name).with_context(|| format!("attributes.yaml lacks `{name}`: add it"))?;
        match &attribute.kind {
            Some(Type::Enum { members }) => {
                for m in members {
                    writeln!(out, "| `{name}` | `{}` | {} |", m.value, m.brief)?;
                }
            }
            _ => writeln!(out, "| `{name}` | | {} |", attribute.brief)?,
        }
    }
    Ok(())
}

/// A table of the attributes of an event or span.
fn attributes_of(out: &mut String, group: &Group, own: &BTreeMap<String, Attribute>) -> Result<()> {
    out.push_str("| attribute | type | unit | meaning |\n|---|---|---|---|\n");
    for name in group.references() {
        let Some(attribute) = own.get(name) else {
            let meaning =
                if name == names::EVENT_NAME { "The event's name once more." } else { "OpenTelemetry's." };
            let kind = if name == names::birth::PROCESS_ID { "int" } else { "string" };
            writeln!(out, "| `{name}` | {kind} | | {meaning} |")?;
            continue;
        };
        let kind = match &attribute.kind {
            Some(Type::Simple(kind)) => kind.clone(),
            Some(Type::Enum { members }) => {
                members.iter().map(|m| format!("`{}`", m.value)).collect::<Vec<_>>().join(", ")
            }
            None => String::new(),
        };
        let unit = attribute.annotations.get("unit").map_or("", String::as_str);
        writeln!(out, "| `{name}` | {kind} | {unit} | {} |", attribute.brief)?;
    }
    Ok(())
}
