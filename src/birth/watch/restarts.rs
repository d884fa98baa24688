//! Containers that are started again in pods that run.

use super::super::certificate::{self, Certificate};
use super::super::failure;
use super::super::input::{Coverage, Input};
use super::super::story::{Story, Subject};
use super::birth::{Birth, Restart};
use super::{Births, Numbers, nanos};
use crate::api::{BirthOutcome, PodBirthCertificateStatus, Source};
use crate::kernel::Instant;
use crate::kernel::recorder::SegmentId;

impl Births {
    pub(super) fn restarts(
        &mut self,
        birth: &mut Birth,
        now: Instant,
        numbers: Numbers<'_>,
    ) -> Vec<Certificate> {
        birth.look_ns = now.mono_ns + nanos(Self::LOOK);
        let mut out = Vec::new();
        for (id, Restart { zero, recorded, lost }) in birth.restarts.clone() {
            if self.named(&id, birth.record.as_deref(), None).ephemeral {
                birth.restarts.remove(&id);
                continue;
            }
            let late = self.began_ns.saturating_sub(zero.mono_ns) > nanos(Self::LATE);
            let whole = self.lost() == lost;
            let coverage =
                if recorded && !late { Coverage { whole, ..self.coverage } } else { Coverage::NOTHING };
            let subject = Subject::Container(id.clone());
            let story = |births: &Births| {
                let named = |id: &str| births.named(id, birth.record.as_deref(), None);
                Story::of(&births.log, &subject, zero.mono_ns, now.mono_ns, named)
            };
            let now_seen = story(self);
            let lasted = now.mono_ns.saturating_sub(zero.mono_ns);
            let Some(container) = now_seen.containers.first() else {
                // The record of its cgroup was dropped, and counted: nothing more will be known.
                if lasted >= nanos(Self::RESTART) {
                    birth.restarts.remove(&id);
                }
                continue;
            };
            let settled = container
                .exec_ns
                .is_some_and(|ns| now.mono_ns - ns.min(now.mono_ns) >= nanos(self.options.settle));
            let failure = failure::exited(container);
            let over =
                container.listen.is_some() || settled || failure.is_some() || lasted >= nanos(Self::RESTART);
            let before = birth.started_before(&id, container.named.name.as_deref());
            if container.named.sandbox || before == Some(false) {
                birth.restarts.remove(&id);
                continue;
            }
            if !over || before.is_none() && lasted < nanos(Self::RESTART) {
                continue;
            }
            birth.restarts.remove(&id);
            let alive: Vec<SegmentId> = now_seen.alive().collect();
            self.log.settle(numbers.end(&alive));
            let story = story(self);
            let never = container.exec_ns.is_none() && coverage.programs;
            let failure = failure.or_else(|| {
                never.then(|| failure::failure(failure::furthest(&story), None, "NotStarted", None))
            });
            let input = Input {
                story: &story,
                zero,
                until_ns: now.mono_ns,
                record: None,
                heard_of: None,
                heard_ready: None,
                outcome: BirthOutcome::Complete,
                failure,
                missing: Vec::new(),
                coverage,
                settle: self.options.settle,
            };
            let Some(restart) = certificate::restart(&input) else { continue };
            let mut certificate = match birth.said.take() {
                Some(said) => Certificate { at: now, restart: true, ..said },
                None => Certificate {
                    who: self.who_of(birth),
                    zero: birth.zero,
                    at: now,
                    status: PodBirthCertificateStatus::of(Source::Kernel),
                    processes: Vec::new(),
                    nth: 0,
                    restart: true,
                },
            };
            let restarts = &mut certificate.status.restarts;
            restarts.push(restart);
            if restarts.len() > Self::RESTARTS_MAX {
                restarts.remove(0);
            }
            birth.said = Some(certificate.clone());
            out.push(certificate);
        }
        out
    }
}
