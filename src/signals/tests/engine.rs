//! What is whispered of which numbers.

use proptest::prelude::*;

use super::*;
use crate::signals::Severity;

/// Reads one workload every second until `end`; what it whispers, with the second.
pub(super) fn watch(engine: &mut Engine, end: u64, cpu: impl Fn(u64) -> CpuCounters) -> Vec<(u64, Whisper)> {
    let who = container("/a");
    let mut all = Vec::new();
    for second in 0..end {
        let samples = vec![sample(&who, Some(cpu(second * SECOND)), CgroupStat::default())];
        let whispers = step(engine, &reading(second * SECOND, samples, vec![]));
        all.extend(whispers.into_iter().map(|w| (second, w)));
    }
    all
}

proptest! {
    /// From the first stall that belongs to a crossing to the whisper: one window and one interval.
    #[test]
    fn a_crossing_is_told_within_a_window_and_an_interval(percent in 25.5..100.0f64, phase in 0..1000u64) {
        let begin = 20 * SECOND + phase * 1_000_000;
        let all = watch(&mut engine(), 60, |ns| stopped(percent, ns.saturating_sub(begin)));
        let (second, first) = all.first().expect("whispers");
        prop_assert_eq!(first.transition, Transition::Started);
        prop_assert!(second * SECOND <= begin + 11 * SECOND, "told at {second} s");
        // And the sooner the worse it is: as soon as the share of a whole window is lost.
        let lost_by = begin + (2.5 / (percent / 100.0) * SECOND as f64) as u64;
        prop_assert!(second * SECOND <= lost_by + SECOND, "told at {second} s, lost by {lost_by} ns");
        let wall = first.evidence.cpu().throttled_percent.expect("measured");
        prop_assert!(wall >= 25.0 && wall <= percent + 1e-6, "{wall}");
    }

    #[test]
    fn less_than_the_threshold_is_never_told(percent in 0.0..24.9f64, phase in 0..1000u64) {
        let begin = 5 * SECOND + phase * 1_000_000;
        let all = watch(&mut engine(), 60, |ns| stopped(percent, ns.saturating_sub(begin)));
        prop_assert!(all.is_empty());
    }

    /// Whatever the counters and the times do: starts and resolutions alternate for each signal, and
    /// what is active is what was started and not resolved.
    #[test]
    fn starts_and_resolutions_alternate(
        steps in prop::collection::vec(
            (100..90_000u64, 0..4usize, 0..2_000_000_000u64, 0..2_000_000_000u64, 0..12u8), 1..150),
    ) {
        let who: Vec<_> = (0..4).map(|i| container(&format!("/{i}"))).collect();
        let mut engine = engine();
        let mut cpu = [CpuCounters::default(); 4];
        let mut active = std::collections::HashSet::new();
        let mut ns = 0;
        for (ms, i, stalled, waited, what) in steps {
            ns += if what == 11 { ms } else { ms % 1500 } * 1_000_000;
            cpu[i].throttled_wall += stalled;
            cpu[i].throttled_per_cpu += stalled;
            cpu[i].stalls += 5;
            cpu[i].neighbour += waited;
            if what == 0 {
                cpu[i] = CpuCounters::default();
            }
            let samples = (0..4)
                .filter(|j| what != 1 || *j != i)
                .map(|j| Sample {
                    last: what == 2 && i == j,
                    ..sample(&who[j], (what != 3 || i != j).then_some(cpu[j]), CgroupStat::default())
                })
                .collect();
            for w in step(&mut engine, &reading(ns, samples, vec![])) {
                let key = (w.who.cgroup.clone(), w.signal);
                match w.transition {
                    Transition::Started => prop_assert!(active.insert(key), "started twice"),
                    Transition::Resolved => prop_assert!(active.remove(&key), "resolved without a start"),
                    _ => prop_assert!(active.contains(&key)),
                }
                prop_assert!(w.window_seconds() > 0.0);
                let percent = w.evidence.cpu().throttled_percent;
                prop_assert!(percent.is_none_or(|p| (0.0..=100.0).contains(&p)), "{percent:?}");
                prop_assert!(w.history.len() <= 120);
                let (first, last) = (w.history.first(), w.history.last());
                let reach = last.zip(first).map_or(0, |(l, f)| l.unix_ns - f.unix_ns);
                prop_assert!(reach <= 120 * SECOND);
                prop_assert!(w.history.windows(2).all(|p| p[0].throttled_ns <= p[1].throttled_ns));
            }
            let now: std::collections::HashSet<_> =
                engine.active().map(|w| (w.who.cgroup.clone(), w.signal)).collect();
            prop_assert_eq!(&now, &active);
        }
    }
}

