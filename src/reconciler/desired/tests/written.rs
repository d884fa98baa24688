//! What is written, of whom, and how often.

use super::*;

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
