//! What the objects should say: pure, from reports and time to one `KernelWhisper` per pod. No clock
//! of its own, no I/O; the rules are told in `docs/reconciler.md`.
//!
//! Inside belongs what an object says, and when it changes or goes. How it gets there does not.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::report::{Evidence, ResolvedReport, Verdict};
use crate::advice::Recommendation;
use crate::api::{KernelWhisper, Remediation};

/// A moment in both clocks: waits are measured in one, objects carry the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub mono: Instant,
    pub wall: Timestamp,
}

impl Now {
    pub fn read() -> Now {
        Now { mono: Instant::now(), wall: Timestamp::now() }
    }
}

/// The rules' numbers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// An active signal not said again for so long is over. Agents say it every minute, and a collector
    /// may be away for five.
    pub stale_after: Duration,
    /// A resolved signal is kept for so long; an object without signals is deleted.
    pub keep_resolved: Duration,
    /// Numbers that moved (see [`render::changed_materially`]) are written at most this often.
    pub rewrite: Duration,
    /// Numbers that did not, and when it was last said, are written this often.
    pub refresh: Duration,
    /// Pods tracked; a new one beyond that is not taken.
    pub pods_max: usize,
    /// Withhold the names of neighbours in other namespaces.
    pub withhold_neighbours: bool,
    /// Nobody goes on with the steps that objects tell of.
    pub remediation_off: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            stale_after: Duration::from_secs(7 * 60),
            keep_resolved: Duration::from_secs(3600),
            rewrite: Duration::from_secs(60),
            refresh: Duration::from_secs(300),
            pods_max: 50_000,
            withhold_neighbours: false,
            remediation_off: false,
        }
    }
}

/// A pod by name; which one of that name is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    pub namespace: String,
    pub pod: String,
}

/// An object as the API server stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub uid: String,
    pub generation: i64,
}

/// What a report led to.
#[derive(Debug)]
pub struct Taken {
    pub verdict: Verdict,
    /// For the remediation: what the kernel says, what is advised, what was done so far.
    pub candidate: Option<(Evidence, Recommendation, Option<Remediation>)>,
}

/// What is to be done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Its metadata and spec are stored already where `stored` says so.
    Apply {
        object: Box<KernelWhisper>,
        stored: Option<Stored>,
    },
    Delete {
        name: String,
        uid: String,
    },
}

mod pod;
pub mod render;

pub(crate) use pod::{PodState, SignalState};

/// Everything that is known of the pods that whisper.
pub struct Desired {
    rules: Rules,
    pods: HashMap<PodKey, PodState>,
}

impl Desired {
    pub fn new(rules: Rules) -> Desired {
        Desired { rules, pods: HashMap::new() }
    }

    /// Pods that have an object, or should.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Signals that are active now.
    pub fn active(&self) -> usize {
        self.pods.values().flat_map(|p| p.signals.values()).filter(|s| s.active).count()
    }

    /// Takes a report of a pod that exists.
    pub fn say(&mut self, said: &ResolvedReport, now: Now) -> Taken {
        let pod = &said.pod;
        let key = PodKey { namespace: pod.namespace.clone(), pod: pod.name.clone() };
        let full = self.pods.len() >= self.rules.pods_max;
        let fresh = || PodState::new(pod.uid.clone(), pod.node.clone(), now);
        let state = match self.pods.entry(key) {
            Entry::Occupied(entry) => {
                let state = entry.into_mut();
                if state.uid != pod.uid {
                    *state = fresh();
                }
                state
            }
            // Nothing is known of a pod whose whisper is over before it was heard.
            Entry::Vacant(_) if !said.report.active => {
                return Taken { verdict: Verdict::Duplicate, candidate: None };
            }
            Entry::Vacant(_) if full => return Taken { verdict: Verdict::Full, candidate: None },
            Entry::Vacant(entry) => entry.insert(fresh()),
        };
        state.say(said, self.rules.withhold_neighbours, now)
    }

