use std::io::Read;

use super::*;
use crate::attribution::{Workload, WorkloadKind};
use crate::evidence::{CpuNumbers, SignalEvidence};
use crate::kernel::Instant;
use crate::signals::{HistoryPoint, Neighbour, SignalKind};

/// About ten seconds of the CPU.
fn cpu(cpu: CpuNumbers) -> SignalEvidence {
    SignalEvidence { window_seconds: Some(10.0004), cpu: Some(cpu), ..SignalEvidence::default() }
}

fn container(namespace: &str, pod: &str, name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        kind: WorkloadKind::Container,
        cgroup: format!("/kubepods/pod1/{name}"),
        namespace: Some(namespace.into()),
        pod: Some(pod.into()),
        pod_uid: Some("5e3c1b7e-0000-4000-8000-000000000001".into()),
        container: Some(name.into()),
        container_id: Some("ab".repeat(32)),
        owner: None,
        unit: None,
        cpu_limit: None,
        cpu_request: None,
        confirmed: true,
    })
}

fn throttled() -> Whisper {
    let at = |second: u64| Instant {
        mono_ns: second * 1_000_000_000,
        unix_ns: 1_795_244_432_062_802_732 + second * 1_000_000_000,
    };
    Whisper {
        signal: SignalKind::CpuThrottle,
        severity: Severity::Critical,
        transition: Transition::Repeated,
        who: container("shop", "web-5d9c", "app"),
        since: at(0),
        at: at(130),
        evidence: cpu(CpuNumbers {
            throttled_percent: Some(79.96),
            throttled_seconds: Some(8.0),
            stalls: Some(99),
            stall_p99_seconds: Some(0.125),
            usage_cores: Some(0.2),
            demand_cores: Some(1.0),
            limit_cores: Some(0.2),
            ..Default::default()
        }),
        neighbours: Vec::new(),
        history: vec![HistoryPoint {
            unix_ns: 1_795_244_432_062_802_732,
            cpu_usage_ns: 7,
            throttled_ns: 8,
            throttled_wall_ns: None,
        }],
    }
}

fn contended() -> Whisper {
    Whisper {
        signal: SignalKind::CpuContention,
        severity: Severity::Warning,
        transition: Transition::Started,
        // As the engine fills it in where nothing but neighbours is in the way.
        evidence: cpu(CpuNumbers {
            throttled_percent: Some(0.0),
            throttled_full_percent: Some(0.0),
            throttled_seconds: Some(0.0),
            stalls: Some(0),
            usage_cores: Some(0.38),
            demand_cores: Some(0.38),
            wait_seconds: Some(6.3),
            wait_throttle_seconds: Some(0.0),
            wait_neighbour_seconds: Some(6.2),
            wait_own_seconds: Some(0.0),
            wait_unattributed_seconds: Some(0.1),
            taken_hypervisor_seconds: Some(0.8),
            contended_seconds: None,
            lost_cores: Some(0.62),
            ..Default::default()
        }),
        neighbours: vec![
            Neighbour { who: container("default", "noisy", "burner"), percent: 55.2 },
            Neighbour { who: container("default", "small", "c"), percent: 6.8 },
        ],
        ..throttled()
    }
}

fn lines(output: Output, colour: bool, whispers: &[Whisper]) -> String {
    let mut lines = Lines { out: Vec::new(), output, node: Some("node-1".into()), colour };
    whispers.iter().for_each(|w| lines.write(&Message::Whisper(Box::new(w.clone()))).expect("written"));
    String::from_utf8(lines.out).expect("text")
}

#[test]
fn text_says_who_and_what_in_one_line() {
    assert_eq!(
        lines(Output::Text, false, &[throttled(), contended()]),
        "2026-11-21T07:02:42Z critical repeated cpu_throttle shop/web-5d9c/app: throttled 80 % of the last 10.0 s: \
         used 0.20 cores, would have used at most 1.00, limit 0.20; 99 stalls, 99 % of them within 125 ms; since \
         2026-11-21T07:00:32Z, 2m 10s\n\
         2026-11-21T07:02:42Z warning  started  cpu_contention shop/web-5d9c/app: kept off the CPU 62 % of the last \
         10.0 s by default/noisy/burner (55 %), default/small/c (7 %): used 0.38 cores, would have used at most 1.00, \
         the hypervisor took 800 ms of its time on a CPU\n"
    );
}

/// Fifty threads that queue on one CPU: "621 %" and "wanted 6.3 cores" on 0.1.0.
#[test]
fn a_crowd_is_kept_off_no_longer_than_there_is_time() {
    let mut crowd = contended();
    let numbers = crowd.evidence.cpu.get_or_insert_default();
    numbers.wait_neighbour_seconds = Some(62.1);
    (numbers.contended_seconds, numbers.lost_cores) = (Some(5.0), Some(0.5));
    numbers.taken_hypervisor_seconds = None;
    let text = lines(Output::Text, false, &[crowd.clone()]);
    assert!(
        text.contains(": kept off the CPU 50 % of the last 10.0 s, 12.4 threads at a time, by default/"),
        "{text}"
    );
    assert!(text.ends_with(": used 0.38 cores, would have used at most 0.88\n"), "{text}");
    // A kernel that cannot tell how many waited at a time.
    crowd.evidence.cpu.get_or_insert_default().contended_seconds = None;
    let text = lines(Output::Text, false, &[crowd]);
    assert!(text.contains(": kept off the CPU 100 % of the last 10.0 s by default/"), "{text}");
}

