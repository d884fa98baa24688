//! Every metric, label and value that a panel or a rule names is the registry's. Prometheus itself reads the queries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kernel_gossip::names::metric::{self, Kind, Metric, prometheus_name};
use serde_json::{Value, json};

use crate::bed::grafana::{Dashboard, Shown, dashboards, filled};
use crate::bed::prometheus::Prometheus;
use crate::bed::repository;
use crate::host::semconv::values_of;

type Labels = BTreeSet<String>;

/// Labels of the target: what the jobs of otel-collector/prometheus.yaml make.
const TARGET: [&str; 4] = ["cluster", "node", "job", "instance"];
/// Labels that say whom a workload's series is about.
const WHO: [&str; 6] = ["namespace", "pod", "container", "cgroup", "unit", "kind"];

/// A series by its name: the metric, and whether it is the metric's own, not one of a histogram's parts.
fn series(name: &str) -> Option<(&'static Metric, &str)> {
    let all = || metric::WORKLOAD.iter().chain(&metric::AGENT).copied();
    all().find(|m| m.prometheus() == name).map(|m| (m, "")).or_else(|| {
        let (base, part) = name.rsplit_once('_')?;
        let histogram = all().find(|m| m.prometheus() == base && m.kind == Kind::Histogram)?;
        matches!(part, "bucket" | "sum" | "count").then_some((histogram, part))
    })
}

/// Reads queries, and knows what may be in them.
struct Reader<'p> {
    prometheus: &'p Prometheus,
    /// What rules record: its labels.
    recorded: BTreeMap<String, Labels>,
}

impl Reader<'_> {
    /// The labels that a query's result can have.
    fn read(&self, expr: &str) -> Result<Labels, String> {
        let tree = self.prometheus.api("parse_query", &[("query", expr)])?;
        self.walk(&tree, None)
    }

    fn walk(&self, node: &Value, within: Option<&str>) -> Result<Labels, String> {
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
        };
        let known = |wanted: &[String], there: &Labels| match wanted.iter().find(|l| !there.contains(*l)) {
            Some(label) => Err(format!("no label {label}: there are {there:?}")),
            None => Ok(()),
        };
        match node["type"].as_str().expect("a type") {
            "numberLiteral" | "stringLiteral" => Ok(Labels::new()),
            "parenExpr" | "unaryExpr" | "subquery" => self.walk(&node["expr"], within),
            "matrixSelector" | "vectorSelector" => self.selector(node, within),
            "aggregation" => {
                let inner = self.walk(&node["expr"], node["op"].as_str())?;
                let grouping = texts(&node["grouping"]);
                known(&grouping, &inner)?;
                // These keep what they have.
                Ok(if node["op"] == "topk" { inner } else { grouping.into_iter().collect() })
            }
            "binaryExpr" => {
                let (left, right) = (self.walk(&node["lhs"], within)?, self.walk(&node["rhs"], within)?);
                let matching = texts(&node["matching"]["labels"]);
                known(&matching, &left)?;
                known(&matching, &right)?;
                let literal = |side: &str| node[side]["type"] == "numberLiteral";
                if literal("lhs") {
                    return Ok(right);
                }
                // Without "on" all labels have to be the same, or nothing would match.
                let all = node["matching"]["on"] != true && !literal("rhs");
                match node["op"].as_str() {
                    Some("or") => Ok(left.union(&right).cloned().collect()),
                    _ if all && left != right => Err(format!("{left:?} never match {right:?}")),
                    _ => Ok(left),
                }
            }
            "call" => {
                let function = node["func"]["name"].as_str();
                let arguments = node["args"].as_array().expect("arguments");
                let mut labels = Labels::new();
                for argument in arguments {
                    labels.append(&mut self.walk(argument, function)?);
                }
                let text = |n: usize| arguments[n]["val"].as_str().expect("a label").to_owned();
                match function {
                    Some("label_replace") => {
                        known(&[text(3)], &labels)?;
                        labels.insert(text(1));
                    }
                    Some("label_join") => {
                        let sources: Vec<_> = (3..arguments.len()).map(text).collect();
                        known(&sources, &labels)?;
                        labels.insert(text(1));
                    }
                    Some("histogram_quantile") => {
                        labels.remove("le");
                    }
                    _ => {}
                }
                Ok(labels)
            }
            other => Err(format!("{other} is not understood")),
        }
    }

    /// One of several metrics, of which each has the labels.
    fn any(&self, node: &Value) -> Result<Labels, String> {
        let matchers = node["matchers"].as_array().expect("matchers");
        let names = matchers.iter().find(|m| m["name"] == "__name__").expect("names")["value"].as_str();
        let mut labels = Labels::new();
        for name in names.expect("names").split('|') {
            let one = json!({"type": "vectorSelector", "name": name, "matchers": matchers});
            labels = self.selector(&one, Some("count"))?;
        }
        Ok(labels)
    }

    fn selector(&self, node: &Value, within: Option<&str>) -> Result<Labels, String> {
        let name = node["name"].as_str().expect("a name");
        if name.is_empty() {
            return self.any(node);
        }
        let mut labels: Labels = TARGET.map(str::to_owned).into();
        if let Some(recorded) = self.recorded.get(name) {
            return Ok(recorded.clone());
        }
        let (metric, part) = series(name).ok_or_else(|| format!("no metric {name}"))?;
        let counts = metric.kind == Kind::Counter || metric.kind == Kind::Histogram;
        let growth = matches!(within, Some("rate" | "increase"));
        if growth && !counts {
            return Err(format!("{name} is no counter"));
        }
        // A count of births since the agents' start is said as such.
        if counts && !growth && within != Some("count") && part != "count" {
            return Err(format!("{name} begins again with its agent: only its growth says something"));
        }
        labels.extend(metric.attributes.iter().map(|a| prometheus_name(a)));
        if metric::WORKLOAD.contains(&metric) {
            labels.extend(WHO.map(str::to_owned));
        }
        for matcher in node["matchers"].as_array().expect("matchers") {
            let (label, value) =
                (matcher["name"].as_str().expect("a name"), matcher["value"].as_str().expect("a value"));
            if label == "__name__" {
                continue;
            }
            if !labels.contains(label) {
                return Err(format!("{name} has no label {label}"));
            }
            let attribute = metric.attributes.iter().find(|a| prometheus_name(a) == label);
            let values = attribute.and_then(|a| values_of(a));
            let is_there = |values: &BTreeSet<String>| value.split('|').all(|v| values.contains(v));
            if let Some(values) = values.filter(|values| !is_there(values)) {
                return Err(format!("{label} is never {value}: {values:?}"));
            }
        }
        if part == "bucket" {
            labels.insert("le".into());
        }
        Ok(labels)
    }
}

