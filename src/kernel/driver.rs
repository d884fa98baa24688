//! Owns the probes: loads what the plan allows, and reads them all once an interval. Lives on one thread of
//! its own; nothing of it is shared.

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::Duration;

use tracing::warn;

use super::cgroups::Made;
use super::clock::{self, Every};
use super::cpus::Online;
use super::facts::Facts;
use super::oom::Kill;
use super::plan::Plan;
use super::probe::{Kind, Probe};
use super::probes::probes;
use super::recorder::{BirthLosses, By, CgroupMade, Record, Recorder};
use super::rehearsal::Rehearsal;
use super::{CgroupChange, CgroupKey, Reading};

/// Between two looks for cgroups that lived and died unseen.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

macro_rules! driver {
    ($($field:ident: $probe:ty,)+) => {
        /// What to load; the plan says. `None`: nothing of it.
        #[derive(Default)]
        pub struct DriverOptions {
            $(pub $field: Option<<$probe as Kind>::Options>,)+
        }

        impl DriverOptions {
            /// What the plan allows on the host of these facts.
            pub fn of(facts: &Facts, plan: &Plan, max_cgroups: u32) -> Self {
                DriverOptions { $($field: <$probe>::options(facts, plan.$field.hook(), max_cgroups),)+ }
            }

            /// The same of births alone: the recorder, and who tells it of new cgroups.
            pub fn of_births(facts: &Facts, plan: &Plan, max_cgroups: u32) -> Self {
                let DriverOptions { cgroups, births, .. } = DriverOptions::of(facts, plan, max_cgroups);
                DriverOptions { cgroups, births, ..DriverOptions::default() }
            }

            /// Tries what these options ask for, one after the other. libbpf's own messages are held back meanwhile.
            #[must_use]
            pub fn rehearse(self) -> Vec<Rehearsal> {
                let printer = libbpf_rs::set_print(None);
                let mut all = Vec::new();
                $(all.extend(self.$field.map(<$probe>::rehearse).unwrap_or_default());)+
                libbpf_rs::set_print(printer);
                all
            }
        }

        /// Room for the BPF objects, on the stack of the thread that drives them.
        #[derive(Default)]
        pub struct Storage {
            $($field: <$probe as Kind>::Storage,)+
        }

        /// Those that were loaded.
        struct Loaded<'obj> {
            $($field: Option<<$probe as Kind>::Loaded<'obj>>,)+
        }

        impl<'obj> Loaded<'obj> {
            /// One that does not load is logged, and the rest runs.
            fn load(storage: &'obj mut Storage, options: DriverOptions) -> Self {
                Loaded { $($field: options.$field.and_then(|o| load::<$probe>(&mut storage.$field, o)),)+ }
            }

            fn each(&self) -> impl Iterator<Item = &dyn Probe> {
                [$(self.$field.as_ref().map(|probe| probe as &dyn Probe)),+].into_iter().flatten()
            }

            fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Probe> {
                [$(self.$field.as_mut().map(|probe| probe as &mut dyn Probe)),+].into_iter().flatten()
            }
        }
    };
}
probes!(driver);

fn load<K: Kind>(storage: &mut K::Storage, options: K::Options) -> Option<K::Loaded<'_>> {
    let refused = |error: &_| warn!("{error}: {}; `kernel-gossip check` says why", K::WITHOUT);
    K::load(storage, options).inspect_err(refused).ok()
}

/// The loaded probes and the reading they fill.
pub struct Driver<'obj> {
    probes: Loaded<'obj>,
    /// Cgroups are reported when they are made, recorder or not.
    told: bool,
    made: Vec<Made>,
    reading: Reading,
    cpus: Online,
    sweep: Every,
    alive: HashSet<CgroupKey>,
    unknown: HashSet<CgroupKey>,
}

