// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* CPU truth from the scheduler: time on CPU, run-queue wait and its split, stalls, who was to blame.
 *
 * Hooks: sched_switch, and sched_migrate_task for a wait that ends by a move to another CPU.
 * Cost: see docs/figures.md (`scripts/bench`): no hash look-up at a switch for the cgroups and neighbours a CPU sees
 * again and again, one at a move of a task that waits; the walk of the ring only as far back as the wait began. Where
 * few switches are made, all that is touched has left the caches since the last: what is used together is kept in few
 * pages.
 *
 * The clock is the run queue's own (rq->clock, the one of sched_info.last_queued), so that a wait and
 * the runs it overlaps are measured alike. Both hooks run under the lock of the run queue they are
 * about: its per-CPU entries have one writer and need no atomics. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "core_fixes.h"
#include "hist.h"
#include "wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RING 128 /* runs kept per CPU; a power of two. 64 left 3 % of a wait unattributed on a busy machine, 16 far more */
#define TASK_BITS 16 /* 65,536 entries, 512 KiB: of 1,000 tasks that are moved about, 1.5 % share one */
#define DELAY_BITS 42 /* ns: 73 minutes */
#define MAX_CPUS 1024
#define NO_SLOT 0 /* never handed out */
#define ROOT_CGROUP 1 /* kernfs id of every hierarchy's root */
#define CAS_TRIES 8
#define KNOWN 16 /* a power of two */

/* Set by userspace before loading; the maps are sized with them. */
const volatile __u32 nr_cpus = 1;
const volatile __u32 hist_banks = 1; /* a power of two; nr_cpus or more: no bank is shared */

struct run {
	__u64 start;
	__u64 end;
	__u32 slot;
	__u32 pad;
};

struct known {
	__u64 cgroup;
	__u32 slot;
	__u32 pad;
};

struct cpu_state {
	__u64 start; /* of the run in progress; 0 before the first switch */
	__u64 cgroup; /* the last one looked up, and its slot: often the next one again, after idling */
	__u64 delay_seen; /* what rq_sched_info.run_delay comes to after this switch */
	__u32 cgroup_slot;
	__u32 slot; /* of the run in progress; NO_SLOT when idle or unknown */
	__u32 head;
	__u32 pid; /* of who runs; unset before the first switch */
	struct cpu_losses losses;
	struct known known[KNOWN]; /* cgroups looked up, each where its id modulo KNOWN has it; ids are not used again */
	struct run ring[RING];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* nr_cpus */
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

/* What a task had waited, in all, when it was last switched out or moved: its pid over DELAY_BITS of the time,
 * in one word, as two tasks of one entry may be written by two CPUs. Used where the run queue keeps no sum. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << TASK_BITS);
	__type(key, __u32);
	__type(value, __u64);
} task_delays SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* slots * nr_cpus, a slot's CPUs side by side */
	__type(key, __u32);
	__type(value, struct slot_cpu);
} slot_cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* slots */
	__type(key, __u32);
	__type(value, struct slot_all);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* slots * hist_banks */
	__type(key, __u32);
	__type(value, struct slot_hist);
} slot_hists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* slots */
	__type(key, __u64); /* cgroup */
	__type(value, __u32); /* slot */
} slot_of_cgroup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1); /* slots */
	__type(value, __u32);
} free_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct blame_key);
	__type(value, __u64); /* ns */
} blame SEC(".maps");

__u64 stalls_unjoined; /* not in the wall time: other CPUs moved the mark again and again */

/* What one program needs to know of how it was attached; a constant in each entry point, so that
 * the compiler leaves one of the ways. */
struct how {
	bool btf; /* the arguments are typed: read fields directly, else by probe_read */
	bool cas; /* atomics that return a value (5.12) */
};

/* d below zero ? d : 0, without a branch: the verifier follows every path through the loops below, and
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

static __always_inline __u64 overlap(__u64 a0, __u64 a1, __u64 b0, __u64 b1)
{
	__u64 length = earlier(a1, b1) - later(a0, b0);

	return length - negative_part(length);
}

#define FIELD(how, ptr, field) ((how).btf ? (ptr)->field : BPF_CORE_READ(ptr, field))

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

static __always_inline bool runnable(struct how how, struct task_struct *task)
{
	struct task_struct___pre514 *old = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return FIELD(how, task, __state) == 0;
	return FIELD(how, old, state) == 0;
}

static __always_inline __u32 on_rq(struct how how, struct task_struct *task)
{
	struct task_struct___unsigned_on_rq *t = (void *)task;
	__u32 value = 0;

	if (how.btf)
		return t->on_rq;
	bpf_probe_read_kernel(&value, bpf_core_field_size(t->on_rq), &t->on_rq);
	return value;
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

/* Notes what a task has waited; returns how much of it is new since it was last noted, 0 if it was not. */
static __always_inline __u64 note_task_delay(struct how how, struct task_struct *task)
{
	__u32 pid = FIELD(how, task, pid);
	/* neighbours in number, which often run side by side, are not to share a cache line */
	__u32 key = pid * 0x9e3779b1U >> (32 - TASK_BITS);
	__u64 delay = task_delay(how, task), seen, *entry;

	entry = bpf_map_lookup_elem(&task_delays, &key);
	if (!entry)
		return 0;
	seen = *(volatile __u64 *)entry;
	*(volatile __u64 *)entry = (__u64)pid << DELAY_BITS | (delay & ((1ULL << DELAY_BITS) - 1));
	if (seen >> DELAY_BITS != pid)
		return 0;
	return (delay - seen) & ((1ULL << DELAY_BITS) - 1);
}

