//! Objects that are there already: after a restart, and where others delete them.

use super::*;

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
