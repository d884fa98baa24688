//! The BPF programs against the kernel that runs the tests: this machine's, and each of the other kernels.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bed;
mod kernel {
    mod birth;
    mod birth_crio;
    mod birth_forged;
    mod birth_room;
    mod cgroups;
    mod check;
    mod cpu;
    mod drops;
    mod helpers;
    mod measured;
    mod oom;
    mod reference;
}
