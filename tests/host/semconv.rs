//! The registry in docs/semconv, the code's table and what is really emitted say the same, and every generated file
//! (`scripts/generate`) is what the code says.

#[path = "../../scripts/generator/mod.rs"]
mod generator;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bed::receiver::Receiver;
use clap::Parser;
use generator::registry::{self, Attribute, File, Group, Type, all_metrics};
use kernel_gossip::api::BirthOutcome;
use kernel_gossip::attribution::WorkloadKind;
use kernel_gossip::names;
use kernel_gossip::names::metric::{Kind, Metric};
use kernel_gossip::signals::{Severity, SignalKind, Transition};
use kernel_gossip::sinks::event::{birth_attributes, resource_attributes, whisper_attributes};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::{OtlpArgs, OtlpConfig, OtlpSink, encode};
use kernel_gossip::sinks::telemetry::{self, SelfStats};
use kernel_gossip::sinks::testdata;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

fn file(name: &str) -> File {
    registry::file(name).expect("a file of the registry")
}

/// The values an attribute may have, where it has only these.
pub fn values_of(attribute: &str) -> Option<BTreeSet<String>> {
    match &own_attributes().get(attribute)?.kind {
        Some(Type::Enum { members }) => Some(members.iter().map(|m| m.value.clone()).collect()),
        _ => None,
    }
}

/// The attributes of the project's own.
fn own_attributes() -> BTreeMap<String, Attribute> {
    registry::own_attributes().expect("good")
}

fn references(group: &Group) -> BTreeSet<String> {
    group.references().map(str::to_owned).collect()
}

fn same<T: Ord + std::fmt::Debug>(registry: &BTreeSet<T>, other: &BTreeSet<T>, what: &str) {
    let only_here: Vec<_> = registry.difference(other).collect();
    let only_there: Vec<_> = other.difference(registry).collect();
    assert!(
        only_here.is_empty() && only_there.is_empty(),
        "{what}: only in the registry {only_here:?}, missing in it {only_there:?}"
    );
}

#[test]
fn the_registry_has_exactly_the_metrics_of_the_code() {
    let describe = |name: &str, instrument: &str, unit: &str, brief: &str, attributes: BTreeSet<String>| {
        format!("{name} {instrument} {unit:?} {brief:?} {attributes:?}")
    };
    let file = file("metrics.yaml");
    let registry = file.groups.iter().map(|g| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        describe(&text(&g.metric_name), &text(&g.instrument), &text(&g.unit), &g.brief, references(g))
    });
    let (official, own): (Vec<_>, Vec<_>) =
        all_metrics().partition(|m| !m.name.starts_with("kernel_gossip."));
    let code = own.iter().map(|m| {
        let attributes = m.attributes.iter().map(|a| (*a).to_owned()).collect();
        describe(m.name, m.kind.as_str(), m.unit, &format!("{}.", m.description), attributes)
    });
    same(&registry.collect(), &code.collect(), "metrics");
    let official = official.iter().map(|m| m.name.to_owned()).collect();
    same(&file.imports.metrics.into_iter().collect(), &official, "metrics of OpenTelemetry's own");
}

