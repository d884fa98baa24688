//! The cgroups of this host: which there are, and what the kernel keeps for each by itself (cpu.stat,
//! pressure). By the programs of `bpf/cgroups.bpf.c` where they load, from files otherwise; both give
//! the same numbers.
//!
//! Inside belongs what is known of a cgroup by its directory; whose it is, `attribution` says.

mod changes;
mod files;
mod iterator;
mod losses;
pub mod name;
mod parse;
mod plan;
mod roots;

use foldhash::HashMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use libbpf_rs::OpenObject;
use tracing::warn;

pub use losses::CgroupLosses;
pub use plan::{Cgroups, CgroupsHook, Options};
pub use roots::Roots;

use crate::kernel::clock::Every;
use crate::kernel::probe::{ObjectStorage, Probe};
use crate::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Hook, Lost, Reading, StatReading};
use changes::Changes;
use files::{CgroupFiles, Descriptors};
use iterator::{Iterator, IteratorError};

skeleton!(skel, "cgroups");

/// Between two walks of the tree when nothing asked for one: what the tracepoints may have missed is found then.
const WALK_EVERY: Duration = Duration::from_secs(60);

/// New cgroups that wait to be asked for, at most: as many as some hundred pods make in 13 trees of cgroup v1.
const MAX_MADE: usize = 8192;

impl Probe for CgroupSampler<'_> {
    fn find(&mut self, r: &mut Reading) {
        self.sample(r.at.mono_ns, &mut r.changes, &mut r.stats);
    }

    /// What there is was read as it was found.
    fn read(&mut self, _reading: &mut Reading) {}

    fn losses(&self, out: &mut Vec<Lost>) {
        out.extend(self.losses().by_reason());
    }

    fn fd(&self) -> Option<RawFd> {
        self.made.as_ref().and_then(|_| self.changes_fd())
    }
}

/// What to load; the plan says.
#[derive(Clone, Copy, Debug)]
pub struct SamplerOptions {
    /// Read numbers by the cgroup iterator (v2 only).
    pub iterator: bool,
    /// Learn of new cgroups by tracepoints; `None`: find them by walking the tree.
    pub tracepoints: Option<Hook>,
    /// Cgroups the iterator has room for.
    pub max_cgroups: u32,
}

/// Room for the BPF objects, which must outlive the sampler.
#[derive(Default)]
pub struct Storage {
    iterator: ObjectStorage,
    changes: ObjectStorage,
}

/// A cgroup was made, in any tree: also in those that are not sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The process that made it.
    pub tgid: u32,
    pub comm: String,
    /// The tree's number, as in /proc/cgroups; 0 is v2.
    pub hierarchy_id: u32,
    /// kernfs id within that tree.
    pub cgroup: u64,
    /// Relative to the tree's root.
    pub path: String,
}

struct Known {
    path: String,
    files: CgroupFiles,
    /// The last reading that found it in the tree.
    seen: u64,
}

/// Finds and samples cgroups, once a reading.
pub struct CgroupSampler<'obj> {
    roots: Roots,
    iterator: Option<Iterator<'obj>>,
    changes: Option<Changes<'obj>>,
    known: HashMap<CgroupKey, Known>,
    descriptors: Descriptors,
    readings: u64,
    walk_due: bool,
    walk_again: Every,
    unreadable: u64,
    warned: bool,
    /// That the iterator leaves cgroups out was told.
    incomplete_told: bool,
    /// Cgroups of all trees that were made; `None`: nobody asks.
    made: Option<Vec<Made>>,
    /// Those there was no room for.
    made_lost: u64,
    /// Changes told of by events that were taken between two samples.
    pending: Vec<CgroupChange>,
}

impl<'obj> CgroupSampler<'obj> {
    /// Loads what `options` ask for. What does not load is told in the log and done without.
    pub fn new(storage: &'obj mut Storage, roots: Roots, options: SamplerOptions) -> Self {
        let soft =
            |what: &str, error: &dyn std::fmt::Display| warn!("{what} ({error}): reading files instead");
        let iterator = load_iterator(&mut storage.iterator.0, &roots, options)
            .and_then(|loaded| loaded.inspect_err(|e| soft("cgroups cannot be sampled by BPF", e)).ok());
        let changes = load_changes(&mut storage.changes.0, options)
            .and_then(|loaded| loaded.inspect_err(|e| soft("new cgroups cannot be seen by BPF", e)).ok());
        CgroupSampler {
            roots,
            iterator,
            changes,
            known: HashMap::default(),
            descriptors: Descriptors::for_this_process(),
            readings: 0,
            walk_due: true,
            walk_again: Every::new(WALK_EVERY),
            unreadable: 0,
            warned: false,
            incomplete_told: false,
            made: None,
            made_lost: 0,
            pending: Vec::new(),
        }
    }

