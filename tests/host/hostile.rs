//! Names that others choose, through every way out: none becomes more than a name there.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kernel_gossip::attribution::pods::PodIndex;
use kernel_gossip::attribution::{Attributed, AttributionOptions, Attributor, Workload};
use kernel_gossip::bounds;
use kernel_gossip::evidence::{NetworkNumbers, SignalEvidence};
use kernel_gossip::kernel::cgroups::name;
use kernel_gossip::kernel::oom::{Asker, Kill, Limit, Place, Sizes, Victim};
use kernel_gossip::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Reading, StatReading};
use kernel_gossip::plain::is_hidden;
use kernel_gossip::reconciler::ingest::decode::{Decoded, decode};
use kernel_gossip::signals::{self, Engine, Event, Found, Neighbour, Rules, SignalKind, Transition, Whisper};
use kernel_gossip::sinks::frames::{Frames, lines};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::otlp::encode;
use kernel_gossip::sinks::testdata::{container, moment, whisper};
use kernel_gossip::sinks::{prometheus, terminal};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use serde_json::Value as Json;

use super::ingest::Downstream;
use crate::bed::whisper as bed;

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

/// The workloads of these cgroups as the kernel's side hands them on, in two readings a second apart.
fn read(all: &[Vec<u8>], mut take: impl FnMut(&Attributed)) {
    let options = AttributionOptions { read_bundles: false, ..AttributionOptions::default() };
    let mut attributor = Attributor::new(options);
    let key = |id| CgroupKey { hierarchy: Hierarchy::Unified, id };
    let used =
        |seconds: u64| CgroupStat { cpu_usage: Some(seconds * 1_000_000_000), ..CgroupStat::default() };
    let mut reading = Reading { at: moment(1), ..Reading::default() };
    for (id, bytes) in (1..).zip(all) {
        let path = name::text(bytes).into_owned();
        assert_eq!(*name::bytes(&path), bytes[..], "it leads back to its directory");
        assert_eq!(name::below(Path::new("/r"), &path).as_os_str().len(), bytes.len() + 2);
        reading.changes.push(CgroupChange::Present { cgroup: key(id), path });
        reading.stats.push(StatReading { cgroup: key(id), stat: used(5) });
    }
    take(attributor.attribute(&reading, &PodIndex::default()));
    (reading.at, reading.changes) = (moment(2), Vec::new());
    reading.stats.iter_mut().for_each(|of| of.stat = used(6));
    take(attributor.attribute(&reading, &PodIndex::default()));
}

