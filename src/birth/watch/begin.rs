//! How a birth begins, goes on after it failed, and is forgotten: by the cgroups that are made. Pure.

use super::super::places::{Realm, in_path};
use super::super::story::Named;
use super::birth::{Birth, Restart, State};
use super::{Births, nanos};
use crate::attribution::paths::{self, Kind, PodId};
use crate::kernel::Instant;
use crate::kernel::recorder::CgroupMade;

impl Births {
    pub(super) fn made(&mut self, made: &CgroupMade, now: Instant) {
        let ns = made.by.at_ns;
        let (Some(pod), container) = in_path(&made.path) else { return };
        let zero =
            Instant { mono_ns: ns, unix_ns: now.unix_ns - now.mono_ns.saturating_sub(ns).min(now.unix_ns) };
        // Another of its name, in a container or made by a user, is none of it, and does not keep it from being born.
        let realm = Realm::of(&made.path, made.owner);
        let before = self.log.realm_of(&pod).cloned();
        if !self.log.settles(&pod, &realm) {
            return;
        }
        if before.is_some_and(|before| before != realm) {
            self.births.remove(&pod);
        }
        if !self.births.contains_key(&pod) && !self.begin(&pod, made, zero) {
            return;
        }
        let lost = self.lost();
        let Some(birth) = self.births.get_mut(&pod) else { return };
        birth.last_ns = birth.last_ns.max(ns);
        let Some(container) = container else { return };
        if self.names.contains_key(&container) {
            return;
        }
        self.names.insert(container.clone(), Named::default());
        self.unnamed.push(container.clone());
        match birth.state {
            State::Running(_) if birth.parked_until.is_some() => birth.tries.push(container),
            State::Running(_) => {}
            State::Parked(until) if ns <= until => {
                birth.tries = vec![container];
                birth.resume(ns + nanos(self.options.wait));
            }
            // It goes on too late to be recorded: that it becomes Ready is told all the same.
            State::Parked(_) => {}
            State::Done if birth.restarts.len() < Self::RESTARTS_MAX => {
                birth.restarts.entry(container).or_insert(Restart { zero, recorded: true, lost });
            }
            State::Done => self.drops += 1,
        }
    }

    /// A pod of which nothing is known yet has a cgroup; false: there are too many.
    fn begin(&mut self, pod: &PodId, made: &CgroupMade, zero: Instant) -> bool {
        if self.births.len() >= Self::MAX {
            self.make_room();
        }
        if self.births.len() >= Self::MAX {
            self.drops += 1;
            return false;
        }
        // Of a pod that was there before only its new containers are of interest.
        let state = match paths::classify(&made.path).kind {
            Kind::Pod => State::Running(zero.mono_ns + nanos(self.options.wait)),
            _ => State::Done,
        };
        let birth = Birth { lost: self.lost(), ..Birth::new(zero, made.path.clone(), state) };
        self.births.insert(pod.clone(), birth);
        true
    }

    /// What goes on only because an ephemeral container was added to it does not go on.
    pub(super) fn stay_parked(&self, birth: &mut Birth) {
        let (State::Running(_), Some(until)) = (birth.state, birth.parked_until) else { return };
        let debug = |id: &String| self.named(id, birth.record.as_deref(), None).ephemeral;
        if !birth.tries.is_empty() && birth.tries.iter().all(debug) {
            birth.state = State::Parked(until);
            birth.retried = birth.retried_before;
            birth.tries.clear();
        }
    }

    /// Forgets the births that were over first.
    fn make_room(&mut self) {
        let done = |b: &Birth| match b.state {
            State::Running(_) => false,
            State::Parked(_) => b.forgotten,
            State::Done => b.restarts.is_empty(),
        };
        let mut over: Vec<_> =
            self.births.iter().filter(|(_, b)| done(b)).map(|(pod, b)| (b.last_ns, pod.clone())).collect();
        over.sort_by_key(|(ns, _)| *ns);
        for (_, pod) in over.into_iter().take(Self::MAX / 4) {
            self.births.remove(&pod);
        }
    }
}