#[test]
fn text_is_honest_about_what_was_not_measured() {
    let mut files = throttled();
    files.evidence = cpu(CpuNumbers {
        periods: Some(100),
        throttled_periods: Some(99),
        throttled_seconds: Some(8.04),
        ..Default::default()
    });
    let text = lines(Output::Text, false, &[files]);
    assert!(
        text.contains(": throttled in 99 of 100 periods of the last 10.0 s; 8.0 s summed over CPUs; since")
    );
}

#[test]
fn a_name_cannot_write_on_the_screen() {
    let mut evil = throttled();
    let mut who = Workload::clone(&evil.who);
    who.namespace = None;
    who.cgroup = "/a\u{1b}[2Jb\rc".into();
    evil.who = Arc::new(who);
    assert!(lines(Output::Text, false, &[evil]).contains(r" /a\u{1b}[2Jb\rc: "));
}

#[test]
fn colour_is_only_added() {
    let mut resolved = throttled();
    resolved.transition = Transition::Resolved;
    let all = [throttled(), contended(), resolved];
    let coloured = lines(Output::Text, true, &all);
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31mcritical repeated\u{1b}[0m"), "{coloured:?}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), lines(Output::Text, false, &all));
}

#[test]
fn json_has_the_names_and_values_of_the_event() {
    let mut contended = contended();
    contended.history.clear();
    let text = lines(Output::Json, false, &[throttled(), contended]);
    let all: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("a JSON object")).collect();
    assert_eq!(
        all[0],
        serde_json::json!({
            "timestamp": "2026-11-21T07:02:42.062802732Z",
            "event.name": "kernel_gossip.whisper",
            "k8s.namespace.name": "shop",
            "k8s.pod.name": "web-5d9c",
            "k8s.pod.uid": "5e3c1b7e-0000-4000-8000-000000000001",
            "k8s.container.name": "app",
            "container.id": "ab".repeat(32),
            "k8s.node.name": "node-1",
            "kernel_gossip.whisper.signal": "cpu_throttle",
            "kernel_gossip.whisper.severity": "critical",
            "kernel_gossip.whisper.state": "active",
            "kernel_gossip.whisper.transition": "repeated",
            "kernel_gossip.whisper.since": "2026-11-21T07:00:32.062802732Z",
            "kernel_gossip.whisper.window": 10.0004,
            "kernel_gossip.cpu.throttled.percent": 79.96,
            "kernel_gossip.cpu.throttled.per_cpu_time": 8.0,
            "kernel_gossip.cpu.stall.count": 99,
            "kernel_gossip.cpu.stall.p99": 0.125,
            "kernel_gossip.cpu.usage": 0.2,
            "kernel_gossip.cpu.demand": 1.0,
            "kernel_gossip.cpu.limit": 0.2,
            "kernel_gossip.history.time": ["2026-11-21T07:00:32.062802732Z"],
            "kernel_gossip.history.cpu_usage": [7],
            "kernel_gossip.history.throttled": [8],
        })
    );
    let contended = &all[1];
    assert_eq!(contended["kernel_gossip.neighbour.pods"], serde_json::json!(["noisy", "small"]));
    assert_eq!(contended["kernel_gossip.neighbour.percents"], serde_json::json!([55.2, 6.8]));
    assert!(contended.get("kernel_gossip.history.time").is_none(), "what is unknown is absent");
}

#[test]
fn json_of_what_is_no_pod_has_its_path_and_unit() {
    let mut whisper = throttled();
    let mut who = Workload::clone(&whisper.who);
    (who.namespace, who.pod, who.pod_uid, who.container, who.container_id) = (None, None, None, None, None);
    who.unit = Some("x.service".into());
    whisper.who = Arc::new(who);
    let line: serde_json::Value =
        serde_json::from_str(&lines(Output::Json, false, &[whisper])).expect("a JSON object");
    assert_eq!(line[names::resource::CGROUP], "/kubepods/pod1/app");
    assert_eq!(line[names::resource::UNIT], "x.service");
    assert!(line.get("k8s.pod.uid").is_none());
}

/// A real pipe as stdout.
fn on_pipe() -> (Terminal, io::PipeReader) {
    let (reader, out) = io::pipe().expect("a pipe");
    let lines = Lines { out, output: Output::Text, node: None, colour: false };
    (Terminal::start_on(lines).expect("a thread"), reader)
}

#[test]
fn everything_said_is_written_before_the_end() {
    let (terminal, mut reader) = on_pipe();
    for _ in 0..20 {
        terminal.say(&throttled());
    }
    terminal.close(Duration::from_secs(60));
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    assert_eq!(text.lines().count(), 20);
}

#[test]
fn a_closed_stdout_stops_the_sink_and_is_counted() {
    let (terminal, reader) = on_pipe();
    let dropped = terminal.dropped.clone();
    drop(reader);
    for _ in 0..3 {
        terminal.say(&throttled());
    }
    terminal.close(Duration::from_secs(60));
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn a_reader_that_does_not_read_holds_up_nothing() {
    let (terminal, reader) = on_pipe();
    // More than the queue and any pipe's buffer hold.
    let said = 10_000;
    for _ in 0..said {
        terminal.say(&throttled());
    }
    assert!(terminal.dropped() > 0);
    let dropped = terminal.dropped();
    terminal.close(Duration::ZERO);
    let written = io::BufRead::lines(io::BufReader::new(reader)).count() as u64;
    assert_eq!(written + dropped, said, "what was not written was counted");
}

#[test]
fn none_writes_nothing() {
    let terminal = Terminal::start(Output::None, None).expect("no thread needed");
    terminal.say(&throttled());
    assert_eq!(terminal.dropped(), 0);
    terminal.close(Duration::from_secs(60));
}
