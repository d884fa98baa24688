//! What is in the API already: read once at the start, so that a restart loses nothing, then watched
//! for objects that go away. The watch carries metadata only: what the objects say is ours.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;

use crate::api::KernelWhisper;
use crate::reconciler::desired::PodKey;
use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::telemetry::Telemetry;

/// Objects of one page: 500 of some 4 kB.
const PAGE: u32 = 500;
/// A watch that held for so long and then fails is no second try of the one before; the longest wait for the next.
const HELD: Duration = Duration::from_secs(30);
/// A watch that is refused is refused sooner; one that works may say nothing for hours.
const PROVEN: Duration = Duration::from_secs(2);
const HINT: &str = "install the CRDs (kernel-gossip crds | kubectl apply -f -) and see docs/reconciler.md for the rights the role needs; trying again";

/// What happened to objects in the API.
#[derive(Debug)]
pub enum Change {
    Deleted {
        key: PodKey,
        uid: String,
    },
    /// These are there, as listed from `since` on; others that were there before are gone.
    Present {
        uids: HashSet<String>,
        since: Instant,
    },
}

/// Of one namespace, or of all.
fn api<K>(client: &Client, only: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match only {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Every whisper in the API, tried until it is read. What cannot be read is skipped and counted.
pub async fn list(client: &Client, only: Option<&str>, telemetry: &Telemetry) -> Vec<KernelWhisper> {
    let log = FaultLog::new("reading KernelWhispers");
    let mut wait = Duration::from_millis(500);
    loop {
        match try_list(api(client, only), telemetry).await {
            Ok(all) => {
                log.succeeded();
                return all;
            }
            Err(error) => {
                let fault = Fault::of(&error);
                log.failed(fault, &error, hint(fault));
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

async fn try_list(
    api: Api<DeserializeGuard<KernelWhisper>>,
    telemetry: &Telemetry,
) -> Result<Vec<KernelWhisper>, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        for object in page.items {
            match object.0 {
                Ok(kw) => all.push(kw),
                Err(bad) => {
                    let (namespace, name) = (&bad.metadata.namespace, &bad.metadata.name);
                    tracing::warn!(
                        ?namespace,
                        ?name,
                        error = bad.error,
                        "a KernelWhisper cannot be read and is left alone"
                    );
                    telemetry.bad_object();
                }
            }
        }
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(all),
        }
    }
}

/// Tells of whispers that went away, until `out` is closed.
pub async fn watch(client: &Client, only: Option<&str>, out: mpsc::Sender<Change>) {
    let log = FaultLog::new("watching KernelWhispers");
    let mut backoff = DefaultBackoff::default();
    loop {
        let began = Instant::now();
        let Err(error) = watch_once(api(client, only), &log, &out).await else { return };
        failed(&log, error);
        if began.elapsed() > HELD {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next().unwrap_or(HELD)).await;
    }
}

/// Lists and watches until that fails, or until `out` is closed. After a failure it is listed again: a watch that is
/// only taken up again says nothing until an object changes, and nobody would know that it works again.
async fn watch_once(
    api: Api<PartialObjectMeta<KernelWhisper>>,
    log: &FaultLog,
    out: &mpsc::Sender<Change>,
) -> Result<(), watcher::Error> {
    let mut events = pin!(watcher::watcher(api, watcher::Config::default().page_size(PAGE)));
    let mut listing = (HashSet::new(), Instant::now());
    // To list may be allowed, and to watch not.
    let (mut listed, mut proven) = (false, false);
    loop {
        let next = if proven {
            Ok(events.try_next().await)
        } else {
            tokio::time::timeout(PROVEN, events.try_next()).await
        };
        let event = match next {
            Ok(Ok(None)) => return Ok(()),
            Ok(next) => next?,
            Err(_) if !listed => continue,
            Err(_) => None,
        };
        let watches = matches!(event, None | Some(watcher::Event::Apply(_) | watcher::Event::Delete(_)));
        if watches && !proven {
            proven = true;
            log.succeeded();
        }
        let Some(event) = event else { continue };
        let change = match event {
            watcher::Event::Init => {
                listing = (HashSet::new(), Instant::now());
                continue;
            }
            watcher::Event::InitApply(object) => {
                listing.0.extend(object.uid());
                None
            }
            watcher::Event::InitDone => {
                let (uids, since) = std::mem::replace(&mut listing, (HashSet::new(), Instant::now()));
                listed = true;
                Some(Change::Present { uids, since })
            }
            watcher::Event::Apply(_) => None,
            watcher::Event::Delete(object) => deleted(&object),
        };
        if let Some(change) = change
            && out.send(change).await.is_err()
        {
            return Ok(());
        }
    }
}

fn failed(log: &FaultLog, error: watcher::Error) {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            let fault = Fault::of(&error);
            log.failed(fault, &error, hint(fault));
        }
        // 410 among them: what was listed is too old to go on from.
        other => tracing::debug!(error = %other, "watching KernelWhispers"),
    }
}

fn hint(fault: Fault) -> &'static str {
    match fault {
        Fault::Unavailable | Fault::TooMany(_) => "trying again",
        _ => HINT,
    }
}

/// The pod is in the owner reference: the object's own name may be cut.
fn deleted(object: &PartialObjectMeta<KernelWhisper>) -> Option<Change> {
    let pod = object.owner_references().iter().find(|o| o.kind == "Pod")?;
    let key = PodKey { namespace: object.namespace()?, pod: pod.name.clone() };
    Some(Change::Deleted { key, uid: object.uid()? })
}
