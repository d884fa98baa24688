//! The one task that owns the desired state: reports and time go in, writes come out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::desired::{Desired, Now, PodKey, Want};
use super::report::{ResolvedReport, Verdict};
use super::resize::{Candidate, Update};
use super::telemetry::Telemetry;
use super::write::store::Change;
use super::write::writer::{ObjectKey, Outcome, Work, WriteQueue};

/// How often time passes for the desired state.
const TICK: Duration = Duration::from_secs(1);

/// A longer time between two of them: the term was paused, or the machine was, and nobody could say anything.
const ASLEEP: Duration = Duration::from_secs(5);

/// What the engine listens to.
pub struct Inputs {
    pub said: mpsc::Receiver<ResolvedReport>,
    pub changes: mpsc::Receiver<Change>,
    pub outcomes: mpsc::Receiver<Outcome>,
    pub updates: mpsc::Receiver<Update>,
}

/// Owns the desired state while this replica leads.
pub struct Engine {
    pub desired: Desired,
    pub queue: Arc<WriteQueue>,
    /// `None`: no remediation runs.
    pub candidates: Option<mpsc::Sender<Candidate>>,
    pub telemetry: Arc<Telemetry>,
    /// That there is no room for more pods was told.
    pub full_told: bool,
}

impl Engine {
    /// Runs until dropped, or until nothing can come in any more.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut updates_open = true;
        let mut ticked = Instant::now();
        loop {
            tokio::select! {
                Some(said) = inputs.said.recv() => self.said(&said),
                Some(outcome) = inputs.outcomes.recv() => self.outcome(outcome),
                Some(change) = inputs.changes.recv() => self.changed(change),
                update = inputs.updates.recv(), if updates_open => match update {
                    Some(update) => self.update(update),
                    None => updates_open = false,
                },
                _ = tick.tick() => {
                    let asleep = std::mem::replace(&mut ticked, Instant::now()).elapsed();
                    if asleep > ASLEEP {
                        self.desired.slept(asleep);
                    }
                    self.tick();
                }
                else => return,
            }
        }
    }

    fn said(&mut self, said: &ResolvedReport) {
        let now = Now::read();
        let taken = self.desired.say(said, now);
        self.telemetry.verdict(taken.verdict);
        if taken.verdict == Verdict::Full {
            tracing::debug!(pod = said.pod.name, "too many pods whisper; this one is left out");
            if !std::mem::replace(&mut self.full_told, true) {
                tracing::warn!(
                    "as many pods whisper as MAX_PODS allows: further ones are counted and left out; raise it"
                );
            }
        }
        let key = PodKey { namespace: said.pod.namespace.clone(), pod: said.pod.name.clone() };
        self.write(&key, None, now);
        if let (Some(candidates), Some((evidence, recommendation, standing))) =
            (&self.candidates, taken.candidate)
            && candidates.try_send(Candidate { evidence, recommendation, standing }).is_err()
        {
            // The next report of the same whisper brings it again.
            self.telemetry.case_dropped();
        }
    }

    fn update(&mut self, update: Update) {
        let key = PodKey { namespace: update.namespace, pod: update.pod };
        if self.desired.remediated(&key, &update.uid, update.remediation) {
            self.write(&key, Some(update.written), Now::read());
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Stored { key, pod_uid, stored } => {
                if let Some(want) = self.desired.stored(&key, &pod_uid, stored, Now::read()) {
                    self.push(&key, want, None);
                }
            }
            Outcome::GivenUp { key, pod_uid } => self.desired.given_up(&key, &pod_uid),
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Deleted { key, uid } => self.desired.deleted(&key, &uid),
            Change::Present { uids, since } => self.desired.present(&uids, since),
        }
    }

    fn tick(&mut self) {
        for (key, want) in self.desired.sweep(Now::read()) {
            self.push(&key, want, None);
        }
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.telemetry.pods.set(gauge(self.desired.len()));
        self.telemetry.active.set(gauge(self.desired.active()));
        self.telemetry.queue_length.set(gauge(self.queue.len()));
    }

    fn write(&mut self, key: &PodKey, waiter: Option<oneshot::Sender<bool>>, now: Now) {
        if let Some(want) = self.desired.want(key, now) {
            self.push(key, want, waiter);
        }
    }

    fn push(&mut self, key: &PodKey, want: Want, waiter: Option<oneshot::Sender<bool>>) {
        if !self.queue.push(ObjectKey::Whisper(key.clone()), Work::Whisper(want), waiter) {
            self.telemetry.put_back();
            self.desired.put_back(key);
        }
    }
}
