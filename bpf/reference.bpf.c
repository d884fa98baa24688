// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* A recorder of the scheduler for tests alone (tests/kernel/reference): every switch, wake-up and move of a task that
 * waits, and the throttle clocks of the cgroups under test, one record each. Nothing is added up here: what the CPU probe
 * says is compared with what userspace makes of the whole trace.
 *
 * Every program but the kprobes runs under the lock of the run queue it tells of, and so do the kprobes: the records of one
 * queue are in the ring buffer in the order in which they happened. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "core_fixes.h"
#include "reference.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define WATCHED 64 /* cgroups whose queues are looked at */
#define CPUS 16
#define QUEUES (WATCHED * CPUS)
#define ROOT_CGROUP 1
#define POLICY_FIFO 1
#define POLICY_RR 2
#define POLICY_DEADLINE 6

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* bytes */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCHED);
	__type(key, __u64); /* cgroup */
	__type(value, __u32); /* 0 to WATCHED - 1 */
} watched SEC(".maps");

/* A queue as it was last told of. */
struct queue {
	__u64 cfs_rq;
	__u64 cgroup;
	__u64 clock;
	__u64 since;
	__u64 throttled;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUEUES); /* a CPU's side by side */
	__type(key, __u32);
	__type(value, struct queue);
} queues SEC(".maps");

struct ref_event *event_type; /* never set: makes the type known to the skeleton */
__u32 watching; /* how many */
__u64 events_lost;

static __always_inline struct ref_event *reserve(__u8 kind, __u64 at, __u32 cpu)
{
	struct ref_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&events_lost, 1);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->at = at;
	event->cpu = cpu;
	return event;
}

static __always_inline void submit(struct ref_event *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, sched_task_group, css.cgroup);

	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : ROOT_CGROUP;
}

static __always_inline __u64 clock_of(struct cfs_rq *q)
{
	struct cfs_rq___pre519 *old = (void *)q;

	if (bpf_core_field_exists(q->throttled_clock_self_time))
		return BPF_CORE_READ(q, throttled_clock_self_time);
	if (bpf_core_field_exists(q->throttled_clock_pelt_time))
		return BPF_CORE_READ(q, throttled_clock_pelt_time);
	if (bpf_core_field_exists(old->throttled_clock_task_time))
		return BPF_CORE_READ(old, throttled_clock_task_time);
	return 0;
}

static __always_inline __u64 since_of(struct cfs_rq *q)
{
	if (bpf_core_field_exists(q->throttled_clock_self))
		return BPF_CORE_READ(q, throttled_clock_self);
	return 0;
}

static __always_inline __u64 count_of(struct cfs_rq *q)
{
	if (bpf_core_field_exists(q->throttle_count))
		return BPF_CORE_READ(q, throttle_count);
	return 0;
}

static __always_inline bool runnable(struct task_struct *task)
{
	struct task_struct___pre514 *old = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state) == 0;
	return BPF_CORE_READ(old, state) == 0;
}

/* Whether a real-time or deadline task may not run for now, its own or its group's budget being used up. */
static __always_inline bool budget_spent(struct task_struct *task, struct rq *rq)
{
	struct sched_rt_entity___group *rt = (void *)&task->rt;
	struct rq___budget *all = (void *)rq;
	__u32 policy = BPF_CORE_READ(task, policy);

	if (policy == POLICY_DEADLINE)
		return BPF_CORE_READ_BITFIELD_PROBED(task, dl.dl_throttled);
	if (policy != POLICY_FIFO && policy != POLICY_RR)
		return false;
	if (bpf_core_field_exists(rt->rt_rq) && BPF_CORE_READ(rt, rt_rq, rt_throttled))
		return true;
	return bpf_core_field_exists(all->rt.rt_throttled) && BPF_CORE_READ(all, rt.rt_throttled);
}

/* Tells of a queue if it is another than it was, or looks other than it did. */
static __noinline int look(struct queue *seen, __u64 now, __u32 cpu, bool fresh)
{
	struct cfs_rq *q;
	struct ref_event *event;
	struct cgroup *cgroup;
	__u64 clock, since, count;

	if (!seen)
		return 0;
	q = (void *)seen->cfs_rq;
	if (!q)
		return 0;
	cgroup = BPF_CORE_READ(q, tg, css.cgroup);
	if (!cgroup || BPF_CORE_READ(cgroup, kn, id) != seen->cgroup) /* its memory is another's */
		return 0;
	clock = clock_of(q);
	since = since_of(q);
	count = count_of(q);
	if (!fresh && clock == seen->clock && since == seen->since && count == seen->throttled)
		return 0;
	event = reserve(REF_LOOK, now, cpu);
	if (!event)
		return 0;
	seen->clock = clock;
	seen->since = since;
	seen->throttled = count;
	event->cgroup = seen->cgroup;
	event->queued = clock;
	event->prev = since;
	event->flags = (fresh ? REF_FRESH : 0) | (count ? REF_THROTTLED : 0);
	submit(event);
	return 0;
}

