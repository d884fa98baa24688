//! Births become `PodBirthCertificate`s: those that an agent certifies from the kernel, and those that others saw
//! (`pod_creation` of the webhook), marked as reported. What the kernel certified, others do not touch.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Api, Client, ResourceExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::writer::{ObjectKey, Work, WriteQueue};
use crate::api::{
    AGENT_STARTED, BirthOutcome, ContainerRestart, PodBirthCertificate, PodBirthCertificateSpec,
    PodBirthCertificateStatus, Source, object_name,
};
use crate::birth::watch::trace_id;
use crate::reconciler::desired::{PodKey, render};
use crate::reconciler::faults::Fault;
use crate::reconciler::ingest::certificate::Certified;
use crate::reconciler::ingest::webhook::event::ReportedBirth;
use crate::reconciler::lookup::ttl_cache::TtlCache;
use crate::reconciler::refusal::{NotTaken, Reason, Refusal};
use crate::reconciler::report::PodFacts;

/// `<pod>-pbc`.
const SUFFIX: &str = "pbc";
/// Restarts an object keeps.
const RESTARTS_MAX: usize = 16;
/// Certified births remembered until they are surely written.
const CERTIFIED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
const CERTIFIED_FOR: Duration = Duration::from_secs(600);
/// How long a sender waits for its births to be written. An agent says one once: what it was told is taken
/// must outlive this replica. Less than its own patience of 10 s.
pub const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// Condition: the pod was born.
const BORN: &str = "Born";
/// Condition: nothing is missing in the certificate.
const MEASURED: &str = "Measured";

/// A birth on its way to the API server.
#[must_use = "an answer before it is written may be forgotten"]
pub struct OnItsWay(oneshot::Receiver<bool>);

impl OnItsWay {
    /// Until it is written. What cannot be written until somebody sets right why is taken: the writer says so and
    /// tries again, and a sender that came again would hold up the whispers behind it.
    ///
    /// # Errors
    /// Later where it is not written by then.
    pub async fn written(self, by: Instant) -> Result<(), NotTaken> {
        match timeout_at(by, self.0).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NotTaken::Later("this replica does not lead any more")),
            Err(_) => Err(NotTaken::Later("the birth is not written yet")),
        }
    }
}

/// The way of a birth to the writer.
pub struct Births {
    client: Client,
    queue: ArcSwapOption<WriteQueue>,
    /// By the pod's UID: what the kernel certified, which may not be written yet.
    certified: TtlCache<String, ()>,
}

impl Births {
    pub fn new(client: Client) -> Births {
        Births { client, queue: ArcSwapOption::empty(), certified: TtlCache::new(CERTIFIED_MAX) }
    }

    /// From here on births are written through `queue`.
    pub fn open(&self, queue: Arc<WriteQueue>) {
        self.queue.store(Some(queue));
    }

    /// From here on births are not taken. Returns where they went.
    pub fn close(&self) -> Option<Arc<WriteQueue>> {
        self.queue.swap(None)
    }

    /// Takes a birth that others saw, of a pod that exists, and waits until it is written.
    ///
    /// # Errors
    /// Refused where the kernel's own certificate is there already; later where nothing can be said now.
    pub async fn reported(&self, birth: &ReportedBirth, pod: &PodFacts) -> Result<(), NotTaken> {
        let queue = self.queue.load_full().ok_or(NotTaken::Later("this replica does not lead"))?;
        let known = self.certified.get(&pod.uid, |()| CERTIFIED_FOR).is_some();
        if known || self.kernels(pod).await?.is_some() {
            let why = "the kernel has certified this birth already";
            return Err(Refusal::of(Reason::BadField, "pod_name", why).into());
        }
        let status = PodBirthCertificateStatus {
            total: birth.stats.total_duration_ms.map(|ms| format!("{ms:.0} ms")),
            started_at: Some(Time(birth.at)),
            timeline: birth.timeline.clone(),
            kernel_stats: Some(birth.stats.clone()),
            ..PodBirthCertificateStatus::of(Source::Reported)
        };
        write(&queue, status, pod)?.written(Instant::now() + WRITTEN_WITHIN).await
    }