#[test]
fn the_evidence_says_all_that_is_known() {
    let mut who = Workload::clone(&container("/a"));
    who.cpu_request = Some(0.1);
    let who = Arc::new(who);
    let mut engine = engine();
    let mut all = Vec::new();
    for second in 0..30u64 {
        let ns = second * SECOND;
        let stat = CgroupStat {
            cpu_usage: Some(7 * SECOND + ns / 5),
            periods: Some(second * 10),
            throttled_periods: Some(second * 9),
            quota: Some(20_000_000),
            ..Default::default()
        };
        let mut s = sample(&who, Some(stopped(80.0, ns)), stat);
        s.quota_cores = Some(0.2);
        all.extend(step(&mut engine, &reading(ns, vec![s], vec![])));
    }
    assert_eq!(said(&all), [Transition::Started, Transition::Changed].map(|t| (SignalKind::CpuThrottle, t)));
    let w = engine.active().next().expect("still active");
    let e = w.evidence.cpu();
    assert_eq!((w.window_seconds(), w.severity, w.at), (10.0, Severity::Critical, at(29 * SECOND)));
    assert_eq!((e.throttled_percent, e.throttled_full_percent), (Some(80.0), Some(80.0)));
    assert_eq!((e.throttled_seconds, e.stalls), (Some(8.0), Some(100)));
    assert_eq!(e.stall_p99_seconds, Some(0.125));
    assert_eq!((e.periods, e.throttled_periods), (Some(100), Some(90)));
    assert_eq!((e.usage_cores, e.demand_cores), (Some(0.2), Some(1.0)));
    assert_eq!((e.limit_cores, e.request_cores), (Some(0.2), Some(0.1)));
    assert_eq!((e.wait_seconds, e.wait_throttle_seconds), (Some(8.0), Some(8.0)));
    assert_eq!((e.wait_neighbour_seconds, e.wait_own_seconds), (Some(0.0), Some(0.0)));
    assert_eq!(w.history.len(), 30, "one point a second since it began");
    assert_eq!(w.history[29].throttled_wall_ns, Some(stopped(80.0, 29 * SECOND).throttled_wall));
}

#[test]
fn contention_names_the_neighbour() {
    let (victim, noisy, small) = (container("/victim"), container("/noisy"), container("/small"));
    let mut engine = engine();
    let mut all = Vec::new();
    for second in 0..20u64 {
        let ns = second * SECOND;
        let cpu = CpuCounters {
            run: ns * 38 / 100,
            wait: ns * 62 / 100,
            neighbour: ns * 62 / 100,
            ..Default::default()
        };
        let blame = |culprit: &Arc<Workload>, percent: u64| NamedBlame {
            victim: victim.clone(),
            culprit: culprit.clone(),
            ns: ns * percent / 100,
        };
        let samples = vec![sample(&victim, Some(cpu), CgroupStat::default())];
        all.extend(step(&mut engine, &reading(ns, samples, vec![blame(&small, 7), blame(&noisy, 55)])));
    }
    let contention = SignalKind::CpuContention;
    assert_eq!(said(&all), [(contention, Transition::Started), (contention, Transition::Changed)]);
    assert_eq!(all[0].at, at(5 * SECOND), "a quarter of ten seconds, lost after 4.03");
    let names: Vec<_> =
        all[1].neighbours.iter().map(|n| (n.who.cgroup.as_str(), n.percent.round())).collect();
    assert_eq!(names, [("/noisy", 55.0), ("/small", 7.0)]);
}