    /// Whether the numbers come from the iterator, else from files.
    pub fn uses_iterator(&self) -> bool {
        self.iterator.is_some()
    }

    /// Whether new cgroups are told by tracepoints, else found by walking the tree.
    pub fn uses_tracepoints(&self) -> bool {
        self.changes.is_some()
    }

    /// From now on remembers who made which cgroup when, for [`take_made`](Self::take_made).
    pub fn watch_made(&mut self) {
        self.made.get_or_insert_default();
    }

    /// A file descriptor that is readable when cgroups were made or removed; `None` without the tracepoints.
    pub fn changes_fd(&self) -> Option<RawFd> {
        self.changes.as_ref().map(Changes::fd)
    }

    /// Appends the cgroups that were made since the last call, in all trees.
    pub fn take_made(&mut self, made: &mut Vec<Made>) {
        let mut pending = std::mem::take(&mut self.pending);
        self.take_events(&mut pending);
        self.pending = pending;
        if let Some(known) = &mut self.made {
            made.append(known);
        }
    }

    /// Appends which cgroups came and went since the last call, and the numbers of all there are at `now`
    /// (CLOCK_MONOTONIC, ns).
    pub fn sample(&mut self, now: u64, changes: &mut Vec<CgroupChange>, stats: &mut Vec<StatReading>) {
        self.readings += 1;
        changes.append(&mut self.pending);
        self.take_events(changes);
        let complete = self.run_iterator(stats);
        // Without the tracepoints only a complete run over the one tree there is tells of new ones.
        let blind = self.changes.is_none() && !(complete && self.roots.v1_cpu().is_none());
        if self.walk_again.due(now) || self.walk_due || blind {
            self.walk(changes);
        }
        // What a run that left some out did not visit is not gone.
        if complete {
            self.drop_unseen(Hierarchy::Unified, changes);
        }
        self.sample_files(now, stats);
    }

    /// What was lost so far.
    pub fn losses(&self) -> CgroupLosses {
        CgroupLosses {
            cgroup_events: self.changes.as_ref().map_or(0, Changes::lost),
            unreadable_cgroups: self.unreadable,
            made: self.made_lost,
        }
    }

    /// Appends what the iterator reads; true if it visited every cgroup of the v2 tree.
    fn run_iterator(&mut self, stats: &mut Vec<StatReading>) -> bool {
        let Some(iterator) = &mut self.iterator else {
            return false;
        };
        let (readings, known) = (self.readings, &mut self.known);
        let mut unknown = false;
        let run = iterator.run(|stat| {
            match known.get_mut(&stat.cgroup) {
                Some(found) => found.seen = readings,
                None => unknown = true,
            }
            stats.push(stat);
        });
        self.walk_due |= unknown;
        let (left_out, why) = match run {
            Ok(0) => return true,
            Ok(left_out) => (left_out, "there are more than `agent.max_cgroups`: raise it".to_owned()),
            Err(error) => {
                let missed = known.keys().filter(|cgroup| cgroup.hierarchy == Hierarchy::Unified).count();
                (missed.max(1), format!("the cgroup iterator failed: {error}"))
            }
        };
        self.unreadable += left_out as u64;
        if !std::mem::replace(&mut self.incomplete_told, true) {
            warn!(
                "{left_out} cgroups have no numbers in this reading (further ones are only counted): {why}"
            );
        }
        false
    }

