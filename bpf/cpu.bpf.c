// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* CPU truth from the scheduler: time on CPU, run-queue wait and its split, stalls, who was to blame; and what tasks slept for.
 *
 * Hooks: sched_switch, and sched_migrate_task for a wait that ends by a move to another CPU. An iterator over tasks, run
 * once, tells who is on a CPU already.
 * Cost: see docs/figures.md (`scripts/bench`). A switch touches the CPU's state and the counters of the two cgroups on
 * this CPU, and no line that other CPUs write, but for cgroups that were stalled lately. There is no hash look-up for
 * cgroups and neighbours a CPU sees again and again; the walk for names goes only as far back as the wait began. Nothing
 * depends on how many CPUs there are.
 *
 * The clock is the run queue's own (rq->clock, the one of sched_info.last_queued), so that a wait and
 * the runs it overlaps are measured alike. Both hooks run under the lock of the run queue they are
 * about: what is a CPU's has one writer and needs no atomics. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "cpu_kernel.h"
#include "cpu_state.h"
#include "cpu_stall.h"
#include "cpu_history.h"
#include "cpu_wait.h"
#include "cpu_sleep.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void switched_out(struct how how, struct cpu_state *c, struct pair *p, __u32 cpu, struct rq *rq,
					 struct task_struct *prev, bool preempt, __u64 now, __u64 task_clock)
{
	struct cfs_rq *cfs_rq = FIELD(how, prev, se.cfs_rq);
	__u64 ran = since(now, c->start), taken, open;

	p->run += ran;
	taken = since(ran, since(task_clock, c->start_task));
	if (taken) {
		p->taken += taken;
		p->stolen += earlier(since(stolen_clock(how, rq), c->start_steal), taken);
	}
	if (ran)
		remember(c, cpu, c->slot, c->start, now);
	if (c->ran_into)
		p->run_stalled += since(stall_end(how, p, cfs_rq, c->ran_into, now), c->start);
	if (!runnable(how, prev, preempt)) {
		falls_asleep(how, c, prev, now);
		return;
	}
	open = stalled_since(how, cfs_rq, now);
	if (open) {
		p->stall_since = open;
		if (open != c->ran_into)
			p->run_stalled += since(now, later(open, c->start));
		limit(how, c, p, now);
	}
	note_wait(how, c, p, prev, cfs_rq, open, now);
}

/* What a task waited on a queue that it has just left, for a CPU or for another queue. The kernel has added it to the
 * queue's own sum: what that grew by since our last look. Without that sum, what the task's grew by since it was last
 * switched in or moved; of one that was not seen then we do not know. */
static __always_inline __u64 waited_before(struct how how, struct cpu_state *c, struct rq *rq, struct task_struct *task)
{
	__u64 delay, waited;

	if (!bpf_core_field_exists(rq->rq_sched_info))
		return note_task_delay(how, task, 0);
	delay = queue_delay(how, rq);
	waited = since(delay, c->delay_seen);
	c->delay_seen = delay;
	return waited;
}

/* prev is on the CPU, and the kernel did not tell of the switch to it. The time of that, which it keeps with the task, says
 * how long the one ran that was there before, and how long prev waited, if it was the only switch. */
static __always_inline void missed_switch(struct how how, struct cpu_state *c, __u32 cpu, struct rq *rq, struct task_struct *prev,
					  __u64 now, __u64 task_clock)
{
	__u64 start = c->start, since_when = FIELD(how, prev, pid) ? arrived(how, prev) : idle_since(how, rq), ran, wait;
	struct cfs_rq *cfs_rq = FIELD(how, prev, se.cfs_rq);
	struct pair *p = pair_at(c->pair);

	if (start)
		c->losses.switches_missed++;
	if (!start || since_when < start || since_when > now) {
		c->pair = NONE;
		c->idling = 0;
		return;
	}
	ran = since_when - start;
	if (c->idling)
		c->idle += ran;
	c->idling = 0;
	if (c->pair != NONE && p && ran) {
		p->run += ran;
		remember(c, cpu, c->slot, start, since_when);
	}
	c->start = since_when;
	c->start_task = task_clock - (now - since_when);
	if (!FIELD(how, prev, pid)) {
		c->pair = c->slot = NONE;
		c->idling = 1;
		end_running(how, c, since_when);
		return;
	}
	look_up(c, cpu, cgroup_of(how, prev));
	c->pair = c->last.pair;
	c->slot = c->last.slot;
	p = pair_at(c->pair);
	if (c->pair == NONE || !p)
		return;
	p->switches++;
	if (c->counted != c->slot) {
		end_running(how, c, since_when);
		begin_running(how, c, p, c->slot, p->looked, since_when);
	}
	wait = waited_before(how, c, rq, prev);
	if (!wait || wait > since_when)
		return;
	settle_stall(how, c, p, cpu, c->pair, cfs_rq, since_when - wait, since_when, 0, since_when);
	charge_wait(how, c, p, cpu, c->pair, prev, cfs_rq, since_when - wait, since_when, 0);
}

