//! docs/semconv/registry/evidence.yaml: the numbers of whispers from the tables of `src/evidence`, and the event that
//! carries them.

use std::fmt::Write;

use anyhow::Result;
use kernel_gossip::evidence::{RESOURCES, SignalKind};
use kernel_gossip::names::{EVENT_NAME, WHISPER_EVENT, whisper};

const HEAD: &str = "\
# What a whisper says: its numbers and its event. Made by scripts/generate from the tables in src/evidence; units of attributes,
# which the format has no field for, are annotations.
groups:
";

pub fn text() -> Result<String> {
    let mut out = String::from(HEAD);
    signals(&mut out)?;
    for resource in RESOURCES {
        let mut sent = resource.fields.iter().filter_map(|f| Some((f.attribute?, f))).peekable();
        let Some((first, _)) = sent.peek() else { continue };
        // The namespace of its attributes: `kernel_gossip.cpu`.
        let namespace = first.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        writeln!(out, "  - id: registry.{namespace}.evidence\n    type: attribute_group")?;
        writeln!(out, "    display_name: {}\n    brief: {}", resource.title, quoted(resource.brief)?)?;
        writeln!(out, "    attributes:")?;
        for (name, field) in sent {
            writeln!(
                out,
                "      - id: {name}\n        type: {}\n        stability: development",
                field.kind.as_str()
            )?;
            writeln!(out, "        brief: {}", quoted(field.brief)?)?;
            if !field.unit.is_empty() {
                writeln!(out, "        annotations:\n          unit: {}", quoted(field.unit)?)?;
            }
        }
    }
    event(&mut out)?;
    Ok(out)
}

/// The kinds of signal that the agent says.
fn signals(out: &mut String) -> Result<()> {
    writeln!(
        out,
        "  - id: registry.kernel_gossip.signal\n    type: attribute_group\n    display_name: Signals"
    )?;
    writeln!(
        out,
        "    brief: \"What a whisper is about.\"\n    attributes:\n      - id: {}",
        whisper::SIGNAL
    )?;
    writeln!(out, "        type:\n          members:")?;
    for kind in SignalKind::said() {
        let (name, brief) = (kind.as_str(), quoted(kind.kind().brief())?);
        writeln!(out, "            - id: {name}\n              value: {name}\n              brief: {brief}")?;
        writeln!(out, "              stability: development")?;
    }
    writeln!(out, "        stability: development\n        brief: \"What was crossed.\"")?;
    Ok(())
}

fn event(out: &mut String) -> Result<()> {
    write!(
        out,
        "  - id: event.{WHISPER_EVENT}
    type: event
    name: {WHISPER_EVENT}
    stability: development
    brief: \"A signal crossed its threshold for one workload, goes on, or cleared.\"
    note: \"Said on every transition and once a minute while active. The timestamp is the reading's; the body is one line for \
             people; the severity is WARN, ERROR, or INFO once resolved.\"
    attributes:
"
    )?;
    let sent = RESOURCES.iter().flat_map(|r| r.fields).filter_map(|f| f.attribute);
    let required = whisper::HEAD.into_iter().map(|name| (name, "required"));
    let recommended = sent.chain(whisper::LISTS).map(|name| (name, "recommended"));
    for (name, level) in required.chain(recommended).chain([(EVENT_NAME, "required")]) {
        writeln!(out, "      - ref: {name}\n        requirement_level: {level}")?;
    }
    Ok(())
}

/// A text as JSON has it, which is YAML: on one line, without the space before a comment's text.
fn quoted(text: &str) -> Result<String> {
    Ok(serde_json::to_string(text.trim())?)
}
