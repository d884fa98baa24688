//! What a loaded BPF program costs, as the kernel measures it.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::ProgramMut;

use super::ProgramCost;

/// Run time and runs of a program since `kernel.bpf_stats_enabled` was set; zero if it never was.
/// `None` if the kernel does not tell.
pub fn of(program: &ProgramMut<'_>) -> Option<ProgramCost> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is as large as `size` says; an all-zero bpf_prog_info asks for no arrays.
    let failed = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    } != 0;
    (!failed).then(|| ProgramCost {
        name: program.name().to_string_lossy().into_owned(),
        run_time: Duration::from_nanos(info.run_time_ns),
        runs: info.run_cnt,
    })
}
