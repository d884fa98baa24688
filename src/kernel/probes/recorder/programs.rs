//! Which of the programs of `bpf/birth.bpf.c` are those of an entry.

use libbpf_rs::{OpenProgramMut, ProgramMut};

use super::Entry;
use super::skel::{BirthProgs, OpenBirthProgs};

/// The programs of one entry, those that begin segments first.
macro_rules! of_entry {
    ($progs:expr, $entry:expr, $($reference:tt)+) => {
        match $entry {
            Entry::TpBtf => [
                $($reference)+ $progs.fork_btf,
                $($reference)+ $progs.exec_btf,
                $($reference)+ $progs.exit_btf,
                $($reference)+ $progs.syscall_btf,
                $($reference)+ $progs.socket_btf,
                $($reference)+ $progs.switch_btf,
            ],
            Entry::RawTracepoint => [
                $($reference)+ $progs.fork_raw,
                $($reference)+ $progs.exec_raw,
                $($reference)+ $progs.exit_raw,
                $($reference)+ $progs.syscall_raw,
                $($reference)+ $progs.socket_raw,
                $($reference)+ $progs.switch_raw,
            ],
            Entry::Bare => [
                $($reference)+ $progs.fork_bare,
                $($reference)+ $progs.exec_bare,
                $($reference)+ $progs.exit_bare,
                $($reference)+ $progs.syscall_bare,
                $($reference)+ $progs.socket_bare,
                $($reference)+ $progs.switch_bare,
            ],
        }
    };
}

pub fn to_load<'a, 'obj>(
    progs: &'a mut OpenBirthProgs<'obj>,
    entry: Entry,
) -> [&'a mut OpenProgramMut<'obj>; 6] {
    of_entry!(progs, entry, &mut)
}

pub fn programs<'a, 'obj>(progs: &'a BirthProgs<'obj>, entry: Entry) -> [&'a ProgramMut<'obj>; 6] {
    of_entry!(progs, entry, &)
}
