// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Kills by the kernel for lack of memory: who was killed, at which limit, and who asked for the memory.
 *
 * Hooks: mark_victim, once a victim; and on kernels whose mark_victim has only a pid, signal_generate, which the same thread
 * passes with the victim's task just before it. No process is killed without the kernel's oom_lock, so that there is one
 * writer at a time. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "core_fixes.h"
#include "css.h"
#include "percpu.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define LEVELS 10 /* of the memory controller's tree; kubelet and runtime make five */
#define NAME_LEN 128 /* a cri-containerd scope is 85 */
#define NEAR 8 /* pages: the largest charge for which the kernel kills (PAGE_ALLOC_COSTLY_ORDER) */
#define SIGKILL 9
#define PF_KTHREAD 0x00200000
#define NONE (~0U)

/* A cgroup by the names on the way to the root, its own first, NAME_LEN for each; the root has none. */
struct oom_path {
	__u32 levels;
	__u32 cut; /* a name, or the way, is longer than there is room for */
	char names[LEVELS * NAME_LEN];
};

/* A process was killed. Sizes in pages. */
struct oom_event {
	__u64 at; /* CLOCK_MONOTONIC, ns */
	__u64 cpu_cgroup; /* kernfs ids of the victim's, by the cpu controller */
	__u64 unified_cgroup;
	__u64 usage; /* at the limit that was hit, and the limit */
	__u64 max;
	__u64 ooms; /* so often did this limit kill, or try to: the same for all victims of one such moment */
	__s64 file;
	__s64 anon;
	__s64 swap;
	__s64 shmem;
	__u32 limit; /* the level whose limit was hit; NONE: the node's memory */
	__u32 with_swap; /* it is the one of memory and swap (v1) */
	__u32 group; /* the topmost level below the limit that is killed as one; NONE */
	__u32 tgid; /* of the victim */
	__u32 uid;
	__u32 first; /* it is the first process of its PID namespace, not the host's: its container ends with it */
	__u32 nested; /* it is in a PID namespace of its own */
	__s32 score_adj;
	__u32 by_tgid; /* who asked for memory, or lowered the limit */
	__u32 by_tid;
	__u32 by_kernel; /* a kernel thread */
	__u32 by_outside; /* is not below the limit */
	char comm[16];
	char by_comm[16];
	struct oom_path victim;
	struct oom_path by;
};

/* A memory cgroup's counts as of the last kill. */
struct seen {
	__u64 ooms;
	__u64 kills;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024); /* some 180 kills */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* of a memory cgroup */
	__type(value, struct seen);
} seen SEC(".maps");

/* The victim that a thread has just sent SIGKILL to: before 6.9 alone. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u32); /* tid */
	__type(value, __u64); /* the address of its task */
} struck SEC(".maps");

struct oom_event *event_type; /* never set: makes the type known to the skeleton */
__u64 events_lost;
/* The limit that killed last. */
__u64 last_limit;
__u64 last_ooms;
__u32 last_by;

static __always_inline __u64 events_of(struct mem_cgroup *memory, int event)
{
	__u64 count = 0;

	bpf_probe_read_kernel(&count, sizeof(count), (void *)&memory->memory_events_local + event * sizeof(count));
	return count;
}

static __always_inline void read_path(struct oom_path *path, struct mem_cgroup *memory)
{
	path->levels = 0;
	path->cut = 0;
	for (int i = 0; i < LEVELS; i++) {
		struct mem_cgroup *above = memory ? (void *)BPF_CORE_READ(memory, css.parent) : NULL;

		char *name = &path->names[i * NAME_LEN];

		name[0] = 0;
		if (!above)
			continue;
		if (bpf_probe_read_kernel_str(name, NAME_LEN, BPF_CORE_READ(memory, css.cgroup, kn, name)) >= NAME_LEN)
			path->cut = 1;
		path->levels = i + 1;
		memory = above;
	}
	if (memory && BPF_CORE_READ(memory, css.parent))
		path->cut = 1;
}

/* What is resident: by type, summed over CPUs where the kernel keeps it for each (6.2, f1a7941243c1, "mm: convert mm's rss
 * stats into percpu_counter"). */