/// OpenTelemetry's rules for names (docs/general/naming.md and metrics.md of the semantic conventions).
#[test]
fn names_follow_the_rules() {
    let groups = file("attributes.yaml").groups;
    assert!(groups.iter().all(|g| g.kind == "attribute_group" && g.display_name.is_some()));
    let attributes = own_attributes();
    let metrics: BTreeSet<&str> = all_metrics().map(|m| m.name).collect();
    let kinds: [BTreeSet<&str>; 2] = [attributes.keys().map(String::as_str).collect(), metrics];
    for names in &kinds {
        for name in names {
            let good = name.split('.').all(|part| {
                part.starts_with(|c: char| c.is_ascii_lowercase())
                    && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                    && !part.ends_with('_')
                    && !part.contains("__")
            });
            assert!(good && name.contains('.'), "{name}");
            let inside = names.iter().find(|other| other.starts_with(&format!("{name}.")));
            assert_eq!(inside, None, "{name} is a namespace too");
        }
    }
    assert_eq!(all_metrics().count(), kinds[1].len(), "a name is used twice");
    for m in all_metrics() {
        assert!(!m.name.ends_with("total"), "{}", m.name);
        // OpenTelemetry has it, Prometheus keeps it for histograms.
        assert!(!m.name.ends_with("count"), "{}", m.name);
        assert!(
            matches!(m.unit, "s" | "By") || (m.unit.starts_with('{') && m.unit.ends_with('}')),
            "{}",
            m.name
        );
        let plural = m.name.ends_with('s');
        assert!(!plural || (m.kind == Kind::Counter && m.unit.starts_with('{')), "{} is plural", m.name);
        assert!(m.unit != "s" || m.name.ends_with(".time") || m.name.ends_with(".duration"), "{}", m.name);
        assert!(!m.description.ends_with('.'), "{}", m.name);
    }
    let in_prometheus: BTreeSet<_> = all_metrics().map(Metric::prometheus).collect();
    assert_eq!(in_prometheus.len(), kinds[1].len(), "two metrics have one name in Prometheus");
}

