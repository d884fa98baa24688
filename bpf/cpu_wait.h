/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A wait and its parts. The totals do not depend on how much history is kept: those of a task that was switched out
 * runnable are differences of its cgroup's clocks, noted then; the history has the names, and the totals of a wait that
 * began by a wake-up or a move, which is seldom long. */
#ifndef KG_CPU_WAIT_H
#define KG_CPU_WAIT_H

#include "cpu_history.h"
#include "cpu_kernel.h"
#include "cpu_stall.h"
#include "cpu_state.h"
#include "hist.h"

/* A mark is about to be this task's. Two tasks may have one place: of the other's sleep it is not known how long it was. */
static __always_inline void forget_sleep(struct cpu_state *c, struct mark *mark, struct task_struct *task)
{
	if (mark->kind == ASLEEP && mark->task != (__u64)task)
		c->losses.sleeps_lost++;
}

/* prev is switched out and stays runnable. open: since when its queue is throttled, 0 if it is not. */
static __always_inline void note_wait(struct how how, struct cpu_state *c, struct pair *p, struct task_struct *task,
				      struct cfs_rq *cfs_rq, __u64 open, __u64 now)
{
	__u32 key = place_of(FIELD(how, task, pid));
	struct mark *mark = bpf_map_lookup_elem(&marks, &key);

	if (!mark)
		return;
	forget_sleep(c, mark, task);
	mark->task = (__u64)task;
	mark->when = now;
	mark->run = p->run - p->run_stalled;
	mark->stalled = stalled_in_all(how, p, cfs_rq, open ? open : now, now);
	mark->idle = idle_unstalled(c, p, open, now);
	mark->pair = c->pair;
	mark->kind = is_realtime(how, task) && budget_is_used_up(how, task, FIELD(how, cfs_rq, rq)) ? BARRED : 0;
}

/* Notes what a task has waited, with what the kernel is about to add; returns how much of it is new since it was last
 * noted: of one that never ran all of it, of another that was not noted 0. */
static __always_inline __u64 note_task_delay(struct how how, struct task_struct *task, __u64 more)
{
	__u32 pid = FIELD(how, task, pid), key = place_of(pid);
	/* A pid is given again, seldom to two tasks begun in the same millisecond. */
	__u64 tag = (pid ^ FIELD(how, task, start_time) >> 20) & ((1 << (64 - DELAY_BITS)) - 1);
	__u64 delay = (task_delay(how, task) + more) & ((1ULL << DELAY_BITS) - 1), seen, *entry;

	entry = bpf_map_lookup_elem(&task_delays, &key);
	if (!entry)
		return 0;
	seen = *(volatile __u64 *)entry;
	*(volatile __u64 *)entry = tag << DELAY_BITS | delay;
	if (seen >> DELAY_BITS != tag)
		return never_ran(how, task) ? delay : 0;
	/* Less than before: another task after all. */
	return since(delay, seen & ((1ULL << DELAY_BITS) - 1));
}

/* The union of waits on this CPU, each of which ends now: adds what of [from, now), in which a neighbour ran, no earlier
 * wait had. In what follows the last one a neighbour ran if nothing of its own did and it was not throttled. */
static __always_inline void join_wait(struct pair *p, __u64 from, __u64 now, __u64 neighbour)
{
	__u64 own;

	if (from >= p->waited_end) {
		p->waited += neighbour;
		p->waited_floor = p->waited_end;
		p->waited_start = from;
	} else {
		own = since(p->run, p->waited_run) + since(p->throttled_per_cpu, p->waited_stalled);
		p->waited += since(now - p->waited_end, own);
		from = later(from, p->waited_floor);
		if (from < p->waited_start) {
			p->waited += (p->waited_start - from) * (neighbour >> 8) / ((now - from) >> 8 | 1);
			p->waited_start = from;
		}
	}
	p->waited_end = now;
	p->waited_run = p->run;
	p->waited_stalled = p->throttled_per_cpu;
}

/* Splits the wait [from, to) of a task on this CPU. open: start of a stall still in progress, 0 if there is none;
 * since 6.18 (e1fad12dcb66, "sched/fair: Switch to task based throttle model") a task may be switched in during one. */
static __always_inline void charge_wait(struct how how, struct cpu_state *c, struct pair *p, __u32 cpu, __u32 pair,
					struct task_struct *task, struct cfs_rq *cfs_rq, __u64 from, __u64 to, __u64 open)
{
	__u64 wait = to - from, throttle = 0, own, neighbour, idle, left;
	bool stalled = open;
	struct run *last = last_run(c);
	__u32 key;
	struct mark *mark;

	if (!open)
		open = to;
	p->wait += wait;
	p->waits[hist_bucket(wait) & (HIST_BUCKETS - 1)]++;
	c->ask_stalls = !is_realtime(how, task);
	/* Most waits: it woke while the last run lasted, or after it, when the CPU was idle. */
	if (last->start <= from && c->start == to && c->ask_stalls && !p->stalls && open == to) {
		own = since(last->end, from);
		if (!own)
			return;
		if (last->slot == p->slot) {
			p->own += own;
			return;
		}
		p->neighbour += own;
		join_wait(p, from, to, own);
		if (last->slot == NONE)
			c->losses.blame_unnamed += own;
		else
			blame_on(cpu, pair, last->slot, own);
		return;
	}
	key = place_of(FIELD(how, task, pid));
	mark = bpf_map_lookup_elem(&marks, &key);
	c->ask_from = from;
	c->ask_open = open;
	if (mark && mark->when == from && mark->task == (__u64)task && mark->pair == pair) {
		if (mark->kind == BARRED) {
			mark->pair = NONE; /* also where it is moved to */
			return;
		}
		own = since(p->run - p->run_stalled, mark->run);
		/* What is in progress, where the wait ends by a move. */
		if (!c->idling && c->pair == pair)
			own += since(to, c->start);
		/* On its way to the task. */
		idle = since(idle_unstalled(c, p, stalled, to), mark->idle);
		own = earlier(own, wait);
		if (c->ask_stalls)
			throttle = earlier(since(stalled_in_all(how, p, cfs_rq, open, to), mark->stalled), wait - own);
		neighbour = since(wait, own + throttle + idle);
		if (neighbour) {
			c->ask_most = neighbour;
			c->ask_own = own;
			left = neighbour;
			walk(cpu, pair, to);
			/* The older clocks run slower than time passes: what they lack is nobody's. */
			if (c->told_exact || (throttle && !bpf_core_field_exists(cfs_rq->throttled_clock_self_time)))
				neighbour = earlier(neighbour, c->told_neighbour);
			c->losses.blame_unnamed += since(neighbour, left - c->ask_most);
		}
	} else {
		if (mark && !c->ask_stalls && mark->task == (__u64)task && mark->pair == NONE && mark->kind == BARRED) {
			mark->kind = 0;
			return;
		}
		if (c->ask_stalls && (p->stalls || open < to))
			throttle = earlier(stalled_within(pair, from, to) + since(to, later(open, from)), wait);
		left = wait - throttle;
		c->ask_most = left;
		c->ask_own = left;
		walk(cpu, pair, to);
		own = earlier(c->told_own, left);
		neighbour = earlier(c->told_neighbour, left - own);
		c->losses.blame_unnamed += since(neighbour, left - c->ask_most);
	}
	p->throttle += throttle;
	p->own += own;
	p->neighbour += neighbour;
	if (neighbour)
		join_wait(p, from, to, neighbour);
}

#endif
