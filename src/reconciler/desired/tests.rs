use std::sync::Arc;

use super::pod::SIGNALS_MAX;
use super::*;
use crate::api::{CpuNumbers, RemediationState, Severity, SignalEvidence, SignalKind, Source, WhisperState};
use crate::evidence::HistoryPoint;
use crate::reconciler::report::{
    Answer, ContainerFacts, NamedNeighbour, NodeFacts, PodFacts, Report, Silence,
};

const MINUTE: u64 = 60;

/// A clock that tests wind, and a state driven by it.
struct Bench {
    d: Desired,
    start: Now,
    seconds: u64,
}

impl Bench {
    fn new(rules: Rules) -> Bench {
        let wall = "2026-11-21T06:00:00Z".parse().unwrap();
        Bench { d: Desired::new(rules), start: Now { mono: Instant::now(), wall }, seconds: 0 }
    }

    fn now(&self) -> Now {
        Now { mono: self.start.mono + Duration::from_secs(self.seconds), wall: self.wall(0) }
    }

    /// The wall clock, so many seconds off now.
    fn wall(&self, offset: i64) -> Timestamp {
        Timestamp::from_second(self.start.wall.as_second() + self.seconds as i64 + offset).unwrap()
    }

    fn report(&self) -> Report {
        Report {
            source: Source::Kernel,
            namespace: "shop".into(),
            pod: "web".into(),
            uid: Some("u1".into()),
            container: "main".into(),
            kind: SignalKind::CpuThrottle,
            severity: Severity::Critical,
            active: true,
            since: self.wall(0),
            at: self.wall(0),
            numbers: SignalEvidence {
                window_seconds: Some(10.0),
                cpu: Some(CpuNumbers {
                    throttled_percent: Some(80.0),
                    throttled_seconds: Some(8.0),
                    stalls: Some(99),
                    usage_cores: Some(0.2),
                    demand_cores: Some(1.0),
                    limit_cores: Some(0.2),
                    ..Default::default()
                }),
                ..Default::default()
            },
            neighbours: vec![],
            history: vec![],
        }
    }

    fn said(&self, report: Report) -> ResolvedReport {
        let main = ContainerFacts { name: "main".into(), cpu_limit_cores: Some(0.2), ..Default::default() };
        let pod = PodFacts {
            namespace: report.namespace.clone(),
            name: report.pod.clone(),
            uid: report.uid.clone().unwrap_or_else(|| "u1".into()),
            node: "n1".into(),
            containers: vec![main],
            ..Default::default()
        };
        ResolvedReport {
            report,
            pod: Arc::new(pod),
            metrics: Err(Silence::NotAsked),
            node: NodeFacts::default(),
        }
    }

    fn say(&mut self, report: Report) -> Verdict {
        let said = self.said(report);
        self.d.say(&said, self.now()).verdict
    }

    /// Says the standard report, `f` changed.
    fn say_with(&mut self, f: impl FnOnce(&mut Report)) -> Verdict {
        let mut r = self.report();
        f(&mut r);
        self.say(r)
    }

    fn written(&mut self) -> Option<KernelWhisper> {
        let now = self.now();
        match self.d.want(&key(), now)? {
            Want::Apply { object, .. } => Some(*object),
            Want::Delete { .. } => panic!("deleted"),
        }
    }

    /// Lets seconds pass one by one, as the engine does; all that was wanted meanwhile.
    fn pass(&mut self, seconds: u64) -> Vec<Want> {
        let mut wants = Vec::new();
        for _ in 0..seconds {
            self.seconds += 1;
            let now = self.now();
            wants.extend(self.d.sweep(now).into_iter().map(|(_, w)| w));
        }
        wants
    }
}

fn key() -> PodKey {
    PodKey { namespace: "shop".into(), pod: "web".into() }
}

fn status(kw: &KernelWhisper) -> &crate::api::KernelWhisperStatus {
    kw.status.as_ref().unwrap()
}

