//! Whether a birth is over, and how it ended. Pure.

use super::super::failure::{self, Found};
use super::super::input::{self, since};
use super::super::story::Story;
use super::birth::Birth;
use super::{Options, nanos};
use crate::api::{BirthFailure, BirthOutcome};
use crate::kernel::Instant;

/// Whether a birth is over, and how it ended.
pub fn verdict(
    birth: &Birth,
    story: &Story,
    now: Instant,
    deadline: u64,
    api: bool,
    silent: bool,
    options: &Options,
) -> Option<(BirthOutcome, Option<BirthFailure>)> {
    let record = birth.record.as_deref();
    if let Some(record) = record
        && (record.life.ready.is_some() || record.life.succeeded)
    {
        let heard = birth.heard_ready.unwrap_or_default();
        // Times are in ms here and in ns there: to the microsecond they are the same.
        let settled = since(birth.zero, now.mono_ns) - heard + 1e-3 >= options.settle.as_secs_f64() * 1e3;
        let listened = story.containers().filter(|c| !c.named.init).all(|c| c.listen.is_some());
        let some = story.containers().next().is_some();
        let over = record.life.succeeded || settled || some && listened;
        return over.then_some((BirthOutcome::Complete, None));
    }
    let untold = |f: &Found| !birth.told.contains(&f.cause);
    if let Some(found) = failure::all(record, story, silent, birth.trouble.as_ref()).into_iter().find(untold)
    {
        return Some((BirthOutcome::Failed, Some(found.failure)));
    }
    if record.is_some_and(|r| r.life.deleting) {
        let why = "the pod was deleted before it was born".to_owned();
        let failure = failure::failure(failure::furthest(story), None, "Deleted", Some(why));
        return Some((BirthOutcome::Unfinished, Some(failure)));
    }
    // Nobody says Ready: what runs undisturbed for a while is born.
    if !api && story.containers().any(|c| c.exec_ns.is_some()) && silent {
        let failed = story.containers().find_map(failure::exited);
        let settled = story.containers().filter_map(|c| c.exec_ns).max();
        let settled = settled.is_some_and(|ns| now.mono_ns.saturating_sub(ns) >= nanos(options.settle));
        let outcome = if failed.is_some() { BirthOutcome::Failed } else { BirthOutcome::Complete };
        return settled.then_some((outcome, failed));
    }
    (now.mono_ns >= deadline).then(|| {
        let furthest = failure::furthest(story);
        let why = format!("it was not Ready after {}", input::length(since(birth.zero, now.mono_ns)));
        (BirthOutcome::Unfinished, Some(failure::failure(furthest, None, "TimedOut", Some(why))))
    })
}
