use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::api::{CpuNumbers, RemediationState as S, Severity, SignalEvidence, SignalKind, Source};
use crate::reconciler::report::PodFacts;

const T0: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(T0 + seconds).unwrap()
}

fn the_plan() -> Plan {
    Plan {
        container: "app".into(),
        from: Cpu { limit: 200, request: None },
        to: Cpu { limit: 400, request: None },
    }
}

/// A report said at `said` about the 10 s before.
fn report(said: i64, throttled: f64, limit: f64, usage: f64) -> Evidence {
    let cpu = CpuNumbers {
        throttled_percent: Some(throttled),
        limit_cores: Some(limit),
        usage_cores: Some(usage),
        ..CpuNumbers::default()
    };
    Evidence {
        pod: Arc::new(PodFacts { uid: "u".into(), ..PodFacts::default() }),
        container: "app".into(),
        kind: SignalKind::CpuThrottle,
        source: Source::Kernel,
        severity: Severity::Critical,
        active: true,
        since: at(-100),
        last_seen: at(said),
        numbers: SignalEvidence { window_seconds: Some(10.0), cpu: Some(cpu), ..SignalEvidence::default() },
        history: Arc::from([]),
    }
}

/// Where a remediation of [`the_plan`] stands that was throttled 80 % before, since T0.
fn standing(state: S) -> Remediation {
    let o = ResizeOptions::default();
    let (plan, before) = (the_plan(), report(-5, 80.0, 0.2, 0.2));
    let proposed = proposed(&plan, &before, 0, at(0));
    let applied = applied(&proposed, &plan, at(0));
    let verifying = verifying(&applied, &plan, at(0));
    match state {
        S::Proposed => proposed,
        S::Applied => applied,
        S::Verifying => verifying,
        S::Verified => verified(&verifying, &plan, Some(60.0), false, at(0), &o),
        S::RolledBack => rolled_back(&verifying, &plan, "DidNotHelp", "it did not.", Some(80.0), at(0), &o),
        S::Refused => refused("NodeFull", "full.".into(), 1, at(0), &o),
        S::DryRun => dry_run(&plan, &before, 0, at(0), &o),
        S::Off => Remediation { state: S::Off, ..verifying },
    }
}

#[test]
fn what_comes_next() {
    let o = ResizeOptions::default();
    let active = |said| report(said, 80.0, 0.2, 0.2);
    let over = |said| Evidence { active: false, ..report(said, 0.0, 0.4, 0.1) };
    let other = |said| Evidence { container: "side".into(), ..report(said, 0.0, 0.4, 0.1) };
    let judge = |helped| Next::Judge { helped, plan: the_plan() };
    for (what, standing, e, now, expected) in [
        ("the first report", None, active(0), 0, Next::Consider { steps: 0 }),
        ("it is over already", None, over(0), 0, Next::Rest),
        ("a restart before the patch", Some(S::Proposed), active(9), 10, Next::Resume(the_plan())),
        ("a restart after it", Some(S::Applied), active(9), 10, Next::Resume(the_plan())),
        ("a window from before", Some(S::Verifying), report(9, 80.0, 0.4, 0.2), 9, Next::Rest),
        ("a window of the old limit", Some(S::Verifying), report(20, 80.0, 0.2, 0.2), 20, Next::Rest),
        ("another container", Some(S::Verifying), other(20), 20, Next::Rest),
        (
            "no longer throttled",
            Some(S::Verifying),
            report(20, 2.0, 0.4, 0.3),
            20,
            judge(Helped::Well { after: Some(2.0) }),
        ),
        (
            "half as much",
            Some(S::Verifying),
            report(20, 40.0, 0.4, 0.3),
            20,
            judge(Helped::Well { after: Some(40.0) }),
        ),
        ("over", Some(S::Verifying), over(3), 3, judge(Helped::Well { after: Some(0.0) })),
        ("over before the step", Some(S::Verifying), over(-1), 3, Next::Rest),
        (
            "somewhat less",
            Some(S::Verifying),
            report(20, 60.0, 0.4, 0.4),
            20,
            judge(Helped::Partly { after: 60.0 }),
        ),
        (
            "as much, but it uses more",
            Some(S::Verifying),
            report(20, 80.0, 0.4, 0.4),
            20,
            judge(Helped::Partly { after: 80.0 }),
        ),
        (
            "as much, and no more used",
            Some(S::Verifying),
            report(20, 80.0, 0.4, 0.2),
            20,
            judge(Helped::No { after: 80.0 }),
        ),
        ("worse", Some(S::Verifying), report(20, 95.0, 0.4, 0.1), 20, judge(Helped::No { after: 95.0 })),
        (
            "too late to judge",
            Some(S::Verifying),
            report(700, 80.0, 0.4, 0.2),
            700,
            Next::Consider { steps: 1 },
        ),
        ("cooling down", Some(S::Verified), active(60), 60, Next::Rest),
        ("cooled down", Some(S::Verified), active(301), 301, Next::Consider { steps: 1 }),
        ("cooling down after a refusal", Some(S::Refused), active(299), 299, Next::Rest),
        ("asked again", Some(S::Refused), active(301), 301, Next::Consider { steps: 1 }),
        ("after a dry run", Some(S::DryRun), active(301), 301, Next::Consider { steps: 0 }),
        ("undone: a long time nothing", Some(S::RolledBack), active(3599), 3599, Next::Rest),
        ("undone long ago", Some(S::RolledBack), active(3601), 3601, Next::Consider { steps: 1 }),
        ("it was off", Some(S::Off), active(1), 1, Next::Consider { steps: 1 }),
    ] {
        let standing = standing.map(self::standing);
        assert_eq!(next(standing.as_ref(), &e, at(now), &o), expected, "{what}");
    }
    let three = Remediation { steps: 3, ..standing(S::Verified) };
    assert_eq!(next(Some(&three), &active(301), at(301), &o), Next::Exhausted { steps: 3 });
}

