//! The gate between the signals and the sinks: a whisper about a pod waits here, for a bounded time,
//! until the pod's name is known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::whisper::Whisper;
use super::window::nanos;
use crate::attribution::Workload;

/// Whispers held at once; beyond it the oldest goes out early.
const MAX_HELD: usize = 1024;

/// Holds back whispers about pods without a name. The order of a workload's whispers is kept.
#[derive(Debug)]
pub struct NameGate {
    wait: Duration,
    held: VecDeque<Held>,
    unnamed: u64,
}

#[derive(Debug)]
struct Held {
    until_ns: u64,
    whisper: Whisper,
}

impl NameGate {
    /// `wait`: how long a name is waited for; zero where none will come (no API server).
    pub fn new(wait: Duration) -> Self {
        NameGate { wait, held: VecDeque::new(), unnamed: 0 }
    }

    /// Takes the fresh whispers and adds to `out` what may go out at `now_ns` (monotonic clock).
    /// `resolve` says what is known of a workload by now. To be called once an interval, also with
    /// nothing fresh.
    pub fn pass(
        &mut self,
        now_ns: u64,
        fresh: &mut Vec<Whisper>,
        resolve: impl Fn(&Workload) -> Option<Arc<Workload>>,
        out: &mut Vec<Whisper>,
    ) {
        for held in &mut self.held {
            name(&mut held.whisper, &resolve);
        }
        for mut whisper in fresh.drain(..) {
            name(&mut whisper, &resolve);
            if nameless(&whisper.who) {
                let until_ns = now_ns.saturating_add(nanos(self.wait));
                self.held.push_back(Held { until_ns, whisper });
                continue;
            }
            // What is held of the same workload now has a name too, and goes first.
            for held in &mut self.held {
                if held.whisper.who.cgroup == whisper.who.cgroup {
                    held.whisper.who = whisper.who.clone();
                }
            }
            self.release(now_ns, out);
            out.push(whisper);
        }
        self.release(now_ns, out);
    }

    /// Lets everything out, named or not: the agent stops.
    pub fn flush(&mut self, resolve: impl Fn(&Workload) -> Option<Arc<Workload>>, out: &mut Vec<Whisper>) {
        for held in &mut self.held {
            name(&mut held.whisper, &resolve);
        }
        self.release(u64::MAX, out);
    }

    /// Whispers that went out without the name of their pod. Cumulative.
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Whispers held now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, now_ns: u64, out: &mut Vec<Whisper>) {
        let surplus = self.held.len().saturating_sub(MAX_HELD);
        let mut kept: VecDeque<Held> = VecDeque::new();
        for (position, held) in std::mem::take(&mut self.held).into_iter().enumerate() {
            let unnamed = nameless(&held.whisper.who);
            let waits = unnamed && position >= surplus && now_ns < held.until_ns;
            // A name that came between two look-ups must not let the later one overtake.
            let behind = |k: &Held| k.whisper.who.cgroup == held.whisper.who.cgroup;
            if waits || kept.iter().any(behind) {
                kept.push_back(held);
            } else {
                self.unnamed += u64::from(unnamed);
                out.push(held.whisper);
            }
        }
        self.held = kept;
    }
}

/// Takes what is known by now of the workload and of the neighbours it names.
fn name(whisper: &mut Whisper, resolve: &impl Fn(&Workload) -> Option<Arc<Workload>>) {
    let neighbours = whisper.neighbours.iter_mut().map(|n| &mut n.who);
    for who in std::iter::once(&mut whisper.who).chain(neighbours).filter(|who| nameless(who)) {
        if let Some(known) = resolve(who) {
            *who = known;
        }
    }
}

/// A pod's, and not known which: there is its UID, or the id of a container that no other runtime named.
fn nameless(who: &Workload) -> bool {
    let of_a_pod = who.pod_uid.is_some() || (who.container_id.is_some() && who.unit.is_none());
    of_a_pod && (who.namespace.is_none() || who.pod.is_none())
}
