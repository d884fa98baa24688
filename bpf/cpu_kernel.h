/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the CPU probe reads of the scheduler's own structs. */
#ifndef KG_CPU_KERNEL_H
#define KG_CPU_KERNEL_H

#include "core_fixes.h"

#define ROOT_CGROUP 1 /* kernfs id of every hierarchy's root */
#define MAX_RT_PRIO 100 /* include/linux/sched/prio.h: below are real-time tasks, below 0 those with deadlines */

/* What one program needs to know of how it was attached; a constant in each entry point, so that
 * the compiler leaves one of the ways. */
struct how {
	bool btf; /* the arguments are typed: read fields directly, else by probe_read */
	bool cas; /* atomics that return a value (5.12) */
};

#define FIELD(how, ptr, field) ((how).btf ? (ptr)->field : BPF_CORE_READ(ptr, field))

/* d below zero ? d : 0, without a branch: the verifier follows every path through the loops that use it, and
 * keeps every bound it learns at a comparison. */
static __always_inline __u64 negative_part(__u64 d)
{
	__u64 mask = (__s64)d >> 63;

	barrier_var(mask); /* else the compiler makes a branch of it */
	return d & mask;
}

static __always_inline __u64 later(__u64 a, __u64 b)
{
	return a - negative_part(a - b);
}

static __always_inline __u64 earlier(__u64 a, __u64 b)
{
	return b + negative_part(a - b);
}

/* a - b, or 0 where b is the greater: clocks of two queues, or of one that was made anew, may go back. */
static __always_inline __u64 since(__u64 a, __u64 b)
{
	__u64 d = a - b;

	return d - negative_part(d);
}

static __always_inline __u64 overlap(__u64 a0, __u64 a1, __u64 b0, __u64 b1)
{
	return since(earlier(a1, b1), later(a0, b0));
}

static __always_inline __u64 cgroup_of(struct how how, struct task_struct *task)
{
	struct cgroup *cgroup;
	struct kernfs_node *kn;

	if (how.btf) {
		cgroup = task->sched_task_group->css.cgroup;
		if (!cgroup) /* an autogroup has none */
			return ROOT_CGROUP;
		return cgroup->kn->id;
	}
	cgroup = BPF_CORE_READ(task, sched_task_group, css.cgroup);
	if (!cgroup)
		return ROOT_CGROUP;
	kn = BPF_CORE_READ(cgroup, kn);
	return BPF_CORE_READ(kn, id);
}

/* How long this queue has been throttled, by its own quota or a parent's, up to its last unthrottle.
 * self_time (6.6, 677ea015f231) counts only while a task of it was queued. */
static __always_inline __u64 throttle_clock(struct how how, struct cfs_rq *cfs_rq)
{
	struct cfs_rq___pre519 *old = (void *)cfs_rq;

	if (bpf_core_field_exists(cfs_rq->throttled_clock_self_time))
		return FIELD(how, cfs_rq, throttled_clock_self_time);
	if (bpf_core_field_exists(cfs_rq->throttled_clock_pelt_time))
		return FIELD(how, cfs_rq, throttled_clock_pelt_time);
	if (bpf_core_field_exists(old->throttled_clock_task_time))
		return FIELD(how, old, throttled_clock_task_time);
	return 0;
}

/* When the stall in progress began, 0 if there is none. Since 6.6 the kernel keeps it. Before, it is now if the
 * queue is throttled (throttle_count, not throttled: the limit may be a parent's); nothing of a throttled
 * queue ran then, so the one who asks at a switch-out is the last. */
static __always_inline __u64 stalled_since(struct how how, struct cfs_rq *cfs_rq, __u64 now)
{
	if (!bpf_core_field_exists(cfs_rq->throttle_count)) /* no CONFIG_CFS_BANDWIDTH */
		return 0;
	if (!FIELD(how, cfs_rq, throttle_count))
		return 0;
	if (bpf_core_field_exists(cfs_rq->throttled_clock_self))
		return FIELD(how, cfs_rq, throttled_clock_self);
	return now;
}

/* Whether a task that is switched out stays on its queue: one that was about to sleep and is preempted does. */
static __always_inline bool runnable(struct how how, struct task_struct *task, bool preempt)
{
	struct task_struct___pre514 *old = (void *)task;

	if (preempt)
		return true;
	if (bpf_core_field_exists(task->__state))
		return FIELD(how, task, __state) == 0;
	return FIELD(how, old, state) == 0;
}

static __always_inline __u32 on_rq(struct how how, struct task_struct *task)
{
	struct task_struct___unsigned *t = (void *)task;
	__u32 value = 0;

	if (how.btf)
		return t->on_rq;
	bpf_probe_read_kernel(&value, bpf_core_field_size(t->on_rq), &t->on_rq);
	return value;
}

/* CFS bandwidth is not for it, budgets of its own class are. */
static __always_inline bool is_realtime(struct how how, struct task_struct *task)
{
	return FIELD(how, task, prio) < MAX_RT_PRIO;
}

/* A real-time or deadline task whose budget is used up: it is kept off the CPU by that, whoever runs meanwhile. */
static __always_inline bool budget_is_used_up(struct how how, struct task_struct *task, struct rq *rq)
{
	struct rq___budget *whole = (void *)rq;
	struct task_struct___group *grouped = (void *)task;
	struct rt_rq___budget *rt_rq;

	if (FIELD(how, task, prio) < 0) {
		if (!bpf_core_field_exists(task->dl.dl_throttled))
			return false;
		barrier();
		return how.btf ? BPF_CORE_READ_BITFIELD(task, dl.dl_throttled) : BPF_CORE_READ_BITFIELD_PROBED(task, dl.dl_throttled);
	}
	if (bpf_core_field_exists(whole->rt.rt_throttled)) {
		barrier(); /* as in queued_since */
		if (FIELD(how, whole, rt.rt_throttled))
			return true;
	}
	if (!bpf_core_field_exists(grouped->rt.rt_rq))
		return false;
	barrier();
	rt_rq = FIELD(how, grouped, rt.rt_rq);
	return rt_rq && FIELD(how, rt_rq, rt_throttled);
}

