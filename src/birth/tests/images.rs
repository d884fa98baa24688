//! Certificates that wait to be told where their images came from.

use super::retries::{Node, SOON};
use super::*;
use crate::api::ImageOrigin;
use crate::attribution::images::{Image, OfPod};

const PATIENCE: Duration = Duration::from_secs(5);

fn pulled() -> OfPod {
    OfPod { uid: UID.into(), images: [("kg-birth".to_owned(), Image::Pulled(None))].into() }
}

fn images(certificates: &[Certificate]) -> Vec<Option<ImageOrigin>> {
    certificates.iter().map(|c| c.status.containers[0].image).collect()
}

/// A node whose pod is born, and asked about.
fn born() -> Node {
    let mut node =
        Node::with(Options { images: PATIENCE, ..Options::default() }, records(POD), slimmed(POD_OBJECT));
    node.told();
    assert!(node.after(SOON).is_empty() && node.births.holding());
    assert!(!node.births.recording(), "it is over");
    assert_eq!(node.unseen(), [(node.pod.namespace.clone(), UID.to_owned())]);
    node
}

#[test]
fn a_certificate_goes_out_once_it_is_told_or_nobody_tells() {
    let mut told = born();
    told.births.images(&pulled());
    assert_eq!(images(&told.after(SOON)), [Some(ImageOrigin::Pulled)]);
    let mut untold = born();
    assert!(untold.after(PATIENCE - 2 * SOON).is_empty());
    assert_eq!(images(&untold.after(3 * SOON)), [Some(ImageOrigin::Unknown)]);
    let mut ended = born();
    assert_eq!(images(&ended.births.give_up()), [Some(ImageOrigin::Unknown)]);
    for node in [&mut told, &mut untold, &mut ended] {
        assert!(!node.births.holding() && node.unseen().is_empty());
        assert!(node.after(PATIENCE).is_empty());
    }
}

#[test]
fn what_happens_meanwhile_is_not_in_it() {
    let whole = Node::born_at_once();
    let mut node = born();
    node.pod.life.deleting = true;
    node.pod.life.ready = None;
    node.told();
    assert!(node.after(Duration::from_secs(1)).is_empty());
    node.births.images(&pulled());
    let [mut c] = <[_; 1]>::try_from(node.after(SOON)).expect("one");
    c.status.containers[0].image = whole.status.containers[0].image;
    let image = c.status.phases.iter_mut().find(|p| p.name == "image").expect("it was pulled");
    image.name = "wait".into();
    assert_eq!(c, whole);
}

#[test]
fn a_restart_goes_out_behind_the_birth_and_is_told_too() {
    let mut node = born();
    node.starts(&retries::id(1), 1);
    node.pod.containers[0].ids = [Some(retries::id(1)), Some(CONTAINER.into())];
    node.pod.containers[0].restarts = 1;
    node.told();
    assert!(node.after(Duration::from_secs(3)).is_empty());
    node.births.images(&pulled());
    let certificates = node.after(SOON);
    assert_eq!(certificates.iter().map(|c| c.restart).collect::<Vec<_>>(), [false, true]);
    assert_eq!(images(&certificates), [Some(ImageOrigin::Pulled); 2]);
    assert!(node.unseen().is_empty(), "a restart finds its image there");
}

#[test]
fn without_a_container_there_is_nothing_to_ask() {
    let (all, mut pod) = sandbox_only();
    pod.containers[0].waiting = Some(("ErrImagePull".into(), None));
    let mut node = Node::with(Options { images: PATIENCE, ..Options::default() }, all, pod);
    node.told();
    assert_eq!(node.after(SOON)[0].status.outcome, Some(BirthOutcome::Failed));
    assert!(node.unseen().is_empty());
}

#[test]
fn pods_born_together_are_asked_for_together() {
    let mut node =
        Node::with(Options { images: PATIENCE, ..Options::default() }, records(POD), slimmed(POD_OBJECT));
    let other = "11111111-2222-3333-4444-555555555555";
    let path = format!("/kubepods/besteffort/pod{other}");
    node.record(cgroup(CPU_TREE, 999, &path, node.now));
    node.told();
    assert!(node.after(SOON).is_empty() && node.births.holding());
    assert!(node.unseen().is_empty(), "the other is being born");
    node.after(Duration::from_secs(2));
    assert_eq!(node.unseen().len(), 1);
}

impl Node {
    fn unseen(&mut self) -> Vec<(String, String)> {
        let now = moment(self.zero, self.now);
        self.births.unseen(now)
    }

    /// The same pod, where nobody asks.
    fn born_at_once() -> Certificate {
        let mut node = Node::new(records(POD), slimmed(POD_OBJECT));
        node.told();
        node.after(SOON).remove(0)
    }
}
