// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Direct reclaim: the time threads take to free memory before they get what they asked for, by cgroup, and whether it was for a
 * limit of their own or for a node that is short. That is the one thing which tells the two apart.
 *
 * Hooks: mm_vmscan_memcg_reclaim_begin and _end (a limit: memory.max, memory.high, or v1's), mm_vmscan_direct_reclaim_begin and
 * _end (the node). Nothing is done for a page. What the arguments are and in which order differs between kernels; none is used but
 * the cgroup whose limit it is, where there is one. Cost: see docs/figures.md. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "css.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define LEVELS 10 /* of the memory controller's tree; kubelet and runtime make five */
#define THREADS 4096 /* that reclaim at a time */
#define PF_KTHREAD 0x00200000

/* Whose limit it is: told in 7.3 (gfp, order, memcg), not in 6.18. */
struct trace_event_raw_mm_vmscan_direct_reclaim_begin_template___memcg {
	__u64 memcg_id;
} __attribute__((preserve_access_index));

/* One cgroup; ns by CLOCK_MONOTONIC, from the beginning to the end, whatever the thread did in between. */
struct reclaim {
	__u64 own;
	__u64 own_times;
	__u64 node;
	__u64 node_times;
};

/* When a thread began. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREADS);
	__type(key, __u32); /* tid */
	__type(value, __u64);
} begun SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* cgroups */
	__type(key, __u64);
	__type(value, struct reclaim);
} reclaims SEC(".maps");

__u64 ended; /* so many: userspace reads the table if it grew */
__u64 lost; /* reclaims for which a table had no room */

static __always_inline int begins(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 now;

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD) /* kswapd, and memory.high's own worker: nobody waits */
		return 0;
	now = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&begun, &tid, &now, BPF_ANY))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

static __always_inline int ends(bool node)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *since = bpf_map_lookup_elem(&begun, &tid), now, cgroup;
	struct reclaim *sum, none = {};

	if (!since)
		return 0;
	now = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&begun, &tid);
	cgroup = cpu_cgroup((void *)bpf_get_current_task());
	sum = bpf_map_lookup_elem(&reclaims, &cgroup);
	if (!sum) {
		bpf_map_update_elem(&reclaims, &cgroup, &none, BPF_NOEXIST);
		sum = bpf_map_lookup_elem(&reclaims, &cgroup);
	}
	if (!sum) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	__sync_fetch_and_add(node ? &sum->node : &sum->own, now);
	__sync_fetch_and_add(node ? &sum->node_times : &sum->own_times, 1);
	__sync_fetch_and_add(&ended, 1);
	return 0;
}

SEC("raw_tp/mm_vmscan_memcg_reclaim_begin")
int own_begins(struct bpf_raw_tracepoint_args *ctx)
{
	struct mem_cgroup *limited, *memory;
	int i;

	if (!bpf_core_field_exists(struct trace_event_raw_mm_vmscan_direct_reclaim_begin_template___memcg, memcg_id))
		return begins();
	/* Who lowers a limit, or writes to memory.reclaim, frees others' memory: it is not held up by a limit of its own. */
	limited = (void *)ctx->args[2];
	memory = memory_of((void *)bpf_get_current_task());
	for (i = 0; i < LEVELS && memory; i++) {
		if (memory == limited)
			return begins();
		memory = (void *)BPF_CORE_READ(memory, css.parent);
	}
	return 0;
}

SEC("raw_tp/mm_vmscan_memcg_reclaim_end")
int own_ends(void *ctx)
{
	return ends(false);
}

SEC("raw_tp/mm_vmscan_direct_reclaim_begin")
int node_begins(void *ctx)
{
	return begins();
}

SEC("raw_tp/mm_vmscan_direct_reclaim_end")
int node_ends(void *ctx)
{
	return ends(true);
}