    fn take_events(&mut self, changes: &mut Vec<CgroupChange>) {
        let Some(source) = &mut self.changes else {
            return;
        };
        let mut look = false;
        let (roots, readings) = (&self.roots, self.readings);
        let (known, descriptors) = (&mut self.known, &mut self.descriptors);
        let (made, made_lost) = (&mut self.made, &mut self.made_lost);
        let lost = source.drain(|event| {
            if let (Some(made), true) = (made.as_mut(), event.made) {
                match &event.path {
                    Some(path) if made.len() < MAX_MADE => made.push(Made {
                        at_ns: event.at_ns,
                        tgid: event.tgid,
                        comm: event.comm,
                        hierarchy_id: event.hierarchy,
                        cgroup: event.id,
                        path: path.clone(),
                    }),
                    _ => *made_lost += 1,
                }
            }
            let Some(hierarchy) = roots.hierarchy(event.hierarchy) else {
                return; // a controller we do not look at
            };
            let cgroup = CgroupKey { hierarchy, id: event.id };
            match event.path {
                _ if event.renamed => look = true, // the walk finds its name, and those of all below it
                _ if !event.made => forget(known, descriptors, cgroup, changes),
                Some(path) => remember(known, cgroup, path, readings, changes),
                None => look = true, // too long: the walk finds it
            }
        });
        self.walk_due |= lost || look;
    }

    /// Walks the trees: what is new is told, what is no more is gone.
    fn walk(&mut self, changes: &mut Vec<CgroupChange>) {
        self.walk_due = false;
        for (hierarchy, root) in self.roots.trees() {
            let (known, readings) = (&mut self.known, self.readings);
            let mut found = |id, path: &str| {
                let cgroup = CgroupKey { hierarchy, id };
                match known.get_mut(&cgroup) {
                    Some(found) if found.path == path => found.seen = readings,
                    _ => remember(known, cgroup, path.to_owned(), readings, changes),
                }
            };
            let mut closed = Vec::new();
            match fs::metadata(&root) {
                Ok(m) => {
                    found(m.ino(), "/");
                    walk_below(&root, &mut String::new(), &mut found, &mut |path, error| {
                        closed.push((path.to_owned(), error));
                    });
                }
                Err(error) => closed.push((String::new(), error)),
            }
            self.keep_below(hierarchy, &closed);
            self.drop_unseen(hierarchy, changes);
            self.unreadable += closed.len() as u64;
            if let Some((path, error)) = closed.first() {
                self.complain(&name::below(&root, path), error);
            }
        }
    }

    /// What is known below directories that could not be read may be there still: counts as found.
    fn keep_below(&mut self, of: Hierarchy, closed: &[(String, io::Error)]) {
        if closed.is_empty() {
            return;
        }
        let below = |path: &str| {
            closed.iter().any(|(dir, _)| path.strip_prefix(&**dir).is_some_and(|rest| rest.starts_with('/')))
        };
        for (cgroup, known) in &mut self.known {
            if cgroup.hierarchy == of && below(&known.path) {
                known.seen = self.readings;
            }
        }
    }

    fn drop_unseen(&mut self, of: Hierarchy, changes: &mut Vec<CgroupChange>) {
        let readings = self.readings;
        let descriptors = &mut self.descriptors;
        self.known.retain(|cgroup, known| {
            let alive = known.seen == readings || cgroup.hierarchy != of;
            if !alive {
                descriptors.give_back(&mut known.files);
                changes.push(CgroupChange::Gone { cgroup: *cgroup });
            }
            alive
        });
    }

    fn sample_files(&mut self, now: u64, stats: &mut Vec<StatReading>) {
        let skip = self.iterator.as_ref().map(|_| Hierarchy::Unified);
        let (mut complaint, mut unreadable) = (None, 0);
        for (cgroup, known) in &mut self.known {
            if Some(cgroup.hierarchy) == skip {
                continue;
            }
            let read = known.files.read(&mut self.descriptors, &self.roots, *cgroup, &known.path, now);
            match read {
                Ok(stat) if stat == CgroupStat::default() => {} // this tree has no number for it
                Ok(stat) => stats.push(StatReading { cgroup: *cgroup, stat }),
                // It died since the tree was walked; the walk or the event tells.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
                Err(error) => {
                    unreadable += 1;
                    if !self.warned {
                        complaint = Some((known.path.clone(), error));
                    }
                }
            }
        }
        self.unreadable += unreadable;
        if let Some((path, error)) = complaint {
            self.complain(Path::new(&path), &error);
        }
    }

    fn complain(&mut self, path: &Path, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!("cgroup {}: {error}: it is left out (further ones are only counted)", path.display());
        }
    }
}

