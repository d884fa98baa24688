//! Whether the image of a container was pulled for its start or was there: the kubelet's events, asked of the API server
//! once the container is begun. The agent runs without; then it is not known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    Pulled,
}

/// The images of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfPod {
    pub uid: String,
    /// By container; those that the kubelet has not told of are not there.
    pub images: BTreeMap<String, Image>,
}

/// Questions and answers: asked on one thread, answered on another.
#[derive(Debug, Default)]
pub struct Images {
    asked: Mutex<VecDeque<(String, String)>>,
    woken: Notify,
    answers: Mutex<Vec<OfPod>>,
}

impl Images {
    /// Questions, and answers, that wait; of more the images stay unknown.
    const MAX: usize = 256;
    const PATIENCE: Duration = Duration::from_secs(5);
    /// After the API server has refused.
    const REFUSED: Duration = Duration::from_secs(600);

    /// Asks for the images of a pod, by its namespace and UID.
    pub fn ask(&self, namespace: String, uid: String) {
        let mut asked = lock(&self.asked);
        if asked.len() < Self::MAX && !asked.iter().any(|(_, u)| *u == uid) {
            asked.push_back((namespace, uid));
            self.woken.notify_one();
        }
    }

    /// What was answered since.
    pub fn answers(&self) -> Vec<OfPod> {
        std::mem::take(&mut lock(&self.answers))
    }

    /// Answers for ever.
    pub(super) async fn serve(&self, client: Client) {
        loop {
            let next = lock(&self.asked).pop_front();
            let Some((namespace, uid)) = next else {
                self.woken.notified().await;
                continue;
            };
            match tokio::time::timeout(Self::PATIENCE, list(client.clone(), &namespace, &uid)).await {
                Ok(Ok(images)) => {
                    let mut answers = lock(&self.answers);
                    if answers.len() < Self::MAX {
                        answers.push(OfPod { uid, images });
                    }
                }
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                    warn!("whether images were pulled is not known: grant the agent list on events");
                    tokio::time::sleep(Self::REFUSED).await;
                    lock(&self.asked).clear();
                }
                Ok(Err(error)) => debug!(%error, "asking for a pod's events"),
                Err(_elapsed) => debug!("the API server does not answer what the events of a pod are"),
            }
        }
    }
}

async fn list(client: Client, namespace: &str, uid: &str) -> Result<BTreeMap<String, Image>, kube::Error> {
    let api: Api<Event> = Api::namespaced(client, namespace);
    let of = ListParams::default().fields(&format!("involvedObject.uid={uid},reason=Pulled")).limit(100);
    Ok(read(api.list(&of).await?.items))
}

/// A container that is started again finds the image that was pulled for it.
fn read(events: Vec<Event>) -> BTreeMap<String, Image> {
    let mut images = BTreeMap::new();
    for event in events {
        let container = event.involved_object.field_path.as_deref().and_then(container);
        if let (Some(container), Some(image)) = (container, event.message.as_deref().and_then(image)) {
            let known = images.entry(container.to_owned()).or_insert(image);
            *known = image.max(*known);
        }
    }
    images
}

/// The name in `spec.containers{web}`.
fn container(path: &str) -> Option<&str> {
    path.split_once('{')?.1.strip_suffix('}')
}

/// In the kubelet's words (pkg/kubelet/images/image_manager.go).
fn image(message: &str) -> Option<Image> {
    match message {
        m if m.starts_with("Successfully pulled image ") => Some(Image::Pulled),
        m if m.contains(" already present on machine") => Some(Image::Present),
        _ => None,
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(container: &str, message: &str) -> Event {
        let mut event = Event { message: Some(message.into()), ..Event::default() };
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
        let expected = [("first".to_owned(), Image::Present), ("web".to_owned(), Image::Pulled)];
        assert_eq!(read(events), expected.into());
    }
}
