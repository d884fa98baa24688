//! How long a whisper lasts, how many there are, and what ends them.

use std::time::Duration;

use super::engine::watch;
use super::*;
use crate::evidence::SignalEvidence;
use crate::signals::{Event, FORGET_AFTER, Severity};

#[test]
fn the_history_is_bounded_and_dropped_when_quiet() {
    let who = container("/a");
    let mut engine = engine();
    let mut longest = 0;
    // A little faster than a second; throttled for three minutes, then idle.
    for i in 0..600u64 {
        let ns = i * SECOND * 95 / 100;
        let samples = vec![sample(&who, Some(stopped(80.0, ns.min(180 * SECOND))), CgroupStat::default())];
        step(&mut engine, &reading(ns, samples, vec![]));
        longest = engine.active().map(|w| w.history.len()).max().unwrap_or(0).max(longest);
        if i == 590 {
            assert!(!engine.keeps_history("/a"), "two minutes after the last stall");
        }
    }
    assert_eq!(longest, 120);
}

#[test]
fn a_disabled_signal_is_silent() {
    let mut rules = Rules::default();
    rules[SignalKind::CpuThrottle].enabled = false;
    assert!(watch(&mut Engine::new(&rules), 30, |ns| stopped(80.0, ns)).is_empty());
}

#[test]
fn windows_of_two_lengths_stand_side_by_side() {
    let mut rules = Rules::default();
    rules[SignalKind::CpuContention].window = Duration::from_secs(60);
    let all = watch(&mut Engine::new(&rules), 100, |ns| {
        let mut cpu = stopped(30.0, ns);
        cpu.neighbour = ns * 3 / 10;
        cpu
    });
    let started: Vec<_> = all
        .iter()
        .filter(|(_, w)| w.transition == Transition::Started)
        .map(|(s, w)| (*s, w.signal))
        .collect();
    assert_eq!(started, [(9, SignalKind::CpuThrottle), (50, SignalKind::CpuContention)]);
    let last = &all.iter().rfind(|(_, w)| w.signal == SignalKind::CpuContention).expect("whispers").1;
    assert!(last.history.len() > 40, "seeded once, from one of the windows");
}

#[test]
fn the_last_sample_resolves_and_frees() {
    let who = container("/job");
    let mut engine = engine();
    let mut all = Vec::new();
    for second in 0..=4u64 {
        let mut s = sample(&who, Some(stopped(80.0, second * SECOND)), CgroupStat::default());
        s.last = second == 4;
        all.extend(step(&mut engine, &reading(second * SECOND, vec![s], vec![])));
    }
    // It crossed and ended in the same second.
    let throttle = SignalKind::CpuThrottle;
    assert_eq!(said(&all), [(throttle, Transition::Started), (throttle, Transition::Resolved)]);
    assert_eq!((engine.tracked(), engine.active().count()), (0, 0));
}

#[test]
fn what_vanishes_silently_is_resolved_after_the_stated_time() {
    let mut engine = engine();
    assert_eq!(watch(&mut engine, 5, |ns| stopped(80.0, ns)).len(), 1);
    let gone = 4 * SECOND + FORGET_AFTER.as_nanos() as u64;
    assert!(step(&mut engine, &reading(gone - 1, vec![], vec![])).is_empty());
    assert_eq!(engine.active().count(), 1);
    let all = step(&mut engine, &reading(gone, vec![], vec![]));
    assert_eq!(said(&all), [(SignalKind::CpuThrottle, Transition::Resolved)]);
    assert_eq!((all[0].at, engine.tracked()), (at(gone), 0));
}

#[test]
fn what_can_no_longer_be_judged_is_resolved_after_the_stated_time() {
    let mut engine = engine();
    let contended = |ns: u64| CpuCounters { neighbour: ns, ..Default::default() };
    assert_eq!(watch(&mut engine, 6, contended).len(), 2);
    // The CPU probe is gone: files cannot say who waits for whom.
    let who = container("/a");
    let mut all = Vec::new();
    for second in 6..100 {
        let samples = vec![sample(&who, None, CgroupStat::default())];
        let whispers = step(&mut engine, &reading(second * SECOND, samples, vec![]));
        all.extend(whispers.into_iter().map(|w| (second, w.transition)));
    }
    assert_eq!(all, [(5 + FORGET_AFTER.as_secs(), Transition::Resolved)]);
}

#[test]
fn a_pod_of_its_own_whispers_only_where_files_are_all_there_is() {
    for probe in [true, false] {
        let pod = workload(WorkloadKind::Pod, "/kubepods/pod1");
        let root = workload(WorkloadKind::Root, "/");
        let other = container("/other");
        let mut engine = engine();
        let mut all = Vec::new();
        for second in 0..20u64 {
            let stat = CgroupStat {
                throttled: Some(second * SECOND * 8 / 10),
                periods: Some(second * 10),
                throttled_periods: Some(second * 10),
                ..Default::default()
            };
            let cpu = probe.then(CpuCounters::default);
            let samples =
                vec![sample(&pod, None, stat), sample(&root, None, stat), sample(&other, cpu, stat)];
            all.extend(step(&mut engine, &reading(second * SECOND, samples, vec![])));
        }
        let who: Vec<_> = all
            .iter()
            .filter(|w| w.transition == Transition::Started)
            .map(|w| w.who.cgroup.as_str())
            .collect();
        assert_eq!(who, if probe { vec![] } else { vec!["/kubepods/pod1", "/other"] });
    }
}

