//! One pod's remediation: reads, patches, writes down, says Events. The thin part: what is done when, [`step`] and [`plan`](super::plan)
//! decide.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::follow::{Progress, progress};
use super::plan::{Cpu, No, Plan, annotated, annotation, plan};
use super::run::Executor;
use super::step::{self, Bar, Helped, Next};
use super::{Candidate, ClusterState, Mode, Update};
use crate::api::{FIELD_MANAGER, Remediation, RemediationState};
use crate::quantity::from_milli;
use crate::reconciler::faults::Fault;
use crate::reconciler::report::Evidence;

/// How long the writer may take to store what is about to be done.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// Tries against a pod whose status changes all the while.
const CONFLICTS_MAX: usize = 3;
/// The events API takes notes up to 1 kB.
const NOTE_MAX: usize = 1000;

/// Why a candidate ended early.
pub(super) enum Stop {
    /// Nothing to do or to say.
    Quiet,
    /// The API server failed; asked again at the next report.
    Api(&'static str, kube::Error),
    /// What was to be done could not be stored, so it was not done.
    NotWritten,
}

/// One pod's remediation as it goes.
pub(super) struct Course<'a> {
    pub(super) executor: &'a Executor,
    pub(super) evidence: &'a Evidence,
    pub(super) pods: Api<Pod>,
    /// The newest of what was written.
    pub(super) last: Option<Remediation>,
    pub(super) quiet_until: Timestamp,
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> Stop {
    move |error| Stop::Api(what, error)
}

impl Course<'_> {
    /// What comes next for this candidate, to its end.
    pub(super) async fn go(&mut self, candidate: &Candidate) -> Result<(), Stop> {
        let (o, now) = (&self.executor.options, Timestamp::now());
        match step::next(candidate.standing.as_ref(), self.evidence, now, o) {
            Next::Rest => Ok(()),
            Next::Exhausted { steps } => {
                let (pod, namespace) = self.subject().await?;
                if !annotated(&pod, &namespace) {
                    return self.quiet(o.unasked);
                }
                let message =
                    format!("{steps} steps were taken and it is throttled still; a person should look.");
                self.say(step::refused("StepsExhausted", message, steps, now, o)).await
            }
            Next::Consider { steps } => self.consider(candidate, steps).await,
            Next::Resume(plan) => self.resume(candidate, plan).await,
            Next::Judge { helped, plan } => self.judged(helped, plan).await,
        }
    }

    /// The pod and its namespace, if it is still the same pod.
    async fn subject(&self) -> Result<(Pod, Namespace), Stop> {
        let pod = self.pod().await?.ok_or(Stop::Quiet)?;
        Ok((pod, self.namespace().await?))
    }

    async fn namespace(&self) -> Result<Namespace, Stop> {
        let namespaces = Api::<Namespace>::all(self.executor.client.clone());
        namespaces.get(&self.evidence.pod.namespace).await.map_err(api("cannot read the namespace"))
    }

    async fn pod(&self) -> Result<Option<Pod>, Stop> {
        let pod = self.pods.get_opt(&self.evidence.pod.name).await.map_err(api("cannot read the pod"))?;
        Ok(pod.filter(|p| p.uid().as_deref() == Some(&self.evidence.pod.uid)))
    }

    /// Not for remediation: not asked again for a while.
    fn quiet(&mut self, how_long: Duration) -> Result<(), Stop> {
        self.quiet_until = Timestamp::now().saturating_add(how_long).unwrap_or(Timestamp::MAX);
        Ok(())
    }

