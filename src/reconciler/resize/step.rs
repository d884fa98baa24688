//! Where a remediation stands and what comes next: pure. Everything needed to go on after a restart
//! is in the [`Remediation`] itself.

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

use super::ResizeOptions;
use super::plan::{Cpu, Plan};
use crate::api::{Remediation, RemediationState};
use crate::quantity::{from_milli, to_milli};
use crate::reconciler::report::Evidence;

/// Throttled for more than this part of what it was before, a step has not helped by that measure.
const HELPED_BELOW: f64 = 0.9;
/// For less than this part, it has helped enough.
const HELPED_WELL_BELOW: f64 = 0.5;
/// The status' sentence is bounded by its schema.
const MESSAGE_MAX: usize = 1024;

/// What comes next for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing: cooling down, or waiting for the kernel's next window.
    Rest,
    /// A step may be considered; this many were taken before.
    Consider { steps: i64 },
    /// Too many steps were taken.
    Exhausted { steps: i64 },
    /// A reconciler ended in the middle of this one: go on with it.
    Resume(Plan),
    /// The kernel's word on the step.
    Judge { helped: Helped, plan: Plan },
}

/// What the windows after a step show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Helped {
    /// The signal is over, or it is throttled for less than half the time.
    Well {
        after: Option<f64>,
    },
    /// Less, or it uses CPU that it could not have before.
    Partly {
        after: f64,
    },
    No {
        after: f64,
    },
}

/// What comes next for the pod of this report.
pub fn next(standing: Option<&Remediation>, e: &Evidence, now: Timestamp, o: &ResizeOptions) -> Next {
    use RemediationState as S;
    let consider = |r: Option<&Remediation>| {
        let steps = r.map_or(0, |r| r.steps);
        if r.and_then(|r| r.cooldown_until.as_ref()).is_some_and(|t| t.0 > now) || !e.active {
            Next::Rest
        } else if steps >= o.steps_max {
            Next::Exhausted { steps }
        } else {
            Next::Consider { steps }
        }
    };
    let Some(r) = standing else { return consider(None) };
    let Some(plan) = plan_of(r) else { return consider(standing) };
    match r.state {
        S::Proposed | S::Applied => Next::Resume(plan),
        S::Verifying if e.container != plan.container => Next::Rest,
        S::Verifying => {
            let since = r.last_transition_time.0;
            if now > since + signed(o.verify_within) {
                // A report so much later says more about the load than about the step.
                return consider(standing);
            }
            judge(r, &plan, e, since).map_or(Next::Rest, |helped| Next::Judge { helped, plan })
        }
        S::Off | S::DryRun | S::Verified | S::RolledBack | S::Refused => consider(standing),
    }
}

/// The step a status tells of.
fn plan_of(r: &Remediation) -> Option<Plan> {
    Some(Plan {
        container: r.container.clone()?,
        from: Cpu::from_step(r.from.as_ref()?)?,
        to: Cpu::from_step(r.to.as_ref()?)?,
    })
}

/// `None`: this window began before the step was carried out.
fn judge(r: &Remediation, plan: &Plan, e: &Evidence, since: Timestamp) -> Option<Helped> {
    let cpu = e.numbers.cpu.as_ref();
    let after = cpu.and_then(|c| c.throttled_percent);
    if !e.active {
        return (e.last_seen >= since).then_some(Helped::Well { after });
    }
    let window = SignedDuration::try_from_secs_f64(e.numbers.window_seconds?).ok()?;
    let limit = to_milli(cpu?.limit_cores?);
    if e.last_seen - window < since || (limit - plan.to.limit).abs() > (plan.to.limit / 50).max(10) {
        return None;
    }
    let after = after?;
    let before = r.before_throttled_percent.unwrap_or(100.0);
    let used_more = cpu?.usage_cores.is_some_and(|u| to_milli(u) > plan.from.limit + plan.from.limit / 50);
    Some(if after <= before * HELPED_WELL_BELOW {
        Helped::Well { after: Some(after) }
    } else if after < before * HELPED_BELOW || used_more {
        Helped::Partly { after }
    } else {
        Helped::No { after }
    })
}

fn signed(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

/// The next whole second: the API server keeps no more, and no window that began before it counts.
fn stamp(now: Timestamp) -> Timestamp {
    now.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(now)
}

fn cut(message: String) -> String {
    match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => message[..end].to_string(),
        None => message,
    }
}

/// `250m -> 500m`.
fn arrow(plan: &Plan) -> String {
    format!("{} -> {}", from_milli(plan.from.limit), from_milli(plan.to.limit))
}

fn percent(p: Option<f64>) -> String {
    p.map_or("an unknown share".into(), |p| format!("{p:.0} %"))
}

fn record(state: RemediationState, reason: &str, message: String, now: Timestamp, steps: i64) -> Remediation {
    Remediation {
        state,
        reason: reason.to_string(),
        message: cut(message),
        container: None,
        from: None,
        to: None,
        before_throttled_percent: None,
        after_throttled_percent: None,
        last_transition_time: Time(stamp(now)),
        cooldown_until: None,
        steps,
    }
}

fn with_plan(mut r: Remediation, plan: &Plan, e: &Evidence) -> Remediation {
    r.container = Some(plan.container.clone());
    r.from = Some(plan.from.into());
    r.to = Some(plan.to.into());
    r.before_throttled_percent = e.numbers.cpu.as_ref().and_then(|c| c.throttled_percent);
    r
}

fn cooling(mut r: Remediation, now: Timestamp, how_long: Duration) -> Remediation {
    r.cooldown_until =
        now.checked_add(signed(how_long)).ok().filter(|_| !how_long.is_zero()).map(|t| Time(stamp(t)));
    r
}