/// Everything that can be emitted, as name -> (unit, instrument, attributes and their values).
#[derive(Debug, Default)]
struct Emitted {
    metrics: BTreeMap<String, (String, String)>,
    metric_attributes: BTreeMap<String, BTreeSet<String>>,
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Emitted {
    fn metric(&mut self, m: &proto::Metric) {
        let (instrument, attributes): (_, Vec<&KeyValue>) = match m.data.as_ref().expect("data") {
            Data::Gauge(d) => ("gauge", d.data_points.iter().flat_map(|p| &p.attributes).collect()),
            Data::Sum(d) => {
                let instrument = if d.is_monotonic { "counter" } else { "updowncounter" };
                (instrument, d.data_points.iter().flat_map(|p| &p.attributes).collect())
            }
            Data::Histogram(d) => ("histogram", d.data_points.iter().flat_map(|p| &p.attributes).collect()),
            Data::ExponentialHistogram(d) => {
                ("histogram", d.data_points.iter().flat_map(|p| &p.attributes).collect())
            }
            Data::Summary(_) => panic!("{}: a summary", m.name),
        };
        self.metrics.insert(m.name.clone(), (m.unit.clone(), instrument.into()));
        let known = self.metric_attributes.entry(m.name.clone()).or_default();
        known.extend(attributes.iter().map(|a| a.key.clone()));
        attributes.iter().for_each(|a| self.value(a));
    }

    fn value(&mut self, attribute: &KeyValue) {
        if let Some(Value::StringValue(text)) = attribute.value.as_ref().and_then(|v| v.value.as_ref()) {
            self.values.entry(attribute.key.clone()).or_default().insert(text.clone());
        }
    }
}

fn keys(attributes: &[KeyValue]) -> BTreeSet<String> {
    attributes.iter().map(|a| a.key.clone()).collect()
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

const OUTCOMES: [BirthOutcome; 3] = [BirthOutcome::Complete, BirthOutcome::Failed, BirthOutcome::Unfinished];

/// What the SDK sends of the agent's own numbers.
async fn agent_metrics() -> Vec<proto::Metric> {
    let mut receiver = Receiver::start().await;
    let flags = Flags::parse_from(["x", "--otlp-endpoint", &receiver.endpoint()]);
    let config = OtlpConfig::new(&flags.otlp, |_| None).expect("good").expect("an endpoint");
    let sink = Arc::new(OtlpSink::start(config, Some("node-1".into())).expect("started"));
    let stats = Arc::new(SelfStats::default());
    let provider = telemetry::start(&stats, &sink, Some("node-1"));
    stats.observe(&testdata::reading(&[testdata::unit("x.service")], 10));
    stats.reading_took(Duration::from_millis(3));
    OUTCOMES.iter().for_each(|outcome| stats.birth(&testdata::birth(Some(*outcome), false)));
    provider.force_flush().expect("collected");
    let metrics = receiver.next().await.metrics();
    provider.shutdown().expect("ended");
    metrics
}

/// The registry describes what leaves the agent: every metric, attribute and value of an enumeration, no
/// more and no less.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_has_exactly_what_is_emitted() {
    let mut emitted = Emitted::default();
    let (mut resources, mut events) = (BTreeSet::new(), BTreeSet::new());
    let all = [
        testdata::container("shop", "web", "app"),
        testdata::unit("x.service"),
        testdata::container("b", "n", "c"),
    ];
    let mut ledger = Ledger::new(testdata::moment(0), true);
    let mut reading = testdata::reading(&all, 10);
    // One of each kind.
    for kind in testdata::KINDS {
        let mut who = kernel_gossip::attribution::Workload::clone(&all[1]);
        (who.kind, who.cgroup) = (kind, format!("/{kind:?}"));
        let mut sample = testdata::sample(&Arc::new(who), 10);
        sample.network = (kind == WorkloadKind::Pod).then(testdata::network);
        reading.samples.push(sample);
    }
    ledger.observe(&reading);
    let transitions = [Transition::Started, Transition::Changed, Transition::Repeated, Transition::Resolved];
    for signal in SignalKind::said() {
        for severity in [Severity::Warning, Severity::Critical] {
            for transition in transitions {
                let mut whisper = testdata::whisper(&all[0], signal, transition, 10);
                whisper.severity = severity;
                ledger.whisper(&whisper);
                let event = encode::whisper_event(&whisper, "text".into(), Some("node-1"), 1);
                assert_eq!(event.schema_url, names::SCHEMA_URL);
                let record = &event.scope_logs[0].log_records[0];
                record.attributes.iter().for_each(|a| emitted.value(a));
                events.extend(keys(&record.attributes));
                resources.extend(keys(&event.resource.expect("a resource").attributes));
                assert_eq!(whisper_attributes(&whisper).count() + 1, record.attributes.len());
            }
        }
    }
    let (mut births, mut spans) = (BTreeSet::new(), BTreeSet::new());
    let outcomes = OUTCOMES.map(Some).into_iter().map(|o| (o, false)).chain([(None, true)]);
    for (outcome, restart) in outcomes {
        let birth = testdata::birth(outcome, restart);
        let event = encode::birth_event(&birth, "text".into(), Some("node-1"), 1);
        let record = &event.scope_logs[0].log_records[0];
        record.attributes.iter().for_each(|a| emitted.value(a));
        births.extend(keys(&record.attributes));
        resources.extend(keys(&event.resource.expect("a resource").attributes));
        assert_eq!(birth_attributes(&birth).len() + 1, record.attributes.len());
        let Some(trace) = encode::trace::birth(&birth, Some("node-1")) else { continue };
        resources.extend(keys(&trace.resource.expect("a resource").attributes));
        let all: Vec<_> = trace.scope_spans.iter().flat_map(|s| &s.spans).collect();
        assert!(
            all.iter()
                .all(|s| s.trace_id == record.trace_id && s.start_time_unix_nano <= s.end_time_unix_nano)
        );
        for span in all {
            span.attributes.iter().for_each(|a| emitted.value(a));
            spans.extend(keys(&span.attributes));
        }
    }
    ledger.export(|account| {
        let metrics = encode::workload_metrics(account, Some("node-1")).expect("metrics");
        let resource = metrics.resource.expect("a resource");
        resource.attributes.iter().for_each(|a| emitted.value(a));
        resources.extend(keys(&resource.attributes));
        metrics.scope_metrics.iter().flat_map(|s| &s.metrics).for_each(|m| emitted.metric(m));
    });
    resources.extend(resource_attributes(&all[1], None).map(|(name, _)| name.to_owned()));
    agent_metrics().await.iter().for_each(|m| emitted.metric(m));

    let metrics = file("metrics.yaml");
    for group in &metrics.groups {
        let name = group.metric_name.as_deref().expect("a metric has a name");
        let (unit, instrument) =
            emitted.metrics.get(name).unwrap_or_else(|| panic!("{name} is never emitted"));
        assert_eq!(Some(unit.as_str()), group.unit.as_deref(), "{name}");
        assert_eq!(Some(instrument.as_str()), group.instrument.as_deref(), "{name}");
        same(&references(group), &emitted.metric_attributes[name], name);
    }
    let registry: BTreeSet<_> =
        metrics.groups.iter().filter_map(|g| g.metric_name.clone()).chain(metrics.imports.metrics).collect();
    same(&registry, &emitted.metrics.into_keys().collect(), "metrics");

    let said = file(registry::EVIDENCE).groups.into_iter().find(|g| g.kind == "event").expect("an event");
    assert_eq!(said.name.as_deref(), Some(names::WHISPER_EVENT));
    same(&references(&said), &events, "attributes of the event");
    let event = &file("events.yaml").groups[0];
    assert_eq!(event.name.as_deref(), Some(names::BIRTH_EVENT));
    same(&references(event), &births, "attributes of a birth");
    same(&references(&file("spans.yaml").groups[0]), &spans, "attributes of spans");
    same(&references(&file("resource.yaml").groups[0]), &resources, "attributes of resources");

    for (name, attribute) in own_attributes() {
        if let Some(Type::Enum { members }) = &attribute.kind {
            let registry = members.iter().map(|m| m.value.clone()).collect();
            same(&registry, emitted.values.get(&name).unwrap_or(&BTreeSet::new()), &name);
        }
    }
    let defined: BTreeSet<String> = own_attributes().into_keys().collect();
    let used: BTreeSet<String> = emitted
        .metric_attributes
        .into_values()
        .flatten()
        .chain(events)
        .chain(births)
        .chain(spans)
        .chain(resources)
        .filter(|name| name.starts_with("kernel_gossip."))
        .collect();
    same(&defined, &used, "attributes");
}

/// The types the registry gives to the event's attributes are those they are sent with.
#[test]
fn attributes_have_the_types_of_the_registry() {
    let whisper = testdata::whisper(
        &testdata::container("s", "p", "c"),
        SignalKind::CpuThrottle,
        Transition::Started,
        1,
    );
    let whisper = encode::whisper_event(&whisper, String::new(), None, 1);
    let birth = testdata::birth(Some(BirthOutcome::Failed), false);
    let trace = encode::trace::birth(&birth, None).expect("a trace");
    let birth = encode::birth_event(&birth, String::new(), None, 1);
    let events = [&whisper, &birth].map(|e| &e.scope_logs[0].log_records[0].attributes);
    let spans = trace.scope_spans[0].spans.iter().map(|s| &s.attributes);
    let own = own_attributes();
    for attribute in events.into_iter().chain(spans).flatten() {
        let Some(known) = own.get(&attribute.key) else { continue };
        let one = |value: &Value| match value {
            Value::StringValue(_) => "string",
            Value::IntValue(_) => "int",
            Value::DoubleValue(_) => "double",
            other => panic!("{}: {other:?}", attribute.key),
        };
        let sent = match attribute.value.as_ref().and_then(|v| v.value.as_ref()).expect("a value") {
            Value::ArrayValue(array) => {
                format!("{}[]", one(array.values[0].value.as_ref().expect("a value")))
            }
            value => one(value).to_owned(),
        };
        let registry = match known.kind.as_ref().expect("a type") {
            Type::Simple(name) => name.clone(),
            Type::Enum { .. } => "string".into(),
        };
        assert_eq!(sent, registry, "{}", attribute.key);
    }
}

#[test]
fn generated_files_are_what_the_code_says() {
    for (name, text) in generator::files().expect("all of them") {
        let found = std::fs::read_to_string(generator::path(name)).unwrap_or_default();
        assert!(found == text, "{name} is not what the code says: run scripts/generate");
    }
}
