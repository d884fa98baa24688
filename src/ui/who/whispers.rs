//! What the cluster's objects say of the pods that were found.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use kube::{Api, Client};
use serde::Serialize;

use super::Unknown;
use crate::api::{KernelWhisper, WhisperState, object_name};
use crate::attribution::Workload;
use crate::causes::chain;
use crate::plain;

/// Of more pods than these of one name nothing is asked.
const PODS: usize = 16;

/// A pod's active whisper.
#[derive(Debug, Serialize)]
pub struct OfPod {
    pub namespace: String,
    pub pod: String,
    pub severity: &'static str,
    /// What is wrong, in numbers, in one sentence.
    pub insight: String,
}

/// The active whispers of the pods among these; what could not be asked is added to `unknown`.
pub async fn of(
    client: Client,
    workloads: &[std::sync::Arc<Workload>],
    within: Duration,
    unknown: &mut Vec<Unknown>,
) -> Vec<OfPod> {
    let pod = |who: &Workload| Some((who.namespace.clone()?, who.pod.clone()?, who.pod_uid.clone()?));
    let pods: BTreeSet<_> = workloads.iter().filter_map(|who| pod(who)).take(PODS).collect();
    let answers = join_all(pods.iter().map(|(namespace, name, uid)| {
        let api: Api<KernelWhisper> = Api::namespaced(client.clone(), namespace);
        async move {
            match tokio::time::timeout(within, api.get_opt(&object_name(name, "kw"))).await {
                Ok(Ok(object)) => Ok(object.filter(|kw| kw.spec.pod_uid == *uid).and_then(|kw| kw.status)),
                Ok(Err(error)) => Err(chain(&error).replace('\n', " ")),
                Err(_) => Err(format!("the API server does not answer within {} s", within.as_secs())),
            }
        }
    }));
    let mut all = Vec::new();
    for (answer, (namespace, name, _)) in answers.await.into_iter().zip(&pods) {
        match answer {
            Ok(Some(status)) if status.state == WhisperState::Active => all.push(OfPod {
                namespace: plain::made_plain(namespace).into_owned(),
                pod: plain::made_plain(name).into_owned(),
                severity: status.severity.as_str(),
                insight: plain::clipped(&status.insight, 2048),
            }),
            Ok(_) => {}
            Err(why) => {
                let what_to_do = Some("ask by a kubeconfig that may get kernelwhispers");
                let new = Unknown { what: "whispers", why: plain::clipped(&why, 512), what_to_do };
                if !unknown.iter().any(|other| other.what == new.what) {
                    unknown.push(new);
                }
            }
        }
    }
    all
}
