use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Config, Kubernetes, default_yaml, page};
use crate::evidence::SignalKind;
use crate::sinks::prometheus;
use crate::sinks::terminal::Output;

/// The one line a text is refused with, without the file's name.
fn refused(text: &str) -> String {
    let error = Config::parse("kernel-gossip.yaml", text).expect_err(text).to_string();
    assert_eq!(error.lines().count(), 1, "one line: {error}");
    error.strip_prefix("kernel-gossip.yaml:").expect("names the file").to_string()
}

fn accepted(text: &str) -> Config {
    Config::parse("kernel-gossip.yaml", text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(accepted(&default_yaml()), Config::default());
    assert_eq!(accepted(include_str!("../../docs/default.yaml")), Config::default());
}

/// Nothing that has a default is left out as `null`, which means the default too.
#[test]
fn what_is_null_in_the_documented_defaults_has_none() {
    let yaml = default_yaml();
    let null: Vec<_> = yaml.lines().filter_map(|line| line.strip_suffix(": null")).map(str::trim).collect();
    assert_eq!(null, ["node", "terminal", "prometheus"]);
}

#[test]
fn what_is_printed_is_read_again() {
    let every = "agent:\n  interval: 500ms\n  max_cgroups: 1000\n  node: node-1.example\n  kubernetes: on\n  \
                 name_wait: 0s\n  runtime_roots: [/srv/docker, \"/run/it's, [1]\"]\n\
                 signals:\n  cpu_throttle:\n    enabled: false\n    window: 2m 30s\n    warning: 12.5\n    \
                 critical: 99\n    clear: 1\n    hold: 2s\n    repeat: 3s\n    min_throttled: 4s\n    \
                 min_stalls: 7\n  cpu_contention:\n    enabled: false\n    window: 11s\n    warning: 13\n    \
                 critical: 98\n    clear: 2\n    hold: 5s\n    repeat: 6s\n    min_wait: 8s\n    \
                 min_share: 9\n  slow_birth:\n    enabled: false\n    warning: 120\n    critical: 130\n    \
                 min_history: 4\n    min_excess: 12s\n\
                 sinks:\n  terminal: json\n  prometheus: '[::1]:9464'\n\
                 births:\n  enabled: false\n  settle: 14s\n  wait: 15s\n";
    let config = accepted(every);
    assert_eq!(accepted(&page::yaml(&config)), config);
}

/// The range that a key's help names is the one that is checked.
#[test]
fn the_help_names_the_ranges() {
    let yaml = default_yaml();
    let (mut above, mut comments, mut help, mut ranges) = (Vec::new(), String::new(), String::new(), 0);
    // Of all keys of a name so far: what rules have in common is explained at the first.
    let mut helps = HashMap::<&str, String>::new();
    for line in yaml.lines().filter(|line| !line.is_empty()) {
        let text = line.trim_start();
        if text.starts_with('#') {
            comments += text;
            continue;
        }
        if !comments.is_empty() {
            help = std::mem::take(&mut comments);
        }
        above.truncate((line.len() - text.len()) / 2);
        if text.ends_with(':') {
            above.push(line);
            continue;
        }
        let (key, _) = line.split_once(':').expect("a key");
        let error = refused(&format!("{}\n{key}: '?'\n", above.join("\n")));
        let key = key.trim_start();
        *helps.entry(key).or_default() += &help;
        let range = [" 10s or 1m: ", "a whole number from "].iter().find_map(|start| error.split_once(start));
        if let Some((_, range)) = range {
            let range = format!(" {}", range.trim_end_matches(" is wanted"));
            let named = |end| helps[key].contains(&format!("{range}{end}"));
            assert!(named('.') || named(','), "{key}:{range}");
            ranges += 1;
        }
    }
    assert!(ranges > 10, "{ranges}");
}

#[test]
fn an_empty_file_and_empty_sections_are_the_defaults() {
    for text in
        ["", "# nothing\n", "---\n", "agent:\nsignals:\n  cpu_throttle:\nsinks:\n", "agent:\n  node: ~\n"]
    {
        assert_eq!(accepted(text), Config::default(), "{text:?}");
    }
}

#[test]
fn values_are_taken() {
    let c = accepted(
        "agent:\n  interval: 500ms\n  max_cgroups: 1000\n  node: node-1.example\n  kubernetes: on\n  name_wait: 0s\n  \
         runtime_roots: [/srv/docker, /run/x]\n\
         signals:\n  cpu_throttle:\n    enabled: false\n    window: 1m\n    warning: 12.5%\n    critical: 100\n    \
         clear: 0\n    hold: 0s\n    repeat: 2m 30s\n    min_throttled: 1s\n    min_stalls: 0\n  cpu_contention:\n    \
         min_wait: 0s\n    min_share: 0\nsinks:\n  terminal: json\n  prometheus: '[::1]:9464'\n",
    );
    assert_eq!(c.agent.interval, Duration::from_millis(500));
    assert_eq!((c.agent.max_cgroups, c.rules.max_workloads), (1000, 1000));
    assert_eq!(c.agent.node.as_deref(), Some("node-1.example"));
    assert_eq!(c.agent.kubernetes, Kubernetes::On);
    assert_eq!(c.agent.name_wait, Duration::ZERO);
    assert_eq!(c.agent.runtime_roots, ["/srv/docker", "/run/x"].map(std::path::PathBuf::from));
    let own = |kind: SignalKind, name: &str| {
        let key = kind.kind().section().expect("said").keys().find(|key| key.name == name).expect("a key");
        c.rules[kind].get(key)
    };
    let t = &c.rules[SignalKind::CpuThrottle];
    assert!(!t.enabled);
    assert_eq!((t.warning, t.critical, t.clear), (12.5, 100.0, 0.0));
    assert_eq!(t.window, Duration::from_secs(60));
    assert_eq!((t.hold, t.repeat), (Duration::ZERO, Duration::from_secs(150)));
    assert_eq!(own(SignalKind::CpuThrottle, "min_throttled"), 1.0);
    assert_eq!(own(SignalKind::CpuThrottle, "min_stalls"), 0.0);
    assert_eq!(own(SignalKind::CpuContention, "min_share"), 0.0);
    assert_eq!(c.sinks.terminal, Some(Output::Json));
    assert_eq!(c.sinks.prometheus.map(|a| a.port()), Some(9464));
}

#[test]
fn an_address_is_what_the_flag_takes() {
    for address in [":9464", "localhost:9464", "127.0.0.1:9464"] {
        let config = accepted(&format!("sinks: {{prometheus: '{address}'}}"));
        assert_eq!(config.sinks.prometheus, prometheus::address(address).ok(), "{address}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_valid_ones() {
    assert_eq!(
        refused("signals:\n  cpu_throttle:\n    warning: 30\n    cleer: 3\n"),
        "4: unknown key `cleer`, did you mean `clear`? valid: enabled, window, warning, critical, clear, hold, \
         repeat, min_throttled, min_stalls"
    );
    assert_eq!(
        refused("\nexporter: {}\n"),
        "2: unknown key `exporter`; valid: agent, signals, sinks, births"
    );
    let said: Vec<_> =
        SignalKind::ALL.into_iter().filter(|kind| kind.is_said()).map(SignalKind::as_str).collect();
    assert!(said.contains(&"cpu_contention") && said.contains(&"slow_birth"), "{said:?}");
    assert_eq!(
        refused("signals: {cpu_trottle: {}}"),
        format!("1: unknown key `cpu_trottle`, did you mean `cpu_throttle`? valid: {}", said.join(", "))
    );
}

#[test]
fn a_bad_value_is_refused_with_its_line_and_what_is_wanted() {
    let duration = "a duration with its unit is wanted, such as 500ms, 10s or 1m";
    for (text, error) in [
        ("agent:\n  interval: 10\n", format!("2: `interval: 10`: {duration}: 100ms to 1m")),
        ("agent:\n  interval: 5ms\n", format!("2: `interval: 5ms`: {duration}: 100ms to 1m")),
        ("agent:\n  interval: -1s\n", format!("2: `interval: -1s`: {duration}: 100ms to 1m")),
        ("agent:\n  interval:\n    ''\n", format!("3: `interval: `: {duration}: 100ms to 1m")),
        (
            "agent: {max_cgroups: 1.5}",
            "1: `max_cgroups: 1.5`: a whole number from 64 to 65536 is wanted".into(),
        ),
        (
            "agent: {kubernetes: offf}",
            "1: `kubernetes: offf`: unknown, did you mean `off`? valid: auto, on, off".into(),
        ),
        ("agent: {node: 'a b'}", "1: `node: a b`: a node's name is 1 to 253 of a-z 0-9 - .".into()),
        ("agent: {node: Node-1}", "1: `node: Node-1`: a node's name is 1 to 253 of a-z 0-9 - .".into()),
        (
            "agent:\n  runtime_roots:\n    - /a\n    - b\n",
            "4: `runtime_roots: b`: absolute directories are wanted, such as /run/containerd".into(),
        ),
        ("sinks:\n  terminal: yaml\n", "2: `terminal: yaml`: unknown; valid: text, json, none".into()),
        (
            "sinks:\n  prometheus: 9464\n",
            "2: `prometheus: 9464`: an address and port is wanted, such as 127.0.0.1:9464 or :9464".into(),
        ),
        (
            "signals:\n  cpu_throttle:\n    warning: 101\n",
            "3: `warning: 101`: a percentage from 0 to 100 is wanted".into(),
        ),
        (
            "signals:\n  cpu_throttle:\n    warning: .nan\n",
            "3: `warning: .nan`: a percentage from 0 to 100 is wanted".into(),
        ),
        (
            "signals:\n  cpu_throttle:\n    warning: NaN\n",
            "3: `warning: NaN`: a percentage from 0 to 100 is wanted".into(),
        ),
        (
            "signals:\n  cpu_throttle:\n    enabled: yes\n",
            "3: `enabled: yes`: unknown; valid: true, false".into(),
        ),
    ] {
        assert_eq!(refused(text), error, "{text:?}");
    }
}

#[test]
fn thresholds_that_contradict_each_other_are_refused_at_the_key_that_does() {
    let at = |rest: &str| refused(&format!("signals:\n  cpu_throttle:\n{rest}"));
    assert_eq!(at("    clear: 30\n"), "3: `clear` (30) must be below `warning` (default 25)");
    assert_eq!(at("    hold: 1s\n    warning: 10\n"), "4: `clear` (default 10) must be below `warning` (10)");
    assert_eq!(at("    warning: 20\n    clear: 30\n"), "4: `clear` (30) must be below `warning` (20)");
    assert_eq!(at("    warning: 60\n"), "3: `warning` (60) must not be above `critical` (default 50)");
    assert_eq!(at("    critical: 20\n"), "3: `warning` (default 25) must not be above `critical` (20)");
    assert_eq!(
        at("    window: 1s\n"),
        "3: `window` (1s) must be at least two of the agent's `interval` (1s)"
    );
    assert_eq!(
        refused("agent:\n  interval: 6s\n"),
        "2: `window` (default 10s) must be at least two of the agent's `interval` (6s)"
    );
}

#[test]
fn what_is_no_such_yaml_is_refused_with_its_line() {
    for (text, error) in [
        ("agent: 3\n", "1: a section of `key: value` lines is wanted here"),
        ("agent:\n  interval: [1s]\n", "2: a single value is wanted here"),
        ("agent:\n  runtime_roots: /run\n", "2: a list is wanted here, such as [a, b]"),
        ("agent: {}\nagent: {}\n", "2: key `agent` is here a second time"),
        ("agent: {}\n---\nagent: {}\n", "3: a second document begins here: one is wanted"),
        (
            "agent:\n\tinterval: 1s\n",
            "2: no valid YAML: tabs disallowed within this context (block indentation)",
        ),
        ("agent: {interval: \n", "1: no valid YAML: unclosed bracket '{'"),
    ] {
        assert_eq!(refused(text), error, "{text:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kg.yaml");
    let load = || Config::load(&path).expect_err("refused").to_string();
    assert!(load().ends_with("kg.yaml: cannot be read: No such file or directory (os error 2)"));
    std::fs::write(&path, b"agent:\n  node: \xff\n").expect("written");
    assert!(load().ends_with("kg.yaml:2: is not UTF-8 text"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(load().ends_with("kg.yaml: is larger than 1048576 bytes: not a configuration file"));
    std::fs::write(&path, default_yaml()).expect("written");
    assert_eq!(Config::load(&path), Ok(Config::default()));
}

/// The documented file with some of its lines doubled, dropped, cut, or with foreign text put in.
fn mutated() -> impl Strategy<Value = String> {
    let edit =
        (any::<prop::sample::Index>(), 0..5u8, "[ -~\t\n]{0,12}|[*&!|>{}\\[\\]:#%@`'\"?-]{1,4}|\\PC{0,4}");
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = default_yaml().chars().collect();
        for (at, kind, foreign) in edits {
            let at = at.index(text.len() + 1).min(text.len());
            let end = (at + 17).min(text.len());
            match kind {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, foreign.chars())),
                2 => drop(text.splice(at..end, foreign.chars())),
                3 => text.truncate(at),
                _ => {
                    let copy = text[at..end].to_vec();
                    drop(text.splice(at..at, copy));
                }
            }
        }
        text.into_iter().collect()
    })
}

/// A text is taken or refused in one line; what is taken keeps the promises of a [`Config`].
fn holds(text: &str) -> Result<(), TestCaseError> {
    match Config::parse("f", text) {
        Err(e) => {
            let line = e.to_string();
            prop_assert_eq!(line.lines().count(), 1);
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            prop_assert!(e.line.is_none_or(|n| n >= 1 && n as usize <= text.lines().count() + 1), "{e:?}");
        }
        Ok(c) => {
            for rule in SignalKind::windowed().map(|kind| &c.rules[kind]) {
                prop_assert!(0.0 <= rule.clear && rule.clear < rule.warning);
                prop_assert!(rule.warning <= rule.critical && rule.critical <= 100.0);
                prop_assert!(rule.window >= 2 * c.agent.interval);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_taken_or_refused(text in "(\\PC|[\n\t ]){0,80}") {
        holds(&text)?;
    }

    #[test]
    fn any_mutated_file_is_taken_or_refused(text in mutated()) {
        holds(&text)?;
    }
}
