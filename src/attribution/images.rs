//! What only the kubelet's events tell: whether the image of a container was pulled for its start or was there, asked of the
//! API server once the pod is born; and why a pod is not born whose containers are not even made. The agent runs without; then
//! it is not known.
//!
//! The API server keeps no cache of events: for each question it reads all those of the namespace from etcd. So what is
//! asked within a moment is asked as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Notify;
use tracing::{debug, warn};

/// Where a container's image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// It was on the node.
    Present,
    /// How long that was waited for, where the kubelet says so.
    Pulled(Option<Duration>),
}

/// The images of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfPod {
    pub uid: String,
    /// By container; those that the kubelet has not reported are not there.
    pub images: BTreeMap<String, Image>,
}

/// Why a pod's sandbox or containers are not made, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub uid: String,
    /// `FailedMount`, `FailedCreatePodSandBox`, …
    pub reason: String,
    pub message: String,
}

/// Questions and answers: asked on one thread, answered on another.
#[derive(Debug, Default)]
pub struct Images {
    asked: Mutex<Asked>,
    /// Pods to be asked what keeps them.
    kept: Mutex<Asked>,
    woken: Notify,
    answers: Mutex<Vec<OfPod>>,
    troubles: Mutex<Vec<Trouble>>,
}

/// Images by container, by UID.
type ByPod = BTreeMap<String, BTreeMap<String, Image>>;
/// UIDs by namespace.
type Asked = BTreeMap<String, BTreeSet<String>>;

impl Images {
    /// Pods asked for, and answers, that wait; of more the images stay unknown.
    const MAX: usize = 1024;
    /// What is asked within this time is asked as one.
    const TOGETHER: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(5);
    /// After the API server has refused.
    const REFUSED: Duration = Duration::from_secs(600);

    /// Asks for the images of a pod, by its namespace and UID.
    pub fn ask(&self, namespace: String, uid: String) {
        let mut asked = lock(&self.asked);
        if asked.values().map(BTreeSet::len).sum::<usize>() < Self::MAX {
            asked.entry(namespace).or_default().insert(uid);
            self.woken.notify_one();
        }
    }

    /// Asks what keeps a pod, by its namespace and UID.
    pub fn ask_why(&self, namespace: String, uid: String) {
        let mut kept = lock(&self.kept);
        if kept.values().map(BTreeSet::len).sum::<usize>() < Self::MAX {
            kept.entry(namespace).or_default().insert(uid);
            self.woken.notify_one();
        }
    }

    /// What keeps pods, as far as that was answered since.
    pub fn troubles(&self) -> Vec<Trouble> {
        std::mem::take(&mut lock(&self.troubles))
    }

    /// What was answered since; a pod that nothing could be learnt of has no images.
    pub fn answers(&self) -> Vec<OfPod> {
        std::mem::take(&mut lock(&self.answers))
    }

    /// Answers for ever.
    pub(super) async fn serve(&self, client: Client) {
        let mut refused: Option<Instant> = None;
        loop {
            self.woken.notified().await;
            if refused.is_some_and(|at| at.elapsed() >= Self::REFUSED) {
                refused = None;
            }
            if refused.is_none() {
                tokio::time::sleep(Self::TOGETHER).await;
            }
            let asked = std::mem::take(&mut *lock(&self.asked));
            for (namespace, uids) in asked {
                let mut images = ByPod::new();
                if refused.is_none() && !Self::tells(&client, &namespace, &uids, &mut images).await {
                    warn!("whether images were pulled is not known: grant the agent list on events");
                    refused = Some(Instant::now());
                }
                self.answer(uids, images);
            }
            let kept = std::mem::take(&mut *lock(&self.kept));
            for (namespace, uids) in kept.into_iter().filter(|_| refused.is_none()) {
                let asked = troubles(client.clone(), &namespace, &uids);
                let told = tokio::time::timeout(Self::PATIENCE, asked).await;
                match told {
                    Ok(Ok(told)) => {
                        let mut all = lock(&self.troubles);
                        all.extend(told);
                        all.truncate(Self::MAX);
                    }
                    Ok(Err(error)) => debug!(%error, "asking for the events of pods that wait"),
                    Err(_elapsed) => debug!("the API server does not answer what keeps pods"),
                }
            }
        }
    }

