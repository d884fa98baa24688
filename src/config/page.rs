//! A [`Config`] for people and editors: the text of a file with the help of every key, and the schema of such files.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{Config, signals};

const HEAD: &str = "\
# Kernel Gossip's configuration, with every key at its default. Leave out what you do not change.
# Durations have a unit: 500ms, 10s, 1m. Percentages are 0 to 100. `null` is \"not set\".
# yaml-language-server: $schema=config.schema.json
";

/// A key with what stands behind it.
#[derive(Debug)]
pub struct Entry {
    key: &'static str,
    /// What stands above it, line by line; a key without shares that of the one before.
    help: Vec<&'static str>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// As it is written, if it is set; and what may stand there.
    Value(Option<String>, Value),
    Section(Vec<Entry>),
}

impl Entry {
    pub fn value(key: &'static str, help: &[&'static str], written: Option<String>, schema: Value) -> Entry {
        Entry { key, help: trimmed(help), what: What::Value(written, schema) }
    }

    pub fn section(key: &'static str, help: &[&'static str], entries: Vec<Entry>) -> Entry {
        Entry { key, help: trimmed(help), what: What::Section(entries) }
    }
}

fn trimmed(help: &[&'static str]) -> Vec<&'static str> {
    help.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect()
}

fn entries(config: &Config) -> Vec<Entry> {
    let Config { agent, rules, sinks, births } = config;
    vec![
        Entry::section("agent", &[], agent.entries()),
        Entry::section("signals", &[], signals::entries(rules)),
        Entry::section("sinks", &[], sinks.entries()),
        Entry::section("births", &[], births.entries()),
    ]
}

/// The text of a file that says this.
pub fn yaml(config: &Config) -> String {
    let mut page = Page { text: HEAD.into(), depth: 0, said: HashSet::new() };
    page.section(&entries(config));
    page.text
}

struct Page {
    text: String,
    depth: usize,
    /// Keys with their help: what rules have in common is explained at the first.
    said: HashSet<(&'static str, Vec<&'static str>)>,
}

impl Page {
    fn section(&mut self, entries: &[Entry]) {
        for Entry { key, help, what } in entries {
            if matches!(what, What::Section(_)) && !self.text.ends_with(":\n") {
                self.text.push('\n');
            }
            let indent = "  ".repeat(self.depth);
            if self.said.insert((key, help.clone())) {
                help.iter().for_each(|line| self.text += &format!("{indent}# {line}\n"));
            }
            match what {
                What::Value(written, _) => {
                    self.text += &format!("{indent}{key}: {}\n", written.as_deref().unwrap_or("null"));
                }
                What::Section(entries) => {
                    self.text += &format!("{indent}{key}:\n");
                    self.depth += 1;
                    self.section(entries);
                    self.depth -= 1;
                }
            }
        }
    }
}

/// What editors check a file by: a JSON Schema (draft 7, which all of them know).
pub fn schema() -> String {
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Kernel Gossip's configuration",
    });
    if let (Value::Object(schema), Value::Object(section)) =
        (&mut schema, section(&entries(&Config::default())))
    {
        schema.extend(section);
    }
    format!("{schema:#}\n")
}

fn section(entries: &[Entry]) -> Value {
    let mut properties = Map::new();
    let mut description = String::new();
    for Entry { key, help, what } in entries {
        let mut property = match what {
            What::Section(entries) => section(entries),
            What::Value(written, schema) => or_null(schema.clone(), written.as_deref()),
        };
        if !help.is_empty() {
            description = help.join(" ");
        }
        if !description.is_empty() {
            property["description"] = description.as_str().into();
        }
        properties.insert((*key).into(), property);
    }
    json!({"type": ["object", "null"], "additionalProperties": false, "properties": properties})
}

/// A text as editors read it, who go by YAML 1.2: `on` is a word.
fn value(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
}

/// What is `null` has its default.
fn or_null(mut schema: Value, default: Option<&str>) -> Value {
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(one) => *one = json!([one.clone(), "null"]),
        None => {}
    }
    if let Some(default) = default.and_then(|text| value(text).ok()) {
        schema["default"] = default;
    }
    schema
}

#[cfg(test)]
mod tests;