/* First sight of a cgroup. Two CPUs may see it at once: the one that comes second gives its slot back. */
static __noinline __u32 new_slot(struct cpu_state *cpu, __u64 cgroup)
{
	struct slot_all *s;
	__u32 slot, *won;

	if (bpf_map_pop_elem(&free_slots, &slot)) {
		cpu->losses.slots_exhausted++;
		return NO_SLOT;
	}
	if (bpf_map_update_elem(&slot_of_cgroup, &cgroup, &slot, BPF_NOEXIST)) {
		bpf_map_push_elem(&free_slots, &slot, 0);
		won = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);
		if (won)
			return *won;
		cpu->losses.slots_exhausted++;
		return NO_SLOT;
	}
	s = bpf_map_lookup_elem(&slots, &slot);
	if (s)
		s->cgroup = cgroup;
	return slot;
}

static __always_inline __u32 slot_of(struct cpu_state *c, __u64 cgroup)
{
	struct known *known = &c->known[cgroup & (KNOWN - 1)];
	__u32 *found;

	if (known->cgroup != cgroup || known->slot == NO_SLOT) {
		found = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);
		known->slot = found ? *found : new_slot(c, cgroup);
		known->cgroup = cgroup;
	}
	return known->slot;
}

static __always_inline struct slot_cpu *slot_cpu(__u32 slot, __u32 cpu)
{
	__u32 key = slot * nr_cpus + cpu;

	return bpf_map_lookup_elem(&slot_cpus, &key);
}

static __always_inline void hist_add(struct how how, __u32 slot, __u32 cpu, __u64 ns, bool stall)
{
	__u32 key = slot * hist_banks + (cpu & (hist_banks - 1));
	struct slot_hist *hist = bpf_map_lookup_elem(&slot_hists, &key);
	__u64 *count;

	if (!hist)
		return;
	count = stall ? &hist->stall[hist_bucket(ns)] : &hist->wait[hist_bucket(ns)];
	if (hist_banks < nr_cpus)
		__sync_fetch_and_add(count, 1);
	else
		(*count)++;
}

/* Moves a mark on to end; returns how much of [start, end) lay past it. */
static __always_inline __u64 extend(__u64 *mark, __u64 start, __u64 end)
{
	__u64 seen;
	int i;

	for (i = 0; i < CAS_TRIES; i++) {
		seen = *(volatile __u64 *)mark;
		if (end <= seen)
			return 0;
		if (__sync_val_compare_and_swap(mark, seen, end) == seen)
			return end - (start > seen ? start : seen);
	}
	__sync_fetch_and_add(&stalls_unjoined, 1);
	return 0;
}

/* From when on, within [start, end), no other CPU ran the cgroup; end if one ran on past it.
 * A look at every CPU, but only once a stall. */
static __noinline __u64 stopped_since(__u32 slot, __u32 self, __u64 start, __u64 end)
{
	struct cpu_state *cpu;
	struct slot_cpu *sc;
	__u32 i, key;
	__u64 out;

	for (i = 0; i < MAX_CPUS && i < nr_cpus; i++) {
		if (i == self)
			continue;
		key = i;
		cpu = bpf_map_lookup_elem(&cpus, &key);
		sc = slot_cpu(slot, i);
		if (!cpu || !sc)
			break;
		if (cpu->slot == slot && negative_part(cpu->start - end))
			return end;
		/* the last run that began before the stall's end */
		out = negative_part(sc->last_in - end) ? sc->last_out : sc->prior_out;
		start = later(start, earlier(out, end));
	}
	return start;
}

/* Takes note of a stall that ended since the last look. since: when the task at hand became runnable,
 * for a stall nobody was switched out into. */
