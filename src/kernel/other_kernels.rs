//! The programs load on kernels built without some options: what those lack is taken out of this kernel's types,
//! by which the programs are fitted to a kernel when they are loaded.

use std::fs;
use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use tempfile::NamedTempFile;

skeleton!(cpu, "cpu");
skeleton!(cgroups, "cgroups");
skeleton!(birth, "birth");
skeleton!(oom, "oom");
skeleton!(reclaim, "reclaim");
skeleton!(drops, "drops");
skeleton!(net_tasks, "net_tasks");

/// An option of the kernel, and the fields that are there only with it.
const OPTIONS: [(&str, &[&str]); 6] = [
    ("CONFIG_SCHEDSTATS", &["rq_sched_info"]),
    ("CONFIG_SCHED_INFO", &["rq_sched_info", "last_queued", "run_delay", "pcount"]),
    (
        "CONFIG_CFS_BANDWIDTH",
        &[
            "throttle_count",
            "throttled_clock",
            "throttled_clock_self",
            "throttled_clock_self_time",
            "throttled_clock_pelt_time",
            "throttled_clock_task_time",
            "nr_periods",
            "nr_throttled",
            "throttled_time",
            "quota",
            "period",
        ],
    ),
    ("CONFIG_IPV6", &["ipv6_statistics", "udp_stats_in6", "ip6_ptr"]),
    ("CONFIG_NF_CONNTRACK", &["_nfct", "ct"]),
    ("CONFIG_PSI", &["total", "psi_states", "PSI_IO_SOME", "PSI_MEM_SOME", "PSI_CPU_SOME", "in_memstall"]),
];

/// This kernel's types, in which nothing has one of these names.
fn types_without(names: &[&str]) -> NamedTempFile {
    let mut types = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel's types");
    for name in names {
        // Each is written once, between two NULs; what this kernel does not have need not be taken out.
        let name = [b"\0", name.as_bytes(), b"\0"].concat();
        if let Some(at) = types.windows(name.len()).position(|place| place == name) {
            types[at + 1] = b'_';
        }
    }
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), types).expect("write");
    file
}

macro_rules! loads_without {
    ($option:expr, $types:expr, $builder:expr) => {
        let mut builder = $builder;
        builder.obj_builder.btf_custom_path($types.path()).expect("a path");
        let mut storage = MaybeUninit::uninit();
        let mut open = builder.open(&mut storage).expect("an object");
        open.open_object_mut().progs_mut().for_each(|mut program| program.set_autoload(true));
        open.load().unwrap_or_else(|e| panic!("{} without {}: {e:#}", stringify!($builder), $option));
    };
}

#[test]
fn every_program_loads_without_what_a_kernel_may_lack() {
    for (option, names) in OPTIONS {
        let types = types_without(names);
        loads_without!(option, types, cpu::CpuSkelBuilder::default());
        loads_without!(option, types, cgroups::CgroupsSkelBuilder::default());
        loads_without!(option, types, birth::BirthSkelBuilder::default());
        loads_without!(option, types, oom::OomSkelBuilder::default());
        loads_without!(option, types, reclaim::ReclaimSkelBuilder::default());
        loads_without!(option, types, drops::DropsSkelBuilder::default());
        loads_without!(option, types, net_tasks::NetTasksSkelBuilder::default());
    }
}