static __always_inline void read_sizes(struct oom_event *event, struct mm_struct *mm)
{
	__s64 pages[4] = {};

	if (bpf_core_field_exists(struct mm_struct___rss, rss_stat.count)) {
		struct mm_struct___rss *old = (void *)mm;

#define OLD(type) pages[type] = BPF_CORE_READ(old, rss_stat.count[type].counter)
		OLD(MM_FILEPAGES);
		OLD(MM_ANONPAGES);
		OLD(MM_SWAPENTS);
		OLD(MM_SHMEMPAGES);
#undef OLD
	} else {
		__u64 base = anchor_base(), counters[4], far;

#define SUM(type)                                              \
	pages[type] = BPF_CORE_READ(mm, rss_stat[type].count); \
	counters[type] = (__u64)BPF_CORE_READ(mm, rss_stat[type].counters)
		SUM(MM_FILEPAGES);
		SUM(MM_ANONPAGES);
		SUM(MM_SWAPENTS);
		SUM(MM_SHMEMPAGES);
#undef SUM
		for (__u32 cpu = 0; cpu < cpus_end; cpu++) {
			if (!copy_at(cpu, base, &far))
				continue;
#define PART(type)                                                                          \
	do {                                                                                \
		__s32 more = 0;                                                             \
		bpf_probe_read_kernel(&more, sizeof(more), (void *)(counters[type] + far)); \
		pages[type] += more;                                                        \
	} while (0)
			PART(MM_FILEPAGES);
			PART(MM_ANONPAGES);
			PART(MM_SWAPENTS);
			PART(MM_SHMEMPAGES);
#undef PART
		}
	}
	event->file = pages[MM_FILEPAGES];
	event->anon = pages[MM_ANONPAGES];
	event->swap = pages[MM_SWAPENTS];
	event->shmem = pages[MM_SHMEMPAGES];
}

/* Which limit was hit, from the victim's cgroup upwards. It has just been counted there (`oom`), and its usage is what the
 * limit allows: exactly, or so few pages below that a charge of several did not fit. A limit that is full of cache, while
 * the node is short, has not been counted. */
static __always_inline void read_limit(struct oom_event *event, struct mem_cgroup *victim, struct mem_cgroup *asking)
{
	int oom = bpf_core_enum_value(enum memcg_memory_event, MEMCG_OOM);
	struct mem_cgroup *memory = victim;
	__u32 best = 0, group = NONE;
	__u64 id_of_limit = 0;

	event->limit = event->group = NONE;
	event->ooms = event->usage = event->max = 0;
	event->with_swap = 0;
	for (__u32 i = 0; i < LEVELS && memory; i++) {
		struct cgroup *cgroup = BPF_CORE_READ(memory, css.cgroup);
		__u64 id = BPF_CORE_READ(cgroup, kn, id), count = events_of(memory, oom);
		__u64 usage = BPF_CORE_READ(memory, memory.usage.counter), max = BPF_CORE_READ(memory, memory.max);
		struct seen *before = bpf_map_lookup_elem(&seen, &id);
		bool grew = count > (before ? before->ooms : 0);
		bool again = id == last_limit && count == last_ooms && event->by_tid == last_by;
		__u32 fits = 0, swap = 0;

		if (BPF_CORE_READ(memory, oom_group))
			group = i;
		if (usage >= max) {
			fits = 4;
		} else if (usage + NEAR > max) {
			fits = 3;
		} else if (usage + usage / 16 >= max) { /* others gave some back meanwhile */
			fits = 1;
		}
		if (fits < 4 && BPF_CORE_READ(cgroup, root, hierarchy_id)) { /* v1 */
			__u64 both = BPF_CORE_READ(memory, memsw.usage.counter), both_max = BPF_CORE_READ(memory, memsw.max);

			if (both + NEAR > both_max) {
				fits = both >= both_max ? 4 : 3;
				usage = both;
				max = both_max;
				swap = 1;
			}
		}
		if (!grew)
			fits = 0;
		if (again && fits < 2) /* the next victim of the same moment */
			fits = 2;
		if (fits > best) {
			best = fits;
			event->limit = i;
			event->usage = usage;
			event->max = max;
			event->ooms = count;
			event->with_swap = swap;
			event->group = group;
			id_of_limit = id;
		}
		memory = (void *)BPF_CORE_READ(memory, css.parent);
	}
	if (!best)
		event->group = group;
	last_limit = id_of_limit;
	last_ooms = event->ooms;
	last_by = event->by_tid;

	event->by_outside = best > 0;
	memory = asking;
	for (int i = 0; i < LEVELS && memory; i++) {
		if (BPF_CORE_READ(memory, css.cgroup, kn, id) == id_of_limit)
			event->by_outside = 0;
		memory = (void *)BPF_CORE_READ(memory, css.parent);
	}
}