    /// Adds what the API server tells in time; false if it refuses to.
    async fn tells(client: &Client, namespace: &str, uids: &BTreeSet<String>, images: &mut ByPod) -> bool {
        let list = list(client.clone(), namespace, uids, images);
        match tokio::time::timeout(Self::PATIENCE, list).await {
            Ok(Ok(())) => {}
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => return false,
            Ok(Err(error)) => debug!(%error, "asking for the events of pods"),
            Err(_elapsed) => debug!("the API server does not answer what the events of pods are"),
        }
        true
    }

    fn answer(&self, uids: BTreeSet<String>, mut images: ByPod) {
        let mut answers = lock(&self.answers);
        for uid in uids {
            let images = images.remove(&uid).unwrap_or_default();
            if answers.len() < Self::MAX {
                answers.push(OfPod { uid, images });
            }
        }
    }
}

/// Adds the images of these pods, by UID.
async fn list(
    client: Client,
    namespace: &str,
    uids: &BTreeSet<String>,
    images: &mut ByPod,
) -> Result<(), kube::Error> {
    /// Events in memory at a time.
    const PAGE: u32 = 200;
    let api: Api<Event> = Api::namespaced(client, namespace);
    let one = uids.first().filter(|_| uids.len() == 1).map(|uid| format!(",involvedObject.uid={uid}"));
    let fields = format!("involvedObject.kind=Pod,reason=Pulled{}", one.unwrap_or_default());
    let mut of = ListParams::default().fields(&fields).limit(PAGE);
    loop {
        let page = api.list(&of).await?;
        read(page.items, uids, images);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => of.continue_token = Some(token),
            _ => return Ok(()),
        }
    }
}

/// Why these pods wait, by the kubelet's warnings; of each the latest.
async fn troubles(
    client: Client,
    namespace: &str,
    uids: &BTreeSet<String>,
) -> Result<Vec<Trouble>, kube::Error> {
    const PAGE: u32 = 200;
    let api: Api<Event> = Api::namespaced(client, namespace);
    let one = uids.first().filter(|_| uids.len() == 1).map(|uid| format!(",involvedObject.uid={uid}"));
    let fields = format!("involvedObject.kind=Pod,type=Warning{}", one.unwrap_or_default());
    let mut of = ListParams::default().fields(&fields).limit(PAGE);
    let mut latest = BTreeMap::new();
    loop {
        let page = api.list(&of).await?;
        page.items.into_iter().for_each(|event| keep(event, uids, &mut latest));
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => of.continue_token = Some(token),
            _ => return Ok(latest.into_values().map(|(_, trouble)| trouble).collect()),
        }
    }
}

/// Keeps what an event says of one of these pods, if nothing later is known.
fn keep(event: Event, uids: &BTreeSet<String>, latest: &mut BTreeMap<String, (Timestamp, Trouble)>) {
    /// Of what the kubelet warns of before there is a container (pkg/kubelet/events/event.go).
    const REASONS: [&str; 4] =
        ["FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"];
    let at = event.last_timestamp.map(|t| t.0).or(event.event_time.map(|t| t.0)).unwrap_or_default();
    let uid = event.involved_object.uid.filter(|uid| uids.contains(uid));
    let reason = event.reason.filter(|r| REASONS.contains(&r.as_str()));
    let (Some(uid), Some(reason)) = (uid, reason) else { return };
    if latest.get(&uid).is_none_or(|(before, _)| *before <= at) {
        let message = event.message.unwrap_or_default();
        latest.insert(uid.clone(), (at, Trouble { uid, reason, message }));
    }
}

/// A container that is started again finds the image that was pulled for it.
fn read(events: Vec<Event>, uids: &BTreeSet<String>, images: &mut ByPod) {
    for event in events {
        let uid = event.involved_object.uid.as_ref().filter(|uid| uids.contains(*uid));
        let container = event.involved_object.field_path.as_deref().and_then(container);
        if let (Some(uid), Some(container), Some(image)) =
            (uid, container, event.message.as_deref().and_then(image))
        {
            let of_pod = images.entry(uid.clone()).or_default();
            let known = of_pod.entry(container.to_owned()).or_insert(image);
            *known = image.max(*known);
        }
    }
}