    /// Takes a birth, or a restart, that an agent certifies, of a pod that exists.
    ///
    /// # Errors
    /// Later where nothing can be said now.
    pub async fn certified(&self, birth: &Certified, pod: &PodFacts) -> Result<Option<OnItsWay>, NotTaken> {
        let queue = self.queue.load_full().ok_or(NotTaken::Later("this replica does not lead"))?;
        let mut status = birth.status.clone();
        if status.outcome.is_none() {
            // An agent that did not see the birth tells of a restart alone: it belongs to what was certified before.
            let Some(mut there) = self.kernels(pod).await? else { return Ok(None) };
            // Sent again, as its answer was lost, it may be there already.
            status.restarts.retain(|r| !there.restarts.iter().any(|t| same_restart(t, r)));
            there.restarts.append(&mut status.restarts);
            let excess = there.restarts.len().saturating_sub(RESTARTS_MAX);
            there.restarts.drain(..excess);
            status = PodBirthCertificateStatus { observed_generation: None, ..there };
        }
        let unseen = status.failure.as_ref().is_some_and(|f| f.reason == AGENT_STARTED);
        if unseen && self.kernels(pod).await?.is_some() {
            // Of the pod's birth more is known already.
            return Ok(None);
        }
        status.trace_id = trace_id(&pod.uid);
        status.conditions = conditions(&status, birth.at);
        self.certified.put(pod.uid.clone(), ());
        write(&queue, status, pod).map(Some)
    }

    /// What the kernel has certified of this pod.
    async fn kernels(&self, pod: &PodFacts) -> Result<Option<PodBirthCertificateStatus>, NotTaken> {
        let api: Api<PodBirthCertificate> = Api::namespaced(self.client.clone(), &pod.namespace);
        match api.get_opt(&object_name(&pod.name, SUFFIX)).await {
            Ok(there) => {
                let of_this = there.filter(|c| c.spec.pod_uid == pod.uid);
                Ok(of_this.and_then(|c| c.status).filter(|s| s.source == Source::Kernel))
            }
            Err(error) => {
                tracing::debug!(fault = ?Fault::of(&error), %error, "asking for a birth certificate");
                Err(NotTaken::Later("the API server does not say whether the birth is certified"))
            }
        }
    }
}

/// Of one container at one time, in the whole seconds that an object keeps.
fn same_restart(a: &ContainerRestart, b: &ContainerRestart) -> bool {
    let second = |r: &ContainerRestart| r.at.as_ref().map(|t| t.0.as_second());
    a.container == b.container && second(a) == second(b)
}

fn write(
    queue: &WriteQueue,
    status: PodBirthCertificateStatus,
    pod: &PodFacts,
) -> Result<OnItsWay, NotTaken> {
    let name = object_name(&pod.name, SUFFIX);
    let spec = PodBirthCertificateSpec {
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node_name: pod.node.clone(),
    };
    let mut pbc = PodBirthCertificate::new(&name, spec);
    pbc.metadata.namespace = Some(pod.namespace.clone());
    pbc.metadata.owner_references = Some(vec![render::owner(&pod.name, &pod.uid)]);
    pbc.labels_mut().extend(render::labels(&pod.name));
    pbc.status = Some(status);
    let key = PodKey { namespace: pod.namespace.clone(), pod: pod.name.clone() };
    let (waiter, written) = oneshot::channel();
    match queue.push(ObjectKey::Birth(key), Work::Birth(Box::new(pbc)), Some(waiter)) {
        true => Ok(OnItsWay(written)),
        false => Err(NotTaken::Later("the reconciler is overloaded")),
    }
}

/// Born, and whether anything is missing, since when it is so.
fn conditions(status: &PodBirthCertificateStatus, at: Timestamp) -> Vec<Condition> {
    let since = since(status).unwrap_or(Time(at));
    let condition = |kind: &str, met: bool, reason: String, message: String| Condition {
        type_: kind.to_owned(),
        status: if met { "True" } else { "False" }.to_owned(),
        reason,
        message,
        last_transition_time: since.clone(),
        observed_generation: None,
    };
    let born = match (&status.failure, status.outcome) {
        (_, Some(BirthOutcome::Complete) | None) => {
            let total = status.total.clone().unwrap_or_default();
            condition(BORN, true, "Complete".into(), format!("born in {total}"))
        }
        (failure, Some(outcome)) => {
            let reason = failure.as_ref().map(|f| camel(&f.reason)).filter(|r| !r.is_empty());
            let phase = failure.as_ref().map(|f| format!(" in phase {}", f.phase)).unwrap_or_default();
            let why = failure.as_ref().and_then(|f| f.message.as_ref()).map(|m| format!(": {m}"));
            let message = format!("{}{phase}{}", outcome.as_str(), why.unwrap_or_default());
            condition(BORN, false, reason.unwrap_or_else(|| "Unknown".into()), message)
        }
    };
    let measured = match status.missing.as_slice() {
        [] => condition(MEASURED, true, "Kernel".into(), "nothing is missing".into()),
        missing => {
            let parts: Vec<_> = missing.iter().map(|m| format!("{}: {}", m.part, m.why)).collect();
            condition(MEASURED, false, "PartsMissing".into(), parts.join("; "))
        }
    };
    vec![born, measured]
}