    async fn consider(&mut self, candidate: &Candidate, steps: i64) -> Result<(), Stop> {
        let o = &self.executor.options;
        let (pod, namespace) = self.subject().await?;
        if !annotated(&pod, &namespace) {
            return self.quiet(o.unasked);
        }
        let state = ClusterState::gather(&self.executor.client, pod, namespace)
            .await
            .map_err(api("cannot read what bounds the pod"))?;
        let now = Timestamp::now();
        match plan(self.evidence, &candidate.recommendation, &state, o) {
            Err(No::Silent(why)) => {
                tracing::debug!(pod = %self.evidence.pod.name, why, "no remediation");
                Ok(())
            }
            Err(No::Refused(reason, message)) => {
                self.say(step::refused(reason, message, steps, now, o)).await
            }
            Ok(plan) if o.mode == Mode::DryRun => {
                self.say(step::dry_run(&plan, self.evidence, steps, now, o)).await
            }
            Ok(plan) => {
                self.say(step::proposed(&plan, self.evidence, steps, now)).await?;
                self.resize(&state.pod, &plan).await
            }
        }
    }

    /// Goes on where another reconciler, or this one before it was restarted, left off.
    async fn resume(&mut self, candidate: &Candidate, plan: Plan) -> Result<(), Stop> {
        let o = &self.executor.options;
        let Some(r) = candidate.standing.clone() else { return Ok(()) };
        let pod = self.pod().await?;
        match progress(pod.as_ref(), &self.evidence.pod.uid, &plan) {
            Progress::Gone => Err(Stop::Quiet),
            Progress::NotAsked if r.state == RemediationState::Proposed => {
                self.consider(candidate, r.steps).await
            }
            Progress::NotAsked | Progress::ChangedByOthers => {
                self.say(step::changed_by_others(&r, Timestamp::now(), o)).await
            }
            _ => {
                if r.state == RemediationState::Proposed {
                    self.say(step::applied(&r, &plan, Timestamp::now())).await?;
                }
                self.follow(&plan).await
            }
        }
    }