#[test]
fn a_restart_in_place_is_no_whisper() {
    // A service that was throttled much, then recreated under the same path.
    let cpu = |ns: u64| if ns < 10 * SECOND { stopped(20.0, ns + 3600 * SECOND) } else { stopped(0.0, ns) };
    assert!(watch(&mut engine(), 40, cpu).is_empty());
}

#[test]
fn names_that_become_known_are_taken_over() {
    let unnamed = container("/a");
    let mut named = Workload::clone(&unnamed);
    named.pod = Some("web".into());
    let named = Arc::new(named);
    let mut engine = engine();
    let mut all = Vec::new();
    for second in 0..10u64 {
        let who = if second < 5 { &unnamed } else { &named };
        let samples = vec![sample(who, Some(stopped(80.0, second * SECOND)), CgroupStat::default())];
        all.extend(step(&mut engine, &reading(second * SECOND, samples, vec![])));
    }
    assert_eq!(said(&all).len(), 2, "one workload: started, then critical");
    assert_eq!(engine.tracked(), 1);
    assert!(engine.active().all(|w| w.who.pod.as_deref() == Some("web")));
}

#[test]
fn no_more_than_so_many_are_watched_and_the_others_counted() {
    let mut engine = Engine::new(&Rules { max_workloads: 10, ..Rules::default() });
    let all: Vec<_> = (0..15).map(|i| container(&format!("/{i}"))).collect();
    for second in 0..3 {
        let samples = all.iter().map(|w| sample(w, None, CgroupStat::default())).collect();
        step(&mut engine, &reading(second * SECOND, samples, vec![]));
    }
    assert_eq!((engine.tracked(), engine.losses().untracked_samples), (10, 15));
}

/// What happened: said at once, again while it is held, and over `hold` after the last.
#[test]
fn what_happened_is_said_held_and_resolved() {
    let mut engine = engine();
    let who = workload(WorkloadKind::Pod, "/kubepods/pod1");
    let event = |severity, second: u64| Event {
        kind: SignalKind::SlowBirth,
        severity,
        who: who.clone(),
        evidence: SignalEvidence::default(),
        at: at(second * SECOND),
    };
    let mut all = Vec::new();
    for second in 0..400u64 {
        let mut out = Vec::new();
        match second {
            10 => engine.happened(event(Severity::Warning, second), &mut out),
            100 => engine.happened(event(Severity::Critical, second), &mut out),
            _ => {}
        }
        engine.step(&reading(second * SECOND, vec![], vec![]), &mut out);
        all.extend(out.into_iter().map(|w| (second, w.transition, w.severity, w.since == at(10 * SECOND))));
    }
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    assert_eq!(
        all,
        [
            (10, Transition::Started, warning, true),
            (70, Transition::Repeated, warning, true),
            (100, Transition::Changed, critical, true),
            (160, Transition::Repeated, critical, true),
            (220, Transition::Repeated, critical, true),
            (280, Transition::Resolved, critical, true),
        ]
    );
    assert_eq!(engine.active().count(), 0);
}

#[test]
fn what_happens_to_too_many_is_bounded_and_each_is_resolved_once() {
    let mut engine = engine();
    let mut out = Vec::new();
    for i in 0..3000u64 {
        let who = workload(WorkloadKind::Pod, &format!("/kubepods/pod{i}"));
        let evidence = SignalEvidence::default();
        let event =
            Event { kind: SignalKind::SlowBirth, severity: Severity::Warning, who, evidence, at: at(i) };
        engine.happened(event, &mut out);
    }
    assert_eq!(engine.active().count(), 1024);
    engine.step(&reading(600 * SECOND, vec![], vec![]), &mut out);
    let of = |t: Transition| out.iter().filter(|w| w.transition == t).count();
    assert_eq!((of(Transition::Started), of(Transition::Resolved)), (3000, 3000));
}

#[test]
fn what_is_disabled_does_not_happen() {
    let mut rules = Rules::default();
    rules[SignalKind::SlowBirth].enabled = false;
    let (mut engine, mut out) = (Engine::new(&rules), Vec::new());
    let who = workload(WorkloadKind::Pod, "/kubepods/pod1");
    let (severity, evidence) = (Severity::Warning, SignalEvidence::default());
    engine.happened(Event { kind: SignalKind::SlowBirth, severity, who, evidence, at: at(0) }, &mut out);
    assert!(out.is_empty() && engine.active().count() == 0);
}
