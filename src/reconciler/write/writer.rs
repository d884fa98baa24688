//! Writes what is wanted: server-side apply of the object, then of its status, by one field manager.
//! Thin: what to write is settled in [`crate::reconciler::desired`], when in [`super::queue`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::queue::{Job, Queue, Retry};
use crate::api::{FIELD_MANAGER, KernelWhisper, PodBirthCertificate};
use crate::reconciler::desired::{PodKey, Stored, Want};
use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::telemetry::Telemetry;

/// Writers at work: one waits for the API server while others go on.
pub const WRITERS: usize = 8;

/// Which object: of one kind about one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    Whisper(PodKey),
    Birth(PodKey),
}

/// What is to be done to it.
#[derive(Clone, Debug)]
pub enum Work {
    Whisper(Want),
    Birth(Box<PodBirthCertificate>),
}

/// What became of a whisper's write.
#[derive(Debug)]
pub enum Outcome {
    Stored {
        key: PodKey,
        pod_uid: String,
        stored: Stored,
    },
    /// It cannot be written and was given up.
    GivenUp {
        key: PodKey,
        pod_uid: String,
    },
}

/// The queue of everything to write.
pub type WriteQueue = Queue<ObjectKey, Work>;

/// Writes objects.
pub struct Writer {
    client: Client,
    queue: Arc<WriteQueue>,
    outcomes: mpsc::Sender<Outcome>,
    telemetry: Arc<Telemetry>,
    log: FaultLog,
}

impl Writer {
    pub fn new(
        client: Client,
        queue: Arc<WriteQueue>,
        outcomes: mpsc::Sender<Outcome>,
        telemetry: Arc<Telemetry>,
    ) -> Writer {
        Writer { client, queue, outcomes, telemetry, log: FaultLog::new("writing objects") }
    }

    /// Writes until dropped.
    pub async fn run(&self) {
        let writers = (0..WRITERS).map(|_| async {
            loop {
                let job = self.queue.next().await;
                self.write(job).await;
            }
        });
        futures::future::join_all(writers).await;
    }

    async fn write(&self, job: Job<ObjectKey, Work>) {
        let began = Instant::now();
        let result = match &job.work {
            Work::Whisper(Want::Apply { object, stored }) => self
                .apply(object.as_ref(), &object.spec, object.status.as_ref(), stored.clone())
                .await
                .map(Some),
            Work::Whisper(Want::Delete { name, uid }) => {
                self.delete::<KernelWhisper>(key_of(&job.key), name, uid).await.map(|()| None)
            }
            Work::Birth(object) => {
                self.apply(object.as_ref(), &object.spec, object.status.as_ref(), None).await.map(|_| None)
            }
        };
        let kind = kind(&job);
        match result {
            Ok(stored) => {
                self.log.succeeded_in(kind, &key_of(&job.key).namespace);
                self.telemetry.written(kind, "ok", began.elapsed());
                self.queue.done(&job.key);
                if let (Some(stored), ObjectKey::Whisper(key), Some(pod_uid)) =
                    (stored, &job.key, pod_uid(&job))
                {
                    self.report(Outcome::Stored { key: key.clone(), pod_uid, stored }).await;
                }
                for waiter in job.waiters {
                    let _ = waiter.send(true);
                }
            }
            Err(error) => self.failed(job, &error, began).await,
        }
    }

    async fn failed(&self, mut job: Job<ObjectKey, Work>, error: &kube::Error, began: Instant) {
        let fault = Fault::of(error);
        let (hint, retry) = match fault {
            Fault::NoSuchResource => {
                ("install the CRDs: kernel-gossip crds | kubectl apply -f -", Some(Retry::Blocked))
            }
            Fault::Forbidden | Fault::Unauthorized => {
                ("see docs/reconciler.md for the rights the role needs; trying again", Some(Retry::Blocked))
            }
            Fault::TooMany(wait) => ("trying again later", Some(wait.map_or(Retry::Soon, Retry::After))),
            Fault::Conflict | Fault::Unavailable => ("trying again", Some(Retry::Soon)),
            // The namespace is gone or going: the pod goes with it.
            Fault::NotFound | Fault::Terminating => ("given up", None),
            Fault::Invalid => (
                "given up; are the installed CRDs those of this version? kernel-gossip crds prints them",
                None,
            ),
        };
        let result = if retry.is_some() { "retried" } else { "given_up" };
        self.telemetry.written(kind(&job), result, began.elapsed());
        let gone = matches!(fault, Fault::NotFound | Fault::Terminating);
        // One conflict is the business of server-side apply; many are worth a line. A pod that went is none.
        let first_conflicts = fault == Fault::Conflict && job.attempts < 3;
        if !gone && !first_conflicts {
            self.log.failed_in(kind(&job), &key_of(&job.key).namespace, fault, error, hint);
        }
        // What somebody has to set right takes longer than anybody waits.
        if matches!(retry, None | Some(Retry::Blocked)) {
            for waiter in job.waiters.drain(..) {
                let _ = waiter.send(false);
            }
        }
        if let Some(retry) = retry {
            self.queue.failed(job, retry);
            return;
        }
        self.queue.done(&job.key);
        if let (ObjectKey::Whisper(key), Some(pod_uid)) = (&job.key, pod_uid(&job)) {
            self.report(Outcome::GivenUp { key: key.clone(), pod_uid }).await;
        }
    }