static __always_inline int on_switch(struct how how, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct cfs_rq *cfs_rq = FIELD(how, next, se.cfs_rq);
	struct rq *rq = FIELD(how, cfs_rq, rq);
	__u64 now = FIELD(how, rq, clock), task_clock = FIELD(how, rq, clock_task);
	__u32 cpu = bpf_get_smp_processor_id();
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	__u64 cgroup, queued, open, looked, idled = now;
	struct pair *p = NULL;
	__u32 ran;

	if (!c)
		return 0;
	if (!c->start && c->primed_start && c->primed_task == (__u64)prev) {
		c->start = c->primed_start;
		c->start_task = task_clock - (now - c->start); /* what was taken is not known */
		c->pair = c->primed_pair;
		c->slot = c->primed_slot;
	} else if (c->task != (__u64)prev) {
		missed_switch(how, c, cpu, rq, prev, now, task_clock);
	}
	c->task = (__u64)next;
	ran = c->pair;
	if (ran != NONE) {
		p = pair_at(ran);
		if (p)
			switched_out(how, c, p, cpu, rq, prev, preempt, now, task_clock);
	}
	if (c->idling) {
		idled = c->start;
		c->idle += since(now, idled);
	}
	c->idling = 0;
	c->ran_into = 0;
	c->start = now;
	c->start_task = task_clock;

	if (!FIELD(how, next, pid)) {
		c->pair = c->slot = NONE;
		c->idling = 1;
		c->delay_seen = queue_delay(how, rq);
		end_running(how, c, now);
		return 0;
	}
	cgroup = cgroup_of(how, next);
	if (cgroup != c->last.cgroup || c->last.pair == NONE)
		look_up(c, cpu, cgroup);
	c->pair = c->last.pair;
	c->slot = c->last.slot;
	c->start_steal = stolen_clock(how, rq);

	queued = queued_since(how, next, now);
	c->delay_seen = queue_delay(how, rq) + (now - queued);
	if (!bpf_core_field_exists(rq->rq_sched_info))
		note_task_delay(how, next, now - queued);

	if (c->pair != ran)
		p = pair_at(c->pair);
	if (c->pair == NONE || !p) {
		c->losses.slots_exhausted++;
		end_running(how, c, now);
		return 0;
	}
	p->switches++;
	slept(how, p->slot, next, queued);
	looked = p->looked;
	open = stalled_since(how, cfs_rq, now);
	c->ran_into = open;
	settle_stall(how, c, p, cpu, c->pair, cfs_rq, queued, idled, open, now);
	if (c->counted != c->slot) {
		end_running(how, c, now);
		begin_running(how, c, p, c->slot, looked, now);
	}
	if (queued < now)
		charge_wait(how, c, p, cpu, c->pair, next, cfs_rq, queued, now, open);
	return 0;
}

/* A task that waits is taken to another CPU: last_queued starts anew there, so what it waited here would
 * be lost. */
static __always_inline int on_migrate(struct how how, struct task_struct *task)
{
	struct cfs_rq *cfs_rq;
	struct cpu_state *c;
	struct pair *p;
	struct rq *rq;
	__u64 now, waited, open;
	__u32 cpu, pair;

	if (on_rq(how, task) != TASK_ON_RQ_MIGRATING) /* a wake-up */
		return 0;
	cfs_rq = FIELD(how, task, se.cfs_rq);
	rq = FIELD(how, cfs_rq, rq);
	cpu = FIELD(how, rq, cpu);
	c = bpf_map_lookup_elem(&cpus, &cpu);
	if (!c || !c->start)
		return 0;
	now = FIELD(how, rq, clock);
	waited = waited_before(how, c, rq, task);
	if (!waited || waited > now)
		return 0;

	pair = find_pair(cgroup_of(how, task), cpu); /* it may never have run here */
	p = pair_at(pair);
	if (pair == NONE || !p)
		return 0;
	open = stalled_since(how, cfs_rq, now);
	settle_stall(how, c, p, cpu, pair, cfs_rq, now - waited, c->idling ? c->start : now, open, now);
	if (open == now && p->stall_since) /* before 6.6 */
		open = p->stall_since;
	charge_wait(how, c, p, cpu, pair, task, cfs_rq, now - waited, now, open);
	return 0;
}

/* Who is on a CPU before the first switch there: without this, a loop that has a CPU to itself is never seen. */
SEC("?iter/task")
int prime(struct bpf_iter__task *ctx)
{
	struct how how = { .btf = true };
	struct task_struct *task = ctx->task;
	struct task_struct___unsigned *t = (void *)task;
	struct cpu_state *c;
	struct pair *p;
	struct rq *rq;
	__u32 cpu;

	if (!task || !t->on_cpu)
		return 0;
	rq = task->se.cfs_rq->rq;
	cpu = rq->cpu;
	c = bpf_map_lookup_elem(&cpus, &cpu);
	if (!c || c->start || c->primed_start)
		return 0;
	c->primed_pair = find_pair(cgroup_of(how, task), cpu);
	p = pair_at(c->primed_pair);
	if (c->primed_pair == NONE || !p)
		return 0;
	c->primed_slot = p->slot;
	c->primed_task = (__u64)task;
	*(volatile __u64 *)&c->primed_start = rq->clock;
	return 0;
}

/* tp_btf is the cheapest: fields are read directly; the raw tracepoint reads them by helper. The _old
 * programs are for kernels before 5.12: without the atomics that the wall union takes. */
#define PROGRAMS(suffix, hook, is_btf, has_cas)                                                               \
	SEC("?" hook "/sched_switch")                                                                         \
	int BPF_PROG(sched_switch_##suffix, bool preempt, struct task_struct *prev, struct task_struct *next) \
	{                                                                                                     \
		return on_switch((struct how){ .btf = is_btf, .cas = has_cas }, preempt, prev, next);         \
	}                                                                                                     \
	SEC("?" hook "/sched_migrate_task")                                                                   \
	int BPF_PROG(sched_migrate_task_##suffix, struct task_struct *task, int to)                           \
	{                                                                                                     \
		return on_migrate((struct how){ .btf = is_btf, .cas = has_cas }, task);                       \
	}

PROGRAMS(btf, "tp_btf", true, true)
PROGRAMS(raw, "raw_tp", false, true)
PROGRAMS(btf_old, "tp_btf", true, false)
PROGRAMS(raw_old, "raw_tp", false, false)