#[test]
fn a_whisper_becomes_an_object_that_tells_it() {
    let mut b = Bench::new(Rules::default());
    assert_eq!(b.say(b.report()), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!(kw.metadata.name.as_deref(), Some("web-kw"));
    assert_eq!(kw.metadata.namespace.as_deref(), Some("shop"));
    let owner = &kw.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Pod", "web", "u1"));
    assert_eq!((kw.spec.pod_uid.as_str(), kw.spec.node_name.as_str()), ("u1", "n1"));
    let s = status(&kw);
    assert_eq!(
        (s.state, s.severity, s.signal),
        (WhisperState::Active, Severity::Critical, SignalKind::CpuThrottle)
    );
    assert_eq!(
        s.insight,
        "Container main was refused the CPU by its own limit for 80 % of 10 s; it used 0.20 cores and \
         would have used at most 1.00."
    );
    assert_eq!(
        s.kernel_evidence,
        "main: throttled 80 % of 10 s, 99 stalls; used 0.20 cores, limit 0.20, would have used at most 1.00"
    );
    let truth = s.kernel_truth.as_ref().unwrap();
    assert_eq!((truth.summary.as_str(), truth.throttled_percent), ("throttled 80 %", Some(80.0)));
    assert_eq!((truth.cpu_usage_cores, truth.actual_cpu_cores), (Some(0.2), Some(0.2)));
    assert!(s.recommendation.as_ref().unwrap().contains("kubectl"), "{:?}", s.recommendation);
    assert!(s.metrics_say.is_none());
    let condition = |t: &str| s.conditions.iter().find(|c| c.type_ == t).unwrap();
    assert_eq!(
        (condition("Whispering").status.as_str(), condition("Whispering").reason.as_str()),
        ("True", "CpuThrottle")
    );
    assert_eq!(
        (condition("MetricsSaid").status.as_str(), condition("MetricsSaid").reason.as_str()),
        ("False", "NotAsked")
    );
    assert_eq!((s.signals.len(), s.signals[0].count), (1, 1));
    assert!(b.written().is_none(), "said once, written once");
}

/// Says the same every 10 s, but for what `f` does with the round's number; how often it was written.
fn writes_in(b: &mut Bench, minutes: u64, f: impl Fn(&mut Report, u64)) -> usize {
    let since = b.start.wall;
    let mut writes = 0;
    for round in 0..minutes * 6 {
        let swept = b.pass(10).len();
        assert!(swept == 0 || b.seconds.is_multiple_of(MINUTE));
        let verdict = b.say_with(|r| {
            r.since = since;
            f(r, round);
        });
        assert_eq!(verdict, Verdict::Refreshed);
        writes += swept + usize::from(b.written().is_some());
    }
    writes
}

#[test]
fn numbers_that_move_are_written_once_a_minute_others_rarely_and_news_at_once() {
    let mut b = Bench::new(Rules::default());
    let since = b.wall(0);
    b.say(b.report());
    b.written().unwrap();
    assert_eq!(writes_in(&mut b, 10, |_, _| {}), 2, "much the same: once in five minutes");
    let wobbles = |r: &mut Report, round| {
        r.numbers.cpu.as_mut().unwrap().throttled_percent = Some(79.0 + (round % 3) as f64)
    };
    assert_eq!(writes_in(&mut b, 10, wobbles), 2, "the same still");
    let swings = |r: &mut Report, round: u64| {
        r.numbers.cpu.as_mut().unwrap().throttled_percent =
            Some(if (round / 6).is_multiple_of(2) { 80.0 } else { 40.0 });
    };
    assert_eq!(writes_in(&mut b, 10, swings), 9, "moved nine times: once a minute");
    b.seconds += 1;
    assert_eq!(b.say_with(|r| (r.since, r.severity) = (since, Severity::Warning)), Verdict::Changed);
    assert_eq!(status(&b.written().unwrap()).severity, Severity::Warning);
    b.seconds += 1;
    assert_eq!(b.say_with(|r| (r.since, r.active) = (since, false)), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!(status(&kw).state, WhisperState::Resolved);
    assert!(status(&kw).insight.ends_with("It is over."));
    assert!(status(&kw).signals[0].resolved_at.is_some());
}

#[test]
fn delivered_twice_or_out_of_order_is_counted_once() {
    let mut b = Bench::new(Rules::default());
    let started = b.report();
    b.say(started.clone());
    b.written();
    assert_eq!(b.say(started.clone()), Verdict::Duplicate);
    b.seconds = 60;
    let repeated = Report { at: b.wall(0), ..started.clone() };
    assert_eq!(b.say(repeated.clone()), Verdict::Refreshed);
    assert_eq!(b.say(started.clone()), Verdict::Duplicate, "late");
    b.seconds = 70;
    let resolved = Report { at: b.wall(0), active: false, ..started.clone() };
    assert_eq!(b.say(resolved.clone()), Verdict::Changed);
    assert_eq!(b.say(resolved.clone()), Verdict::Duplicate);
    assert_eq!(b.say(repeated), Verdict::Duplicate, "after it was resolved");
    assert_eq!(status(&b.written().unwrap()).state, WhisperState::Resolved);
    b.seconds = 100;
    let again = Report { since: b.wall(0), at: b.wall(0), ..started.clone() };
    assert_eq!(b.say(again), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!((status(&kw).signals[0].count, status(&kw).state), (2, WhisperState::Active));
    assert_eq!(b.say(resolved), Verdict::Duplicate, "of the first");
    assert_eq!(
        b.say(Report { at: b.wall(5), ..started }),
        Verdict::Duplicate,
        "of the first, though said later"
    );
}

/// With a whisper over after three minutes of silence.
fn three_minutes() -> Rules {
    Rules { stale_after: Duration::from_secs(180), ..Rules::default() }
}

#[test]
fn what_is_not_said_any_more_is_over_then_forgotten() {
    let mut b = Bench::new(three_minutes());
    let since = b.wall(0);
    b.say(b.report());
    b.written();
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    assert!(b.pass(180).is_empty());
    let wants = b.pass(1);
    let [Want::Apply { object, stored: Some(_) }] = wants.as_slice() else { panic!("{wants:?}") };
    assert_eq!(status(object).state, WhisperState::Resolved);
    // Said again, with the same beginning: it goes on, and is not another one.
    assert_eq!(b.say_with(|r| r.since = since), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!((status(&kw).state, status(&kw).signals[0].count), (WhisperState::Active, 1));
    b.pass(181);
    let wants = b.pass(3600);
    assert_eq!(wants, [Want::Delete { name: "web-kw".into(), uid: "k1".into() }]);
    assert!(b.d.is_empty());
}

#[test]
fn while_nobody_can_say_anything_nobody_is_silent() {
    let mut b = Bench::new(three_minutes());
    b.say(b.report());
    b.written();
    b.pass(170);
    b.seconds += 600;
    b.d.slept(Duration::from_secs(600));
    b.pass(10);
    assert_eq!(b.d.active(), 1);
    b.pass(1);
    assert_eq!(b.d.active(), 0, "the rest of its time, no more");
}

#[test]
fn forgotten_sooner_than_silence_would_end_it() {
    let mut b = Bench::new(Rules { keep_resolved: Duration::from_secs(2), ..Rules::default() });
    let since = b.wall(0);
    b.say(b.report());
    b.written();
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    b.seconds = 1;
    b.say_with(|r| (r.since, r.active) = (since, false));
    b.written();
    assert!(matches!(b.pass(2).as_slice(), [Want::Delete { .. }]));
}

#[test]
fn an_object_not_stored_yet_is_not_forgotten() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.written();
    b.pass(2 * 3600);
    assert_eq!(b.d.len(), 1, "the writer still tries");
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    assert!(matches!(b.pass(1).as_slice(), [Want::Delete { .. }]));
}

#[test]
fn another_pod_of_the_same_name_starts_over() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.written();
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    b.seconds = 30;
    b.say_with(|r| r.uid = Some("u2".into()));
    let now = b.now();
    let Some(Want::Apply { object, stored }) = b.d.want(&key(), now) else { panic!() };
    assert_eq!((object.spec.pod_uid.as_str(), stored), ("u2", None));
    assert_eq!(status(&object).signals[0].count, 1);
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, now);
    b.d.deleted(&key(), "k1");
    assert_eq!(b.d.len(), 1, "the old object's end is not the new one's");
    b.d.stored(&key(), "u2", Stored { uid: "k2".into(), generation: 1 }, now);
    b.d.deleted(&key(), "k2");
    assert!(b.d.is_empty());
}

#[test]
fn others_never_override_the_kernel() {
    let mut b = Bench::new(Rules::default());
    let reported = |b: &Bench| Report { source: Source::Reported, uid: None, since: b.wall(0), ..b.report() };
    assert_eq!(b.say(reported(&b)), Verdict::Changed);
    let kw = b.written().unwrap();
    assert_eq!(status(&kw).signals[0].source, Source::Reported);
    assert_eq!(status(&kw).kernel_truth.as_ref().unwrap().summary, "throttled 80 % (reported)");
    assert!(status(&kw).recommendation.as_ref().unwrap().starts_with("No advice"));
    b.seconds = 60;
    assert_eq!(b.say(reported(&b)), Verdict::Refreshed, "its beginning is the first report's");
    let said = b.said(b.report());
    b.seconds = 61;
    assert!(b.d.say(&said, b.now()).candidate.is_some(), "the kernel's word may drive a remediation");
    let kw = b.written().unwrap();
    assert_eq!((status(&kw).signals[0].source, status(&kw).signals[0].count), (Source::Kernel, 1));
    b.seconds = 120;
    assert_eq!(b.say(reported(&b)), Verdict::Superseded);
    assert_eq!(b.say(Report { active: false, ..reported(&b) }), Verdict::Superseded);
    // Of another kind others may speak; it is no case for a remediation.
    let memory = Report { kind: SignalKind::MemoryPressure, ..reported(&b) };
    let taken = b.d.say(&b.said(memory), b.now());
    assert!(taken.verdict == Verdict::Changed && taken.candidate.is_none());
    assert_eq!(status(&b.written().unwrap()).signal, SignalKind::CpuThrottle);
}

#[test]
fn the_headline_is_the_worst() {
    let mut b = Bench::new(Rules::default());
    let contended = |r: &mut Report| (r.kind, r.severity) = (SignalKind::CpuContention, Severity::Critical);
    b.say_with(|r| r.severity = Severity::Warning);
    b.say_with(contended);
    let kw = b.written().unwrap();
    assert_eq!(status(&kw).signal, SignalKind::CpuContention, "critical before warning");
    assert_eq!(status(&kw).signals.len(), 2);
    b.seconds = 1;
    b.say_with(|r| {
        contended(r);
        r.active = false;
        r.since = b_since();
    });
    let s = b.written().unwrap();
    assert_eq!(
        (status(&s).signal, status(&s).state),
        (SignalKind::CpuThrottle, WhisperState::Active),
        "active before resolved"
    );

    fn b_since() -> Timestamp {
        "2026-11-21T06:00:00Z".parse().unwrap()
    }
}

/// A step of 200m -> 400m that the kernel is to judge.
fn verifying(b: &Bench) -> Remediation {
    let cores = |n| Some(crate::api::ResourceStep { cpu_limit_cores: Some(n), ..Default::default() });
    Remediation {
        state: RemediationState::Verifying,
        reason: "Actuated".into(),
        message: String::new(),
        container: Some("main".into()),
        from: cores(0.2),
        to: cores(0.4),
        before_throttled_percent: Some(80.0),
        after_throttled_percent: None,
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(b.wall(0)),
        cooldown_until: None,
        steps: 1,
    }
}

/// What is written now, as it comes back from the API: times in whole seconds.
fn stored(b: &mut Bench) -> KernelWhisper {
    let mut kw = b.written().unwrap();
    kw.metadata.uid = Some("k1".into());
    kw.metadata.generation = Some(1);
    serde_json::from_value(serde_json::to_value(&kw).unwrap()).unwrap()
}

#[test]
fn a_step_under_way_when_remediation_is_turned_off_is_said_to_be_left() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.d.remediated(&key(), "u1", verifying(&b));
    let kw = stored(&mut b);
    let mut after = Bench::new(Rules { remediation_off: true, ..Rules::default() });
    let now = after.now();
    after.d.restore(&kw, now);
    let wants = after.pass(1);
    let [Want::Apply { object, .. }] = wants.as_slice() else { panic!("{wants:?}") };
    let r = status(object).remediation.as_ref().unwrap();
    assert_eq!((r.state, r.reason.as_str(), r.steps), (RemediationState::Off, "RemediationOff", 1));
    assert!(r.message.contains("200m -> 400m of main"), "{}", r.message);
}

