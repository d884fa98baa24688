/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Stalls: on one CPU, from the kernel's throttle clock; by the wall, as a union over CPUs; in full, where no CPU ran
 * the cgroup meanwhile.
 *
 * CPUs tell of their stalls in any order, each when a task of the cgroup is next switched in there. So a list of joined
 * stalls and one of the gaps between runs are kept, and whichever of the two comes second adds what both share. */
#ifndef KG_CPU_STALL_H
#define KG_CPU_STALL_H

#include "cpu_kernel.h"
#include "cpu_state.h"
#include "hist.h"

#define LOCK_TRIES 1024 /* some 3 us; to join a stall takes one */
#define PLACE_BITS 5 /* an entry of a list */
#define MIN_GAP 10000 /* ns; shorter ones are not kept: where they follow each other, the cgroup runs */
#define MAX_LENGTH (1ULL << 36) /* ns, 69 s: what is older is of no use, and a product of two fits a word */

/* How much of [start, end) an interval has. Without a branch: join_stall() asks it 200 times. */
static __always_inline __u64 shared_with(struct stretch *i, __u64 start, __u64 end)
{
	__u64 length = i->end - i->start, part = overlap(i->start, i->end, start, end), scaled, whole;

	scaled = part * (i->ns >> 8) / ((length >> 8) + 1);
	whole = ~((__s64)(i->ns - length) >> 63); /* all of it counts */
	barrier_var(whole);
	return scaled + ((part - scaled) & whole);
}

static __always_inline __u64 difference(__u64 a, __u64 b)
{
	return since(a, b) + since(b, a);
}

/* What is lost if two that follow each other become one: by how much it may be wrong, by the parts of each that count and the
 * time between them, over the square of how long ago that was. What is asked about is seldom old. */
static __always_inline __u64 blurred(struct stretch *a, struct stretch *b, __u64 now)
{
	__u64 between = since(b->start, a->end) >> 6, first = (a->end - a->start) >> 6, second = (b->end - b->start) >> 6;
	__u64 age = (since(now, b->end) >> 14) + 64, n = a->ns >> 6, m = b->ns >> 6, wrong;

	wrong = later(difference(n * (second + between), m * first), difference(n * second, m * (first + between)));
	return (earlier(wrong / (first + between + second + 1), 1 << 30) << 24) / (age * age);
}

/* Adds an interval to a list, in the order of their starts. If there is no place left, the two that say least apart become one:
 * of runs of 40 us in turn, say, rather than a long one beside them. */
static __always_inline void put(struct stretch *list, int places, __u64 start, __u64 end, __u64 ns)
{
	__u64 least = list[places - 1].end ? 1ULL << 62 : places - 1, now = later(end, list[places - 1].end), cost;
	struct stretch *one, *two;
	__u32 free, from;
	int i;

	for (i = 0; i < places - 1; i++) {
		cost = (1 + blurred(&list[i], &list[i + 1], now)) << PLACE_BITS;
		least = earlier(least, (cost & -(__u64) !!list[i].end) | i);
	}
	free = least & ((1 << PLACE_BITS) - 1);
	barrier_var(free);
	if (free > places - 1)
		return;
	one = &list[free];
	barrier_var(one); /* else it is reckoned from where the bound is not known */
	two = free < places - 1 ? one + 1 : one;
	if (one->end && later(one->end, two->end) - one->start < MAX_LENGTH) {
		two->start = earlier(two->start, one->start);
		two->end = later(two->end, one->end);
		two->ns += one->ns;
	}
	for (i = 0; i < places - 1; i++) {
		from = i + (i >= free);
		barrier_var(from);
		if (from > places - 1)
			return;
		list[i] = list[from];
	}
	for (i = places - 1; i > 0; i--) {
		if (list[i - 1].start <= start)
			break;
		list[i] = list[i - 1];
	}
	list[i].start = start;
	list[i].end = end;
	list[i].ns = ns;
}

static __always_inline bool locked(struct slot_all *s)
{
	int i;

	for (i = 0; i < LOCK_TRIES; i++) {
		if (!*(volatile __u32 *)&s->lock && !__sync_val_compare_and_swap(&s->lock, 0, 1))
			return true;
	}
	return false;
}

static __always_inline void unlock(struct slot_all *s)
{
	__sync_lock_test_and_set(&s->lock, 0);
}

/* Joins a stall that ended to those of the other CPUs. A global function, as others here: the verifier follows it once and
 * not at each place that calls it. Returns 0 if the lock was not to be had. */