#[test]
fn a_small_share_of_what_it_wanted_is_no_contention() {
    // Forty cores' worth of threads that waited a third of one core's time.
    let cpu = |ns: u64| CpuCounters { run: 40 * ns, neighbour: ns / 3, wait: ns / 3, ..Default::default() };
    assert!(watch(&mut engine(), 30, cpu).is_empty());
}

/// What a workload whispers that keeps to these rates for 30 s: ns a second, a limit in cores, so many CPUs.
fn keeps_to(rates: CpuCounters, limit: Option<f64>, cpus: u32) -> Option<Whisper> {
    let (victim, noisy) = (container("/victim"), container("/noisy"));
    let mut engine = engine();
    for second in 0..30u64 {
        let times = |ns: u64| ns * second;
        let cpu = CpuCounters {
            run: times(rates.run),
            wait: times(rates.wait),
            neighbour: times(rates.neighbour),
            waited: times(rates.waited),
            throttled_per_cpu: times(rates.throttled_per_cpu),
            ..Default::default()
        };
        let sample = Sample { quota_cores: limit, ..sample(&victim, Some(cpu), CgroupStat::default()) };
        let blame = NamedBlame { victim: victim.clone(), culprit: noisy.clone(), ns: cpu.neighbour };
        let reading = Attributed { cpus, ..reading(second * SECOND, vec![sample], vec![blame]) };
        step(&mut engine, &reading);
    }
    engine.active().find(|w| w.signal == SignalKind::CpuContention).cloned()
}

/// Figures of 0.1.0: fifty threads under 10/100 ms beside an equal neighbour used all of their 0.10 cores, and were
/// "kept off the CPU 621 %", "wanted 6.3 cores" on a machine of two CPUs.
#[test]
fn a_crowd_lost_no_more_than_it_could_have_used() {
    let ms = SECOND / 1000;
    let crowd = |run: u64, waited: u64| CpuCounters {
        run,
        wait: 6210 * ms,
        neighbour: 6210 * ms,
        waited,
        ..Default::default()
    };
    for waited in [0, 900 * ms] {
        assert!(keeps_to(crowd(100 * ms, waited), Some(0.1), 2).is_none(), "it gets all of its limit");
        assert!(keeps_to(crowd(96 * ms, waited), Some(0.1), 2).is_none(), "all but 4 %");
        assert!(keeps_to(crowd(1950 * ms, waited), None, 2).is_none(), "all of the machine");
    }
    // Without a limit its neighbour takes half of both CPUs.
    let w = keeps_to(crowd(1000 * ms, 2000 * ms), None, 2).expect("a whisper");
    assert_eq!(w.severity, Severity::Critical);
    let e = w.evidence.cpu();
    assert_eq!((e.contended_seconds, e.wait_neighbour_seconds), (Some(20.0), Some(62.1)));
    assert_eq!((e.usage_cores, e.lost_cores), (Some(1.0), Some(1.0)), "of two CPUs it used one");
    assert_eq!(w.neighbours.iter().map(|n| n.percent.round()).collect::<Vec<_>>(), [100.0]);
    // Sixteen threads queue behind a slice of 100 ms, once a second: a tenth of the time, and 160 % on 0.1.0.
    let slices = CpuCounters {
        run: 500 * ms,
        wait: 1600 * ms,
        neighbour: 1600 * ms,
        waited: 100 * ms,
        ..Default::default()
    };
    assert!(keeps_to(slices, None, 2).is_none());
    // The same where the kernel cannot tell: not more than all of the time.
    let w = keeps_to(CpuCounters { waited: 0, ..slices }, None, 2).expect("a whisper");
    let e = w.evidence.cpu();
    assert_eq!((e.contended_seconds, e.lost_cores), (None, Some(1.5)));
    assert_eq!(w.neighbours.iter().map(|n| n.percent.round()).collect::<Vec<_>>(), [100.0]);
}