#[test]
fn a_restart_loses_nothing() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.d.remediated(&key(), "u1", verifying(&b));
    let kw = stored(&mut b);

    let mut after = Bench::new(three_minutes());
    after.seconds = 100;
    let now = after.now();
    after.d.restore(&kw, now);
    assert_eq!((after.d.len(), after.d.active()), (1, 1));
    assert!(after.pass(180).is_empty(), "has the full time to be said again, and nothing is written");
    let mut r = after.report();
    r.since = b.wall(0);
    assert_eq!(after.say(r), Verdict::Refreshed, "the same whisper");
    let now = after.now();
    let Some(Want::Apply { object, stored: Some(stored) }) = after.d.want(&key(), now) else { panic!() };
    assert_eq!(stored, Stored { uid: "k1".into(), generation: 1 });
    let s = status(&object);
    assert_eq!(s.signals[0].count, 1);
    assert_eq!(s.signals[0].since.0, b.wall(0));
    assert_eq!(s.remediation, status(&kw).remediation);
    assert_eq!(s.conditions, status(&kw).conditions, "and their times stand");
}

#[test]
fn an_object_without_a_status_gets_its_time_then_goes() {
    let mut b = Bench::new(three_minutes());
    let mut kw = {
        b.say(b.report());
        b.written().unwrap()
    };
    kw.status = None;
    kw.metadata.uid = Some("k1".into());
    let mut after = Bench::new(three_minutes());
    after.d.restore(&kw, after.now());
    assert!(after.pass(180).is_empty());
    assert_eq!(after.pass(1), [Want::Delete { name: "web-kw".into(), uid: "k1".into() }]);
}

