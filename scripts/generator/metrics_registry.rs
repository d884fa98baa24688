//! docs/semconv/registry/metrics.yaml, from the code's table of metrics. The registry's other files hold what the code
//! does not: what attributes, their values, events and spans mean.

use std::fmt::Write;

use anyhow::Result;
use kernel_gossip::names::attribute::OPTIONAL;
use kernel_gossip::names::metric::Metric;

use super::registry::all_metrics;

const HEAD: &str = "\
# Every metric the agent emits. Cumulative; durations of workloads are exponential histograms of scale 0, the agent's own have
# explicit buckets with the same bounds. Made by scripts/generate from src/names/metric.rs.
";

pub fn text() -> Result<String> {
    let mut out = String::from(HEAD);
    let (own, official): (Vec<_>, Vec<_>) = all_metrics().partition(|m| m.name.starts_with("kernel_gossip."));
    writeln!(out, "groups:")?;
    for m in own {
        metric(&mut out, m)?;
    }
    writeln!(out, "\nimports:\n  metrics:")?;
    for m in official {
        writeln!(out, "    - {}", m.name)?;
    }
    Ok(out)
}

fn metric(out: &mut String, m: &Metric) -> Result<()> {
    let Metric { name, unit, kind, description, attributes } = m;
    writeln!(
        out,
        "  - id: metric.{name}\n    type: metric\n    metric_name: {name}\n    stability: development"
    )?;
    // Texts as JSON has them, which is YAML.
    writeln!(out, "    brief: {}", serde_json::to_string(&format!("{description}."))?)?;
    writeln!(out, "    instrument: {}\n    unit: {}", kind.as_str(), serde_json::to_string(unit)?)?;
    if !attributes.is_empty() {
        writeln!(out, "    attributes:")?;
    }
    for attribute in *attributes {
        let level = if OPTIONAL.contains(attribute) { "recommended" } else { "required" };
        writeln!(out, "      - ref: {attribute}\n        requirement_level: {level}")?;
    }
    Ok(())
}
