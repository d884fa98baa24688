//! The next container that is started on this machine, whoever starts it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::View;
use crate::api::{BirthFailure, BirthOutcome, MissingPart};
use crate::attribution::bundle::Bundles;
use crate::birth::certificate;
use crate::birth::failure;
use crate::birth::hints::{Hints, Role, Verb};
use crate::birth::input::{self, Coverage, Input, failed};
use crate::birth::log::Log;
use crate::birth::run::known;
use crate::birth::story::{Named, Phase, Story, Subject};
use crate::birth::watch::records_lost;
use crate::kernel::driver::{Driver, DriverOptions, Storage};
use crate::kernel::facts::{Facts, FactsOptions};
use crate::kernel::plan::plan;
use crate::kernel::recorder::{Begun, Entry, Record};
use crate::kernel::{CgroupChange, Hierarchy, clock};

/// A container that listens does so within this time of its program's start.
const SETTLE: Duration = Duration::from_secs(2);
/// From the runtime's start to the container's program; a slow disk is a matter of seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cgroups that are not reported at once are looked for so often.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What is kept while none is started.
const KEPT: Duration = Duration::from_secs(5);

/// What the recorder does not tell here, and what it does.
type Known = (Vec<MissingPart>, Coverage);

/// Waits for the next container and shows its start; for `wait` at most until one is started.
///
/// # Errors
/// Births cannot be recorded here, and why; no container within the time.
pub async fn next(wait: Option<Duration>) -> Result<View> {
    let facts = Facts::gather(&FactsOptions::default()).await;
    let plan = plan(&facts);
    if plan.births.hook().is_none() {
        let why = plan.births.shortfalls().iter().map(|s| format!("{}: {}", s.why, s.what_to_do));
        bail!("births cannot be recorded here: {}", why.collect::<Vec<_>>().join("; "));
    }
    if plan.births.hook().is_some_and(|hook| hook.entry == Entry::Bare) {
        let why = plan.births.shortfalls().first().map(|s| format!("{}: {}", s.why, s.what_to_do));
        bail!(
            "containers are distinguished by arguments, which are not readable here: {}",
            why.unwrap_or_default()
        );
    }
    let known = known(&facts, &plan);
    let options = DriverOptions::of_births(&facts, &plan, 4096);
    let cpu_tree = facts.cgroups.v1_cpu.as_ref().map_or(0, |tree| tree.hierarchy);
    let (done, view) = oneshot::channel();
    // Of its own: it ends with the process, however long it waits.
    std::thread::Builder::new().name("birth".into()).spawn(move || {
        // Nobody listens any more only when the program is ending.
        let _ = done.send(watch(options, cpu_tree, wait, known));
    })?;
    view.await.context("the recorder's thread ended")?
}

fn watch(options: DriverOptions, cpu_tree: u32, wait: Option<Duration>, known: Known) -> Result<View> {
    let mut storage = Storage::default();
    let mut driver = Driver::start(&mut storage, options);
    driver.recorder().context("the birth recorder could not be loaded")?.start()?;
    eprintln!("waiting for a container to be started; Ctrl-C ends it");
    let begun = Instant::now();
    let (mut log, mut records, mut found) = (Log::of_anybody(cpu_tree), Vec::new(), None);
    let (mut seen, mut read) = (None, None);
    loop {
        std::thread::sleep(Duration::from_millis(20));
        // What is in a pod is not believed, and what is in a cgroup that is not known.
        if read.is_none_or(|read: Instant| read.elapsed() >= READ_AGAIN) {
            know(&mut log, &mut driver, cpu_tree);
            read = Some(Instant::now());
        }
        driver.read_births(&mut records);
        for record in records.drain(..) {
            log.add(record);
        }
        if found.is_none() {
            found =
                log.lives_after(seen).filter_map(|l| started(&l.hints)).next().map(|id| (id, Instant::now()));
            seen = log.lives_after(seen).last().map(|l| l.segment.id).or(seen);
        }
        if found.is_none() {
            // What led to a container that is yet to be started.
            log.forget(clock::now().saturating_sub(KEPT.as_nanos() as u64), |_, _| false);
            if found.is_none() && wait.is_some_and(|wait| begun.elapsed() >= wait) {
                bail!("no container was started within {} s", begun.elapsed().as_secs());
            }
        }
        let Some((id, since)) = &found else { continue };
        let subject = Subject::Container(id.clone());
        let story = Story::of(&log, &subject, 0, u64::MAX, |_| Named::default());
        let Some(outcome) = verdict(&story, *since) else { continue };
        return certify(&mut driver, &mut log, id, outcome, known);
    }
}