#[test]
fn objects_deleted_while_nobody_watched() {
    let mut b = Bench::new(Rules::default());
    b.say(b.report());
    b.d.stored(&key(), "u1", Stored { uid: "k1".into(), generation: 1 }, b.now());
    let listed = b.now().mono;
    b.d.present(&HashSet::new(), listed);
    assert_eq!(b.d.len(), 1, "stored after the list began");
    b.d.present(&HashSet::from(["k1".to_owned()]), listed + Duration::from_secs(1));
    assert_eq!(b.d.len(), 1);
    b.d.present(&HashSet::new(), listed + Duration::from_secs(1));
    assert!(b.d.is_empty());
}

#[test]
fn an_object_written_after_its_deletion_is_deleted_again() {
    let known = |b: &mut Bench| {
        b.say(b.report());
        b.written();
        let first = Stored { uid: "k1".into(), generation: 1 };
        assert_eq!(b.d.stored(&key(), "u1", first, b.now()), None);
        // A write on its way.
        b.seconds = 2;
        let since = b.start.wall;
        b.say_with(|r| {
            r.severity = Severity::Warning;
            r.since = since;
        });
        b.written();
    };
    let again = || Stored { uid: "k2".into(), generation: 1 };
    let deletion = Some(Want::Delete { name: "web-kw".into(), uid: "k2".into() });
    let mut b = Bench::new(Rules::default());
    known(&mut b);
    b.d.deleted(&key(), "k1");
    assert_eq!(b.d.stored(&key(), "u1", again(), b.now()), deletion, "deleted");
    let mut b = Bench::new(Rules::default());
    known(&mut b);
    b.d.given_up(&key(), "u1");
    assert_eq!(b.d.stored(&key(), "u1", again(), b.now()), deletion, "given up");
    // Said again meanwhile it is its object.
    let mut b = Bench::new(Rules::default());
    known(&mut b);
    b.d.deleted(&key(), "k1");
    b.say(b.report());
    assert_eq!(b.d.stored(&key(), "u1", again(), b.now()), None);
}

