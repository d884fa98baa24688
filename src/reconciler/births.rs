//! Births that others saw: `pod_creation` of the webhook becomes a `PodBirthCertificate`, marked as
//! reported. What the kernel certified is not touched.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, ResourceExt};

use super::desired::PodKey;
use super::faults::Fault;
use super::ingest::webhook::event::ReportedBirth;
use super::ingest::{NotTaken, Reason, Refusal};
use super::render;
use super::report::PodFacts;
use super::writer::{ObjectKey, Work, WriteQueue};
use crate::api::{
    PodBirthCertificate, PodBirthCertificateSpec, PodBirthCertificateStatus, Source, object_name,
};

/// `<pod>-pbc`.
const SUFFIX: &str = "pbc";

/// The way of a reported birth to the writer.
pub struct Births {
    client: Client,
    queue: ArcSwapOption<WriteQueue>,
}

impl Births {
    pub fn new(client: Client) -> Births {
        Births { client, queue: ArcSwapOption::empty() }
    }

    /// From here on births are written through `queue`.
    pub fn open(&self, queue: Arc<WriteQueue>) {
        self.queue.store(Some(queue));
    }

    /// From here on births are not taken.
    pub fn close(&self) {
        self.queue.store(None);
    }

    /// Takes a birth of a pod that exists.
    ///
    /// # Errors
    /// Refused where the kernel's own certificate is there already; later where nothing can be said now.
    pub async fn reported(&self, birth: &ReportedBirth, pod: &PodFacts) -> Result<(), NotTaken> {
        let queue = self.queue.load_full().ok_or(NotTaken::Later("this replica does not lead"))?;
        let name = object_name(&pod.name, SUFFIX);
        let api: Api<PodBirthCertificate> = Api::namespaced(self.client.clone(), &pod.namespace);
        match api.get_opt(&name).await {
            Ok(there) => {
                let kernels = |c: &PodBirthCertificate| {
                    c.spec.pod_uid == pod.uid && c.status.as_ref().is_some_and(|s| s.source == Source::Kernel)
                };
                if there.as_ref().is_some_and(kernels) {
                    let why = "the kernel has certified this birth already";
                    return Err(Refusal::of(Reason::BadField, "pod_name", why).into());
                }
            }
            Err(error) => {
                tracing::debug!(fault = ?Fault::of(&error), %error, "asking for a birth certificate");
                return Err(NotTaken::Later("the API server does not say whether the birth is certified"));
            }
        }
        let key = PodKey { namespace: pod.namespace.clone(), pod: pod.name.clone() };
        let work = Work::Birth(Box::new(certificate(&name, birth, pod)));
        if queue.push(ObjectKey::Birth(key), work, None) {
            Ok(())
        } else {
            Err(NotTaken::Later("the reconciler is overloaded"))
        }
    }
}

fn certificate(name: &str, birth: &ReportedBirth, pod: &PodFacts) -> PodBirthCertificate {
    let spec = PodBirthCertificateSpec {
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node_name: pod.node.clone(),
    };
    let mut pbc = PodBirthCertificate::new(name, spec);
    pbc.metadata.namespace = Some(pod.namespace.clone());
    pbc.metadata.owner_references = Some(vec![render::owner(&pod.name, &pod.uid)]);
    pbc.labels_mut().extend(render::labels(&pod.name));
    pbc.status = Some(PodBirthCertificateStatus {
        total: birth.stats.total_duration_ms.map(|ms| format!("{ms:.0} ms")),
        started_at: Some(Time(birth.at)),
        timeline: birth.timeline.clone(),
        kernel_stats: Some(birth.stats.clone()),
        ..PodBirthCertificateStatus::of(Source::Reported)
    });
    pbc
}
