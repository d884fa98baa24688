//! Alerts by Prometheus' own test of rules, and the same rules for the Prometheus operator.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::names::rules;
use crate::bed::process::output;
use crate::bed::{repository, tool};

const FILE: &str = "grafana/rules/kernel-gossip.yaml";

#[test]
#[ignore = "needs promtool: scripts/test host"]
fn each_alert_fires_on_its_case_and_none_in_a_healthy_hour() {
    let folder = repository().join("grafana/rules");
    output(
        tool("promtool").args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(repository().join(FILE)),
    );
    println!("{}", output(tool("promtool").args(["test", "rules", "tests.yaml"]).current_dir(&folder)));

    // Each has a case in which it fires.
    let tests: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("tests.yaml")).expect("tests")).expect("YAML");
    let cases = tests["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .flat_map(|t| t["alert_rule_test"].as_array().into_iter().flatten());
    let fired: BTreeSet<String> = cases
        .flat_map(|case| {
            let alert = case["alertname"].as_str().expect("a name").to_owned();
            case["exp_alerts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(move |a| format!("{alert} {}", a["exp_labels"]["severity"]))
        })
        .collect();
    let there = rules(&repository().join(FILE));
    let alerts: Vec<_> = there.iter().filter(|r| r["alert"].is_string()).collect();
    let all: BTreeSet<_> = alerts
        .iter()
        .map(|r| format!("{} {}", r["alert"].as_str().expect("a name"), r["labels"]["severity"]))
        .collect();
    assert_eq!(fired, all);

    // Each leads to a heading of the runbooks, and each heading is one's.
    let page = fs::read_to_string(repository().join("docs/runbooks.md")).expect("runbooks");
    let headings: BTreeSet<_> = page
        .lines()
        .filter_map(|l| l.strip_prefix("## KernelGossip"))
        .map(|h| format!("kernelgossip{}", h.to_lowercase()))
        .collect();
    let linked: BTreeSet<_> = alerts
        .iter()
        .map(|r| {
            r["annotations"]["runbook_url"]
                .as_str()
                .expect("a link")
                .split_once("docs/runbooks.md#")
                .expect("the page")
                .1
                .to_owned()
        })
        .collect();
    assert_eq!(headings, linked);
    for rule in alerts {
        assert!(rule["for"].is_string() && rule["annotations"]["summary"].is_string(), "{rule}");
    }
}

/// What the operator is given is the same rules, and nothing that its definition does not have.
#[test]
fn the_operators_rules_are_those_of_prometheus() {
    let yaml = |name: &str| -> Value {
        serde_saphyr::from_str(&fs::read_to_string(repository().join(name)).expect(name)).expect("YAML")
    };
    let operators = yaml("k8s/components/alerts/prometheusrule.yaml");
    assert_eq!(operators["spec"], yaml(FILE));
}