#[test]
fn bounded() {
    let mut b = Bench::new(Rules { pods_max: 2, ..Rules::default() });
    for (pod, verdict) in [("a", Verdict::Changed), ("b", Verdict::Changed), ("c", Verdict::Full)] {
        assert_eq!(b.say_with(|r| r.pod = pod.into()), verdict);
    }
    assert_eq!(b.say_with(|r| (r.pod, r.container) = ("a".into(), "second".into())), Verdict::Changed);
    for i in 0..300 {
        b.say_with(|r| (r.pod, r.container) = ("a".into(), format!("c{i}")));
    }
    assert_eq!(b.d.pods.values().map(|p| p.signals.len()).max(), Some(SIGNALS_MAX));
}

#[test]
fn neighbours_of_other_namespaces_are_withheld() {
    let neighbour = |name: &str, namespace: &str, percent| NamedNeighbour {
        name: name.into(),
        namespace: namespace.into(),
        pod: if namespace.is_empty() { String::new() } else { "p".into() },
        percent,
    };
    for (withhold, names) in [
        (
            false,
            vec!["shop/p/c 40", "bank/p/c 30", "kubelet.service 20", "bank/q/c 10", "/kubepods/pod1/x 5"],
        ),
        (true, vec!["another namespace 45", "shop/p/c 40", "kubelet.service 20"]),
    ] {
        let mut b = Bench::new(Rules { withhold_neighbours: withhold, ..Rules::default() });
        b.say_with(|r| {
            r.neighbours = vec![
                neighbour("shop/p/c", "shop", 40.0),
                neighbour("bank/p/c", "bank", 30.0),
                neighbour("kubelet.service", "", 20.0),
                neighbour("bank/q/c", "bank", 10.0),
                neighbour("/kubepods/pod1/x", "", 5.0),
            ];
        });
        let kw = b.written().unwrap();
        let shares = &status(&kw).signals[0].evidence.neighbours;
        let shown: Vec<_> = shares.iter().map(|n| format!("{} {}", n.name, n.percent)).collect();
        assert_eq!(shown, names);
        let all = serde_json::to_string(&kw).unwrap();
        assert_eq!(all.contains("bank"), !withhold, "{all}");
    }
}