#[test]
fn what_is_written_down() {
    let o = ResizeOptions::default();
    let r = standing(S::Verifying);
    assert_eq!((r.steps, r.before_throttled_percent, r.container.as_deref()), (1, Some(80.0), Some("app")));
    assert_eq!(r.from.as_ref().unwrap().cpu_limit_cores, Some(0.2));
    assert_eq!(r.to.as_ref().unwrap().cpu_limit_cores, Some(0.4));
    let done = verified(&r, &the_plan(), Some(1.0), true, at(30), &o);
    assert_eq!(done.message, "200m -> 400m: throttled 80 % before, 1 % after.");
    assert_eq!(done.cooldown_until, Some(Time(at(330))));
    assert_eq!(done.steps, 1);
    let undone = rolled_back(&r, &the_plan(), "Infeasible", "the node says no.", None, at(30), &o);
    assert_eq!(undone.message, "200m -> 400m undone: the node says no.");
    assert_eq!(undone.cooldown_until, Some(Time(at(3630))));
    let late =
        refused("R", "x".repeat(3000), 0, at(0).checked_add(SignedDuration::from_millis(1)).unwrap(), &o);
    assert_eq!(late.message.len(), MESSAGE_MAX);
    assert_eq!(late.last_transition_time, Time(at(1)), "no window that began before counts");
}

#[test]
fn what_may_not_be_undone_is_said_in_one_line() {
    let (o, r) = (ResizeOptions::default(), standing(S::Verifying));
    for (bar, state, reason) in
        [(Bar::DryRun, S::DryRun, "WouldUndo"), (Bar::NotAsked, S::Refused, "NotAskedAnyMore")]
    {
        let left = left(&r, &the_plan(), bar, "it did not help.", Some(90.0), at(30), &o);
        assert_eq!((left.state, left.reason.as_str(), left.steps), (state, reason, 1));
        assert!(left.message.contains("200m -> 400m") && left.message.ends_with("it did not help."));
        assert!(!left.message.contains('\n'));
        assert_eq!(left.cooldown_until, Some(Time(at(3630))));
    }
    for state in [S::Proposed, S::Applied, S::Verifying] {
        let off = off(&standing(state), at(30)).unwrap();
        assert_eq!((off.state, off.reason.as_str()), (S::Off, "RemediationOff"));
        assert!(off.message.contains("200m -> 400m of app") && off.from.is_some(), "{}", off.message);
    }
    for state in [S::Off, S::DryRun, S::Verified, S::RolledBack, S::Refused] {
        assert_eq!(off(&standing(state), at(30)), None);
    }
}

proptest! {
    /// Whatever is reported, nothing is done while cooling down, and a window from before a step was
    /// carried out never judges it.
    #[test]
    fn bounds_hold(
        said in -1000i64..5000, throttled in 0.0f64..100.0, limit in 0.01f64..2.0, usage in 0.0f64..2.0,
        now in 0i64..5000, active: bool, state in 0usize..8, steps in 0i64..6,
    ) {
        let o = ResizeOptions::default();
        let states = [S::Off, S::DryRun, S::Proposed, S::Applied, S::Verifying, S::Verified, S::RolledBack, S::Refused];
        let r = Remediation { steps, ..standing(states[state]) };
        let e = Evidence { active, ..report(said, throttled, limit, usage) };
        match next(Some(&r), &e, at(now), &o) {
            Next::Consider { steps } => {
                prop_assert!(active && steps < o.steps_max);
                prop_assert!(r.cooldown_until.is_none_or(|t| t.0 <= at(now)));
            }
            Next::Judge { .. } => {
                prop_assert!(r.state == S::Verifying && now <= 600);
                prop_assert!(said >= 0 && (said >= 10 || !active));
            }
            Next::Resume(_) => prop_assert!(matches!(r.state, S::Proposed | S::Applied)),
            Next::Exhausted { steps } => prop_assert!(steps >= o.steps_max),
            Next::Rest => {}
        }
    }
}