#[test]
fn demand_is_no_more_than_threads_and_cpus() {
    let who = container("/a");
    // Stopped on three CPUs at once for 2 s a second: 2.25 cores on 0.1.0, for one thread that was moved around.
    let demand = |wait: u64, cpus: u32| {
        let mut engine = engine();
        for second in 0..20u64 {
            let ns = second * SECOND;
            let cpu = CpuCounters {
                run: ns / 4,
                wait: wait * second,
                throttled_per_cpu: 2 * ns,
                ..stopped(80.0, ns)
            };
            let reading = Attributed {
                cpus,
                ..reading(ns, vec![sample(&who, Some(cpu), CgroupStat::default())], vec![])
            };
            step(&mut engine, &reading);
        }
        engine.active().next().and_then(|w| w.evidence.cpu().demand_cores).expect("known")
    };
    assert_eq!(demand(SECOND * 3 / 4, 4), 1.0, "one thread, which ran or waited all the time");
    assert_eq!(demand(4 * SECOND, 4), 2.25, "many threads: as much as was refused");
    assert_eq!(demand(4 * SECOND, 2), 2.0, "on two CPUs");
    assert_eq!(demand(4 * SECOND, 0), 2.25, "how many CPUs is not known");
}

#[test]
fn one_long_stall_is_too_little_evidence() {
    let one = |ns: u64| {
        let stalled = if ns > 10 * SECOND { 4 * SECOND } else { 0 };
        CpuCounters {
            stalls: stalled / (4 * SECOND),
            throttled_per_cpu: stalled,
            throttled_wall: stalled,
            ..stopped(0.0, ns)
        }
    };
    assert!(watch(&mut engine(), 30, one).is_empty());
    let mut rules = Rules::default();
    rules[SignalKind::CpuThrottle].set("min_stalls", 1.0);
    assert_eq!(watch(&mut Engine::new(&rules), 30, one).len(), 1);
}

#[test]
fn too_little_time_is_too_little_evidence() {
    let mut rules = Rules::default();
    for kind in [SignalKind::CpuThrottle, SignalKind::CpuContention] {
        let rule = &mut rules[kind];
        (rule.clear, rule.warning, rule.critical) = (0.5, 1.0, 2.0);
    }
    let cpu = |ns: u64| {
        let mut cpu = stopped(4.9, ns);
        cpu.run = 0;
        cpu.neighbour = cpu.throttled_per_cpu;
        cpu
    };
    assert!(watch(&mut Engine::new(&rules), 30, cpu).is_empty(), "just below half a second in ten");
    rules[SignalKind::CpuThrottle].set("min_throttled", 0.4);
    rules[SignalKind::CpuContention].set("min_wait", 0.4);
    let all: Vec<_> = watch(&mut Engine::new(&rules), 30, cpu).into_iter().map(|(_, w)| w.signal).collect();
    assert_eq!(all, [SignalKind::CpuThrottle, SignalKind::CpuContention]);
}

#[test]
fn several_cpus_throttled_together_are_not_counted_twice_from_files_alone() {
    // Eight CPUs stopped for 15 % of the time: 120 % summed, in a fifth of the periods.
    let who = container("/a");
    let mut engine = engine();
    for second in 0..30u64 {
        let stat = CgroupStat {
            throttled: Some(second * SECOND * 12 / 10),
            periods: Some(second * 10),
            throttled_periods: Some(second * 2),
            ..Default::default()
        };
        let samples = vec![sample(&who, None, stat)];
        assert!(step(&mut engine, &reading(second * SECOND, samples, vec![])).is_empty());
    }
}

#[test]
fn usage_is_the_kernels_own_count_where_there_is_one() {
    // A task that has not left its CPU since the probe began: cpu.stat knows, the probe not yet.
    let who = container("/a");
    let mut engine = engine();
    for second in 0..20u64 {
        let ns = second * SECOND;
        let cpu = CpuCounters { run: 0, ..stopped(80.0, ns) };
        let stat = CgroupStat { cpu_usage: Some(ns / 4), periods: Some(0), ..Default::default() };
        step(&mut engine, &reading(ns, vec![sample(&who, Some(cpu), stat)], vec![]));
    }
    let e = &engine.active().next().expect("whispers").evidence.cpu();
    assert_eq!(e.usage_cores, Some(0.25));
    assert_eq!(e.periods, None, "no quota of its own, so no periods: not zero");
}
