use std::time::Duration;

use super::*;
use crate::reconciler::report::ContainerFacts;

const S: u64 = 1_000_000_000;
const T0: u64 = 1_795_000_000 * S;

/// `cores` of CPU and `stopped` of throttling from T0 on, a sample every `step` ns.
fn even(step: u64, points: u64, cores: f64, stopped: f64) -> Vec<HistoryPoint> {
    (0..points)
        .map(|i| HistoryPoint {
            unix_ns: T0 + i * step,
            cpu_usage_ns: 5 * S + (i as f64 * step as f64 * cores) as u64,
            throttled_ns: 3 * S + (i as f64 * step as f64 * stopped) as u64,
            throttled_wall_ns: None,
        })
        .collect()
}

fn at_ns(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap()
}

#[test]
fn integrates_over_exactly_the_window() {
    let h = even(S, 121, 0.2, 0.8);
    let u = usage_over(&h, at_ns(T0 + 100 * S + S / 3), 15.079).unwrap();
    assert!((u.cpu_cores - 0.2).abs() < 1e-6 && (u.throttled_cores - 0.8).abs() < 1e-6, "{u:?}");

    // A burst outside the window does not count, half a burst counts half.
    let mut h = even(S, 41, 0.0, 0.0);
    for p in &mut h[21..] {
        p.cpu_usage_ns += 2 * S;
    }
    let within = |end: u64| usage_over(&h, at_ns(T0 + end), 10.0).unwrap().cpu_cores;
    assert_eq!(within(20 * S), 0.0);
    assert!((within(20 * S + S / 2) - 0.1).abs() < 1e-9);
    assert!((within(21 * S) - 0.2).abs() < 1e-9);
    assert_eq!(within(31 * S), 0.0);
}

#[test]
fn does_not_guess() {
    let h = even(S, 61, 0.2, 0.0);
    assert!(usage_over(&h, at_ns(T0 + 61 * S), 10.0).is_none(), "ends after the last sample");
    assert!(usage_over(&h, at_ns(T0 + 9 * S), 10.0).is_none(), "begins before the first");
    assert!(usage_over(&h, at_ns(T0 + 60 * S), 60.0).is_some());
    assert!(usage_over(&[], at_ns(T0), 10.0).is_none());
    for window in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert!(usage_over(&h, at_ns(T0 + 30 * S), window).is_none());
    }
    let mut gap = h.clone();
    gap.drain(25..35);
    assert!(usage_over(&gap, at_ns(T0 + 40 * S), 10.0).is_none(), "begins within a gap");
    assert!(usage_over(&gap, at_ns(T0 + 36 * S), 15.0).is_some(), "a gap in between does not matter");
}

proptest::proptest! {
    #[test]
    fn never_panics_and_never_negative(
        steps in proptest::collection::vec((0u64..20 * S, 0u64..40 * S), 0..50),
        end in 0u64..1000 * S,
        window in -1.0f64..5000.0,
    ) {
        let (mut ns, mut cpu) = (T0, 0);
        let history: Vec<_> = steps.iter().map(|(dt, dc)| {
            ns += dt + 1;
            cpu += dc;
            HistoryPoint { unix_ns: ns, cpu_usage_ns: cpu, throttled_ns: cpu, throttled_wall_ns: None }
        }).collect();
        if let Some(u) = usage_over(&history, at_ns(T0 + end), window) {
            proptest::prop_assert!(u.cpu_cores >= 0.0 && u.cpu_cores.is_finite());
            proptest::prop_assert!(u.cpu_cores * window <= cpu as f64 / 1e9 + 1e-6);
        }
    }
}

fn pod() -> PodFacts {
    let with = |name: &str, limit| ContainerFacts {
        name: name.into(),
        cpu_limit_cores: limit,
        ..Default::default()
    };
    PodFacts {
        containers: vec![with("web", Some(0.2)), with("log", Some(0.3)), with("free", None)],
        ..Default::default()
    }
}

fn metrics(containers: &[(&str, &str)]) -> PodMetrics {
    let containers: Vec<_> = containers
        .iter()
        .map(|(name, cpu)| serde_json::json!({"name": name, "usage": {"cpu": cpu, "memory": "2048Ki"}}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web"}, "timestamp": "2026-11-21T06:00:10Z", "window": "10.079s",
        "containers": containers,
    }))
    .unwrap()
}

#[test]
fn says_what_kubectl_top_says() {
    let s = say(&metrics(&[("web", "199912345n"), ("log", "50m")]), &pod()).unwrap();
    assert!((s.cpu_cores - 0.249912345).abs() < 1e-9);
    assert!((s.cpu_percent.unwrap() - 49.98).abs() < 0.01);
    assert_eq!((s.memory_bytes, s.window), (4 << 20, 10.079));
    assert_eq!(s.summary, "0.25 cores, 50 % of limit");
    assert!((s.containers[0].cpu_percent.unwrap() - 99.96).abs() < 0.01);
    // One container without a limit: the pod has none.
    let s = say(&metrics(&[("web", "100m"), ("free", "1")]), &pod()).unwrap();
    assert_eq!((s.cpu_percent, s.summary.as_str()), (None, "1.10 cores"));
    assert!(say(&metrics(&[]), &pod()).is_none());
    assert!(say(&metrics(&[("web", "much")]), &pod()).is_none());
    // What adapters make of NaN and of a counter that started over: the object has no such numbers.
    for impossible in ["-9223372036854775808m", "-12m", "-1", "10000001"] {
        assert!(say(&metrics(&[("web", "10m"), ("log", impossible)]), &pod()).is_none(), "{impossible}");
    }
}

#[test]
fn the_kernel_stands_beside() {
    let mut s = say(&metrics(&[("web", "40m"), ("log", "1m")]), &pod()).unwrap();
    let end = s.timestamp.0.as_nanosecond() as u64;
    let mut history = even(S, 60, 0.2, 0.8);
    let shift = end - T0 - 40 * S;
    history.iter_mut().for_each(|p| p.unix_ns += shift);
    assert!(beside(&mut s, "web", &history));
    assert!((s.containers[0].kernel_cpu_cores.unwrap() - 0.2).abs() < 1e-6);
    assert!((s.containers[0].kernel_throttled_cores.unwrap() - 0.8).abs() < 1e-6);
    assert!(s.containers[1].kernel_cpu_cores.is_none());
    assert!(!beside(&mut s, "log", &[]) && !beside(&mut s, "other", &history));
}

#[test]
fn windows_as_go_prints_them() {
    for (text, ms) in [("10.079s", 10_079), ("1m0s", 60_000), ("15s", 15_000)] {
        let m: PodMetrics =
            serde_json::from_value(serde_json::json!({"timestamp": "2026-11-21T06:00:10Z", "window": text}))
                .unwrap();
        assert_eq!(m.window, Duration::from_millis(ms));
    }
    let bad = serde_json::json!({"timestamp": "2026-11-21T06:00:10Z", "window": "-5s"});
    assert!(serde_json::from_value::<PodMetrics>(bad).is_err());
}