/// When it came to this: the end of the birth, also of one that failed first and was born later.
fn since(status: &PodBirthCertificateStatus) -> Option<Time> {
    let lasted = status.kernel_stats.as_ref()?.total_duration_ms?;
    let lasted = SignedDuration::try_from_secs_f64(lasted / 1e3).ok()?;
    status.started_at.as_ref()?.0.checked_add(lasted).ok().map(Time)
}

/// As the API wants a condition's reason: letters and digits, a letter first.
fn camel(reason: &str) -> String {
    reason.chars().filter(char::is_ascii_alphanumeric).skip_while(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BirthFailure, KernelStats};
    use crate::reconciler::write::queue::{Queue, Rates};

    fn certified(outcome: Option<BirthOutcome>) -> Certified {
        let status = PodBirthCertificateStatus { outcome, ..PodBirthCertificateStatus::of(Source::Kernel) };
        Certified {
            namespace: "shop".into(),
            pod: "web".into(),
            uid: "0e9fa5a1-8c4b-4e0e-9d5c-5ad1a2f2b0c1".into(),
            at: "2026-11-21T06:00:00Z".parse().unwrap(),
            status,
        }
    }

    fn pod() -> PodFacts {
        let c = certified(None);
        PodFacts { namespace: c.namespace, name: c.pod, uid: c.uid, node: "n".into(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_birth_is_taken_once_it_is_written() {
        // Nobody answers there, and nobody is asked: the birth is whole.
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let births = Births::new(Client::try_from(nowhere).unwrap());
        let queue: Arc<WriteQueue> = Arc::new(Queue::new(Rates::default()));
        births.open(queue.clone());
        let birth = certified(Some(BirthOutcome::Complete));
        let say = async || births.certified(&birth, &pod()).await.unwrap().unwrap();

        let soon = || Instant::now() + Duration::from_millis(1);
        assert!(matches!(say().await.written(soon()).await, Err(NotTaken::Later(_))), "nobody writes");
        let second = say().await;
        let job = queue.next().await;
        let waiters: Vec<_> = job.waiters.into_iter().filter(|w| !w.is_closed()).collect();
        assert_eq!(waiters.len(), 1, "said again, it is one to write");
        waiters.into_iter().for_each(|w| w.send(true).unwrap());
        assert_eq!(second.written(soon()).await, Ok(()));
        queue.done(&job.key);

        // The term ends with the birth unwritten.
        let third = say().await;
        queue.clear();
        assert!(matches!(third.written(soon()).await, Err(NotTaken::Later(_))));
    }

    #[test]
    fn a_restart_said_again_is_the_same() {
        let restart = |container: &str, at: &str| ContainerRestart {
            container: container.into(),
            at: Some(Time(at.parse().unwrap())),
            ..ContainerRestart::default()
        };
        let a = restart("web", "2026-11-21T06:00:00.25Z");
        assert!(same_restart(&a, &restart("web", "2026-11-21T06:00:00Z")));
        assert!(!same_restart(&a, &restart("web", "2026-11-21T06:00:10Z")));
        assert!(!same_restart(&a, &restart("log", "2026-11-21T06:00:00Z")));
    }

    #[test]
    fn a_condition_is_as_old_as_what_it_says() {
        let started: Timestamp = "2026-11-21T10:00:00Z".parse().expect("a time");
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        status.started_at = Some(Time(started));
        let mut told = |outcome, ms, failure| {
            status.outcome = Some(outcome);
            status.failure = failure;
            status.kernel_stats = Some(KernelStats { total_duration_ms: Some(ms), ..KernelStats::default() });
            let born = conditions(&status, started)[0].clone();
            (born.status, born.last_transition_time.0.to_string())
        };
        let failure = BirthFailure {
            phase: "image".into(),
            container: None,
            reason: "ErrImagePull".into(),
            message: None,
        };
        let failed = told(BirthOutcome::Failed, 2000.0, Some(failure));
        assert_eq!(failed, ("False".into(), "2026-11-21T10:00:02Z".into()));
        let born = told(BirthOutcome::Complete, 61_000.0, None);
        assert_eq!(born, ("True".into(), "2026-11-21T10:01:01Z".into()));
    }
}
