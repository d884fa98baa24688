//! The dashboards as Grafana asks for their data.

use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};

use super::prometheus::Prometheus;
use super::{PATIENCE, repository};

/// A dashboard's file.
pub struct Dashboard {
    pub name: String,
    pub json: Value,
}

/// One query of a panel.
pub struct Query {
    /// Where it is: dashboard, panel, letter.
    pub place: String,
    pub expr: String,
    pub instant: bool,
    /// Its panel's description says "may be empty".
    pub may_be_empty: bool,
}

/// All that are shipped.
pub fn dashboards() -> Vec<Dashboard> {
    let files = fs::read_dir(repository().join("grafana/dashboards")).expect("dashboards");
    let mut all: Vec<_> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let json = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
            Dashboard { name: path.file_stem().expect("a name").to_string_lossy().into_owned(), json }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!all.is_empty());
    all
}

impl Dashboard {
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().expect("panels").iter().filter(|p| p["type"] != "row")
    }

    pub fn variables(&self) -> &Vec<Value> {
        self.json["templating"]["list"].as_array().expect("variables")
    }

    pub fn queries(&self) -> Vec<Query> {
        let of_panel = |panel: &Value| {
            let may_be_empty =
                panel["description"].as_str().is_some_and(|d| d.to_lowercase().contains("may be empty"));
            let targets = panel["targets"].as_array().expect("targets").clone();
            let title = panel["title"].clone();
            targets.into_iter().map(move |t| Query {
                place: format!("{}, {title} {}", self.name, t["refId"]),
                expr: t["expr"].as_str().expect("an expression").to_owned(),
                instant: t["instant"] == true,
                may_be_empty,
            })
        };
        self.panels().flat_map(of_panel).collect()
    }
}

/// What a dashboard shows: the end, how long before it, both s; a point's distance.
#[derive(Clone, Copy)]
pub struct Shown {
    pub end: f64,
    pub length: f64,
    pub step: f64,
}

impl Shown {
    /// So long until now.
    pub fn now(length: f64, step: f64) -> Shown {
        // Whole seconds, as Grafana asks.
        Shown { end: UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64().floor(), length, step }
    }
}

/// The query with Grafana's own variables and these.
pub fn filled(expr: &str, shown: Shown, variables: &[(String, String)]) -> String {
    // At least four scrapes, as Grafana has it.
    let rate = (4.0 * shown.step).max(5.0);
    let own = [("__rate_interval", format!("{rate:.0}s")), ("__range", format!("{:.0}s", shown.length))];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let all = own.chain(variables.iter().cloned());
    all.fold(expr.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), &value).replace(&format!("${name}"), &value)
    })
}

/// The values that Grafana would begin with: of one value the first there is, of many all.
pub fn values(
    prometheus: &Prometheus,
    dashboard: &Dashboard,
    shown: Shown,
    given: &[(&str, &str)],
) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    for variable in dashboard.variables().iter().filter(|v| v["type"] == "query") {
        let name = variable["name"].as_str().expect("a name").to_owned();
        let query = filled(variable["query"]["query"].as_str().expect("a query"), shown, &values);
        let (of, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
            .unwrap_or_else(|| panic!("{query} is not understood"));
        let (start, end) = ((shown.end - shown.length).to_string(), shown.end.to_string());
        let found = prometheus
            .api(&format!("label/{label}/values"), &[("match[]", of), ("start", &start), ("end", &end)])
            .unwrap_or_else(|e| panic!("{query}: {e}"));
        let found: Vec<_> = found.as_array().expect("values").iter().filter_map(Value::as_str).collect();
        let value = match given.iter().find(|(given, _)| *given == name) {
            Some((_, value)) => {
                assert!(found.contains(value), "{query}: {value} is none of {found:?}");
                value
            }
            None if variable["includeAll"] == true => variable["allValue"].as_str().expect("of all"),
            None => found.first().copied().unwrap_or_default(),
        };
        values.push((name, value.to_owned()));
    }
    values
}

/// A query's answer: series of numbers, those that are none ("NaN") left out.
pub fn ask(
    prometheus: &Prometheus,
    query: &Query,
    shown: Shown,
    variables: &[(String, String)],
) -> Result<Vec<Value>, String> {
    let expr = filled(&query.expr, shown, variables);
    let (start, end, step) =
        ((shown.end - shown.length).to_string(), shown.end.to_string(), shown.step.to_string());
    let answer = if query.instant {
        prometheus.api("query", &[("query", &expr), ("time", &end)])
    } else {
        prometheus.api("query_range", &[("query", &expr), ("start", &start), ("end", &end), ("step", &step)])
    };
    let answer = answer.map_err(|e| format!("{e} in {expr}"))?;
    let number = |point: &Value| point[1] != json!("NaN");
    let is = |series: &Value| match (&series["values"], &series["histograms"], &series["value"]) {
        (Value::Array(values), ..) => values.iter().any(number),
        (_, Value::Array(histograms), _) => !histograms.is_empty(),
        (.., value) => number(value),
    };
    Ok(answer["result"].as_array().expect("a result").iter().filter(|s| is(s)).cloned().collect())
}

/// Waits until every query has data but for those that may have none: these.
///
/// # Panics
/// At an error of a query; or with what still has none.
pub fn until_data(prometheus: &Prometheus, dashboard: &Dashboard, given: &[(&str, &str)]) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let queries = dashboard.queries();
    loop {
        let shown = Shown::now(60.0, 1.0);
        let values = values(prometheus, dashboard, shown, given);
        let none = |query: &&Query| {
            let data = ask(prometheus, query, shown, &values);
            data.unwrap_or_else(|e| panic!("{}: {e}", query.place)).is_empty()
        };
        let empty: Vec<_> = queries.iter().filter(none).collect();
        let missing: Vec<_> = empty
            .iter()
            .filter(|q| !q.may_be_empty)
            .map(|q| (&q.place, filled(&q.expr, shown, &values)))
            .collect();
        if missing.is_empty() {
            return empty.iter().map(|q| q.place.clone()).collect();
        }
        assert!(Instant::now() < deadline, "no data within {PATIENCE:?}: {missing:#?}");
        // A scrape is a second.
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What tests/testbed/grafana-render draws: the dashboard, and the answer to each query.
pub fn picture(
    prometheus: &Prometheus,
    dashboard: &Dashboard,
    shown: Shown,
    given: &[(&str, &str)],
) -> Value {
    let values = values(prometheus, dashboard, shown, given);
    let mut results = serde_json::Map::new();
    for panel in dashboard.panels() {
        for target in panel["targets"].as_array().expect("targets") {
            let query = Query {
                place: panel["title"].to_string(),
                expr: target["expr"].as_str().expect("an expression").to_owned(),
                instant: target["instant"] == true,
                may_be_empty: true,
            };
            let data =
                ask(prometheus, &query, shown, &values).unwrap_or_else(|e| panic!("{}: {e}", query.place));
            let letter = target["refId"].as_str().expect("a letter");
            results.insert(format!("{}/{letter}", panel["id"]), json!({"data": data}));
        }
    }
    let range = json!({"from": (shown.end - shown.length) * 1e3, "to": shown.end * 1e3, "step": shown.step});
    json!({"dashboard": dashboard.json, "results": results, "theme": "dark", "range": range})
}
