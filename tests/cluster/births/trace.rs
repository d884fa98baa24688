//! A birth's trace, read back from a real Jaeger.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bed::process::Running;
use crate::bed::{free_address, tool, until};
use crate::cluster::bed::births::{Bed, get, pod};

/// A Jaeger that keeps traces in memory.
pub struct Jaeger {
    _running: Running,
    /// For `--otlp-traces-endpoint`.
    pub endpoint: String,
    query: String,
}

impl Jaeger {
    pub fn start() -> Jaeger {
        let [otlp, query, grpc] = [free_address(), free_address(), free_address()];
        let config = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": query.to_string()}, "grpc": {"endpoint": grpc.to_string()},
                },
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 1000}}}},
            },
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": otlp.to_string()}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        });
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        serde_json::to_writer(&file, &config).unwrap();
        let mut running = Running::start(tool("jaeger").arg("--config").arg(file.path()));
        running.says("Everything is ready");
        Jaeger { _running: running, endpoint: format!("http://{otlp}"), query: format!("http://{query}") }
    }

    /// The spans of a trace, once there are some.
    pub fn spans(&self, id: &str) -> Vec<Value> {
        until("trace", || {
            let answer =
                std::panic::catch_unwind(|| get(&format!("{}/api/v3/traces/{id}", self.query))).ok()?;
            let answer: Value = serde_json::from_str(&answer).ok()?;
            let resources = answer["result"]["resourceSpans"].as_array()?.clone();
            let scopes = resources.iter().flat_map(|r| r["scopeSpans"].as_array().unwrap());
            Some(scopes.flat_map(|s| s["spans"].as_array().unwrap()).cloned().collect())
        })
    }
}

/// A time of a span (`startTimeUnixNano`, `endTimeUnixNano`), ns since the Unix epoch.
pub fn ns(span: &Value, field: &str) -> u64 {
    span[field].as_str().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs the cluster and jaeger: scripts/test cluster"]
fn the_trace_of_a_birth_is_the_pods_uid() {
    let jaeger = Jaeger::start();
    let mut bed = Bed::new("birth-trace", &["--otlp-traces-endpoint", &jaeger.endpoint]);
    // Where so much else is started meanwhile that records are lost, the birth says so, and another is looked at.
    let mut births = (1..=5).map(|n| {
        let name = format!("traced-{n}");
        bed.namespace.apply(&pod(&name, "testbed.local/web:1", json!([])));
        let status = bed.certificate(&name);
        (name, status)
    });
    let whole = births.find(|(_, status)| status["missing"].is_null());
    let (name, status) = whole.expect("a birth of which nothing was lost");
    let id = status["traceId"].as_str().unwrap();
    assert_eq!(id, bed.namespace.get(&format!("pod/{name}"), "{.metadata.uid}").replace('-', ""));
    let spans = jaeger.spans(id);
    let named = |name: &str| {
        spans.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name}: {status}\n{spans:?}"))
    };
    let root = named(&format!("birth of {}/{name}", bed.namespace.0));
    let (begin, end) = (ns(root, "startTimeUnixNano"), ns(root, "endTimeUnixNano"));
    let phases = status["phases"].as_array().unwrap();
    for phase in phases {
        let container = phase["container"].as_str().map(|c| format!(" {c}")).unwrap_or_default();
        let span = named(&format!("{}{container}", phase["name"].as_str().unwrap()));
        let took = (ns(span, "endTimeUnixNano") - ns(span, "startTimeUnixNano")) as f64 / 1e6;
        assert!((took - phase["durationMs"].as_f64().unwrap()).abs() < 0.01, "{phase}: {took}");
        if phase["name"] == "scheduled" {
            // It was waited for before the birth.
            assert!(span["parentSpanId"].as_str().is_none_or(str::is_empty), "{span}");
            assert!(ns(span, "endTimeUnixNano") <= begin + 1_000_000, "{span}");
            continue;
        }
        assert_eq!(span["parentSpanId"], root["spanId"]);
        assert!(begin <= ns(span, "startTimeUnixNano") && ns(span, "endTimeUnixNano") <= end, "{phase}");
    }
    // A plugin lies within the network's phase, in time and in the tree.
    let (bridge, network) = (named("cni bridge"), named("network"));
    assert_eq!(bridge["parentSpanId"], network["spanId"]);
    assert!(ns(network, "startTimeUnixNano") <= ns(bridge, "startTimeUnixNano"));
    // Each lies within its parent, and has a name of its own.
    let ids: BTreeMap<&str, &Value> = spans.iter().map(|s| (s["spanId"].as_str().unwrap(), s)).collect();
    assert_eq!(ids.len(), spans.len(), "{spans:?}");
    for span in &spans {
        let Some(parent) = span["parentSpanId"].as_str().and_then(|id| ids.get(id)) else { continue };
        let (from, to) = (ns(parent, "startTimeUnixNano"), ns(parent, "endTimeUnixNano"));
        let (start, end) = (ns(span, "startTimeUnixNano"), ns(span, "endTimeUnixNano"));
        assert!(from <= start && end <= to, "{span} is not within {parent}");
    }
    let said = bed.said(&name);
    let programs = said["kernel_gossip.birth.certificate"]["kernelStats"]["programs"].as_i64().unwrap();
    assert_eq!(
        spans.len() as i64,
        1 + phases.len() as i64 + programs,
        "the birth, its phases and its programs"
    );
    println!("{} spans of trace {id}", spans.len());
}