__noinline int join_stall(__u32 slot, __u64 start, __u64 end)
{
	struct slot_all *s = slot_at(slot);
	__u64 ns = end - start, full = 0, from, to, part;
	int i, k;

	if (!s || start >= end)
		return 1;
	if (!locked(s))
		return 0;
	for (k = 0; k < GAPS; k++)
		full += shared_with(&s->gaps[k], start, end);
	for (i = 0; i < JOINED; i++) {
		from = later(s->stalls[i].start, start);
		to = earlier(s->stalls[i].end, end);
		part = shared_with(&s->stalls[i], start, end);
		if (!part)
			continue;
		ns = since(ns, part);
		for (k = 0; k < GAPS; k++)
			full = since(full, shared_with(&s->gaps[k], from, to));
	}
	s->throttled_wall += ns;
	s->throttled_full += earlier(full, ns);
	/* What it overlaps or touches becomes one with it. */
	for (i = 0; i < JOINED; i++) {
		if (!s->stalls[i].end || s->stalls[i].end < start || s->stalls[i].start > end)
			continue;
		ns += s->stalls[i].ns;
		start = earlier(start, s->stalls[i].start);
		end = later(end, s->stalls[i].end);
		s->stalls[i].end = 0;
	}
	put(s->stalls, JOINED, start, end, ns);
	unlock(s);
	return 1;
}

/* Joins a gap to the stalls of all CPUs: from start to end no CPU ran the cgroup, for ns in all if it is several gaps put together. What
 * it shares with a stall that ended is full; with one that ends later, join_stall() adds it then. Returns as that does. */
__noinline int join_gap(__u32 slot, __u64 start, __u64 end, __u64 ns)
{
	struct slot_all *s = slot_at(slot);
	__u64 part;
	int i;

	if (!s || start >= end)
		return 1;
	if (!locked(s))
		return 0;
	for (i = 0; i < JOINED; i++) {
		part = shared_with(&s->stalls[i], start, end);
		if (part && ns < end - start)
			part = part * (ns >> 8) / (((end - start) >> 8) + 1);
		s->throttled_full += part;
	}
	put(s->gaps, GAPS, start, end, ns);
	unlock(s);
	return 1;
}

/* How much of [start, end) the queue of a pair was throttled, the stall in progress since `open` left out. */
__noinline __u64 stalled_within(__u32 pair, __u64 start, __u64 end)
{
	struct pair *p = pair_at(pair);
	__u64 sum = 0;
	int i;

	if (!p)
		return 0;
	for (i = 0; i < RECENT; i++)
		sum += shared_with(&p->recent[i], start, end);
	return sum;
}

/* A stall ended: all that is kept of it. */
__noinline int stall_ended(__u32 cpu, __u32 pair, __u64 start, __u64 end)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct pair *p = pair_at(pair);
	struct slot_all *s;

	if (!c || !p || start >= end)
		return 0;
	s = slot_at(p->slot);
	if (!s)
		return 0;
	p->stalls++;
	p->throttled_per_cpu += end - start;
	put(p->recent, RECENT, start, end, end - start);
	__sync_fetch_and_add(&s->stall_lengths[hist_bucket(end - start)], 1);
	s->limited = 1;
	p->tracked = 1;
	return 0;
}

/* Joins a stall that ended to those of other CPUs, or keeps it for the next time. */
__noinline int join_late(__u32 cpu, __u32 pair, __u64 start, __u64 end)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct pair *p = pair_at(pair);
	int i;

	if (!c || !p)
		return 0;
	for (i = 0; i < LATE; i++) {
		if (!p->late[i].end)
			continue;
		if (!join_stall(p->slot, p->late[i].start, p->late[i].end))
			break;
		p->late[i].end = 0;
	}
	if (join_stall(p->slot, start, end))
		return 0;
	for (i = 0; i < LATE; i++) {
		if (p->late[i].end)
			continue;
		p->late[i].start = start;
		p->late[i].end = end;
		return 0;
	}
	c->losses.stalls_unjoined++;
	return 0;
}

/* The stalls of a pair so far, ns, with what the kernel's clock has that was not taken in yet, and the one in progress. */
static __always_inline __u64 stalled_in_all(struct how how, struct pair *p, struct cfs_rq *cfs_rq, __u64 open, __u64 now)
{
	return p->throttled_per_cpu + since(throttle_clock(how, cfs_rq), p->clock_seen) + since(now, open);
}

/* How long the CPU has been idle, idling in progress with it. */
static __always_inline __u64 idle_in_all(struct cpu_state *c, __u64 now)
{
	return c->idle + (c->idling ? since(now, c->start) : 0);
}

/* How long the CPU has been idle while the queue was not throttled; stalled: whether it is now. */
static __always_inline __u64 idle_unstalled(struct cpu_state *c, struct pair *p, bool stalled, __u64 now)
{
	return (stalled ? p->idle_looked : idle_in_all(c, now)) - p->idle_stalled;
}

