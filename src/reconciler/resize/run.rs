//! Which candidates are looked at, and how many at a time: each has a task of its own ([`Course`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use super::course::{Course, Stop};
use super::{Candidate, Mode, ResizeMetrics, ResizeOptions, Update};
use crate::api::{Remediation, Source};
use crate::reconciler::faults::one_line;
use crate::reconciler::report::Evidence;

/// Pods remembered between their reports (about 500 bytes each).
const REMEMBERED_MAX: usize = 4096;
/// What is known of a pod beyond its status.
struct Memory {
    /// The newest remediation: a report may have been sent before it was stored.
    remediation: Option<Remediation>,
    /// Not asked about before.
    quiet_until: Timestamp,
}

/// What a finished task leaves behind.
struct Done {
    uid: String,
    memory: Memory,
}

/// Judges candidates until the sender is gone, then ends those under way. Dropping the future leaves every
/// remediation where it stands; whoever runs next goes on from the status.
pub async fn run(
    client: Client,
    options: ResizeOptions,
    metrics: ResizeMetrics,
    mut candidates: mpsc::Receiver<Candidate>,
    updates: mpsc::Sender<Update>,
) {
    let executor = Arc::new(Executor { client, options, metrics, updates });
    let mut memory: HashMap<String, Memory> = HashMap::new();
    let mut tasks: JoinSet<Done> = JoinSet::new();
    let mut running: HashMap<Id, String> = HashMap::new();
    let mut busy: HashSet<String> = HashSet::new();
    loop {
        executor.metrics.running.set(tasks.len() as i64);
        tokio::select! {
            Some(done) = tasks.join_next_with_id() => {
                let id = match &done {
                    Ok((id, _)) => *id,
                    Err(error) => error.id(),
                };
                if let Some(uid) = running.remove(&id) {
                    busy.remove(&uid);
                }
                match done {
                    Ok((_, done)) => remember(&mut memory, done),
                    Err(error) => tracing::error!(%error, "a remediation ended abnormally"),
                }
            }
            candidate = candidates.recv() => {
                let Some(mut candidate) = candidate else {
                    while tasks.join_next().await.is_some() {}
                    break;
                };
                if !concerns(&candidate.evidence, &executor.options) {
                    continue;
                }
                let uid = candidate.evidence.pod.uid.clone();
                if busy.contains(&uid) {
                    continue;
                }
                if let Some(known) = memory.get(&uid) {
                    if known.quiet_until > Timestamp::now() {
                        continue;
                    }
                    if newer(known.remediation.as_ref(), candidate.standing.as_ref()) {
                        candidate.standing = known.remediation.clone();
                    }
                }
                if tasks.len() >= executor.options.concurrent_max {
                    executor.metrics.busy.inc();
                    continue;
                }
                let executor = executor.clone();
                let id = tasks.spawn(async move { executor.handle(candidate).await }).id();
                running.insert(id, uid.clone());
                busy.insert(uid);
            }
        }
    }
}

fn concerns(e: &Evidence, o: &ResizeOptions) -> bool {
    o.mode != Mode::Off && e.source == Source::Kernel && e.kind.kind().wants_a_higher_limit()
}

fn newer(mine: Option<&Remediation>, standing: Option<&Remediation>) -> bool {
    match (mine, standing) {
        (Some(mine), Some(standing)) => mine.last_transition_time.0 > standing.last_transition_time.0,
        (mine, _) => mine.is_some(),
    }
}

fn remember(memory: &mut HashMap<String, Memory>, done: Done) {
    if memory.len() >= REMEMBERED_MAX {
        let now = Timestamp::now();
        memory.retain(|_, m| m.quiet_until > now);
        if memory.len() >= REMEMBERED_MAX {
            // The status in the API server still says what was done.
            memory.clear();
        }
    }
    memory.insert(done.uid, done.memory);
}

/// What every remediation shares.
pub(super) struct Executor {
    pub(super) client: Client,
    pub(super) options: ResizeOptions,
    pub(super) metrics: ResizeMetrics,
    pub(super) updates: mpsc::Sender<Update>,
}

impl Executor {
    async fn handle(&self, candidate: Candidate) -> Done {
        let evidence = &candidate.evidence;
        let mut course = Course {
            executor: self,
            evidence,
            pods: Api::namespaced(self.client.clone(), &evidence.pod.namespace),
            last: candidate.standing.clone(),
            quiet_until: Timestamp::MIN,
        };
        let (namespace, pod) = (&evidence.pod.namespace, &evidence.pod.name);
        match course.go(&candidate).await {
            Ok(()) | Err(Stop::Quiet) => {}
            Err(Stop::Api(what, error)) => {
                self.metrics.errors.inc();
                let error = one_line(&error);
                tracing::warn!(%namespace, %pod, error, "remediation put off: {what}");
            }
            Err(Stop::NotWritten) => {
                self.metrics.errors.inc();
                tracing::warn!(%namespace, %pod, "remediation put off: its status could not be written first");
            }
        }
        let memory = Memory { remediation: course.last.take(), quiet_until: course.quiet_until };
        Done { uid: evidence.pod.uid.clone(), memory }
    }
}