    /// Takes over an object found at the start, so that a restart loses nothing.
    pub fn restore(&mut self, kw: &KernelWhisper, now: Now) {
        let (Some(namespace), Some(uid)) = (&kw.metadata.namespace, &kw.metadata.uid) else { return };
        let key = PodKey { namespace: namespace.clone(), pod: kw.spec.pod_name.clone() };
        let stored = Stored { uid: uid.clone(), generation: kw.metadata.generation.unwrap_or_default() };
        self.pods.insert(key, PodState::restored(kw, stored, &self.rules, now));
    }

    /// Lets time pass: what is not said any more is over, what is long over is forgotten. Returns
    /// what is to be written or deleted now.
    pub fn sweep(&mut self, now: Now) -> Vec<(PodKey, Want)> {
        let mut wants = Vec::new();
        let rules = &self.rules;
        self.pods.retain(|key, state| {
            state.age(rules, now);
            // One found empty has as long to be said again as any other.
            let waits = state.found_empty.is_some_and(|at| now.mono.duration_since(at) <= rules.stale_after);
            if state.signals.is_empty() && !waits {
                match &state.stored {
                    Some(Stored { uid, .. }) => {
                        wants.push((key.clone(), deletion(key, uid.clone())));
                        return false;
                    }
                    // Nothing is there and nothing is on its way.
                    None if state.written.is_none() => return false,
                    // The writer still tries: it can be deleted when it is there.
                    None => return true,
                }
            }
            if let Some(want) = state.want(key, rules, now) {
                wants.push((key.clone(), want));
            }
            true
        });
        wants
    }

    /// So long nobody could say anything: it does not count as silence.
    pub fn slept(&mut self, how_long: Duration) {
        self.pods.values_mut().for_each(|state| state.slept(how_long));
    }

    /// What is to be written for this pod now, if anything.
    pub fn want(&mut self, key: &PodKey, now: Now) -> Option<Want> {
        let rules = &self.rules;
        self.pods.get_mut(key)?.want(key, rules, now)
    }

    /// The object is stored. Ignored where the pod has been replaced since: the new one's object replaces it.
    /// Where nothing is known of the pod any more (the object was deleted while this write was on its way) it is to
    /// be deleted again: nobody would ever say that it is over.
    pub fn stored(&mut self, key: &PodKey, pod_uid: &str, stored: Stored, now: Now) -> Option<Want> {
        match self.pods.get_mut(key) {
            Some(state) if state.uid == pod_uid => {
                state.stored = Some(stored);
                state.stored_at = now.mono;
                None
            }
            Some(_) => None,
            None => Some(deletion(key, stored.uid)),
        }
    }

    /// The object could not be written and is not tried again: the next report starts over.
    pub fn given_up(&mut self, key: &PodKey, pod_uid: &str) {
        if self.pods.get(key).is_some_and(|s| s.uid == pod_uid) {
            self.pods.remove(key);
        }
    }

    /// The queue had no room for what [`Desired::want`] gave: it is wanted again.
    pub fn put_back(&mut self, key: &PodKey) {
        if let Some(state) = self.pods.get_mut(key) {
            state.changed = true;
        }
    }

    /// The object was deleted, with its pod or by a person. What still whispers is said again.
    pub fn deleted(&mut self, key: &PodKey, object_uid: &str) {
        let ours = |s: &PodState| s.stored.as_ref().is_some_and(|s| s.uid == object_uid);
        if self.pods.get(key).is_some_and(ours) {
            self.pods.remove(key);
        }
    }

    /// Only these objects are there, as listed from `since` on. What was stored before and is not among
    /// them was deleted while nobody watched.
    pub fn present(&mut self, uids: &HashSet<String>, since: Instant) {
        self.pods.retain(|_, state| {
            let there = state.stored.as_ref().is_none_or(|s| uids.contains(&s.uid));
            there || state.stored_at >= since
        });
    }

    /// A remediation went a step. False where the pod is not known any more.
    pub fn remediated(&mut self, key: &PodKey, pod_uid: &str, remediation: Remediation) -> bool {
        let Some(state) = self.pods.get_mut(key).filter(|s| s.uid == pod_uid) else { return false };
        state.remediation = Some(remediation);
        state.changed = true;
        true
    }
}

/// The end of a pod's object; of another object of the name it is none.
fn deletion(key: &PodKey, uid: String) -> Want {
    Want::Delete { name: crate::api::object_name(&key.pod, render::SUFFIX), uid }
}

#[cfg(test)]
mod tests;