/// Tells the log of the cgroups that there are.
fn know(log: &mut Log, driver: &mut Driver<'_>, cpu_tree: u32) {
    for change in &driver.read().changes {
        let CgroupChange::Present { cgroup, path } = change else { continue };
        match cgroup.hierarchy {
            Hierarchy::Unified => log.know(0, cgroup.id, path, None),
            Hierarchy::V1Cpu => log.know(cpu_tree, cgroup.id, path, None),
            Hierarchy::V1Memory => {}
        }
    }
}

/// The container that a program begins to start.
fn started(hints: &Hints) -> Option<String> {
    match hints.role {
        Role::Monitor | Role::Runtime(Verb::Create | Verb::Run) => hints.container.clone(),
        _ => None,
    }
}

type Verdict = (BirthOutcome, Option<BirthFailure>);

fn verdict(story: &Story, since: Instant) -> Option<Verdict> {
    let container = story.containers.first()?;
    if let Some(failure) = failure::exited(container) {
        return Some((BirthOutcome::Failed, Some(failure)));
    }
    let exec = container.exec_ns.map(|ns| Duration::from_nanos(clock::now().saturating_sub(ns)));
    if container.listen.is_some() || container.exit.is_some() || exec.is_some_and(|e| e >= SETTLE) {
        return Some((BirthOutcome::Complete, None));
    }
    let create = story.works.iter().find(|w| {
        matches!(w.role, Role::Runtime(Verb::Create | Verb::Run))
            && w.begun == Begun::Exec
            && w.end_ns.is_some()
    });
    if let Some(why) = create.and_then(|w| w.how).and_then(failed).filter(|_| exec.is_none()) {
        let failure = failure::failure(Phase::Create, None, "RuntimeFailed", Some(why));
        return Some((BirthOutcome::Failed, Some(failure)));
    }
    (since.elapsed() >= PATIENCE).then(|| {
        let why = "its own program was not seen within a minute";
        (
            BirthOutcome::Unfinished,
            Some(failure::failure(failure::furthest(story), None, "TimedOut", Some(why.into()))),
        )
    })
}

fn certify(
    driver: &mut Driver<'_>,
    log: &mut Log,
    id: &str,
    (outcome, failure): Verdict,
    (mut missing, coverage): Known,
) -> Result<View> {
    let mut records: Vec<Record> = Vec::new();
    if let Some(recorder) = driver.recorder() {
        recorder.stop(&mut records);
    }
    let until = clock::instant();
    records.into_iter().for_each(|record| log.add(record));
    let lost = driver.birth_losses();
    let lost = lost.segments + lost.events + lost.cgroups + log.dropped;
    missing.extend(records_lost(lost));
    let names = Bundles::new(&[]).look_up(id).ok();
    let name = names.and_then(|n| n.container.or(n.name));
    let named = |_: &str| Named { name: name.clone(), ..Named::default() };
    let story = Story::of(log, &Subject::Container(id.to_owned()), 0, until.mono_ns, named);
    let begun = story.works.iter().map(|w| w.start_ns).min().unwrap_or(until.mono_ns);
    let zero = crate::kernel::Instant {
        mono_ns: begun,
        unix_ns: until.unix_ns.saturating_sub(until.mono_ns.saturating_sub(begun)),
    };
    let input = Input {
        story: &story,
        zero,
        until_ns: until.mono_ns,
        record: None,
        heard_of: None,
        heard_ready: None,
        outcome,
        failure,
        missing,
        coverage: Coverage { whole: lost == 0, ..coverage },
        settle: SETTLE,
    };
    let (status, _) = certificate::birth(&input);
    let shown = story.containers.first().map_or_else(|| id.to_owned(), input::display);
    View::new(&format!("container {shown}"), None, &status)
}
