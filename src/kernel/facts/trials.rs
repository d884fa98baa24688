//! Load and attach each kind of BPF program once (`bpf/probe_types.bpf.c`): what a host really allows
//! follows from capabilities, lockdown, security modules, seccomp and the kernel's configuration
//! together, so it is tried and not deduced.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{CgroupIterOpts, CgroupIterOrder, IterOpts, ProgramMut, ProgramType};
use serde::{Deserialize, Serialize};

use super::Trees;

skeleton!(skel, "probe_types");
use skel::ProbeTypesSkelBuilder;

/// What became of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    Works,
    /// The kernel did not load it: the error.
    LoadFails(String),
    /// It was loaded but not attached (an iterator: or not run): the error.
    AttachFails(String),
}

impl Trial {
    pub fn works(&self) -> bool {
        *self == Trial::Works
    }

    /// What failed and why; `None` if nothing did.
    pub fn error(&self) -> Option<String> {
        match self {
            Trial::Works => None,
            Trial::LoadFails(e) => Some(format!("load: {e}")),
            Trial::AttachFails(e) => Some(format!("attach: {e}")),
        }
    }
}

impl Default for Trial {
    /// Of a program that was not tried, as on a host that was recorded before there was one.
    fn default() -> Self {
        Trial::LoadFails("not tried".to_owned())
    }
}

/// Every program tried. Field names are those of the programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trials {
    /// A typed tracepoint.
    pub tp_btf: Trial,
    pub raw_tracepoint: Trial,
    /// A tracepoint by way of perf and tracefs. Not used by any probe.
    pub tracepoint: Trial,
    /// An iterator over cgroups, run over the tree that has the cpu controller.
    pub iter_cgroup: Trial,
    /// The same as a program that may sleep, which asks the kernel to sum up the cgroups' CPU time.
    pub rstat_flush: Trial,
    pub iter_task: Trial,
    /// The helper bpf_probe_read_kernel: not there under lockdown=confidentiality.
    pub read_kernel: Trial,
    pub ring_buffer: Trial,
    /// Atomics that return a value.
    pub fetch_atomics: Trial,
    /// Not used by any probe; told because people ask.
    pub fentry: Trial,
    /// Not used by any probe.
    pub kprobe: Trial,
    /// Not used by any probe.
    pub lsm: Trial,
}

impl Trials {
    /// Tries what the probes use; everything if people ask (`all`). libbpf's own messages are held back meanwhile: failures
    /// are expected.
    pub(super) fn run(trees: &Trees, all: bool) -> Trials {
        let cgroup = trees.cpu_mount().and_then(|mount| File::open(mount).ok());
        let printer = libbpf_rs::set_print(None);
        let one = |name| trial(name, cgroup.as_ref());
        let told = |name| if all { one(name) } else { Trial::default() };
        let trials = Trials {
            tp_btf: one("tp_btf"),
            raw_tracepoint: one("raw_tracepoint"),
            tracepoint: told("tracepoint"),
            iter_cgroup: one("iter_cgroup"),
            rstat_flush: one("rstat_flush"),
            iter_task: one("iter_task"),
            read_kernel: one("read_kernel"),
            ring_buffer: one("ring_buffer"),
            fetch_atomics: one("fetch_atomics"),
            fentry: told("fentry"),
            kprobe: told("kprobe"),
            lsm: told("lsm"),
        };
        libbpf_rs::set_print(printer);
        trials
    }

    /// By name, in the order people look for them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Trial)> {
        [
            ("tp_btf", &self.tp_btf),
            ("raw_tracepoint", &self.raw_tracepoint),
            ("tracepoint", &self.tracepoint),
            ("iter/cgroup", &self.iter_cgroup),
            ("rstat_flush", &self.rstat_flush),
            ("iter/task", &self.iter_task),
            ("read_kernel", &self.read_kernel),
            ("ring_buffer", &self.ring_buffer),
            ("fetch_atomics", &self.fetch_atomics),
            ("fentry", &self.fentry),
            ("kprobe", &self.kprobe),
            ("lsm", &self.lsm),
        ]
        .into_iter()
    }
}

fn trial(name: &str, cgroup: Option<&File>) -> Trial {
    let mut storage = MaybeUninit::uninit();
    let loaded = ProbeTypesSkelBuilder::default().open(&mut storage).and_then(|mut open| {
        for mut program in open.open_object_mut().progs_mut() {
            let wanted = program.name() == name;
            program.set_autoload(wanted);
        }
        open.maps.ring.set_autocreate(name == "ring_buffer")?;
        open.load()
    });
    let mut skel = match loaded {
        Ok(skel) => skel,
        Err(e) => return Trial::LoadFails(format!("{e:#}")),
    };
    let Some(program) = skel.object_mut().progs_mut().find(|program| program.name() == name) else {
        return Trial::LoadFails("no such program".to_string());
    };
    match attach(&program, cgroup) {
        Ok(()) => Trial::Works,
        Err(e) => Trial::AttachFails(e),
    }
}

/// Attaches and detaches; an iterator over cgroups is also run.
fn attach(program: &ProgramMut<'_>, cgroup: Option<&File>) -> Result<(), String> {
    let over_cgroups = program.prog_type() == ProgramType::Tracing
        && program.section().to_string_lossy().trim_start_matches('?').ends_with("/cgroup");
    if !over_cgroups {
        return program.attach().map(drop).map_err(|e| format!("{e:#}"));
    }
    let cgroup = cgroup.ok_or("no cgroup tree to run over")?;
    let mut options = CgroupIterOpts::from_fd(cgroup.as_fd());
    options.order = CgroupIterOrder::DescendantsPre;
    let link = program.attach_iter_with_opts(IterOpts::Cgroup(options)).map_err(|e| format!("{e:#}"))?;
    let mut run = libbpf_rs::Iter::new(&link).map_err(|e| format!("{e:#}"))?;
    std::io::copy(&mut run, &mut std::io::sink()).map(drop).map_err(|e| format!("{e:#}"))
}
