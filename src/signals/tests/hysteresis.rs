use std::time::Duration;

use proptest::prelude::*;

use crate::signals::hysteresis::{Hysteresis, Judgement};
use crate::signals::window::nanos;
use crate::signals::{Rule, Severity, SignalKind, Transition};

fn judgement() -> impl Strategy<Value = Judgement> {
    prop_oneof![
        Just(Judgement { level: Some(Severity::Critical), clear: false }),
        Just(Judgement { level: Some(Severity::Warning), clear: false }),
        Just(Judgement { level: None, clear: false }),
        Just(Judgement { level: None, clear: true }),
    ]
}

/// Steps of up to 3 s: flapping ones, and long stays.
fn series() -> impl Strategy<Value = Vec<(u64, Judgement)>> {
    let stay = (judgement(), 1..60usize, 1..3000u64).prop_map(|(j, n, ms)| vec![(ms, j); n]);
    prop::collection::vec(stay, 1..30).prop_map(|stays| stays.concat())
}

proptest! {
    #[test]
    fn transitions_are_bounded_whatever_the_input(
        series in series(),
        hold in 1..40u64,
        repeat in 1..90u64,
    ) {
        let rule = Rule {
            hold: Duration::from_secs(hold),
            repeat: Duration::from_secs(repeat),
            ..Rule::of(SignalKind::CpuThrottle.kind().section())
        };
        let mut hysteresis = Hysteresis::default();
        let (mut now, mut active, mut clear_since, mut said) = (1u64, false, None, 0);
        let mut when: Vec<(u64, Transition, Severity)> = Vec::new();
        for (ms, judgement) in series {
            now += ms * 1_000_000;
            clear_since = judgement.clear.then(|| clear_since.unwrap_or(now));
            let before = hysteresis.severity();
            let transition = hysteresis.step(&rule, now, judgement);
            match transition {
                Some(Transition::Started) => {
                    prop_assert!(!active, "started twice");
                    prop_assert_eq!(judgement.level, hysteresis.severity());
                    active = true;
                }
                Some(Transition::Resolved) => {
                    prop_assert!(active, "resolved what was not active");
                    let held = clear_since.map(|since| now - since);
                    prop_assert!(held >= Some(nanos(rule.hold)), "resolved after {held:?}");
                    active = false;
                }
                Some(Transition::Changed) => {
                    prop_assert!(active);
                    prop_assert_ne!(before, hysteresis.severity());
                }
                Some(Transition::Repeated) => {
                    prop_assert!(active);
                    prop_assert!(now - said >= nanos(rule.repeat), "repeated too soon");
                    prop_assert_eq!(before, hysteresis.severity());
                }
                None => {
                    prop_assert_eq!(before, hysteresis.severity());
                    prop_assert!(!active || now - said < nanos(rule.repeat), "not repeated in time");
                    prop_assert!(
                        !active || clear_since.is_none_or(|s| now - s < nanos(rule.hold)),
                        "not resolved in time"
                    );
                }
            }
            prop_assert_eq!(active, hysteresis.severity().is_some());
            // It grows worse at once.
            prop_assert!(judgement.level <= hysteresis.severity() || transition == Some(Transition::Resolved));
            if let Some(transition) = transition {
                said = now;
                when.push((now, transition, hysteresis.severity().unwrap_or(Severity::Warning)));
            }
        }
        // Each kind of change at most once in a hold time.
        for kind in [
            |t: &(u64, Transition, Severity)| t.1 == Transition::Started,
            |t: &(u64, Transition, Severity)| t.1 == Transition::Resolved,
            |t: &(u64, Transition, Severity)| t.1 == Transition::Changed && t.2 == Severity::Critical,
            |t: &(u64, Transition, Severity)| t.1 == Transition::Changed && t.2 == Severity::Warning,
        ] {
            let times: Vec<u64> = when.iter().filter(|t| kind(t)).map(|t| t.0).collect();
            prop_assert!(times.windows(2).all(|t| t[1] - t[0] >= nanos(rule.hold)), "flaps: {when:?}");
        }
    }

    #[test]
    fn a_judgement_follows_the_thresholds(percent in 0.0..120.0f64, enough: bool, complete: bool) {
        let rule = Rule::of(SignalKind::CpuThrottle.kind().section());
        let judgement = Judgement::of(&rule, percent, enough, complete);
        prop_assert_eq!(judgement.level.is_some(), enough && percent >= rule.warning);
        prop_assert_eq!(judgement.level == Some(Severity::Critical), enough && percent >= rule.critical);
        prop_assert_eq!(judgement.clear, complete && (!enough || percent <= rule.clear));
        prop_assert!(!(judgement.clear && judgement.level.is_some()));
    }
}

#[test]
fn a_critical_whisper_eases_after_the_hold_time_and_is_resolved_once_clear() {
    let rule = Rule::of(SignalKind::CpuThrottle.kind().section());
    let mut hysteresis = Hysteresis::default();
    let mut story = Vec::new();
    for second in 0..200u64 {
        let (level, clear) = match second {
            0..10 => (Some(Severity::Critical), false),
            10..50 => (Some(Severity::Warning), false),
            50..60 => (None, false),
            60..80 => (None, true),
            80 => (None, false),
            _ => (None, true),
        };
        let judgement = Judgement { level, clear };
        story.extend(hysteresis.step(&rule, second * 1_000_000_000, judgement).map(|t| (second, t)));
    }
    use Transition::*;
    assert_eq!(story, [(0, Started), (40, Changed), (100, Repeated), (111, Resolved)]);
}