/* Remembers what is counted now, level by level. */
static __always_inline void remember(struct mem_cgroup *memory)
{
	int oom = bpf_core_enum_value(enum memcg_memory_event, MEMCG_OOM);
	int kill = bpf_core_enum_value(enum memcg_memory_event, MEMCG_OOM_KILL);

	for (int i = 0; i < LEVELS && memory; i++) {
		__u64 id = BPF_CORE_READ(memory, css.cgroup, kn, id);
		struct seen now = { .ooms = events_of(memory, oom), .kills = events_of(memory, kill) };

		bpf_map_update_elem(&seen, &id, &now, BPF_ANY);
		memory = (void *)BPF_CORE_READ(memory, css.parent);
	}
}

static __always_inline void read_victim(struct oom_event *event, struct task_struct *task)
{
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid own = {};

	event->tgid = BPF_CORE_READ(task, tgid);
	event->uid = BPF_CORE_READ(task, real_cred, uid.val);
	event->score_adj = BPF_CORE_READ(signal, oom_score_adj);
	/* Of the process, as people know it: a thread may have another name. */
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), BPF_CORE_READ(task, group_leader, comm));
	if (level < 32)
		bpf_core_read(&own, sizeof(own), (void *)&pid->numbers + level * bpf_core_type_size(struct upid));
	event->nested = level > 0;
	event->first = level > 0 && own.nr == 1;
	/* Set before the kernel tells of the victim; its own `mm` may be gone already. */
	read_sizes(event, BPF_CORE_READ(signal, oom_mm));
}

static __always_inline int on_victim(struct task_struct *task)
{
	int kill = bpf_core_enum_value(enum memcg_memory_event, MEMCG_OOM_KILL);
	struct task_struct *current = (void *)bpf_get_current_task();
	struct mem_cgroup *memory = memory_of(task), *asking = memory_of(current);
	__u64 id = BPF_CORE_READ(memory, css.cgroup, kn, id), tid = bpf_get_current_pid_tgid();
	struct seen *before = bpf_map_lookup_elem(&seen, &id);
	struct oom_event *event;

	/* Marked and not killed: it was ending already, and is to have memory for that. */
	if (events_of(memory, kill) <= (before ? before->kills : 0))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&events_lost, 1);
		remember(memory);
		return 0;
	}
	event->at = bpf_ktime_get_ns();
	event->cpu_cgroup = cpu_cgroup(task);
	event->unified_cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	event->by_tgid = tid >> 32;
	event->by_tid = tid;
	event->by_kernel = !!(BPF_CORE_READ(current, flags) & PF_KTHREAD);
	bpf_probe_read_kernel_str(event->by_comm, sizeof(event->by_comm), BPF_CORE_READ(current, group_leader, comm));
	read_victim(event, task);
	read_limit(event, memory, asking);
	read_path(&event->victim, memory);
	read_path(&event->by, asking);
	remember(memory);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("raw_tp/mark_victim")
int oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *task;

	if (bpf_core_field_exists(struct trace_event_raw_mark_victim, uid))
		return on_victim((void *)ctx->args[0]);
	task = bpf_map_lookup_elem(&struck, &tid);
	if (!task)
		return 0;
	on_victim((void *)*task);
	bpf_map_delete_elem(&struck, &tid);
	return 0;
}

/* Before 6.9. SEND_SIG_PRIV is the address 1. */
SEC("?raw_tp/signal_generate")
int oom_signal(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid;
	__u64 task;

	if ((int)ctx->args[0] != SIGKILL || ctx->args[1] != 1)
		return 0;
	tid = bpf_get_current_pid_tgid();
	task = ctx->args[2];
	bpf_map_update_elem(&struck, &tid, &task, BPF_ANY);
	return 0;
}
