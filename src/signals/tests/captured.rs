//! Series read from a real kernel (how, stands in each file), judged as where the CPU probe is absent.

use super::*;
use crate::signals::{Severity, Transition};

fn replay(capture: &str) -> Vec<(usize, Whisper)> {
    let who = container("/kg-sig");
    let mut engine = engine();
    let mut all = Vec::new();
    for (i, line) in capture.lines().filter(|l| !l.starts_with('#')).enumerate() {
        let n: Vec<u64> = line.split(' ').map(|w| w.parse().expect("a number")).collect();
        let stat = CgroupStat {
            periods: Some(n[2]),
            throttled_periods: Some(n[3]),
            throttled: Some(n[4]),
            cpu_usage: Some(n[5]),
            quota: Some(20_000_000),
            period: Some(100_000_000),
            ..Default::default()
        };
        let samples = vec![sample(&who, None, stat)];
        let reading =
            Attributed { at: Instant { mono_ns: n[0], unix_ns: n[1] }, samples, ..Default::default() };
        all.extend(step(&mut engine, &reading).into_iter().map(|w| (i, w)));
    }
    all
}

#[test]
fn a_throttled_loop_whispers_from_the_files_alone() {
    let all = replay(include_str!("../testdata/throttled-v1.txt"));
    let story: Vec<_> = all.iter().map(|(i, w)| (*i, w.transition, w.severity)).collect();
    // It runs from sample 3 to 11. A quarter of ten seconds is lost by sample 7, half by 10. The window
    // that begins with sample 10 has lost less than a tenth, for the hold time at sample 50.
    assert_eq!(
        story,
        [
            (7, Transition::Started, Severity::Warning),
            (10, Transition::Changed, Severity::Critical),
            (50, Transition::Resolved, Severity::Critical),
        ]
    );

    let critical = &all[1].1;
    let e = critical.evidence.cpu();
    assert!((critical.window_seconds() - 10.0).abs() < 0.01);
    assert_eq!((e.throttled_percent, e.stalls, e.wait_seconds), (None, None, None), "nobody measured them");
    assert_eq!((e.periods, e.throttled_periods), (Some(72), Some(69)));
    assert_eq!(e.throttled_seconds, Some(5.507449840));
    assert_eq!(e.limit_cores, Some(0.2));
    assert!((e.usage_cores.expect("known") - 0.1417).abs() < 0.0001);
    assert!((e.demand_cores.expect("known") - 0.6925).abs() < 0.0001);
    assert_eq!(critical.since, all[0].1.at);

    let history = &critical.history;
    assert!(history.len() >= 4, "from the first stall on");
    assert_eq!(history.last().map(|p| p.throttled_ns), Some(5_507_449_840));
    assert!(history.iter().all(|p| p.throttled_wall_ns.is_none()), "cpu.stat has no wall time");
    assert!(history.windows(2).all(|p| p[0].unix_ns < p[1].unix_ns));
}

#[test]
fn short_bursts_that_lose_little_time_are_no_noise() {
    // A third of the periods is throttled, of the time 7.5 %.
    assert!(replay(include_str!("../testdata/bursts-v1.txt")).is_empty());
}