/* Takes note of where a watched cgroup's queue on a CPU is, by a task that is on it, and looks at it. */
static __always_inline void find(struct task_struct *task, __u64 cgroup, __u64 now, __u32 cpu)
{
	__u32 *place = bpf_map_lookup_elem(&watched, &cgroup), key;
	__u64 q = (__u64)BPF_CORE_READ(task, se.cfs_rq);
	struct queue *seen;
	bool fresh;

	if (!place || cpu >= CPUS)
		return;
	key = cpu * WATCHED + *place;
	seen = bpf_map_lookup_elem(&queues, &key);
	if (!seen)
		return;
	fresh = seen->cfs_rq != q;
	seen->cfs_rq = q;
	seen->cgroup = cgroup;
	look(seen, now, cpu, fresh);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(trace_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct rq *rq = BPF_CORE_READ(next, se.cfs_rq, rq);
	__u64 now = BPF_CORE_READ(rq, clock), cgroup = 0;
	__u32 cpu = bpf_get_smp_processor_id(), i, key;
	struct ref_event *event;

	if (cpu >= CPUS)
		return 0;
	if (next->pid) {
		cgroup = cgroup_of(next);
		find(next, cgroup, now, cpu);
	}
	for (i = 0; i < WATCHED && i < watching; i++) {
		key = cpu * WATCHED + i;
		look(bpf_map_lookup_elem(&queues, &key), now, cpu, false);
	}
	event = reserve(REF_SWITCH, now, cpu);
	if (!event)
		return 0;
	event->task = (__u64)next;
	event->pid = next->pid;
	event->delay = BPF_CORE_READ(next, sched_info.run_delay);
	event->cgroup = cgroup;
	event->queued = BPF_CORE_READ(next, sched_info.last_queued);
	event->policy = BPF_CORE_READ(next, policy);
	event->prev = (__u64)prev;
	event->prev_pid = prev->pid;
	event->arrived = BPF_CORE_READ(prev, sched_info.last_arrival);
	event->flags = (preempt || runnable(prev) ? REF_RUNNABLE : 0) | (budget_spent(prev, rq) ? REF_BUDGET : 0);
	submit(event);
	return 0;
}

static __always_inline int woken(struct task_struct *task)
{
	struct rq *rq = BPF_CORE_READ(task, se.cfs_rq, rq);
	__u64 now = BPF_CORE_READ(rq, clock), queued = BPF_CORE_READ(task, sched_info.last_queued), cgroup;
	__u32 cpu = BPF_CORE_READ(rq, cpu);
	struct ref_event *event;

	if (!queued) /* it never left the CPU */
		return 0;
	cgroup = cgroup_of(task);
	find(task, cgroup, now, cpu);
	event = reserve(REF_WAKE, now, cpu);
	if (!event)
		return 0;
	event->task = (__u64)task;
	event->pid = task->pid;
	event->cgroup = cgroup;
	event->queued = queued;
	event->policy = BPF_CORE_READ(task, policy);
	event->flags = budget_spent(task, rq) ? REF_BUDGET : 0;
	submit(event);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(trace_wakeup, struct task_struct *task)
{
	return woken(task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(trace_wakeup_new, struct task_struct *task)
{
	return woken(task);
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(trace_move, struct task_struct *task, int to)
{
	struct task_struct___unsigned *t = (void *)task;
	struct rq *rq;
	struct ref_event *event;
	__u64 now, cgroup;
	__u32 cpu;

	if (t->on_rq != TASK_ON_RQ_MIGRATING) /* a wake-up */
		return 0;
	rq = BPF_CORE_READ(task, se.cfs_rq, rq);
	now = BPF_CORE_READ(rq, clock);
	cpu = BPF_CORE_READ(rq, cpu);
	cgroup = cgroup_of(task);
	find(task, cgroup, now, cpu);
	event = reserve(REF_MOVE, now, cpu);
	if (!event)
		return 0;
	event->task = (__u64)task;
	event->pid = task->pid;
	event->cgroup = cgroup;
	event->to = to;
	event->delay = BPF_CORE_READ(task, sched_info.run_delay);
	event->policy = BPF_CORE_READ(task, policy);
	submit(event);
	return 0;
}

/* Where kprobes exist, the moments themselves. The first throttle and the last unthrottle of those that are nested: a limit
 * of its own and of each parent count. */
static __always_inline int throttled(struct task_group *tg, struct rq *rq, __u8 kind, int count)
{
	__u64 cgroup = BPF_CORE_READ(tg, css.cgroup, kn, id);
	__u32 *place = bpf_map_lookup_elem(&watched, &cgroup), cpu = BPF_CORE_READ(rq, cpu), key;
	struct ref_event *event;
	struct queue *seen;

	if (!place || cpu >= CPUS)
		return 0;
	key = cpu * WATCHED + *place;
	seen = bpf_map_lookup_elem(&queues, &key);
	if (!seen || !seen->cfs_rq || count_of((void *)seen->cfs_rq) != count)
		return 0;
	event = reserve(kind, BPF_CORE_READ(rq, clock), cpu);
	if (!event)
		return 0;
	event->cgroup = cgroup;
	submit(event);
	return 0;
}

SEC("?kprobe/tg_throttle_down")
int BPF_KPROBE(trace_throttle, struct task_group *tg, struct rq *rq)
{
	return throttled(tg, rq, REF_THROTTLE, 0);
}

SEC("?kprobe/tg_unthrottle_up")
int BPF_KPROBE(trace_unthrottle, struct task_group *tg, struct rq *rq)
{
	return throttled(tg, rq, REF_UNTHROTTLE, 1);
}