/* Until when the stall went on that was in progress, since `open`, at the last look; now if it still does. */
static __always_inline __u64 stall_end(struct how how, struct pair *p, struct cfs_rq *cfs_rq, __u64 open, __u64 now)
{
	if (stalled_since(how, cfs_rq, now) == open)
		return now;
	return earlier(open + since(throttle_clock(how, cfs_rq), p->clock_seen), now);
}

/* Takes note of a stall that ended since the last look. queued: when the task at hand became runnable,
 * for a stall nobody was switched out into. idled: since when the CPU is or was idle until now; now if it was not.
 * open: when the stall in progress began, 0 if there is none.
 *
 * A CPU that has a task which may run is idle only for the moment it takes to see that. So what it was idle since the last look
 * it was during the stall, but for what followed that. (Or while nothing of the cgroup was runnable, which no wait is.) */
static __always_inline void settle_stall(struct how how, struct cpu_state *c, struct pair *p, __u32 cpu, __u32 pair,
					 struct cfs_rq *cfs_rq, __u64 queued, __u64 idled, __u64 open, __u64 now)
{
	__u64 clock = throttle_clock(how, cfs_rq), length, start, looked = p->looked, all = idle_in_all(c, now), idle;

	p->looked = now;
	idle = since(all, p->idle_looked);
	if (!open)
		p->idle_looked = all;
	if (p->queue != (__u64)cfs_rq || clock < p->clock_seen) { /* made anew, with a clock of its own */
		p->queue = (__u64)cfs_rq;
		p->stall_since = 0;
		if (looked)
			p->clock_seen = 0;
	}
	if (clock == p->clock_seen)
		return;
	length = since(clock, p->clock_seen);
	if (p->stall_since) {
		start = p->stall_since;
		idle = since(idle, overlap(idled, now, start + length, now));
	} else {
		start = queued;
	}
	p->stall_since = 0;
	p->clock_seen = clock;
	if (length > now - start) {
		if (!looked) /* first sight: the clock's past is not ours to tell */
			return;
		if (bpf_core_field_exists(cfs_rq->throttled_clock_self_time))
			start = now - earlier(length, since(now, looked));
		/* the older clocks run on while nothing is queued: that is no stall */
		length = now - start;
	}
	if (!length)
		return;
	idle = earlier(idle, length);
	p->idle_stalled += idle;
	if (open) /* what is left is of the next one */
		p->idle_looked += idle;
	stall_ended(cpu, pair, start, start + length);
	if (how.cas)
		join_late(cpu, pair, start, start + length);
}

/* This CPU ceases to run the cgroup that it is counted for among those that run it. */
static __always_inline void end_running(struct how how, struct cpu_state *c, __u64 now)
{
	struct slot_all *s;

	if (!how.cas || !c->counted)
		return;
	s = slot_at(c->counted);
	c->counted = NONE;
	if (!s)
		return;
	s->last_out = now; /* first, as who comes next reads it */
	__sync_fetch_and_sub(&s->running, 1);
}

/* What this CPU runs is stopped by a limit, perhaps for the first time: from now on its runs are kept track of. */
static __always_inline void limit(struct how how, struct cpu_state *c, struct pair *p, __u64 now)
{
	struct slot_all *s;

	if (!how.cas || c->counted)
		return;
	s = slot_at(c->slot);
	if (!s)
		return;
	s->last_out = now;
	s->limited = 1;
	p->tracked = 1;
}

/* This CPU begins to run a cgroup, and is counted among those that do; the first of them ends a gap. Of one that is limited alone: of
 * others it does not matter. looked: when this CPU did so before. */
static __always_inline void begin_running(struct how how, struct cpu_state *c, struct pair *p, __u32 slot, __u64 looked, __u64 now)
{
	struct slot_all *s;
	__u64 out;

	/* Another CPU may have seen that it is: asked at every eighth switch, and once in a millisecond. */
	if (!how.cas || (!p->tracked && (p->switches & 7) != 1 && !((now ^ looked) >> 20)))
		return;
	s = slot_at(slot);
	if (!s)
		return;
	p->tracked = s->limited;
	if (!p->tracked)
		return;
	out = s->last_out;
	c->counted = slot;
	if (__sync_fetch_and_add(&s->running, 1) || !out || since(now, out) < MIN_GAP)
		return;
	if (c->gap_slot && join_gap(c->gap_slot, c->gap_start, c->gap_end, c->gap_ns))
		c->gap_slot = NONE;
	if (!c->gap_slot && join_gap(slot, out, now, now - out))
		return;
	/* Another CPU holds the lock all the while: for the next time. */
	if (c->gap_slot != slot || now - c->gap_start > MAX_LENGTH) {
		if (c->gap_slot)
			c->losses.stalls_unjoined++;
		c->gap_slot = slot;
		c->gap_start = out;
		c->gap_ns = 0;
	}
	c->gap_end = now;
	c->gap_ns += now - out;
}

#endif