/// The variables of all dashboards, with a value each.
fn some() -> Vec<(String, String)> {
    let names = dashboards().into_iter().flat_map(|d| d.variables().clone());
    names.map(|v| (v["name"].as_str().expect("a name").to_owned(), "x".to_owned())).collect()
}

const SHOWN: Shown = Shown { end: 0.0, length: 60.0, step: 1.0 };

/// The names between these marks.
fn between(text: &str, begin: &str, end: &str) -> Labels {
    text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.trim().to_owned())).collect()
}

/// What legends, links and columns name is what the queries give.
fn a_panel(reader: &Reader<'_>, dashboard: &Dashboard, panel: &Value) {
    let place = format!("{}, {}", dashboard.name, panel["title"]);
    let mut given = Labels::new();
    for target in panel["targets"].as_array().expect("targets") {
        let expr = filled(target["expr"].as_str().expect("an expression"), SHOWN, &some());
        assert!(!expr.replace("\"$1\"", "").contains('$'), "{place}: a variable without a value: {expr}");
        let labels = reader.read(&expr).unwrap_or_else(|e| panic!("{place}: {e}"));
        let legend = between(target["legendFormat"].as_str().unwrap_or_default(), "{{", "}}");
        let unknown: Vec<_> = legend.difference(&labels).filter(|l| *l != "le").collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?} is no label of {labels:?}");
        given.extend(labels);
    }
    let text = panel.to_string();
    for label in between(&text, "${__field.labels.", "}") {
        assert!(given.contains(&label), "{place}: {label}");
    }
    let transformations = panel["transformations"].as_array().into_iter().flatten();
    let mut columns = Labels::new();
    for transformation in transformations {
        let options = &transformation["options"];
        for (from, to) in options["renameByName"].as_object().into_iter().flatten() {
            assert!(from.starts_with("Value") || given.contains(from), "{place}: no column {from}");
            columns.insert(to.as_str().expect("a name").to_owned());
        }
        for field in ["rowField", "columnField"].iter().filter_map(|f| options[*f].as_str()) {
            assert!(given.contains(field), "{place}: no column {field}");
        }
    }
    for column in between(&text, "${__data.fields.", "}") {
        let column = column.split(':').next().expect("a name");
        assert!(columns.contains(column), "{place}: a link names the column {column}");
    }
}