static __always_inline void settle_stall(struct how how, struct slot_cpu *sc, __u32 slot, __u32 cpu, struct cfs_rq *cfs_rq,
					 __u64 since, __u64 now)
{
	__u64 clock = throttle_clock(how, cfs_rq);
	__u64 length = clock - sc->clock_seen, start, end;
	struct stall *recent;
	struct slot_all *s;

	if (clock == sc->clock_seen)
		return;
	start = sc->stall_since ? sc->stall_since : since;
	sc->stall_since = 0;
	sc->clock_seen = clock;
	if (length > now - start) {
		if (sc->switches <= 1) /* first sight: the clock's past is not ours to tell */
			return;
		if (bpf_core_field_exists(cfs_rq->throttled_clock_self_time))
			start = now - length;
		else /* the older clocks run on while nothing is queued: that is no stall */
			length = now - start;
	}
	end = start + length;

	recent = &sc->recent[sc->recent_head++ & (RECENT_STALLS - 1)];
	recent->start = start;
	recent->end = end;
	sc->stalls++;
	sc->stall_sum += length;
	hist_add(how, slot, cpu, length, true);
	if (!how.cas)
		return;
	s = bpf_map_lookup_elem(&slots, &slot);
	if (!s)
		return;
	__sync_fetch_and_add(&s->stall_wall, extend(&s->covered, start, end));
	start = stopped_since(slot, cpu, start, end);
	if (start < end)
		__sync_fetch_and_add(&s->stall_full, extend(&s->covered_full, start, end));
}

static __always_inline void blame_add(struct cpu_state *c, struct slot_cpu *sc, __u32 victim, __u32 culprit, __u64 ns)
{
	struct blame_key key = { .victim = victim, .culprit = culprit };
	__u32 place = culprit & (PLACES - 1), there = sc->culprits[place];
	__u64 *sum;

	if (there == culprit) {
		sc->blamed[place] += ns;
		return;
	}
	if (!there) { /* userspace frees a place with its sum at zero */
		sc->blamed[place] = ns;
		sc->culprits[place] = culprit;
		return;
	}
	sum = bpf_map_lookup_elem(&blame, &key);
	if (sum)
		__sync_fetch_and_add(sum, ns);
	else if (bpf_map_update_elem(&blame, &key, &ns, BPF_NOEXIST))
		c->losses.blame_dropped += ns;
}

/* Splits the wait [from, to): what the queue was throttled, then who ran here meanwhile. open: start of a
 * stall still in progress, to if there is none; since 6.18 (e1fad12dcb66, "sched/fair: Switch to task
 * based throttle model") a task may be switched in during one. */
static __always_inline void charge_wait(struct how how, struct cpu_state *c, struct slot_cpu *sc, __u32 slot, __u32 cpu, __u64 from,
					__u64 to, __u64 open)
{
	__u64 part, run_from, run_to, throttled = 0;
	struct run *run;
	__u32 i, k;

	sc->wait += to - from;
	hist_add(how, slot, cpu, to - from, false);
	if (sc->stalls || open != to) {
		throttled = overlap(from, to, open, to);
		for (k = 0; k < RECENT_STALLS; k++)
			throttled += overlap(from, to, sc->recent[k].start, sc->recent[k].end);
		throttled = earlier(throttled, to - from); /* on older clocks stalls may overlap each other */
		sc->throttle += throttled;
	}
	for (i = 1; i <= RING; i++) {
		run = &c->ring[(c->head - i) & (RING - 1)];
		if (!negative_part(from - run->end)) /* older runs ended earlier still */
			break;
		run_from = later(run->start, from);
		run_to = earlier(run->end, to);
		part = run_to - run_from;
		part -= negative_part(part);
		if (throttled) { /* it would not have run in that time, whoever did */
			part -= overlap(run_from, run_to, open, to);
			for (k = 0; k < RECENT_STALLS; k++)
				part -= overlap(run_from, run_to, sc->recent[k].start, sc->recent[k].end);
			part -= negative_part(part);
		}
		if (!part)
			continue;
		if (run->slot == slot) {
			sc->own += part;
		} else {
			sc->neighbour += part;
			blame_add(c, sc, slot, run->slot, part);
		}
	}
}

static __always_inline void switched_out(struct how how, struct cpu_state *c, struct slot_cpu *sc, struct task_struct *prev,
					 __u64 now)
{
	struct run *run = &c->ring[(c->head - 1) & (RING - 1)];
	__u64 start = c->start, since;

	sc->run += now - start;
	sc->prior_out = sc->last_out;
	sc->last_in = start;
	sc->last_out = now;

	if (run->slot != c->slot || run->end != start) {
		run = &c->ring[c->head++ & (RING - 1)];
		run->start = start;
		run->slot = c->slot;
	}
	run->end = now;

	if (!bpf_core_field_exists(struct rq, rq_sched_info))
		note_task_delay(how, prev);

	since = stalled_since(how, FIELD(how, prev, se.cfs_rq), now);
	if (since && runnable(how, prev))
		sc->stall_since = since;
}

