// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* What the kernel keeps per cgroup, for all cgroups at a time, and which come and go.
 *
 * Hooks: an iterator over the cgroup v2 tree, run by userspace once a reading (no cost in between), and the
 * tracepoints cgroup_mkdir, cgroup_rmdir and cgroup_rename (one short event each, some per container).
 *
 * The iterator writes to a mapped array, not to its seq_file: cgroup iterators cannot be resumed once the
 * seq_file's buffer (32 KiB) is full (kernel/bpf/cgroup_iter.c). */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "cgroup.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PATH_LEN 512
#define UNKNOWN (~0ULL)

/* Numbers of one cgroup; UNKNOWN where the controller is off. Times in ns. */
struct cgroup_stat {
	__u64 id;
	__u64 usage;
	__u64 periods;
	__u64 throttled_periods;
	__u64 throttled;
	__u64 quota; /* per period; UNKNOWN (the kernel's RUNTIME_INF): no limit */
	__u64 period;
	__u64 cpu_some;
	__u64 cpu_full;
	__u64 memory_some;
	__u64 memory_full;
	__u64 io_some;
	__u64 io_full;
	__u64 memory; /* pages, of it and all below it */
	__u64 pad[2];
};

/* What became of a cgroup. */
#define REMOVED 0
#define MADE 1
#define RENAMED 2 /* v1 alone; those below it have other paths now, too */

/* A cgroup was made, removed or renamed. */
struct cgroup_event {
	__u64 id;
	__u32 hierarchy; /* as in /proc/cgroups; 0 is v2 */
	__u32 what; /* became of it */
	__u64 at; /* CLOCK_MONOTONIC, ns */
	__u32 tgid; /* who did it */
	__s32 path_len; /* with the end; negative: unreadable */
	char comm[16];
	char path[PATH_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* cgroups */
	__type(key, __u32);
	__type(value, struct cgroup_stat);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

struct cgroup_event *event_type; /* never set: makes the type known to the skeleton */
__u32 visited; /* by the run of the iterator; set to 0 before each */
__u64 events_lost;

static __always_inline void read_cpu(struct cgroup *cgrp, struct cgroup_stat *out)
{
	int cpu = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	struct cgroup_subsys_state *css = NULL;
	struct task_group *tg;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)&cgrp->subsys + cpu * sizeof(css));
	if (!css)
		return;
	tg = container_of(css, struct task_group, css);
	if (!bpf_core_field_exists(tg->cfs_bandwidth.quota)) /* no CONFIG_CFS_BANDWIDTH */
		return;
	out->periods = BPF_CORE_READ(tg, cfs_bandwidth.nr_periods);
	out->throttled_periods = BPF_CORE_READ(tg, cfs_bandwidth.nr_throttled);
	out->throttled = BPF_CORE_READ(tg, cfs_bandwidth.throttled_time);
	out->quota = BPF_CORE_READ(tg, cfs_bandwidth.quota);
	out->period = BPF_CORE_READ(tg, cfs_bandwidth.period);
}

static __always_inline void read_memory(struct cgroup *cgrp, struct cgroup_stat *out)
{
	struct mem_cgroup *memory = NULL;
	int controller;

	if (!bpf_core_field_exists(memory->memory.usage)) /* no CONFIG_MEMCG */
		return;
	controller = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	/* Its css is its first field. */
	bpf_probe_read_kernel(&memory, sizeof(memory), (void *)&cgrp->subsys + controller * sizeof(memory));
	if (memory)
		out->memory = BPF_CORE_READ(memory, memory.usage.counter);
}

/* Totals as the averaging left them: the kernel renews them every 2 s, or when the file is read. */
static __always_inline void read_pressure(struct cgroup *cgrp, struct cgroup_stat *out)
{
	struct psi_group *psi = BPF_CORE_READ(cgrp, psi);
	void *total;

	if (!bpf_core_field_exists(psi->total) || !psi) /* no CONFIG_PSI, or off */
		return;
	total = (void *)&psi->total;
#define PSI_TOTAL(field, state)                                \
	bpf_probe_read_kernel(&out->field, sizeof(out->field), \
			      total + bpf_core_enum_value(enum psi_states, state) * sizeof(__u64))
	PSI_TOTAL(io_some, PSI_IO_SOME);
	PSI_TOTAL(io_full, PSI_IO_FULL);
	PSI_TOTAL(memory_some, PSI_MEM_SOME);
	PSI_TOTAL(memory_full, PSI_MEM_FULL);
	PSI_TOTAL(cpu_some, PSI_CPU_SOME);
	PSI_TOTAL(cpu_full, PSI_CPU_FULL);
#undef PSI_TOTAL
}

SEC("?iter.s/cgroup")
int cgroup_stats(struct bpf_iter__cgroup *ctx)
{
	struct cgroup *cgrp = ctx->cgroup;
	struct cgroup_stat *out;
	__u32 key = visited;

	if (!cgrp) /* the end of the walk */
		return 0;
	if (!key) /* the root comes first: usage of all of them is brought up to date */
		flush_usage(cgrp);
	visited = key + 1;
	out = bpf_map_lookup_elem(&stats, &key);
	if (!out)
		return 0;
	out->id = cgrp->kn->id;
	out->usage = key ? cgrp->bstat.cputime.sum_exec_runtime : UNKNOWN; /* the root keeps none */
	out->periods = out->throttled_periods = out->throttled = out->quota = out->period = UNKNOWN;
	out->cpu_some = out->cpu_full = out->memory_some = out->memory_full = out->io_some = out->io_full = UNKNOWN;
	out->memory = UNKNOWN;
	read_cpu(cgrp, out);
	read_memory(cgrp, out);
	read_pressure(cgrp, out);
	return 0;
}

static __always_inline int on_change(struct cgroup *cgrp, const char *path, __u32 what)
{
	struct cgroup_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&events_lost, 1);
		return 0;
	}
	event->id = BPF_CORE_READ(cgrp, kn, id);
	event->hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id);
	event->what = what;
	event->at = bpf_ktime_get_ns();
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->path_len = bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#define CHANGES(suffix, hook)                                                       \
	SEC("?" hook "/cgroup_mkdir")                                               \
	int BPF_PROG(cgroup_mkdir_##suffix, struct cgroup *cgrp, const char *path)  \
	{                                                                           \
		return on_change(cgrp, path, MADE);                                 \
	}                                                                           \
	SEC("?" hook "/cgroup_rmdir")                                               \
	int BPF_PROG(cgroup_rmdir_##suffix, struct cgroup *cgrp, const char *path)  \
	{                                                                           \
		return on_change(cgrp, path, REMOVED);                              \
	}                                                                           \
	SEC("?" hook "/cgroup_rename")                                              \
	int BPF_PROG(cgroup_rename_##suffix, struct cgroup *cgrp, const char *path) \
	{                                                                           \
		return on_change(cgrp, path, RENAMED);                              \
	}

CHANGES(btf, "tp_btf")
CHANGES(raw, "raw_tp")