impl<'obj> Driver<'obj> {
    /// Loads and attaches. A probe that does not load is logged, and the rest runs.
    pub fn start(storage: &'obj mut Storage, options: DriverOptions) -> Self {
        let told = options.births.is_some();
        let mut probes = Loaded::load(storage, options);
        if let Some(cgroups) = probes.cgroups.as_mut().filter(|_| told) {
            cgroups.watch_made();
        }
        Driver {
            probes,
            told,
            made: Vec::new(),
            reading: Reading::default(),
            cpus: Online::default(),
            sweep: Every::new(SWEEP_EVERY),
            alive: HashSet::new(),
            unknown: HashSet::new(),
        }
    }

    /// The recorder of births, to be started and stopped; `None` where it cannot be loaded.
    pub fn recorder(&mut self) -> Option<&mut Recorder<'obj>> {
        self.probes.births.as_mut()
    }

    /// File descriptors that are readable when a probe has something to tell at once, as [`read_births`](Self::read_births)
    /// has: a cgroup was made, or much of a recording waits. Valid as long as the driver lives.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.probes.each().filter_map(Probe::fd)
    }

    /// Appends what is new of births, by time: cgroups made, whether or not a recording is on, and what was recorded.
    /// To be called some ten times a second while a recording is on.
    pub fn read_births(&mut self, out: &mut Vec<Record>) {
        if !self.told {
            return;
        }
        let first = out.len();
        if let Some(cgroups) = &mut self.probes.cgroups {
            cgroups.take_made(&mut self.made);
        }
        if let Some(recorder) = &mut self.probes.births {
            recorder.drain(out);
        }
        let recorder = self.probes.births.as_ref();
        out.extend(self.made.drain(..).map(|made| {
            let Made { at_ns, tgid, comm, hierarchy_id, cgroup, path } = made;
            let segment = recorder.and_then(|r| r.segment_at(tgid, at_ns));
            Record::CgroupMade(CgroupMade {
                by: By { at_ns, segment, tgid, comm },
                hierarchy_id,
                cgroup,
                path,
                owner: None,
            })
        }));
        out[first..].sort_by_key(Record::at_ns);
    }

    /// What was lost of births so far.
    pub fn birth_losses(&self) -> BirthLosses {
        let recorder = self.probes.births.as_ref().map(Recorder::losses).unwrap_or_default();
        let cgroups = self.probes.cgroups.as_ref().map_or(0, |sampler| sampler.losses().made);
        BirthLosses { cgroups, ..recorder }
    }

    /// Appends what the kernel killed for lack of memory since the last call; each group as one. To be called when one of the
    /// [`fds`](Self::fds) is readable, after [`kills_within`](Self::kills_within), and after each reading.
    pub fn read_kills(&mut self, out: &mut Vec<Kill>) {
        if let Some(oom) = &mut self.probes.oom {
            oom.take(out);
        }
    }

    /// How long until a kill under way is complete; `None`: there is none.
    pub fn kills_within(&self) -> Option<Duration> {
        self.probes.oom.as_ref()?.patience()
    }

    /// Reads everything. The reading is the driver's own and filled again by the next call.
    pub fn read(&mut self) -> &Reading {
        let (r, probes) = (&mut self.reading, &mut self.probes);
        r.clear();
        r.at = clock::instant();
        r.cpus = self.cpus.count(r.at.mono_ns);
        probes.each_mut().for_each(|probe| probe.find(r));
        // What is gone is read a last time before it is forgotten.
        for probe in probes.each_mut() {
            probe.read(r);
            probe.losses(&mut r.losses);
            probe.costs(&mut r.programs);
        }
        for change in &r.changes {
            match change {
                CgroupChange::Present { cgroup, .. } => {
                    self.alive.insert(*cgroup);
                }
                CgroupChange::Gone { cgroup } => {
                    self.alive.remove(cgroup);
                    probes.each_mut().for_each(|probe| probe.forget(*cgroup));
                }
            }
        }
        if self.sweep.due(r.at.mono_ns) {
            let unknown = r.cpu.iter().map(|c| c.cgroup).filter(|c| !self.alive.contains(c)).collect();
            let before = std::mem::replace(&mut self.unknown, unknown);
            for cgroup in self.unknown.intersection(&before) {
                probes.each_mut().for_each(|probe| probe.forget(*cgroup));
            }
        }
        &self.reading
    }
}
