//! An empty program on sched_switch (`bpf/baseline.bpf.c`), for `benches/probe_cost.rs` to measure against.

use std::mem::MaybeUninit;

use libbpf_rs::OpenObject;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};

use super::ProgramCost;

skeleton!(skel, "baseline");

/// The loaded and attached empty program.
pub struct Baseline<'obj>(skel::BaselineSkel<'obj>);

impl<'obj> Baseline<'obj> {
    /// Loads and attaches.
    ///
    /// # Errors
    /// The kernel refuses the program or its hook: no BPF, no capability for it, no BTF.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>) -> libbpf_rs::Result<Self> {
        let mut skel = skel::BaselineSkelBuilder::default().open(storage)?.load()?;
        skel.attach()?;
        Ok(Baseline(skel))
    }

    /// What it cost so far.
    pub fn cost(&self) -> Option<ProgramCost> {
        let program = &self.0.progs.baseline;
        super::cost::of(program, &super::cost::name(program))
    }
}
