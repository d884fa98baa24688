//! Owns the probes: loads what the plan allows, and reads them all once an interval. Lives on one thread of
//! its own; nothing of it is shared.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Duration;

use libbpf_rs::OpenObject;
use tracing::warn;

use super::cgroups::{self, CgroupSampler, Made, Roots, SamplerOptions};
use super::clock::{self, Every};
use super::cpu::{self, CpuOptions, CpuProbe};
use super::cpus::Online;
use super::facts::Facts;
use super::plan::Plan;
use super::recorder::{By, CgroupMade, Record, Recorder, RecorderOptions};
use super::{BirthLosses, CgroupChange, CgroupKey, Reading};

/// Between two looks for cgroups that lived and died unseen.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What to load; the plan says.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    pub roots: Roots,
    pub sampler: SamplerOptions,
    /// `None`: the plan says that the probe cannot run here.
    pub cpu: Option<CpuOptions>,
    /// `None`: births cannot be recorded here, or nobody wants to.
    pub births: Option<RecorderOptions>,
}

impl DriverOptions {
    /// What the plan allows on the host of these facts.
    pub fn of(facts: &Facts, plan: &Plan, max_cgroups: u32) -> Self {
        let cgroups = plan.cgroups.hook();
        DriverOptions {
            roots: Roots::from(&facts.cgroups),
            sampler: SamplerOptions {
                iterator: cgroups.is_some_and(|hook| hook.iterator),
                tracepoints: cgroups.and_then(|hook| hook.tracepoints),
                max_cgroups,
            },
            cpu: plan.cpu.hook().map(|hook| CpuOptions {
                hook: hook.hook,
                atomics: hook.atomics,
                prime: facts.trials.iter_task.works(),
                hierarchy: hook.hierarchy,
                max_cgroups,
                rest: cpu::REST,
            }),
            births: plan.births.hook().map(|hook| RecorderOptions {
                tally: hook.tally,
                ..RecorderOptions::new(hook.entry, facts.cgroups.cpu)
            }),
        }
    }
}

/// Room for the BPF objects, on the stack of the thread that drives them.
pub struct Storage {
    cpu: MaybeUninit<OpenObject>,
    cgroups: cgroups::Storage,
    births: MaybeUninit<OpenObject>,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            cpu: MaybeUninit::uninit(),
            cgroups: cgroups::Storage::default(),
            births: MaybeUninit::uninit(),
        }
    }
}

/// The loaded probes and the reading they fill.
pub struct Driver<'obj> {
    cgroups: CgroupSampler<'obj>,
    cpu: Option<CpuProbe<'obj>>,
    births: Option<Recorder<'obj>>,
    /// Cgroups are told of when they are made, recorder or not.
    told: bool,
    made: Vec<Made>,
    reading: Reading,
    cpus: Online,
    sweep: Every,
    alive: HashSet<CgroupKey>,
    unknown: HashSet<CgroupKey>,
}

impl<'obj> Driver<'obj> {
    /// Loads and attaches. A probe that does not load is told in the log, and the rest runs.
    pub fn start(storage: &'obj mut Storage, options: DriverOptions) -> Self {
        let cpu = options.cpu.and_then(|cpu| {
            CpuProbe::load(&mut storage.cpu, cpu)
                .inspect_err(|error| {
                    warn!(
                        "{error}: no run-queue wait, no stalls, no neighbours; `kernel-gossip check` says why"
                    );
                })
                .ok()
        });
        let told = options.births.is_some();
        let births = options.births.and_then(|births| {
            Recorder::load(&mut storage.births, births)
                .inspect_err(|error| warn!("{error}: births without numbers; `kernel-gossip check` says why"))
                .ok()
        });
        let mut cgroups = CgroupSampler::new(&mut storage.cgroups, options.roots, options.sampler);
        if told {
            cgroups.watch_made();
        }
        Driver {
            cgroups,
            cpu,
            births,
            told,
            made: Vec::new(),
            reading: Reading::default(),
            cpus: Online::default(),
            sweep: Every::new(SWEEP_EVERY),
            alive: HashSet::new(),
            unknown: HashSet::new(),
        }
    }

