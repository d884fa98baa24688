//! The schema against files that the program takes and refuses, by a validator that knows nothing of it.

use jsonschema::Validator;
use serde_json::Value;

use super::*;

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    assert!(jsonschema::draft7::meta::is_valid(&schema), "{schema:#}");
    jsonschema::draft7::new(&schema).expect("a schema")
}

/// A file as editors see it.
fn yaml_of(text: &str) -> Value {
    value(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn parsed(text: &str) -> Result<Config, super::super::ConfigError> {
    Config::parse("f", text)
}

#[test]
fn what_is_documented_and_what_is_taken_passes() {
    let validator = validator();
    let every = "agent: {interval: 500ms, max_cgroups: 1000, node: node-1.example, kubernetes: on, name_wait: 0s, \
                 runtime_roots: [/srv/docker, \"/run/it's, [1]\"]}\nsignals: {cpu_throttle: {enabled: false, \
                 window: 2m 30s, warning: 12.5, critical: 99%, clear: 1, hold: 1h, repeat: 1 minute, min_stalls: 7}}\n\
                 sinks: {terminal: json, prometheus: '[::1]:9464'}\nbirths: {enabled: false, settle: 1.5s, wait: PT15S}\n";
    let short =
        "agent:\nsignals:\n  cpu_throttle:\n    warning: ~\nsinks: {terminal: none, prometheus: ':9464'}\n";
    for text in
        [&super::super::default_yaml(), include_str!("../../../docs/default.yaml"), every, short, "{}"]
    {
        assert!(parsed(text).is_ok(), "{:?}", parsed(text));
        let wrong: Vec<_> =
            validator.iter_errors(&yaml_of(text)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{text}\n{}", wrong.join("\n"));
    }
}

/// Each is refused by the program, too, and at the same place.
#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let validator = validator();
    for (text, place) in [
        ("exporter: {}", ""),
        ("agent: 3", "/agent"),
        ("agent: [interval]", "/agent"),
        ("agent: {intervall: 1s}", "/agent"),
        ("agent: {interval: 10}", "/agent/interval"),
        ("agent: {interval: -1s}", "/agent/interval"),
        ("agent: {interval: ''}", "/agent/interval"),
        ("agent: {interval: [1s]}", "/agent/interval"),
        ("agent: {max_cgroups: 1.5}", "/agent/max_cgroups"),
        ("agent: {max_cgroups: 63}", "/agent/max_cgroups"),
        ("agent: {max_cgroups: 65537}", "/agent/max_cgroups"),
        ("agent: {node: 'a b'}", "/agent/node"),
        ("agent: {node: Node-1}", "/agent/node"),
        ("agent: {kubernetes: offf}", "/agent/kubernetes"),
        ("agent: {runtime_roots: /run}", "/agent/runtime_roots"),
        ("agent: {runtime_roots: [/a, b]}", "/agent/runtime_roots/1"),
        ("sinks: {terminal: yaml}", "/sinks/terminal"),
        ("sinks: {prometheus: 9464}", "/sinks/prometheus"),
        ("births: {enabled: 'yes'}", "/births/enabled"),
        ("births: {wait: 10}", "/births/wait"),
        ("signals: {cpu_trottle: {}}", "/signals"),
        ("signals: {cpu_throttle: {cleer: 3}}", "/signals/cpu_throttle"),
        ("signals: {cpu_throttle: {warning: 101}}", "/signals/cpu_throttle/warning"),
        ("signals: {cpu_throttle: {warning: -1}}", "/signals/cpu_throttle/warning"),
        ("signals: {cpu_throttle: {warning: much}}", "/signals/cpu_throttle/warning"),
        ("signals: {cpu_throttle: {enabled: 'yes'}}", "/signals/cpu_throttle/enabled"),
        ("signals: {cpu_throttle: {min_stalls: 1.5}}", "/signals/cpu_throttle/min_stalls"),
        ("signals: {cpu_throttle: {hold: 30}}", "/signals/cpu_throttle/hold"),
    ] {
        assert!(parsed(text).is_err(), "{text}");
        let instance = yaml_of(text);
        let mut places: Vec<_> =
            validator.iter_errors(&instance).map(|e| e.instance_path().to_string()).collect();
        places.dedup();
        assert_eq!(places, [place], "{text}");
    }
}

/// An editor fills in, and shows, what the documented file has.
#[test]
fn every_key_has_its_default_and_help() {
    fn compare(at: &str, schema: &Value, value: &Value) {
        match schema.get("properties").and_then(Value::as_object) {
            Some(keys) => {
                let value = value.as_object().expect(at);
                assert!(keys.keys().eq(value.keys()), "{at}: {keys:?}");
                keys.iter().for_each(|(key, schema)| compare(&format!("{at}.{key}"), schema, &value[key]));
            }
            None => {
                assert_eq!(schema.get("default").unwrap_or(&Value::Null), value, "{at}");
                assert!(at.ends_with(".enabled") || schema["description"].is_string(), "{at}: {schema}");
            }
        }
    }
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    compare("", &schema, &yaml_of(&super::super::default_yaml()));
}