/* The sum of all waits on a run queue (CONFIG_SCHEDSTATS; 0 without). */
static __always_inline __u64 queue_delay(struct how how, struct rq *rq)
{
	if (!bpf_core_field_exists(rq->rq_sched_info))
		return 0;
	return how.btf ? rq->rq_sched_info.run_delay : BPF_CORE_READ(rq, rq_sched_info.run_delay);
}

static __always_inline __u64 task_delay(struct how how, struct task_struct *task)
{
	if (!bpf_core_field_exists(task->sched_info.run_delay)) /* no CONFIG_SCHED_INFO */
		return 0;
	return how.btf ? task->sched_info.run_delay : BPF_CORE_READ(task, sched_info.run_delay);
}

/* Whether it is on its way to a CPU for the first time. */
static __always_inline bool never_ran(struct how how, struct task_struct *task)
{
	if (!bpf_core_field_exists(task->sched_info.pcount))
		return false;
	barrier();
	return (how.btf ? task->sched_info.pcount : BPF_CORE_READ(task, sched_info.pcount)) == 0;
}

/* When the task became runnable; now where the kernel does not say (CONFIG_SCHED_INFO): then no wait is counted. */
static __always_inline __u64 queued_since(struct how how, struct task_struct *task, __u64 now)
{
	__u64 queued;

	if (!bpf_core_field_exists(task->sched_info.last_queued))
		return now;
	barrier(); /* else the compiler works out the field's place before it asks whether there is one */
	queued = how.btf ? task->sched_info.last_queued : BPF_CORE_READ(task, sched_info.last_queued);
	return !queued || queued > now ? now : queued;
}

/* When the task was last switched in; 0 if it is not known. */
static __always_inline __u64 arrived(struct how how, struct task_struct *task)
{
	if (!bpf_core_field_exists(task->sched_info.last_arrival))
		return 0;
	barrier();
	return how.btf ? task->sched_info.last_arrival : BPF_CORE_READ(task, sched_info.last_arrival);
}

/* When the CPU last became idle; 0 if it is not known (before 5.19). */
static __always_inline __u64 idle_since(struct how how, struct rq *rq)
{
	struct rq___idle *idle = (void *)rq;

	if (!bpf_core_field_exists(idle->clock_idle))
		return 0;
	barrier();
	return FIELD(how, idle, clock_idle);
}

/* What the hypervisor took of this CPU, as far as the queue's clock knows (CONFIG_PARAVIRT_TIME_ACCOUNTING). */
static __always_inline __u64 stolen_clock(struct how how, struct rq *rq)
{
	struct rq___steal *steal = (void *)rq;

	if (!bpf_core_field_exists(steal->prev_steal_time_rq))
		return 0;
	barrier();
	return FIELD(how, steal, prev_steal_time_rq);
}

/* Why a task sleeps, of what the kernel marks. The task sets the marks before it is switched out, and takes them off after it is
 * switched in again: the next switch sees them as they were. */
#define FOR_DISK 1 /* what PSI counts as I/O */
#define FOR_MEMORY 2 /* what PSI counts as memory */
#define IN_RECLAIM 4

#define PF_MEMALLOC 0x00000800 /* include/linux/sched.h */

/* The bits of task_struct in which a flag of one bit is; and whether it is set in them, as the sign. */
static __always_inline __u64 bits_at(struct how how, void *at)
{
	__u32 bits = 0;

	barrier_var(at); /* else the compiler makes a load of the field out of it, whose place would be this kernel's no more */
	if (how.btf)
		return *(__u32 *)at;
	bpf_probe_read_kernel(&bits, sizeof(bits), at);
	return bits;
}

#define BITS_OF(how, task, field) bits_at(how, (void *)(task) + __CORE_RELO(task, field, BYTE_OFFSET))
#define AS_SIGN(bits, task, field) ((__s64)((bits) << __CORE_RELO(task, field, LSHIFT_U64)))

/* One look at memory in nearly every case: at each switch-in this is asked. */
static __always_inline __u32 sleeps_for(struct how how, struct task_struct *task)
{
	__u64 bits = BITS_OF(how, task, in_iowait), memory = bits;

	if (!bpf_core_field_exists(task->in_memstall)) /* no CONFIG_PSI */
		return AS_SIGN(bits, task, in_iowait) < 0 ? FOR_DISK : 0;
	barrier(); /* as in queued_since */
	if (__CORE_RELO(task, in_memstall, BYTE_OFFSET) != __CORE_RELO(task, in_iowait, BYTE_OFFSET))
		memory = BITS_OF(how, task, in_memstall);
	if ((AS_SIGN(bits, task, in_iowait) | AS_SIGN(memory, task, in_memstall)) >= 0)
		return 0;
	if (AS_SIGN(memory, task, in_memstall) >= 0)
		return FOR_DISK;
	return FOR_MEMORY | (AS_SIGN(bits, task, in_iowait) < 0 ? FOR_DISK : 0) |
	       (FIELD(how, task, flags) & PF_MEMALLOC ? IN_RECLAIM : 0);
}

#endif