static __always_inline int on_switch(struct how how, struct task_struct *prev, struct task_struct *next)
{
	struct cfs_rq *cfs_rq = FIELD(how, next, se.cfs_rq);
	struct rq *rq = FIELD(how, cfs_rq, rq);
	__u64 now = FIELD(how, rq, clock);
	__u32 cpu = bpf_get_smp_processor_id();
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct slot_cpu *sc = NULL;
	__u64 cgroup, queued, open;
	__u32 slot, ran;

	if (!c)
		return 0;
	ran = c->slot;
	if (c->pid != FIELD(how, prev, pid)) { /* a switch that was not told of: who ran since when is not known */
		ran = NO_SLOT;
		if (c->start)
			c->losses.switches_missed++;
	}
	c->pid = FIELD(how, next, pid);
	if (ran != NO_SLOT && c->start) {
		sc = slot_cpu(ran, cpu);
		if (!sc)
			return 0;
		switched_out(how, c, sc, prev, now);
	}
	c->start = now;

	if (!c->pid) { /* idle */
		c->slot = NO_SLOT;
		c->delay_seen = queue_delay(how, rq);
		return 0;
	}
	cgroup = cgroup_of(how, next);
	slot = c->cgroup_slot;
	if (cgroup != c->cgroup || slot == NO_SLOT) {
		slot = slot_of(c, cgroup);
		c->cgroup = cgroup;
		c->cgroup_slot = slot;
	}
	c->slot = slot;

	queued = queued_since(how, next, now);
	c->delay_seen = queue_delay(how, rq) + (now - queued);

	if (slot != ran || !sc) {
		sc = slot_cpu(slot, cpu);
		if (slot == NO_SLOT || !sc)
			return 0;
	}
	sc->switches++;
	settle_stall(how, sc, slot, cpu, cfs_rq, queued, now);
	if (queued < now) {
		open = stalled_since(how, cfs_rq, now);
		charge_wait(how, c, sc, slot, cpu, queued, now, open ? open : now);
	}
	return 0;
}

/* What a task had waited on a queue before it was taken off. The kernel has just added it to the queue's
 * own sum (sched_info_dequeue): what that grew by since our last look. Without that sum, what the task's
 * grew by since it last ran or was moved; of one that was not seen then we do not know. */
static __always_inline __u64 waited_before_move(struct how how, struct cpu_state *c, struct rq *rq, struct task_struct *task)
{
	__u64 delay, waited;

	if (!bpf_core_field_exists(rq->rq_sched_info))
		return note_task_delay(how, task);
	delay = queue_delay(how, rq);
	waited = delay - c->delay_seen;
	c->delay_seen = delay;
	return waited;
}

/* A task that waits is taken to another CPU: last_queued starts anew there, so what it waited here would
 * be lost. */
static __always_inline int on_migrate(struct how how, struct task_struct *task)
{
	struct cfs_rq *cfs_rq;
	struct slot_cpu *sc;
	struct cpu_state *c;
	struct rq *rq;
	__u64 cgroup, now, waited;
	__u32 cpu, *slot;

	if (on_rq(how, task) != TASK_ON_RQ_MIGRATING) /* a wake-up */
		return 0;
	cfs_rq = FIELD(how, task, se.cfs_rq);
	rq = FIELD(how, cfs_rq, rq);
	cpu = FIELD(how, rq, cpu);
	c = bpf_map_lookup_elem(&cpus, &cpu);
	if (!c || !c->start)
		return 0;
	now = FIELD(how, rq, clock);
	waited = waited_before_move(how, c, rq, task);
	if (!waited || waited > now)
		return 0;

	cgroup = cgroup_of(how, task);
	slot = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);
	if (!slot)
		return 0;
	sc = slot_cpu(*slot, cpu);
	if (!sc)
		return 0;
	settle_stall(how, sc, *slot, cpu, cfs_rq, now - waited, now);
	charge_wait(how, c, sc, *slot, cpu, now - waited, now, now);
	return 0;
}

/* tp_btf is the cheapest: fields are read directly; the raw tracepoint reads them by helper. The _old
 * programs are for kernels before 5.12: without the atomics that the wall union takes. */
#define PROGRAMS(suffix, hook, is_btf, has_cas)                                                               \
	SEC("?" hook "/sched_switch")                                                                         \
	int BPF_PROG(sched_switch_##suffix, bool preempt, struct task_struct *prev, struct task_struct *next) \
	{                                                                                                     \
		return on_switch((struct how){ .btf = is_btf, .cas = has_cas }, prev, next);                  \
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