/// The name in `spec.containers{web}`.
fn container(path: &str) -> Option<&str> {
    path.split_once('{')?.1.strip_suffix('}')
}

/// In the kubelet's words (pkg/kubelet/images/image_manager.go).
fn image(message: &str) -> Option<Image> {
    match message {
        m if m.starts_with("Successfully pulled image ") => Some(Image::Pulled(took(m))),
        m if m.contains(" already present on machine") => Some(Image::Present),
        _ => None,
    }
}

/// The longer time of `Successfully pulled image "x" in 1.2s (1.3s including waiting). Image size: 5 bytes.`
fn took(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("\" in ")?;
    let text = match rest.split_once(" including waiting)") {
        Some((before, _)) => before.rsplit_once('(')?.1,
        None => rest.trim_end_matches('.'),
    };
    text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn pulled(container: &str, message: &str) -> Event {
        let mut event = Event { message: Some(message.into()), ..Event::default() };
        event.involved_object.uid = Some("1".into());
        event.involved_object.field_path = Some(container.into());
        event
    }

    #[test]
    fn the_kubelet_tells_them_apart() {
        let present = r#"Container image "testbed.local/web:1" already present on machine"#;
        let events = vec![
            pulled("spec.containers{web}", present),
            pulled(
                "spec.containers{web}",
                r#"Successfully pulled image "x" in 1.2s (1.3s including waiting). Image size: 5 bytes."#,
            ),
            pulled("spec.initContainers{first}", &format!("{present} and can be accessed by the pod")),
            pulled("spec.containers{odd}", "something else"),
            pulled("none", present),
        ];
        let of_other = Event {
            involved_object: ObjectReference { uid: Some("2".into()), ..events[0].involved_object.clone() },
            ..events[0].clone()
        };
        let took = Image::Pulled(Some(Duration::from_millis(1_300)));
        let expected = [("first".to_owned(), Image::Present), ("web".to_owned(), took)];
        let mut images = BTreeMap::new();
        read([vec![of_other], events].concat(), &["1".to_owned()].into(), &mut images);
        assert_eq!(images, [("1".to_owned(), expected.into())].into());
    }

    #[test]
    fn what_keeps_a_pod_is_the_latest_of_the_kubelets_warnings() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        let warning = |uid: &str, reason: &str, second, message: &str| {
            let mut event = pulled("", message);
            event.involved_object.uid = Some(uid.into());
            event.reason = Some(reason.into());
            event.last_timestamp = Some(Time(Timestamp::from_second(second).expect("a time")));
            event
        };
        let secret = r#"MountVolume.SetUp failed for volume "s" : secret "nope" not found"#;
        let events = [
            warning("1", "FailedMount", 20, secret),
            warning("1", "FailedMount", 10, "before"),
            warning("1", "BackOff", 30, "of a container"),
            warning("2", "FailedMount", 30, "of another"),
        ];
        let (uids, mut latest) = (["1".to_owned()].into(), BTreeMap::new());
        events.into_iter().for_each(|event| keep(event, &uids, &mut latest));
        let told: Vec<Trouble> = latest.into_values().map(|(_, trouble)| trouble).collect();
        let (uid, reason, message) = ("1".into(), "FailedMount".into(), secret.into());
        assert_eq!(told, [Trouble { uid, reason, message }]);
    }

    #[test]
    fn how_long_a_pull_took_is_told_in_gos_words() {
        for (words, ms) in [
            ("in 1.2s (1.3s including waiting). Image size: 5 bytes.", Some(1_300)),
            ("in 345ms (1m2.5s including waiting)", Some(62_500)),
            ("in 21.5ms", Some(21)),
            ("in 2h3m4s", Some(7_384_000)),
            ("in a while", None),
            ("", None),
        ] {
            let message = format!("Successfully pulled image \"registry/x:1\" {words}");
            let expected = Image::Pulled(ms.map(Duration::from_millis));
            let told = match image(&message) {
                Some(Image::Pulled(Some(took))) => {
                    Image::Pulled(Some(Duration::from_millis(took.as_millis() as u64)))
                }
                told => told.expect("a pull"),
            };
            assert_eq!(told, expected, "{words}");
        }
    }
}
