/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What tasks sleep for, where the kernel marks it: memory and disks. With the time on a CPU and the wait for one it says where the
 * time of a cgroup's threads went. From the switch-out to the wake-up: what comes after that is a wait for a CPU, and counted
 * there. Asleep for anything else is in no sum, as the kernel does not mark it. */
#ifndef KG_CPU_SLEEP_H
#define KG_CPU_SLEEP_H

#include "cpu_kernel.h"
#include "cpu_state.h"
#include "cpu_wait.h"

const volatile __u8 with_sleeps; /* else nothing of this is in the program: its cost is measured by that */

static __always_inline struct mark *mark_of(struct how how, struct task_struct *task)
{
	__u32 key = place_of(FIELD(how, task, pid));

	return bpf_map_lookup_elem(&marks, &key);
}

/* It is switched out and not runnable. */
static __always_inline void falls_asleep(struct how how, struct cpu_state *c, struct task_struct *task, __u64 now)
{
	struct mark *mark;

	if (!with_sleeps || !sleeps_for(how, task))
		return;
	mark = mark_of(how, task);
	if (!mark)
		return;
	forget_sleep(c, mark, task);
	mark->task = (__u64)task;
	mark->when = now;
	mark->delay = task_delay(how, task);
	mark->pair = NONE;
	mark->kind = ASLEEP;
}

/* It is switched in, runnable since `queued`. If it was moved to another CPU meanwhile, what it waited before has been added to its
 * delay. */
static __always_inline void slept(struct how how, __u32 slot, struct task_struct *task, __u64 queued)
{
	struct mark *mark;
	struct slot_all *s;
	__u64 ns;
	__u32 why;

	if (!with_sleeps)
		return;
	why = sleeps_for(how, task);
	if (!why)
		return;
	mark = mark_of(how, task);
	if (!mark || mark->kind != ASLEEP || mark->task != (__u64)task)
		return;
	mark->kind = 0;
	s = slot_at(slot);
	if (!s)
		return;
	ns = since(since(queued, mark->when), since(task_delay(how, task), mark->delay));
	if (!(why & FOR_MEMORY))
		__sync_fetch_and_add(&s->disk, ns);
	else if (why & IN_RECLAIM)
		__sync_fetch_and_add(&s->reclaim, ns);
	else if (why & FOR_DISK)
		__sync_fetch_and_add(&s->refault, ns);
	else
		__sync_fetch_and_add(&s->high, ns);
}

#endif
