//! Names that others choose, through every way out: none becomes more than a name there.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kernel_gossip::attribution::pods::PodIndex;
use kernel_gossip::attribution::{AttributionOptions, Attributor, Workload};
use kernel_gossip::bounds;
use kernel_gossip::kernel::cgroups::name;
use kernel_gossip::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Reading, StatReading};
use kernel_gossip::plain::is_hidden;
use kernel_gossip::signals::{Neighbour, SignalKind, Transition};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::encode;
use kernel_gossip::sinks::testdata::{container, moment, whisper};
use kernel_gossip::sinks::{prometheus, terminal};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

/// What somebody may call a cgroup: quotes, markup, what a terminal obeys, what turns the order of reading, bytes that are
/// no text, and 64 KiB of it.
fn hostile() -> Vec<Vec<u8>> {
    let long = [b"/long/".as_slice(), &b"x".repeat(64 << 10)].concat();
    let mut all: Vec<Vec<u8>> = [
        "/a\"b\\c",
        "/<script>alert('1')</script>",
        "/\u{1b}[2J\u{1b}]0;owned\u{7}",
        "/\u{202e}evitcani\u{2066}\u{200b}",
        "/a\tb\rc\u{85}d",
        "/{namespace=\"kube-system\"} 1e9 #",
        "/$(reboot);`reboot`",
        "/ümlaut/名前",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    all.extend([b"/caf\xe9".to_vec(), b"/caf\xe8".to_vec(), b"/caf\\xe9".to_vec(), long]);
    all
}

/// The workloads of these cgroups as the kernel's side hands them on, in a ledger.
fn published(all: &[Vec<u8>]) -> (Ledger, Vec<Arc<Workload>>) {
    let options = AttributionOptions { read_bundles: false, ..AttributionOptions::default() };
    let mut attributor = Attributor::new(options);
    let key = |id| CgroupKey { hierarchy: Hierarchy::Unified, id };
    let stat = CgroupStat { cpu_usage: Some(5_000_000_000), ..CgroupStat::default() };
    let mut reading = Reading { at: moment(1), ..Reading::default() };
    for (id, bytes) in (1..).zip(all) {
        let path = name::text(bytes).into_owned();
        assert_eq!(*name::bytes(&path), bytes[..], "it leads back to its directory");
        assert_eq!(name::below(Path::new("/r"), &path).as_os_str().len(), bytes.len() + 2);
        reading.changes.push(CgroupChange::Present { cgroup: key(id), path });
        reading.stats.push(StatReading { cgroup: key(id), stat });
    }
    let mut ledger = Ledger::new(moment(0), false);
    let attributed = attributor.attribute(&reading, &PodIndex::default());
    ledger.observe(attributed);
    let who = attributed.samples.iter().map(|sample| sample.who.clone()).collect();
    (ledger, who)
}

fn texts(value: &AnyValue) -> Vec<&str> {
    match value.value.as_ref() {
        Some(Value::StringValue(text)) => vec![text],
        Some(Value::ArrayValue(all)) => all.values.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn all_fit(attributes: &[KeyValue]) {
    for text in attributes.iter().filter_map(|a| a.value.as_ref()).flat_map(texts) {
        assert!(text.len() <= bounds::NAME && !text.chars().any(is_hidden), "{text:?}");
    }
}

#[test]
fn prometheus_has_a_series_for_each_and_nothing_else() {
    let all = hostile();
    let (ledger, who) = published(&all);
    assert_eq!(who.len(), all.len(), "each is one of its own");
    let registry = prometheus::registry(Arc::new(Mutex::new(ledger)), Arc::default());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
    let usage: Vec<_> = text.lines().filter(|l| l.starts_with("kernel_gossip_cpu_usage_time")).collect();
    assert_eq!(usage.len(), all.len(), "{usage:#?}");
    for line in &usage {
        assert!(line.ends_with("kind=\"cgroup\"} 5.0") && !line.chars().any(is_hidden), "{line}");
        assert!(line.len() < 2 * bounds::NAME, "{line}");
    }
    assert_eq!(usage.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn otlp_terminal_and_json_carry_them_as_plain_names() {
    let (mut ledger, all) = published(&hostile());
    ledger.accounts().iter().for_each(|account| {
        let metrics = encode::workload_metrics(account, Some("node-1")).expect("metrics");
        all_fit(&metrics.resource.expect("a resource").attributes);
    });
    for who in &all {
        for (signal, about) in [
            (SignalKind::CpuThrottle, who.clone()),
            (SignalKind::CpuContention, container("shop", "web", "app")),
        ] {
            let mut said = whisper(&about, signal, Transition::Started, 10);
            said.neighbours = vec![Neighbour { who: who.clone(), percent: 50.0 }];
            let line = terminal::text(&said);
            assert!(!line.chars().any(is_hidden) && !line.contains('\n'), "{line:?}");
            let event = encode::whisper_event(&said, line, Some("node-1"), 1);
            all_fit(&event.resource.expect("a resource").attributes);
            all_fit(&event.scope_logs[0].log_records[0].attributes);
        }
    }
}