#[test]
fn restored_advice_is_given_for_its_own_signal_alone() {
    let mut b = Bench::new(Rules::default());
    b.say_with(|r| {
        r.kind = SignalKind::MemoryPressure;
        r.severity = Severity::Warning;
        r.numbers.cpu = None;
    });
    b.say(b.report());
    let kw = stored(&mut b);
    let advice = status(&kw).recommendation.clone().unwrap();
    assert!(advice.contains("CPU limit"), "{advice}");

    let mut after = Bench::new(Rules::default());
    after.d.restore(&kw, after.now());
    after.seconds = 5;
    after.say_with(|r| {
        r.since = kw.status.as_ref().unwrap().signals[0].since.0;
        r.active = false;
    });
    // The other signal is the worst now; nobody has said what to do about it.
    let kw = after.written().unwrap();
    assert_eq!(status(&kw).signal, SignalKind::MemoryPressure);
    assert_eq!(status(&kw).recommendation, None);
}

#[test]
fn names_withheld_from_now_on_leave_the_objects_that_are_there() {
    let mut b = Bench::new(Rules::default());
    let neighbour = |name: &str, namespace: &str, percent| NamedNeighbour {
        name: name.into(),
        namespace: namespace.into(),
        pod: String::new(),
        percent,
    };
    let neighbours = vec![
        neighbour("bank/p/c", "bank", 40.0),
        neighbour("shop/p/c", "shop", 30.0),
        neighbour("kubelet.service", "", 20.0),
        neighbour("/system.slice/x", "", 10.0),
        neighbour("/kubepods/pod1/x", "", 5.0),
    ];
    b.say_with(|r| {
        r.kind = SignalKind::CpuContention;
        r.neighbours = neighbours;
        let cpu = r.numbers.cpu.as_mut().unwrap();
        (cpu.wait_neighbour_seconds, cpu.request_cores) = (Some(7.0), Some(1.5));
    });
    let kw = stored(&mut b);
    assert!(serde_json::to_string(&kw).unwrap().contains("bank/p"));
    let mut after = Bench::new(Rules { withhold_neighbours: true, ..Rules::default() });
    let now = after.now();
    after.d.restore(&kw, now);
    let wants = after.pass(1);
    let [Want::Apply { object, .. }] = wants.as_slice() else { panic!("{wants:?}") };
    let shares = &status(object).signals[0].evidence.neighbours;
    let shown: Vec<_> = shares.iter().map(|n| (n.name.as_str(), n.percent, n.withheld)).collect();
    assert_eq!(
        shown,
        [
            ("another namespace", 45.0, true),
            ("shop/p/c", 30.0, false),
            ("kubelet.service", 20.0, false),
            ("/system.slice/x", 10.0, false),
        ]
    );
    let all = serde_json::to_string(object).unwrap();
    assert!(!all.contains("bank") && !all.contains("pod1"), "{all}");
    // Nothing left to take out: nothing is written.
    let mut redacted = (**object).clone();
    redacted.metadata.uid = Some("k1".into());
    let mut again = Bench::new(Rules { withhold_neighbours: true, ..Rules::default() });
    let now = again.now();
    again.d.restore(&redacted, now);
    assert!(again.pass(1).is_empty());
}

