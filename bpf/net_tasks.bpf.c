// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* What each network namespace counts, on kernels that have neither an iterator over cgroups (6.1) nor loops by a helper (5.17).
 *
 * Nothing is attached: userspace runs the programs itself once in a while (BPF_PROG_TEST_RUN of a raw tracepoint, 5.10), each
 * as often as it takes. A loop's steps are checked one by one there: what one does is a global function, which is checked once.
 * The kernel's list of processes is followed from one of them: an iterator over tasks shows those of the reader's PID namespace alone, and the
 * agent's pod has one of its own. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "css.h"
#include "net.h"
#include "net_counters.h"
#include "percpu.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TASKS_A_RUN 1024
#define COPIES_A_RUN 1024

/* A network namespace at the last walk. */
struct space {
	__u64 net; /* where it is */
	__u64 number; /* of its inode: before 5.12 it has no cookie until somebody asks for it */
	__u64 counters[COUNTERS];
};

#include "net_walk.h"

/* How far from a per-CPU variable each CPU has its copy. */
__u64 far_of[MOST_CPUS];
__u8 known[MOST_CPUS];
const volatile __u8 unified; /* the cpu controller is in the unified tree */

/* Userspace sets the next four to zero before a walk. */
__u64 first_task; /* of the list, a process that userspace runs */
__u64 next_task;
__u32 walked; /* all of the list */
__u32 at_space; /* whose copies are added up */
__u32 at_cpu;

/* Once on each CPU: where it has its copies. */
SEC("?raw_tp")
int find_copy(void *ctx)
{
	__u32 zero = 0, cpu = bpf_get_smp_processor_id();
	void *own = bpf_map_lookup_elem(&anchor, &zero);
	__u64 base = anchor_base();

	if (!own || cpu >= MOST_CPUS)
		return 0;
	address_as_number = (__u64)own;
	far_of[cpu & (MOST_CPUS - 1)] = address_as_number - base;
	known[cpu & (MOST_CPUS - 1)] = 1;
	return 0;
}

static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return unified ? BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id) : cpu_cgroup(task);
}

/* Nothing is counted of it so far. */
static __always_inline void begin(struct space *space, struct net *net, __u64 number)
{
	space->net = (__u64)net;
	space->number = number;
	__builtin_memset(space->counters, 0, sizeof(space->counters));
}

/* One process, and on to the next; 1: that was the last. */
__attribute__((noinline)) int visit_task(void)
{
	__u64 tasks = bpf_core_field_offset(struct task_struct, tasks), number;
	struct task_struct *task = (void *)next_task;
	struct space *space;
	struct net *net;

	net = BPF_CORE_READ(task, nsproxy, net_ns);
	number = net ? BPF_CORE_READ(net, ns.inum) : 0;
	if (number) {
		note_member(number, cgroup_of(task));
		space = meet(number);
		if (space)
			begin(space, net, number);
	}
	next_task = (__u64)BPF_CORE_READ(task, tasks.next) - tasks;
	return next_task == first_task || next_task == -tasks;
}

/* The next processes of the list. One that ends between two runs may lead astray, to processes that were seen or to none: the
 * next walk finds the rest. */
SEC("?raw_tp")
int find_tasks(void *ctx)
{
	__u32 i;

	if (!next_task) {
		first_task = (__u64)BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), group_leader);
		next_task = first_task;
	}
	for (i = 0; i < TASKS_A_RUN; i++) {
		if (visit_task()) {
			walked = 1;
			break;
		}
	}
	return 0;
}

/* One CPU's copy of a namespace; 1: there are no more. */
__attribute__((noinline)) int visit_copy(void)
{
	__u64 mibs[MIBS] = {};
	struct space *space;
	__u32 at = at_space, cpu = at_cpu;
	struct net *net;

	space = bpf_map_lookup_elem(&spaces, &at);
	if (!space || at >= found_spaces)
		return 1;
	net = (struct net *)space->net;
	/* It may have gone since it was found, and its memory be another's. */
	if (BPF_CORE_READ(net, ns.inum) != space->number)
		space->number = 0;
	if (space->number && known[cpu & (MOST_CPUS - 1)]) {
		find_tables(net, mibs);
		add_copy(mibs, far_of[cpu & (MOST_CPUS - 1)], space->counters);
	}
	at_cpu = cpu + 1;
	if (cpu + 1 >= cpus_end) {
		at_cpu = 0;
		at_space = at + 1;
	}
	return 0;
}

/* Adds up the next copies, a CPU's of a namespace at a time. */
SEC("?raw_tp")
int add_copies(void *ctx)
{
	__u32 i;

	for (i = 0; i < COPIES_A_RUN; i++) {
		if (visit_copy())
			break;
	}
	return 0;
}