/// Loads what is to read numbers, if the plan wants it.
fn load_iterator<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    roots: &Roots,
    options: SamplerOptions,
) -> Option<Result<Iterator<'obj>, IteratorError>> {
    let fits = options.iterator && roots.cpu_hierarchy() == Hierarchy::Unified;
    let root = roots.unified().filter(|_| fits)?;
    Some(Iterator::load(storage, root, options.max_cgroups))
}

/// Loads what is to tell of new cgroups, if the plan wants it.
fn load_changes(
    storage: &mut MaybeUninit<OpenObject>,
    options: SamplerOptions,
) -> Option<libbpf_rs::Result<Changes<'_>>> {
    options.tracepoints.map(|hook| Changes::load(storage, hook == Hook::TpBtf))
}

/// Loads the iterator, runs it once and lets go of it; `None`: it is not what the options ask for.
fn try_iterator(roots: &Roots, options: SamplerOptions) -> Option<Result<(), IteratorError>> {
    let mut storage = MaybeUninit::uninit();
    let loaded = load_iterator(&mut storage, roots, options)?;
    Some(loaded.and_then(|mut iterator| Ok(iterator.run(|_| {}).map(drop)?)))
}

/// Attaches to the tracepoints and lets go of them; `None`: they are not what the options ask for.
fn try_tracepoints(options: SamplerOptions) -> Option<libbpf_rs::Result<()>> {
    let mut storage = MaybeUninit::uninit();
    Some(load_changes(&mut storage, options)?.map(drop))
}

fn remember(
    known: &mut HashMap<CgroupKey, Known>,
    cgroup: CgroupKey,
    path: String,
    seen: u64,
    changes: &mut Vec<CgroupChange>,
) {
    if let Some(old) = known.get_mut(&cgroup) {
        old.seen = seen;
        if old.path == path {
            return;
        }
        old.path.clone_from(&path); // renamed (v1)
    } else {
        known.insert(cgroup, Known { path: path.clone(), files: CgroupFiles::new(cgroup), seen });
    }
    changes.push(CgroupChange::Present { cgroup, path });
}

fn forget(
    known: &mut HashMap<CgroupKey, Known>,
    descriptors: &mut Descriptors,
    cgroup: CgroupKey,
    changes: &mut Vec<CgroupChange>,
) {
    if let Some(mut old) = known.remove(&cgroup) {
        descriptors.give_back(&mut old.files);
        changes.push(CgroupChange::Gone { cgroup });
    }
}

/// Calls `found` with the path of every cgroup of these trees but their roots; what cannot be read is left out.
pub fn each_path(roots: &Roots, mut found: impl FnMut(&str)) {
    each(roots, |_, path| found(path));
}

/// The same with the cgroup's id.
pub fn each(roots: &Roots, mut found: impl FnMut(CgroupKey, &str)) {
    for (hierarchy, root) in roots.trees() {
        let mut found = |id, path: &str| found(CgroupKey { hierarchy, id }, path);
        // It is the agent that complains of what cannot be read.
        walk_below(&root, &mut String::new(), &mut found, &mut |_, _| {});
    }
}

/// Calls `found` with the id (inode number) and path of every directory below `root`, and `closed` with the path
/// of each that cannot be read, whose content is left out. One that vanishes meanwhile is passed over.
fn walk_below(
    root: &Path,
    path: &mut String,
    found: &mut impl FnMut(u64, &str),
    closed: &mut impl FnMut(&str, io::Error),
) {
    let entries = match fs::read_dir(name::below(root, path)) {
        Ok(entries) => entries,
        Err(error) => return unless_vanished(path, error, closed),
    };
    for entry in entries {
        let (entry, kind) = match entry.and_then(|entry| Ok((entry.file_type()?, entry))) {
            Ok((kind, entry)) => (entry, kind),
            Err(error) => {
                unless_vanished(path, error, closed);
                continue;
            }
        };
        if !kind.is_dir() {
            continue;
        }
        let before = path.len();
        path.push('/');
        path.push_str(&name::text(entry.file_name().as_bytes()));
        found(entry.ino(), path);
        walk_below(root, path, found, closed);
        path.truncate(before);
    }
}

fn unless_vanished(path: &str, error: io::Error, closed: &mut impl FnMut(&str, io::Error)) {
    if error.kind() != io::ErrorKind::NotFound || path.is_empty() {
        closed(path, error);
    }
}