/// Not done; asked again after the cool-down.
pub fn refused(reason: &str, message: String, steps: i64, now: Timestamp, o: &ResizeOptions) -> Remediation {
    cooling(record(RemediationState::Refused, reason, message, now, steps), now, o.cooldown)
}

/// The API server cannot resize pods in place; it is not upgraded within minutes.
pub fn unsupported(steps: i64, now: Timestamp, o: &ResizeOptions) -> Remediation {
    let message =
        "this API server has no pods/resize (Kubernetes 1.33 and later do); follow the recommendation's \
                   command, or upgrade and wait for the next try."
            .to_string();
    cooling(record(RemediationState::Refused, "NotSupported", message, now, steps), now, o.rollback_cooldown)
}

/// The mode is dry-run.
pub fn dry_run(plan: &Plan, e: &Evidence, steps: i64, now: Timestamp, o: &ResizeOptions) -> Remediation {
    let message = format!("dry run: the CPU limit of {} would be resized {}.", plan.container, arrow(plan));
    let r = record(RemediationState::DryRun, "WouldResize", message, now, steps);
    cooling(with_plan(r, plan, e), now, o.cooldown)
}

/// Written down before anything is done.
pub fn proposed(plan: &Plan, e: &Evidence, steps: i64, now: Timestamp) -> Remediation {
    let before = e.numbers.cpu.as_ref().and_then(|c| c.throttled_percent);
    let message = format!(
        "resizing the CPU limit of {} {}; throttled {}.",
        plan.container,
        arrow(plan),
        percent(before)
    );
    with_plan(record(RemediationState::Proposed, "Resizing", message, now, steps), plan, e)
}

/// The same remediation, later: another state, reason and sentence; what was written down stays.
fn transition(
    r: &Remediation,
    state: RemediationState,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Remediation {
    Remediation {
        state,
        reason: reason.to_string(),
        message: cut(message),
        last_transition_time: Time(stamp(now)),
        ..r.clone()
    }
}

/// The API server took the resize: one step more.
pub fn applied(r: &Remediation, plan: &Plan, now: Timestamp) -> Remediation {
    let message = format!("the API server took {}; waiting for the node to carry it out.", arrow(plan));
    let mut r = transition(r, RemediationState::Applied, "Accepted", message, now);
    r.steps += 1;
    r
}

/// The node has carried it out.
pub fn verifying(r: &Remediation, plan: &Plan, now: Timestamp) -> Remediation {
    let message = format!("{} is in force; the kernel's next windows decide.", arrow(plan));
    transition(r, RemediationState::Verifying, "Actuated", message, now)
}

/// The kernel shows that it helped.
pub fn verified(
    r: &Remediation,
    plan: &Plan,
    after: Option<f64>,
    enough: bool,
    now: Timestamp,
    o: &ResizeOptions,
) -> Remediation {
    let message = format!(
        "{}: throttled {} before, {} after{}.",
        arrow(plan),
        percent(r.before_throttled_percent),
        percent(after),
        if enough { "" } else { "; another step may follow" }
    );
    let reason = if enough { "Helped" } else { "HelpedPartly" };
    let mut r = transition(r, RemediationState::Verified, reason, message, now);
    r.after_throttled_percent = after;
    cooling(r, now, o.cooldown)
}

/// Undone.
pub fn rolled_back(
    r: &Remediation,
    plan: &Plan,
    reason: &str,
    why: &str,
    after: Option<f64>,
    now: Timestamp,
    o: &ResizeOptions,
) -> Remediation {
    let message = format!("{} undone: {why}", arrow(plan));
    let mut r = transition(r, RemediationState::RolledBack, reason, message, now);
    r.after_throttled_percent = after;
    cooling(r, now, o.rollback_cooldown)
}

/// Why a resize that is to be undone is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// The mode is dry-run.
    DryRun,
    /// Neither the pod nor its namespace asks for remediation any more.
    NotAsked,
}

/// To be undone, which nobody permits now.
pub fn left(
    r: &Remediation,
    plan: &Plan,
    bar: Bar,
    why: &str,
    after: Option<f64>,
    now: Timestamp,
    o: &ResizeOptions,
) -> Remediation {
    let step = arrow(plan);
    let (state, reason, message) = match bar {
        Bar::DryRun => {
            (RemediationState::DryRun, "WouldUndo", format!("dry run: {step} would be undone: {why}"))
        }
        Bar::NotAsked => (
            RemediationState::Refused,
            "NotAskedAnyMore",
            format!(
                "{step} is left as it is, as nobody asks for remediation any more; set the limit back yourself: {why}"
            ),
        ),
    };
    let mut r = transition(r, state, reason, message, now);
    r.after_throttled_percent = after;
    cooling(r, now, o.rollback_cooldown)
}

/// What a status says of a step under way once remediation is off; `None` where it tells of no such step.
pub fn off(r: &Remediation, now: Timestamp) -> Option<Remediation> {
    use RemediationState as S;
    let plan = plan_of(r).filter(|_| matches!(r.state, S::Proposed | S::Applied | S::Verifying))?;
    let message = format!(
        "remediation is off: {} of {} is neither verified nor undone; where it does not help, set the limit back yourself.",
        arrow(&plan),
        plan.container
    );
    Some(transition(r, S::Off, "RemediationOff", message, now))
}

/// Somebody else changed what was to be changed or undone: it is theirs now.
pub fn changed_by_others(r: &Remediation, now: Timestamp, o: &ResizeOptions) -> Remediation {
    let message =
        "somebody else changed the container's CPU meanwhile; it is left as they set it.".to_string();
    cooling(
        transition(r, RemediationState::Refused, "ChangedByOthers", message, now),
        now,
        o.rollback_cooldown,
    )
}

#[cfg(test)]
mod tests;