#[test]
fn metrics_stand_beside_the_kernel() {
    let mut b = Bench::new(Rules::default());
    b.seconds = 100;
    let metrics = |b: &Bench, offset: i64| -> Answer {
        Ok(Arc::new(
            serde_json::from_value(serde_json::json!({
                "timestamp": b.wall(offset).to_string(), "window": "10s",
                "containers": [{"name": "main", "usage": {"cpu": "40m", "memory": "1Mi"}}],
            }))
            .unwrap(),
        ))
    };
    // The kernel's history ends now; it used 0.2 cores all along.
    let history = |b: &Bench| -> Vec<HistoryPoint> {
        (0..60)
            .map(|i| HistoryPoint {
                unix_ns: (b.wall(i - 59).as_nanosecond()) as u64,
                cpu_usage_ns: i as u64 * 200_000_000,
                throttled_ns: i as u64 * 800_000_000,
                throttled_wall_ns: None,
            })
            .collect()
    };
    let said = |b: &Bench, answer| {
        let mut said = b.said(Report { history: history(b), since: b.start.wall, ..b.report() });
        said.metrics = answer;
        said
    };
    let s = said(&b, metrics(&b, -3));
    b.d.say(&s, b.now());
    let kw = b.written().unwrap();
    let say = status(&kw).metrics_say.as_ref().unwrap();
    assert_eq!(
        (say.cpu_cores, say.cpu_percent, say.summary.as_str()),
        (0.04, Some(20.0), "0.04 cores, 20 % of limit")
    );
    assert_eq!(
        (say.containers[0].kernel_cpu_cores, say.containers[0].kernel_throttled_cores),
        (Some(0.2), Some(0.8))
    );
    assert!(status(&kw).insight.contains("The Metrics API says 0.04 cores, 20 % of limit over 10 s."));
    assert_eq!(status(&kw).conditions[0].status, "True");

    // A newer answer that ends after the history: the one before, which the history covers, stays.
    b.seconds = 160;
    let s = said(&b, metrics(&b, 2));
    b.d.say(&s, b.now());
    let kw = b.written().unwrap();
    let say = status(&kw).metrics_say.as_ref().unwrap();
    assert_eq!(
        (say.timestamp.0, say.containers[0].kernel_cpu_cores),
        (b.wall(2), None),
        "the one before is too old by now"
    );
    b.seconds = 170;
    let s = said(&b, metrics(&b, 4));
    b.d.say(&s, b.now());
    let covered = b.d.pods[&key()].metrics.clone().unwrap();
    assert_eq!((covered.timestamp.0, covered.containers[0].kernel_cpu_cores), (b.wall(-8), Some(0.2)));

    // Silence: what was said stays true for a while, then it is absent and the reason is said.
    b.seconds = 180;
    let s = said(&b, Err(Silence::NoMetricsApi));
    b.d.say(&s, b.now());
    assert!(b.d.pods[&key()].metrics.is_some());
    b.seconds = 400;
    let s = said(&b, Err(Silence::NoMetricsApi));
    b.d.say(&s, b.now());
    let kw = b.written().unwrap();
    assert!(status(&kw).metrics_say.is_none());
    assert_eq!(
        (status(&kw).conditions[0].status.as_str(), status(&kw).conditions[0].reason.as_str()),
        ("False", "NoMetricsApi")
    );
}
