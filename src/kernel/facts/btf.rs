//! What the kernel's own type information says it has.

use libbpf_rs::btf::types::Struct;
use serde::{Deserialize, Serialize};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's BTF: whether it can be read, and whether it has what the probes would use. All false
/// where it cannot be read, and what a recorded host has no word of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Btf {
    /// Why it cannot be read; `None` if it can.
    pub error: Option<String>,
    /// `cfs_rq.throttled_clock_self_time` (6.6, 677ea015f231 "sched: add throttled time stat for throttled
    /// children"): exact.
    pub throttled_clock_self_time: bool,
    /// `cfs_rq.throttled_clock_pelt_time` (5.19, 64eaf50731ac): runs slower at lower CPU frequency.
    pub throttled_clock_pelt_time: bool,
    /// `cfs_rq.throttled_clock_task_time`, the same before 5.19.
    pub throttled_clock_task_time: bool,
    /// `sched_info.last_queued` (CONFIG_SCHED_INFO): when a task became runnable.
    pub sched_info: bool,
    /// `rq.rq_sched_info` (CONFIG_SCHEDSTATS): keeps the wait of a task that is moved to another CPU.
    pub rq_sched_info: bool,
    /// `cfs_bandwidth.quota` (CONFIG_CFS_BANDWIDTH): CPU quotas. (Without them the struct is there, and empty.)
    pub cfs_bandwidth: bool,
    /// The tracepoints cgroup_mkdir and cgroup_rmdir.
    pub cgroup_tracepoints: bool,
    /// The tracepoint sys_enter (CONFIG_HAVE_SYSCALL_TRACEPOINTS).
    pub sys_enter: bool,
    /// The tracepoints sched_process_fork, sched_process_exec and sched_process_exit.
    pub process_tracepoints: bool,
    /// The tracepoint mark_victim has the victim's task (6.9, 72ba14deb40a "mm: update mark_victim tracepoints fields", and
    /// stable kernels after it), not its pid alone.
    pub mark_victim_task: bool,
    /// `task_io_accounting.rchar` (CONFIG_TASK_XACCT): bytes read and written.
    pub io_accounting: bool,
    /// `task_struct.in_memstall` (5.8, 1066d1b6974e "psi: Move PF_MEMSTALL out of task->flags"; CONFIG_PSI): a task that waits for
    /// memory is marked.
    pub memstall: bool,
    /// The tracepoints mm_vmscan_memcg_reclaim_begin (CONFIG_MEMCG) and mm_vmscan_direct_reclaim_begin, and their ends.
    pub reclaim_tracepoints: bool,
    /// The tracepoint kfree_skb tells why (5.17, c504e5c2f964 "net: skb: introduce kfree_skb_reason()").
    pub drop_reasons: bool,
}

impl Btf {
    pub(super) fn read() -> Btf {
        // Opened first because libbpf does not tell absent from not permitted.
        let btf = std::fs::File::open(VMLINUX)
            .map_err(|e| format!("{VMLINUX}: {e}"))
            .and_then(|_| libbpf_rs::btf::Btf::from_path(VMLINUX).map_err(|e| format!("{VMLINUX}: {e}")));
        match btf {
            Ok(btf) => Btf::of(&btf),
            Err(e) => Btf { error: Some(e), ..Btf::default() },
        }
    }

    fn of(btf: &libbpf_rs::btf::Btf<'_>) -> Btf {
        let field = |structure: &str, field: &str| {
            btf.type_by_name::<Struct<'_>>(structure)
                .is_some_and(|s| s.iter().any(|member| member.name.is_some_and(|name| name == field)))
        };
        let tracepoint = |name: &str| {
            btf.type_by_name::<libbpf_rs::btf::types::Typedef<'_>>(&format!("btf_trace_{name}")).is_some()
        };
        Btf {
            error: None,
            throttled_clock_self_time: field("cfs_rq", "throttled_clock_self_time"),
            throttled_clock_pelt_time: field("cfs_rq", "throttled_clock_pelt_time"),
            throttled_clock_task_time: field("cfs_rq", "throttled_clock_task_time"),
            sched_info: field("sched_info", "last_queued"),
            rq_sched_info: field("rq", "rq_sched_info"),
            cfs_bandwidth: field("cfs_bandwidth", "quota"),
            cgroup_tracepoints: ["cgroup_mkdir", "cgroup_rmdir"].into_iter().all(tracepoint),
            sys_enter: tracepoint("sys_enter"),
            process_tracepoints: ["sched_process_fork", "sched_process_exec", "sched_process_exit"]
                .into_iter()
                .all(tracepoint),
            mark_victim_task: field("trace_event_raw_mark_victim", "uid"),
            io_accounting: field("task_io_accounting", "rchar"),
            memstall: field("task_struct", "in_memstall"),
            reclaim_tracepoints: [
                "mm_vmscan_memcg_reclaim_begin",
                "mm_vmscan_memcg_reclaim_end",
                "mm_vmscan_direct_reclaim_begin",
                "mm_vmscan_direct_reclaim_end",
            ]
            .into_iter()
            .all(tracepoint),
            drop_reasons: field("trace_event_raw_kfree_skb", "reason"),
        }
    }
}
