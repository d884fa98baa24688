//! What the loaded BPF programs and maps cost, as the kernel measures it.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use libbpf_rs::ProgramMut;

use super::ProgramCost;

/// A program's name, to be told with its cost.
pub fn name(program: &ProgramMut<'_>) -> Arc<str> {
    program.name().to_string_lossy().into()
}

/// Run time and runs of a program since `kernel.bpf_stats_enabled` was set; zero if it never was.
/// `None` if the kernel does not tell.
pub fn of(program: &ProgramMut<'_>, name: &Arc<str>) -> Option<ProgramCost> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is as large as `size` says; an all-zero bpf_prog_info asks for no arrays.
    let failed = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    } != 0;
    (!failed).then(|| ProgramCost {
        name: name.clone(),
        run_time: Duration::from_nanos(info.run_time_ns),
        runs: info.run_cnt,
    })
}

/// Bytes of kernel memory that the BPF maps of this process take (`memlock` in /proc/self/fdinfo). Looks at
/// every open file: for once, after loading.
pub fn map_memory() -> u64 {
    let Ok(files) = std::fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    // A map may be open more than once.
    let maps: HashMap<u64, u64> = texts.filter_map(|text| map_of(&text)).collect();
    maps.values().sum()
}

/// The id of a map and its memory, bytes; `None` for a file that is no BPF map.
fn map_of(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    field("map_type:").and(field("map_id:")).zip(field("memlock:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_panics() {
        let seeds: [&[u8]; 2] = [
            b"pos:\t0\nflags:\t02000002\nmap_type:\t2\nmax_entries:\t65536\nmemlock:\t524608\nmap_id:\t77\nfrozen:\t0\n",
            b"pos:\t0\nprog_type:\t26\nmemlock:\t12288\nprog_id:\t3\n",
        ];
        crate::testfuzz::Mutator::new(&seeds).each(|file| {
            let _ = std::str::from_utf8(file).ok().and_then(map_of);
        });
    }

    #[test]
    fn maps_are_told_from_other_files() {
        let map = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nmap_type:\t2\nkey_size:\t4\nvalue_size:\t8\n\
                   max_entries:\t65536\nmap_flags:\t0x0\nmap_extra:\t0x0\nmemlock:\t524608\nmap_id:\t77\nfrozen:\t0\n";
        assert_eq!(map_of(map), Some((77, 524608)));
        let program = "pos:\t0\nprog_type:\t26\nprog_jited:\t1\nmemlock:\t12288\nprog_id:\t3\n";
        assert_eq!(map_of(program), None);
    }
}
