use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::signals::culprits::SLOTS;
use crate::signals::window::{Counters, Growth, Window, nanos};

const LENGTH: Duration = Duration::from_secs(10);

fn counters(rate: f64, ns: u64) -> CpuCounters {
    stopped(rate, ns)
}

/// Feeds one sample of a workload that was stopped `percent` of its `age`.
fn feed(window: &mut Window, who: &Arc<Workload>, ns: u64, cpu: CpuCounters) -> Option<Growth> {
    let sample = sample(who, Some(cpu), CgroupStat::default());
    let now = Counters::of(&sample);
    window.announce(&now);
    window.advance(LENGTH, at(ns), &now, &sample)
}

proptest! {
    /// However samples come, a steady rate is that rate, and the window's length is measured.
    #[test]
    fn a_steady_rate_is_read_right_through_any_gaps(
        gaps in prop::collection::vec(prop_oneof![20..1500u64, 900..1100u64, 1000..40_000u64], 2..120),
        percent in 0.0..100.0f64,
    ) {
        let who = container("/a");
        let mut window = Window::default();
        let (mut ns, mut times) = (0, Vec::new());
        for gap in gaps {
            ns += gap * 1_000_000;
            let growth = feed(&mut window, &who, ns, counters(percent, ns));
            prop_assert_eq!(growth.is_none(), times.is_empty(), "known from the second sample on");
            if let Some(growth) = growth {
                let s = growth.counters.scheduler.expect("from the probe");
                let begin = ns - (growth.seconds * 1e9).round() as u64;
                prop_assert!(times.iter().any(|t: &u64| t.abs_diff(begin) < 100), "begins with a sample");
                let measured = s.throttled_wall as f64 / 1e9 / growth.seconds * 100.0;
                prop_assert!((measured - percent).abs() < 1e-4, "{measured} of {percent}");
                prop_assert!(growth.basis_seconds >= growth.seconds);
                prop_assert_eq!(growth.complete, times[0] + nanos(LENGTH) <= ns || growth.complete);
                prop_assert!(!growth.complete || growth.basis_seconds == growth.seconds);
                prop_assert!(growth.complete || growth.basis_seconds >= LENGTH.as_secs_f64());
                prop_assert!(window.samples().count() <= SLOTS);
            }
            times.push(ns);
        }
    }

    /// With any interval a window allows, the measured length is near the configured one and soon whole.
    #[test]
    fn a_regular_interval_gives_a_whole_window(interval in 100..5000u64, jitter in 0..20u64) {
        let who = container("/a");
        let mut window = Window::default();
        let spacing = LENGTH.as_millis() as u64 / (SLOTS as u64 - 2);
        for i in 0..300 {
            let ms = i * interval + if i % 2 == 0 { jitter } else { 0 };
            let growth = feed(&mut window, &who, ms * 1_000_000, counters(50.0, ms * 1_000_000));
            if ms > LENGTH.as_millis() as u64 + spacing + interval + jitter {
                let growth = growth.expect("known");
                prop_assert!(growth.complete, "{ms}");
                let off = (growth.seconds - LENGTH.as_secs_f64()).abs() * 1e3;
                prop_assert!(off <= (spacing.max(interval) + 2 * jitter) as f64, "{off} ms off");
            }
        }
    }

    /// What happened before a counter shrank is never counted, nor invented.
    #[test]
    fn a_reset_starts_the_window_anew(before in 2..30u64, after in 1..30u64, percent in 1.0..100.0f64) {
        let who = container("/a");
        let mut window = Window::default();
        for i in 0..before {
            feed(&mut window, &who, i * SECOND, counters(90.0, (i + 100) * SECOND));
        }
        for i in 0..after {
            let growth = feed(&mut window, &who, (before + i) * SECOND, counters(percent, i * SECOND));
            prop_assert_eq!(growth.is_none(), i == 0);
            if let Some(growth) = growth {
                prop_assert!(growth.seconds <= i as f64 + 1e-6);
                let s = growth.counters.scheduler.expect("from the probe");
                let measured = s.throttled_wall as f64 / 1e9 / growth.seconds * 100.0;
                prop_assert!((measured - percent).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn the_probe_coming_or_going_starts_the_window_anew_but_an_unreadable_file_does_not() {
    let probe = Counters { scheduler: Some(Default::default()), usage: Some(5), ..Default::default() };
    let files = Counters { usage: Some(7), ..Default::default() };
    assert_eq!(probe.since(&files), None);
    assert_eq!(files.since(&probe), None);
    let unreadable = Counters { usage: None, ..probe };
    assert_eq!(unreadable.since(&probe).map(|g| g.usage), Some(None));
    assert_eq!(Counters { usage: Some(9), ..probe }.since(&probe).and_then(|g| g.usage), Some(4));
    assert_eq!(Counters { usage: Some(4), ..probe }.since(&probe), None);
}

/// As seen on a disk: 6.755198 s of `full`, and 6.755197 of `some`.
#[test]
fn not_all_of_it_waited_longer_than_some() {
    let io = |some, full| Counters {
        io_pressure: Some(crate::kernel::Pressure { some, full: Some(full) }),
        ..Default::default()
    };
    let grown = io(6_755_197_000, 6_755_198_000).since(&io(0, 0)).and_then(|grown| grown.io_pressure);
    assert_eq!(grown.map(|grown| (grown.some, grown.full)), Some((6_755_197_000, Some(6_755_197_000))));
}

#[test]
fn the_stalls_of_the_window_are_told_by_length() {
    let who = container("/a");
    let mut window = Window::default();
    let mut cpu = CpuCounters::default();
    let mut growth = None;
    for i in 0..30 {
        // Long stalls for ten seconds, then short ones; none in the beginning.
        cpu.stall_histogram.counts[match i {
            0..5 => 0,
            5..15 => 25,
            _ => 10,
        }] += u64::from(i >= 5) * 10;
        growth = feed(&mut window, &who, i * SECOND, cpu);
        if i == 14 {
            let stalls = window.stalls(&growth.expect("known"), &cpu.stall_histogram);
            assert_eq!((stalls.counts[25], stalls.count()), (100, 100));
        }
    }
    let stalls = window.stalls(&growth.expect("known"), &cpu.stall_histogram);
    assert_eq!((stalls.counts[10], stalls.count()), (100, 100));
}

#[test]
fn culprits_are_ranked_by_their_share_of_the_window() {
    let who = container("/victim");
    let others: Vec<_> = (0..8).map(|i| container(&format!("/{i}"))).collect();
    let mut window = Window::default();
    let mut growth = None;
    for second in 0..=30u64 {
        let cpu = CpuCounters { neighbour: second * 8 * SECOND, ..Default::default() };
        let sample = sample(&who, Some(cpu), CgroupStat::default());
        let now = Counters::of(&sample);
        window.announce(&now);
        for (i, other) in others.iter().enumerate() {
            // Number i takes i % of the time, but the last stops at 12 s, out of the final window.
            let until = if i == 7 { second.min(12) } else { second };
            assert!(window.blame(other, until * SECOND * i as u64 / 100));
        }
        growth = window.advance(LENGTH, at(second * SECOND), &now, &sample);
    }
    let mut top = Vec::new();
    window.top_culprits(&growth.expect("known"), &mut top);
    let names: Vec<_> = top.iter().map(|n| (n.who.cgroup.as_str(), n.percent.round())).collect();
    assert_eq!(names, [("/6", 6.0), ("/5", 5.0), ("/4", 4.0), ("/3", 3.0), ("/2", 2.0)]);
}

#[test]
fn a_new_culprit_counts_from_zero_only_where_that_can_be() {
    let (who, new, old) = (container("/victim"), container("/new"), container("/old"));
    let mut window = Window::default();
    let mut growth = None;
    for second in 0..=12u64 {
        let cpu = CpuCounters { neighbour: second * SECOND, ..Default::default() };
        let sample = sample(&who, Some(cpu), CgroupStat::default());
        let now = Counters::of(&sample);
        window.announce(&now);
        if second >= 8 {
            // Both are first heard of in the ninth second; only one can have begun in it.
            window.blame(&new, (second - 7) * SECOND / 2);
            window.blame(&old, 3600 * SECOND + (second - 7) * SECOND / 2);
        }
        growth = window.advance(LENGTH, at(second * SECOND), &now, &sample);
    }
    let mut top = Vec::new();
    window.top_culprits(&growth.expect("known"), &mut top);
    let percents: Vec<_> = top.iter().map(|n| (n.who.cgroup.as_str(), n.percent)).collect();
    assert_eq!(percents, [("/new", 25.0), ("/old", 20.0)]);
}

/// The kernel adds pressure up over a cgroup and all below it.
#[test]
fn a_slice_contains_others_and_a_service_does_not() {
    use crate::attribution::WorkloadKind::{Cgroup, Container, Pod, Unit};
    for (kind, path, others) in [
        (Unit, "/system.slice", true),
        (Unit, "/system.slice/sshd.service", false),
        (Unit, "/kubepods.slice/kubepods-burstable.slice", true),
        (Cgroup, "/kubepods", true),
        (Cgroup, "/kubepods/besteffort", true),
        (Cgroup, "/burner", false),
        (Pod, "/kubepods/burstable/pod5e3c1b7e", true),
        (Container, "/kubepods/burstable/pod5e3c1b7e/0a", false),
    ] {
        assert_eq!(super::workload(kind, path).contains_others(), others, "{path}");
    }
}
