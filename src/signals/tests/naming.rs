use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::evidence::SignalEvidence;
use crate::signals::naming::NameGate;
use crate::signals::{Neighbour, Severity};

const WAIT: Duration = Duration::from_secs(5);

fn whisper(who: Arc<Workload>) -> Whisper {
    Whisper {
        signal: SignalKind::CpuThrottle,
        severity: Severity::Warning,
        transition: Transition::Started,
        who,
        since: at(0),
        at: at(0),
        evidence: SignalEvidence::default(),
        neighbours: Vec::new(),
        history: Vec::new(),
    }
}

fn of_pod(path: &str, name: Option<&str>) -> Arc<Workload> {
    let mut who = Workload::clone(&container(path));
    who.pod_uid = Some("5e3c1b7e-0000-4000-8000-000000000001".into());
    who.namespace = name.map(|_| "shop".into());
    who.pod = name.map(str::to_owned);
    Arc::new(who)
}

fn nobody(_: &Workload) -> Option<Arc<Workload>> {
    None
}

#[test]
fn what_is_named_or_no_pod_passes_at_once() {
    let mut gate = NameGate::new(WAIT);
    let mut out = Vec::new();
    let mut unit = Workload::clone(&workload(WorkloadKind::Unit, "/system.slice/x.service"));
    unit.unit = Some("x.service".into());
    // A container of a runtime without Kubernetes: the runtime's name is all there will be.
    let mut docker = Workload::clone(&container("/docker/ab"));
    docker.container_id = Some("ab".repeat(32));
    docker.unit = Some("db".into());
    let all = [of_pod("/a", Some("web")), Arc::new(unit), Arc::new(docker), container("/plain")];
    gate.pass(0, &mut all.map(whisper).into(), nobody, &mut out);
    assert_eq!((out.len(), gate.held(), gate.unnamed()), (4, 0, 0));
}

#[test]
fn a_late_name_is_waited_for() {
    let mut gate = NameGate::new(WAIT);
    let mut out = Vec::new();
    let mut fresh = vec![whisper(of_pod("/a", None))];
    fresh[0].neighbours.push(Neighbour { who: of_pod("/b", None), percent: 10.0 });
    gate.pass(0, &mut fresh, nobody, &mut out);
    assert_eq!((out.len(), gate.held()), (0, 1));
    let known = |w: &Workload| Some(of_pod(&w.cgroup, Some(if w.cgroup == "/a" { "web" } else { "noisy" })));
    gate.pass(4 * SECOND, &mut Vec::new(), known, &mut out);
    assert_eq!(out[0].who.pod.as_deref(), Some("web"));
    assert_eq!(out[0].neighbours[0].who.pod.as_deref(), Some("noisy"));
    assert_eq!((gate.held(), gate.unnamed()), (0, 0));
}

#[test]
fn a_name_that_does_not_come_is_not_waited_for_longer_and_counted() {
    let mut gate = NameGate::new(WAIT);
    let mut out = Vec::new();
    gate.pass(0, &mut vec![whisper(of_pod("/a", None))], nobody, &mut out);
    gate.pass(5 * SECOND - 1, &mut Vec::new(), nobody, &mut out);
    assert_eq!((out.len(), gate.unnamed()), (0, 0));
    gate.pass(5 * SECOND, &mut Vec::new(), nobody, &mut out);
    assert_eq!((out.len(), gate.unnamed(), gate.held()), (1, 1, 0));
    assert!(out[0].who.pod_uid.is_some());
}

#[test]
fn a_later_whisper_names_those_held_before_it() {
    let mut gate = NameGate::new(WAIT);
    let mut out = Vec::new();
    gate.pass(0, &mut vec![whisper(of_pod("/a", None)), whisper(of_pod("/b", None))], nobody, &mut out);
    let mut resolved = whisper(of_pod("/a", Some("web")));
    resolved.transition = Transition::Resolved;
    gate.pass(SECOND, &mut vec![resolved], nobody, &mut out);
    assert_eq!(
        said(&out).iter().map(|s| s.1).collect::<Vec<_>>(),
        [Transition::Started, Transition::Resolved]
    );
    assert!(out.iter().all(|w| w.who.pod.as_deref() == Some("web")));
    assert_eq!(gate.held(), 1, "the other pod waits");
}

#[test]
fn the_queue_is_bounded_and_nothing_is_lost() {
    let mut gate = NameGate::new(WAIT);
    let mut out = Vec::new();
    let mut fresh = (0..3000).map(|i| whisper(of_pod(&format!("/{i}"), None))).collect();
    gate.pass(0, &mut fresh, nobody, &mut out);
    assert_eq!(gate.held(), 1024);
    assert_eq!((out.len(), gate.unnamed()), (3000 - 1024, 3000 - 1024));
    gate.flush(nobody, &mut out);
    assert_eq!((out.len(), gate.unnamed(), gate.held()), (3000, 3000, 0));
}

proptest! {
    /// Whenever names come, even between two look-ups: each whisper goes out once, within the wait, in
    /// its workload's order, and none without the name that was known.
    #[test]
    fn each_goes_out_once_in_order(
        whispers in prop::collection::vec((0..4usize, any::<bool>(), 0..2000u64), 1..60),
        known_after in prop::collection::vec(0..80usize, 4),
    ) {
        let mut gate = NameGate::new(WAIT);
        let mut out = Vec::new();
        let asked = Cell::new(0);
        let resolve = |w: &Workload| {
            asked.set(asked.get() + 1);
            let i: usize = w.cgroup[1..].parse().ok()?;
            (asked.get() > known_after[i]).then(|| of_pod(&w.cgroup, Some("web")))
        };
        let (mut now, mut entered) = (0, Vec::new());
        for (which, named, ms) in whispers {
            now += ms * 1_000_000;
            let who = of_pod(&format!("/{which}"), named.then_some("web"));
            let mut fresh = whisper(who);
            // Its number and the time it went in, to know it again.
            fresh.since = at(now);
            fresh.evidence.window_seconds = Some(entered.len() as f64);
            entered.push(now);
            let gone = out.len();
            gate.pass(now, &mut vec![fresh], resolve, &mut out);
            for w in &out[gone..] {
                prop_assert!(now - entered[w.window_seconds() as usize] <= 7 * SECOND, "held too long");
            }
        }
        gate.flush(resolve, &mut out);
        prop_assert_eq!(out.len(), entered.len(), "each once");
        prop_assert_eq!(gate.unnamed(), out.iter().filter(|w| w.who.pod.is_none()).count() as u64);
        for path in ["/0", "/1", "/2", "/3"] {
            let of_one: Vec<_> =
                out.iter().filter(|w| w.who.cgroup == path).map(|w| w.window_seconds()).collect();
            prop_assert!(of_one.is_sorted(), "overtaken: {of_one:?}");
        }
    }
}