    /// Puts the object there, unless it is known to be `stored`, then its status. An object about
    /// another pod of the same name is deleted first.
    async fn apply<K>(
        &self,
        object: &K,
        spec: &impl Serialize,
        status: Option<&impl Serialize>,
        stored: Option<Stored>,
    ) -> Result<Stored, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let name = object.name_any();
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let mut stored = stored;
        for _ in 0..2 {
            let there = match stored.take() {
                Some(stored) => stored,
                None => self.put(&api, object, spec).await?,
            };
            let body =
                patch::<K>(json!({ "name": name }), "status", &with_generation(status, there.generation)?);
            match api.patch_status(&name, &params(), &Patch::Apply(body)).await {
                // Another has the name since: the one we know is gone.
                Ok(now) if now.uid().as_deref() != Some(there.uid.as_str()) => {}
                Ok(_) => return Ok(there),
                // Deleted since we wrote it.
                Err(e) if Fault::of(&e) == Fault::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        self.put(&api, object, spec).await
    }

    /// Puts metadata and spec there.
    async fn put<K>(&self, api: &Api<K>, object: &K, spec: &impl Serialize) -> Result<Stored, kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let name = object.name_any();
        let metadata = json!({
            "name": name,
            "labels": object.labels(),
            "ownerReferences": object.owner_references(),
        });
        let body =
            patch::<K>(metadata, "spec", &serde_json::to_value(spec).map_err(kube::Error::SerdeError)?);
        let put = api.patch(&name, &params(), &Patch::Apply(&body)).await;
        let object = match put {
            // The spec cannot change: if it is invalid for that, the object is about another pod.
            Err(e) if Fault::of(&e) == Fault::Invalid && self.replace(api, &name, &body["spec"]).await? => {
                api.patch(&name, &params(), &Patch::Apply(&body)).await?
            }
            other => other?,
        };
        let meta = object.meta();
        Ok(Stored {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
        })
    }

    /// Deletes the object if its spec is not `spec`. False where it is the same: then the API server
    /// did not like something else.
    async fn replace<K>(&self, api: &Api<K>, name: &str, spec: &Value) -> Result<bool, kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let path = format!("{}/{name}", api.resource_url());
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let there: Value = match self.client.request(request).await {
            Ok(there) => there,
            Err(e) if Fault::of(&e) == Fault::NotFound => return Ok(true),
            Err(e) => return Err(e),
        };
        if there["spec"] == *spec {
            return Ok(false);
        }
        delete(api, name, there["metadata"]["uid"].as_str()).await?;
        Ok(true)
    }

    async fn delete<K>(&self, key: &PodKey, name: &str, uid: &str) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        delete(&Api::<K>::namespaced(self.client.clone(), &key.namespace), name, Some(uid)).await
    }

    async fn report(&self, outcome: Outcome) {
        // The engine is gone only when this replica stops leading.
        let _ = self.outcomes.send(outcome).await;
    }
}

async fn delete<K>(api: &Api<K>, name: &str, uid: Option<&str>) -> Result<(), kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match api.delete(name, &DeleteParams { preconditions, ..Default::default() }).await {
        Ok(_) => Ok(()),
        // Gone, or another has the name: either way not there any more.
        Err(e) if uid.is_some() && Fault::of(&e) == Fault::Conflict => Ok(()),
        Err(e) if Fault::of(&e) == Fault::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn params() -> PatchParams {
    // Forced: these fields are ours, whoever touched them.
    PatchParams::apply(FIELD_MANAGER).force()
}

fn patch<K: Resource<DynamicType = ()>>(metadata: Value, field: &str, value: &Value) -> Value {
    json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata, field: value })
}

/// The status, with the generation it was written for.
fn with_generation(status: Option<&impl Serialize>, generation: i64) -> Result<Value, kube::Error> {
    let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    if let Some(fields) = status.as_object_mut() {
        fields.insert("observedGeneration".to_owned(), generation.into());
    }
    Ok(status)
}

fn key_of(key: &ObjectKey) -> &PodKey {
    match key {
        ObjectKey::Whisper(key) | ObjectKey::Birth(key) => key,
    }
}

fn kind(job: &Job<ObjectKey, Work>) -> &'static str {
    match &job.work {
        Work::Whisper(Want::Apply { .. }) => "whisper",
        Work::Whisper(Want::Delete { .. }) => "whisper_delete",
        Work::Birth(_) => "birth",
    }
}

/// The pod's UID of a whisper that is to be applied.
fn pod_uid(job: &Job<ObjectKey, Work>) -> Option<String> {
    match &job.work {
        Work::Whisper(Want::Apply { object, .. }) => Some(object.spec.pod_uid.clone()),
        Work::Whisper(Want::Delete { .. }) | Work::Birth(_) => None,
    }
}