    /// Asks for the resize, which is written down by now, and follows it.
    async fn resize(&mut self, pod: &Pod, plan: &Plan) -> Result<(), Stop> {
        let Some(r) = self.last.clone() else { return Err(Stop::NotWritten) };
        match self.patch(pod, plan, plan.to).await {
            Ok(()) => {}
            Err(error) if unsupported(&error) => {
                return self.say(step::unsupported(r.steps, Timestamp::now(), &self.executor.options)).await;
            }
            // Admission: a quota, a LimitRange or a policy that was not foreseen.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                let o = &self.executor.options;
                let message = format!("the API server refused the resize: {}", status.message);
                return self
                    .say(step::refused("ApiServerRefused", message, r.steps, Timestamp::now(), o))
                    .await;
            }
            Err(error) => return Err(Stop::Api("the resize failed", error)),
        }
        self.say(step::applied(&r, plan, Timestamp::now())).await?;
        self.follow(plan).await
    }

    /// Sets the container's CPU. The patch holds only for the pod as it was read; where only something
    /// else of it has changed since (its status, mostly), it is tried again.
    async fn patch(&self, pod: &Pod, plan: &Plan, to: Cpu) -> Result<(), kube::Error> {
        let mut version = pod.metadata.resource_version.clone();
        for attempt in 1.. {
            let patch = Patch::Strategic(resize_patch(
                &self.evidence.pod.uid,
                version.as_deref(),
                &plan.container,
                to,
            ));
            match self.pods.patch_resize(&self.evidence.pod.name, &PatchParams::default(), &patch).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < CONFLICTS_MAX => {
                    let now = self.pods.get(&self.evidence.pod.name).await?;
                    if now.spec != pod.spec || annotation(&now) != annotation(pod) {
                        return Err(kube::Error::Api(status));
                    }
                    version = now.metadata.resource_version;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the node has carried it out, or undoes it.
    async fn follow(&mut self, plan: &Plan) -> Result<(), Stop> {
        let o = &self.executor.options;
        let Some(r) = self.last.clone() else { return Ok(()) };
        let uid = self.evidence.pod.uid.as_str();
        let ended = |pod: Option<&Pod>| !matches!(progress(pod, uid, plan), Progress::Waiting(_));
        let age = Timestamp::now().duration_since(r.last_transition_time.0);
        let left = o.pending_max.saturating_sub(age.try_into().unwrap_or_default());
        let watched = await_condition(self.pods.clone(), &self.evidence.pod.name, ended);
        let pod = match tokio::time::timeout(left, watched).await {
            Ok(Ok(pod)) => pod,
            Ok(Err(error)) => {
                tracing::warn!(%error, pod = %self.evidence.pod.name, "the resize is followed again at the next report");
                return Ok(());
            }
            Err(_elapsed) => self.pod().await?,
        };
        let now = Timestamp::now();
        match progress(pod.as_ref(), uid, plan) {
            Progress::Actuated => self.say(step::verifying(&r, plan, now)).await,
            Progress::Infeasible(why) => self.undo(plan, "Infeasible", &why, None).await,
            Progress::Waiting(why) => {
                let why =
                    format!("the node has not carried it out within {} s. {why}", o.pending_max.as_secs());
                self.undo(plan, "Deferred", &why, None).await
            }
            Progress::ChangedByOthers | Progress::NotAsked => {
                self.say(step::changed_by_others(&r, now, o)).await
            }
            Progress::Gone => Err(Stop::Quiet),
        }
    }

    async fn judged(&mut self, helped: Helped, plan: Plan) -> Result<(), Stop> {
        let o = &self.executor.options;
        let Some(r) = self.last.clone() else { return Ok(()) };
        let now = Timestamp::now();
        match helped {
            Helped::Well { after } => self.say(step::verified(&r, &plan, after, true, now, o)).await,
            Helped::Partly { after } => self.say(step::verified(&r, &plan, Some(after), false, now, o)).await,
            Helped::No { after } => {
                let before = r.before_throttled_percent.unwrap_or(100.0);
                let why = format!("it did not help (throttled {before:.0} % before, {after:.0} % after).");
                self.undo(&plan, "DidNotHelp", &why, Some(after)).await
            }
        }
    }

    /// What forbids to touch the pod now: a step that stands may be older than the mode it was taken in,
    /// and the annotation may have gone since.
    async fn bar(&self, pod: &Pod) -> Result<Option<Bar>, Stop> {
        if self.executor.options.mode != Mode::Apply {
            return Ok(Some(Bar::DryRun));
        }
        let namespace = self.namespace().await?;
        Ok((!annotated(pod, &namespace)).then_some(Bar::NotAsked))
    }

    /// Puts back what was there, unless somebody else has changed it since, or nobody permits it any more.
    async fn undo(&mut self, plan: &Plan, reason: &str, why: &str, after: Option<f64>) -> Result<(), Stop> {
        let o = &self.executor.options;
        let Some(r) = self.last.clone() else { return Ok(()) };
        let Some(pod) = self.pod().await? else { return Err(Stop::Quiet) };
        let now = Timestamp::now();
        match progress(Some(&pod), &self.evidence.pod.uid, plan) {
            Progress::ChangedByOthers => return self.say(step::changed_by_others(&r, now, o)).await,
            // A reconciler before this one has put it back and could not say so.
            Progress::NotAsked => {}
            _ => {
                if let Some(bar) = self.bar(&pod).await? {
                    return self.say(step::left(&r, plan, bar, why, after, now, o)).await;
                }
                self.patch(&pod, plan, plan.from).await.map_err(api("undoing failed"))?;
            }
        }
        self.say(step::rolled_back(&r, plan, reason, why, after, now, o)).await
    }

    /// Has the status written, then says it as an Event.
    async fn say(&mut self, r: Remediation) -> Result<(), Stop> {
        // What was not done for the same reason as last time is not said again.
        if matches!(r.state, RemediationState::Refused | RemediationState::DryRun)
            && let Some(last) = &self.last
            && (last.state, &last.reason, &last.message) == (r.state, &r.reason, &r.message)
        {
            return self.quiet(self.executor.options.cooldown);
        }
        let (written, stored) = oneshot::channel();
        let pod = &self.evidence.pod;
        let update = Update {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            remediation: r.clone(),
            written,
        };
        self.executor.updates.send(update).await.map_err(|_| Stop::NotWritten)?;
        let stored = matches!(tokio::time::timeout(WRITTEN_WITHIN, stored).await, Ok(Ok(true)));
        if !stored {
            return Err(Stop::NotWritten);
        }
        self.executor.metrics.transition(&r);
        self.event(&r).await;
        self.last = Some(r);
        Ok(())
    }

    /// One Event about the pod. A lost one is no reason to stop: the status says the same.
    async fn event(&self, r: &Remediation) {
        let (kind, reason) = match r.state {
            RemediationState::Off | RemediationState::Proposed => return,
            RemediationState::DryRun if r.reason == "WouldUndo" => ("Normal", "WouldUndoResize"),
            RemediationState::DryRun => ("Normal", "WouldResize"),
            RemediationState::Applied => ("Normal", "Resized"),
            RemediationState::Verifying => ("Normal", "ResizeInForce"),
            RemediationState::Verified => ("Normal", "ResizeVerified"),
            RemediationState::RolledBack => ("Warning", "ResizeRolledBack"),
            RemediationState::Refused => ("Warning", "ResizeRefused"),
        };
        let pod = &self.evidence.pod;
        let mut note = format!("{}: {}", r.reason, r.message);
        while note.len() > NOTE_MAX {
            note.pop();
        }
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", event_prefix(&pod.name))),
                ..Default::default()
            },
            action: Some("Resize".into()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(note),
            reason: Some(reason.into()),
            regarding: Some(k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some(Pod::api_version(&()).into()),
                kind: Some(Pod::kind(&()).into()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..Default::default()
            }),
            reporting_controller: Some(FIELD_MANAGER.into()),
            reporting_instance: Some(std::env::var("POD_NAME").unwrap_or_else(|_| FIELD_MANAGER.into())),
            type_: Some(kind.into()),
            ..Default::default()
        };
        let events = Api::<Event>::namespaced(self.executor.client.clone(), &pod.namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::warn!(%error, pod = %pod.name, reason, "Event not written; the whisper's status says the same");
        }
    }
}

/// Whether the API server has no `pods/resize` at all: a 404 that names no pod is about the path.
fn unsupported(error: &kube::Error) -> bool {
    let no_such_method = matches!(error, kube::Error::Api(status) if status.code == 405);
    no_such_method || Fault::of(error) == Fault::NoSuchResource
}

/// Names of generated objects end in five characters more; a name may have 253.
fn event_prefix(pod: &str) -> &str {
    let end = pod.len().min(240);
    pod[..end].trim_end_matches(['.', '-'])
}

/// The patch that sets one container's CPU. It holds only for the pod as it was read: another UID or
/// a change in between is a conflict.
fn resize_patch(uid: &str, version: Option<&str>, container: &str, to: Cpu) -> Value {
    let mut resources = json!({"limits": {"cpu": from_milli(to.limit)}});
    if let Some(request) = to.request {
        resources["requests"] = json!({"cpu": from_milli(request)});
    }
    json!({
        "metadata": {"uid": uid, "resourceVersion": version},
        "spec": {"containers": [{"name": container, "resources": resources}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_gone_is_no_missing_subresource() {
        let error = |code, name: &str| {
            let status = json!({"status": "Failure", "code": code, "details": {"name": name}});
            kube::Error::Api(serde_json::from_value(status).unwrap())
        };
        for (error, expected) in [
            (error(404, ""), true),
            (error(405, ""), true),
            (error(405, "web-0"), true),
            (error(404, "web-0"), false),
            (error(403, "web-0"), false),
            (error(500, ""), false),
        ] {
            assert_eq!(unsupported(&error), expected, "{error:?}");
        }
    }
}