/// The same in a ledger.
fn published(all: &[Vec<u8>]) -> (Ledger, Vec<Arc<Workload>>) {
    let (mut ledger, mut who) = (Ledger::new(moment(0), false), Vec::new());
    read(all, |attributed| {
        ledger.observe(attributed);
        who = attributed.samples.iter().map(|sample| sample.who.clone()).collect();
    });
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
        assert!(line.ends_with("kind=\"cgroup\"} 6.0") && !line.chars().any(is_hidden), "{line}");
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

/// What `top` shows and records, and `/top` hands out: each has a row of its own, and no line is longer than names make it.
#[tokio::test]
async fn a_view_has_each_once_and_no_more_than_a_name() {
    let all = hostile();
    let frames = Frames::new(Some("node\u{1b}1"), moment(0));
    // Asked first: frames are made for who wants them.
    let (made, ()) = tokio::join!(frames.after(0), async {
        read(&all, |attributed| {
            frames.observe(attributed);
            for sample in &attributed.samples {
                frames.whisper(&whisper(&sample.who, SignalKind::CpuThrottle, Transition::Started, 1));
            }
            frames.close(Vec::new);
        });
    });
    let frame = &made[0];
    let names: BTreeSet<&str> = frame.workloads.iter().map(|row| &*row.cgroup).collect();
    assert_eq!((frame.workloads.len(), names.len()), (all.len(), all.len()), "{names:#?}");
    for text in frame.workloads.iter().flat_map(|row| [&row.name, &row.cgroup]) {
        assert!(text.len() <= bounds::NAME, "{} bytes", text.len());
    }
    assert!(frame.whispers.len() >= all.len(), "{}", frame.whispers.len());
    let mut line = Vec::new();
    lines::write(&mut line, frames.header()).expect("in memory");
    lines::write(&mut line, &**frame).expect("in memory");
    let text = String::from_utf8(line).expect("text");
    assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{text}");
}

/// A kill in a pod that is full of hostile names: of the cgroup whose limit was hit, of the victims, of who asked.
fn killed(who: &Arc<Workload>, hostile: &str, asker: Option<Arc<Workload>>) -> Whisper {
    // A process may call itself what fits 15 bytes, the rest is for what may yet come.
    let victim = |tgid| Victim {
        tgid,
        comm: hostile.chars().take(4096).collect(),
        uid: u32::MAX,
        score_adj: 1000,
        sizes: Sizes { anon: u64::MAX >> 2, ..Sizes::default() },
        first: Some(false),
    };
    let by = Asker { tgid: 1, comm: hostile.into(), place: Place::default(), kernel: false, lowered: false };
    let kill = Kill {
        at_ns: 1,
        place: Place::default(),
        victims: (1..40).map(victim).collect(),
        kills: 39,
        group: true,
        limit: Limit::Cgroup { path: Some(hostile.into()), used: 1, max: i64::MAX as u64, with_swap: false },
        asker: Some(by),
    };
    let (severity, evidence) = signals::found(&Found { kill: &kill, who, limit: None, asker });
    let mut said = Vec::new();
    let event = Event { kind: SignalKind::OomKill, severity, who: who.clone(), evidence, at: now() };
    Engine::new(&Rules::default()).happened(event, &mut said);
    said.remove(0)
}

/// The kernel's name of a reason, as a kernel that is not to be trusted has it.
fn dropped(who: &Arc<Workload>, hostile: &str) -> Whisper {
    let mut said = whisper(who, SignalKind::PacketDrop, Transition::Started, 1);
    let network = NetworkNumbers {
        packets: Some(2000),
        dropped_packets: Some(100),
        drop_percent: Some(5.0),
        reason: Some(hostile.into()),
        reasons: Some(format!("100 sent {hostile}")),
        ..NetworkNumbers::default()
    };
    said.evidence = SignalEvidence { network: Some(network), window_seconds: Some(10.0), ..said.evidence };
    assert_eq!(said.evidence.bound(), 0);
    (said.since, said.at) = (now(), now());
    said.neighbours.clear();
    said.history.clear();
    said
}

fn now() -> kernel_gossip::kernel::Instant {
    let unix_ns = u64::try_from(super::ingest::now().as_nanosecond()).expect("after 1970");
    kernel_gossip::kernel::Instant { mono_ns: 1, unix_ns }
}

fn plain(of: &Json) {
    match of {
        Json::String(text) => assert!(!text.chars().any(is_hidden), "{text:?}"),
        Json::Array(all) => all.iter().for_each(plain),
        Json::Object(all) => all.values().for_each(plain),
        _ => {}
    }
}

/// Through the agent and the reconciler to the object: nothing is refused, and nothing more than text.
#[test]
fn a_kill_or_a_drop_among_hostile_names_becomes_an_object() {
    let who = bed::container("shop", "web-0", "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1", "app");
    for (i, bytes) in hostile().iter().enumerate() {
        let hostile = name::text(bytes);
        let asker = published(std::slice::from_ref(bytes)).1.pop();
        for said in [killed(&who, &hostile, asker), dropped(&who, &hostile)] {
            let line = terminal::text(&said);
            assert!(!line.chars().any(is_hidden) && line.len() < 4096, "{line:?}");
            let event = encode::whisper_event(&said, line, Some("node-1"), 1);
            all_fit(&event.resource.as_ref().expect("a resource").attributes);
            all_fit(&event.scope_logs[0].log_records[0].attributes);
            let mut out = Decoded::default();
            decode(&event, super::ingest::now(), &mut out);
            assert!(out.refused.is_empty() && out.left_out.is_empty(), "{i}: {out:?}");
            let object = Downstream::new().take(out.reports.remove(0)).expect("an object");
            plain(&serde_json::to_value(object).expect("JSON"));
        }
    }
}