    /// Whether the CPU probe runs.
    pub fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// How cgroups are sampled.
    pub fn cgroups(&self) -> &CgroupSampler<'obj> {
        &self.cgroups
    }

    /// The recorder of births, to be started and stopped; `None` where it cannot be loaded.
    pub fn recorder(&mut self) -> Option<&mut Recorder<'obj>> {
        self.births.as_mut()
    }

    /// File descriptors that are readable when [`read_births`](Self::read_births) has something to tell at once: a
    /// cgroup was made, or much of a recording waits. Valid as long as the driver lives.
    pub fn births_fds(&self) -> impl Iterator<Item = RawFd> {
        let made = self.told.then(|| self.cgroups.changes_fd()).flatten();
        made.into_iter().chain(self.births.as_ref().map(Recorder::fd))
    }

    /// Appends what is new of births, by time: cgroups made, whether or not a recording is on, and what was recorded.
    /// To be called some ten times a second while a recording is on.
    pub fn read_births(&mut self, out: &mut Vec<Record>) {
        if !self.told {
            return;
        }
        let first = out.len();
        self.cgroups.take_made(&mut self.made);
        if let Some(recorder) = &mut self.births {
            recorder.drain(out);
        }
        let recorder = self.births.as_ref();
        out.extend(self.made.drain(..).map(|made| {
            let Made { at_ns, tgid, comm, hierarchy_id, cgroup, path } = made;
            let segment = recorder.and_then(|r| r.segment_at(tgid, at_ns));
            Record::CgroupMade(CgroupMade {
                by: By { at_ns, segment, tgid, comm },
                hierarchy_id,
                cgroup,
                path,
            })
        }));
        out[first..].sort_by_key(Record::at_ns);
    }

    /// What was lost of births so far.
    pub fn birth_losses(&self) -> BirthLosses {
        let recorder = self.births.as_ref().map(Recorder::losses).unwrap_or_default();
        BirthLosses { cgroups: self.cgroups.made_lost(), ..recorder }
    }

    /// Reads everything. The reading is the driver's own and filled anew by the next call.
    pub fn read(&mut self) -> &Reading {
        let r = &mut self.reading;
        r.at = clock::instant();
        r.cpus = self.cpus.count(r.at.mono_ns);
        r.changes.clear();
        r.cpu.clear();
        r.blame.clear();
        r.stats.clear();
        r.programs.clear();
        self.cgroups.sample(r.at.mono_ns, &mut r.changes, &mut r.stats, &mut r.losses);
        let recorded = self.births.as_ref().map_or_else(BirthLosses::default, Recorder::losses);
        r.losses.births = BirthLosses { cgroups: self.cgroups.made_lost(), ..recorded };
        if let Some(recorder) = &self.births {
            recorder.costs(&mut r.programs);
        }
        let Some(cpu) = &mut self.cpu else {
            return &self.reading;
        };
        // What is gone is read a last time before it is forgotten.
        cpu.read(&mut r.cpu, &mut r.blame, &mut r.losses);
        cpu.costs(&mut r.programs);
        for change in &r.changes {
            match change {
                CgroupChange::Present { cgroup, .. } => {
                    self.alive.insert(*cgroup);
                }
                CgroupChange::Gone { cgroup } => {
                    self.alive.remove(cgroup);
                    cpu.forget(*cgroup);
                }
            }
        }
        if self.sweep.due(r.at.mono_ns) {
            let unknown = r.cpu.iter().map(|c| c.cgroup).filter(|c| !self.alive.contains(c)).collect();
            let before = std::mem::replace(&mut self.unknown, unknown);
            self.unknown.intersection(&before).for_each(|cgroup| cpu.forget(*cgroup));
        }
        &self.reading
    }
}
