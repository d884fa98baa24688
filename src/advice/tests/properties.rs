//! What holds of any numbers.

use super::*;

/// The limit after the advice is taken: a dropped one leaves the node.
fn effective(r: &Recommendation, limit: f64, node: Option<f64>) -> f64 {
    match r.kind {
        Kind::RaiseLimit => limit_of(r).unwrap(),
        Kind::DropLimit => node.unwrap(),
        _ => limit,
    }
}

prop_compose! {
    fn seconds()(all in prop::collection::vec((0.0f64..2.0, 0.0f64..4.0), 0..30)) -> Arc<[HistoryPoint]> {
        history(&all)
    }
}

proptest! {
    #[test]
    fn more_demand_never_recommends_less(
        limit in 0.01f64..16.0, usage in 0.0f64..16.0, more_usage in 0.0f64..4.0,
        throttled in 0.0f64..60.0, more in 0.0f64..60.0, periods in 5i64..=100,
        percent in 1.0f64..=100.0, history in seconds(), node in prop::option::of(1.0f64..64.0),
    ) {
        let case = |throttled: f64, usage: f64| {
            let mut e = throttle(limit, throttled, usage, periods);
            cpu(&mut e).throttled_percent = Some(percent);
            e.history = history.clone();
            recommend(&e, node)
        };
        let low = case(throttled, usage);
        for high in [case(throttled + more, usage), case(throttled, usage + more_usage)] {
            prop_assert!(
                effective(&high, limit, node) >= effective(&low, limit, node) - 1e-9,
                "{} < {}", high.text, low.text
            );
        }
    }

    #[test]
    fn a_raise_is_bounded_and_above_use(
        limit in 0.01f64..64.0, share in 0.0f64..1.02, throttled in 0.0f64..600.0, periods in 5i64..=100,
        history in seconds(), node in prop::option::of(1.0f64..64.0),
    ) {
        let usage = (limit * share).min(node.unwrap_or(f64::MAX));
        let mut e = throttle(limit, throttled, usage, periods);
        e.history = history;
        let r = recommend(&e, node);
        if let Some(to) = limit_of(&r) {
            prop_assert!(to > limit - 1e-3, "{}", r.text);
            prop_assert!(to >= usage - 1e-3, "{}", r.text);
            prop_assert!(to <= (limit * MAX_FACTOR).max(limit + 0.06).max(limit * 1.1 + 0.5) + 1e-3, "{}", r.text);
            prop_assert!(to <= MAX_CORES, "{}", r.text);
            prop_assert!(node.is_none_or(|n| to <= n.max(limit) + 1e-3), "{}", r.text);
        }
        prop_assert!(r.text.chars().count() <= TEXT_MAX);
    }

    #[test]
    fn a_longer_wait_never_recommends_a_smaller_request(
        wait in 0.5f64..100.0, more in 0.0f64..100.0, usage in 0.0f64..8.0,
        request in prop::option::of(0.01f64..8.0), node in prop::option::of(1.0f64..64.0),
    ) {
        let asked = |wait| {
            let r = recommend(&contention(wait, usage, request, &[("a/b/c", wait * 9.0)]), node);
            r.to.and_then(|to| to.cpu_request_cores).or(request).unwrap_or(0.0)
        };
        prop_assert!(asked(wait + more) >= asked(wait) - 1e-9);
        let node = node.unwrap_or(f64::MAX);
        prop_assert!(asked(wait) >= usage.min(node) - 1e-3);
        if let Some(r) = request {
            prop_assert!(asked(wait) <= (r * MAX_FACTOR).max(usage * 1.2 + 0.6) + 1e-3);
        }
    }

    #[test]
    fn memory_grows_with_its_evidence_and_stays_bounded(
        limit in 16i64..4096, held in 1i64..8192, peak in 0i64..8192, more in 0i64..4096, refaults in 2000i64..10_000_000,
    ) {
        let asked = |held: i64, peak: i64, refaults| {
            let e = memory(Some(limit * MIB), MemoryNumbers {
                working_set_bytes: Some(held.min(limit) * MIB), refaults: Some(refaults),
                oom_peak_bytes: Some(peak * MIB), oom_kills: Some(1), ..Default::default()
            });
            recommend(&e, None).to.unwrap().memory_limit_bytes.unwrap() / MIB
        };
        let low = asked(held, peak, refaults);
        prop_assert!(asked(held + more, peak, refaults) >= low);
        prop_assert!(asked(held, peak + more, refaults) >= low);
        prop_assert!(asked(held, peak, refaults + more) >= low);
        prop_assert!(low > limit && low as f64 <= limit as f64 * MAX_FACTOR);
    }

    #[test]
    fn any_numbers_give_a_text(
        limit in any::<f64>(), throttled in any::<f64>(), usage in any::<f64>(), window in any::<f64>(), node in any::<Option<f64>>(),
        held in any::<i64>(), refaults in any::<i64>(),
    ) {
        let mut e = throttle(limit, throttled, usage, 100);
        e.numbers.window_seconds = Some(window);
        let r = recommend(&e, node);
        prop_assert!(!r.text.is_empty() && r.text.chars().count() <= TEXT_MAX);
        let mut e = memory(Some(held), MemoryNumbers { refaults: Some(refaults), usage_bytes: Some(held), ..Default::default() });
        e.numbers.window_seconds = Some(window);
        recommend(&e, node);
    }
}