#[test]
#[ignore = "needs prometheus: scripts/test host"]
fn panels_and_rules_name_what_exists() {
    let dir = tempfile::tempdir().expect("a directory");
    let prometheus = Prometheus::start(dir.path(), &[], &[]);
    let mut reader = Reader { prometheus: &prometheus, recorded: BTreeMap::new() };

    // It finds what is wrong.
    for (wrong, said) in [
        ("rate(kernel_gossip_cpu_runs_time_seconds_total[5m])", "no metric"),
        ("sum by (pods) (rate(kernel_gossip_cpu_run_time_seconds_total[5m]))", "no label pods"),
        (
            r#"rate(kernel_gossip_cpu_wait_time_seconds_total{kernel_gossip_cpu_wait_cause="throtle"}[5m])"#,
            "never throtle",
        ),
        (r#"kernel_gossip_agent_workload_known{namespace="x"}"#, "no label namespace"),
        ("rate(kernel_gossip_cpu_limit[5m])", "no counter"),
        ("sum(kernel_gossip_cpu_run_time_seconds_total)", "only its growth"),
        ("sum by (node) (kernel_gossip_cpu_limit) / sum by (pod) (kernel_gossip_cpu_limit)", "never match"),
    ] {
        let error = reader.read(wrong).expect_err(wrong);
        assert!(error.contains(said), "{wrong}: {error}");
    }

    for rule in rules(&repository().join("grafana/rules/kernel-gossip.yaml")) {
        let expr = rule["expr"].as_str().expect("an expression");
        let labels = reader.read(expr).unwrap_or_else(|e| panic!("{rule}: {e}"));
        if let Some(name) = rule["record"].as_str() {
            reader.recorded.insert(name.into(), labels);
            continue;
        }
        let annotations = rule["annotations"].to_string();
        for label in between(&annotations, "$labels.", " ") {
            assert!(labels.contains(&label), "{}: {label} is none of {labels:?}", rule["alert"]);
        }
        // A query of its own, in which labels stand in for values.
        for query in between(&annotations, "printf `", "`") {
            let query = query.replace("%q", "\"x\"");
            reader.read(&query).unwrap_or_else(|e| panic!("{}: {query}: {e}", rule["alert"]));
        }
    }
    let all = dashboards();
    for dashboard in &all {
        dashboard.panels().for_each(|panel| a_panel(&reader, dashboard, panel));
        for variable in dashboard.variables().iter().filter(|v| v["type"] == "query") {
            let query = filled(variable["query"]["query"].as_str().expect("a query"), SHOWN, &some());
            let (of, label) =
                query["label_values(".len()..].trim_end_matches(')').rsplit_once(", ").expect("two");
            // Not a value: whether there is such a series.
            let labels =
                reader.read(&format!("count by ({label}) ({of})")).unwrap_or_else(|e| panic!("{query}: {e}"));
            assert_eq!(labels.len(), 1);
        }
    }
    // Links between dashboards.
    let there: Labels = all.iter().map(|d| d.json["uid"].as_str().expect("a uid").to_owned()).collect();
    assert_eq!(there.len(), all.len(), "each has its own");
    for dashboard in &all {
        let to = between(&dashboard.json.to_string(), "\"/d/", "?");
        assert!(to.is_subset(&there), "{}: {to:?}", dashboard.name);
    }
}

/// The rules of a file.
pub fn rules(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("rules");
    let all: Value = serde_saphyr::from_str(&text).expect("YAML");
    let groups = all["groups"].as_array().expect("groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}
