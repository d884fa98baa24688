/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who ran on a CPU lately, for the names of those a wait is blamed on.
 *
 * The last 16 to 32 runs are kept as they were. Older ones are folded into spells of at least 33 us, these into spells of half a
 * millisecond, of 8 and of 135: 4 s back at whatever rate tasks are switched, 13 KiB a CPU. A run that is longer is a spell of
 * its own. */
#ifndef KG_CPU_HISTORY_H
#define KG_CPU_HISTORY_H

#include "cpu_kernel.h"
#include "cpu_stall.h"
#include "cpu_state.h"

#define GRAIN 33000ULL /* ns; of the tiers above 16 times as long each */
#define FOLDED (RUNS / 2) /* runs at a time */

/* The place of a tier's newest spell but `back`. */
static __always_inline __u32 spell_place(struct cpu_state *c, __u32 tier, __u32 back)
{
	__u32 at = c->heads[tier & (TIERS - 1)] - back;

	switch (tier) {
	case 0:
		return at & 15;
	case 1:
		return 16 + (at & 15);
	case 2:
		return 32 + (at & 63);
	default:
		return 96 + (at & 31);
	}
}

static __always_inline __u32 spells_of(__u32 tier)
{
	return tier < 2 ? 16 : tier == 2 ? 64
					 : 32;
}

static __always_inline struct spell *spell_at(struct cpu_state *c, __u32 place)
{
	return &c->spells[place & (SPELLS - 1)];
}

/* Adds to the sums of a spell; where its places are taken, the least of its owners goes to the others. */
__noinline int own_spell(__u32 cpu, __u32 place, __u32 slot, __u64 ns)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct spell *s;
	__u64 *least;
	__u32 k, *who;

	if (!c)
		return 0;
	s = spell_at(c, place);
	for (k = 0; k < OWNERS; k++) {
		if (s->owner[k] == slot) {
			s->ns[k] += ns;
			return 0;
		}
		if (!s->owner[k]) {
			s->owner[k] = slot;
			s->ns[k] = ns;
			return 0;
		}
	}
	least = &s->ns[0];
	who = &s->owner[0];
	for (k = 1; k < OWNERS; k++) {
		if (s->ns[k] < *least) {
			least = &s->ns[k];
			who = &s->owner[k];
		}
	}
	if (*least > ns) {
		s->others += ns;
		return 0;
	}
	s->others += *least;
	*who = slot;
	*least = ns;
	return 0;
}

/* Makes room for another spell in the first tier: the eldest goes to the next, and so on. */
__noinline int fold(__u32 cpu)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct spell *from, *into;
	__u32 tier, place, k;

	if (!c)
		return 0;
	c->heads[0]++;
	from = spell_at(c, spell_place(c, 0, 0));
	for (tier = 1; tier < TIERS && from->end; tier++) {
		place = spell_place(c, tier, 0);
		into = spell_at(c, place);
		if (into->end && from->end - into->start <= GRAIN << 4 * tier) {
			into->end = from->end;
			into->others += from->others;
			for (k = 0; k < OWNERS; k++) {
				if (!from->owner[k])
					break;
				if (into->owner[k] == from->owner[k])
					into->ns[k] += from->ns[k];
				else
					own_spell(cpu, place, from->owner[k], from->ns[k]);
			}
			return 0;
		}
		c->heads[tier]++;
		into = spell_at(c, spell_place(c, tier, 0));
		c->carry[tier & 1] = *into;
		*into = *from;
		from = &c->carry[tier & 1];
	}
	return 0;
}

/* Adds a run to the spells. */
static __always_inline void fold_run(struct cpu_state *c, __u32 cpu, struct run *run)
{
	__u32 place = spell_place(c, 0, 0);
	struct spell *s = spell_at(c, place);
	__u64 ns = run->end - run->start;

	if (run->end - s->start <= GRAIN) {
		s->end = run->end;
		if (s->owner[0] == run->slot)
			s->ns[0] += ns;
		else if (s->owner[1] == run->slot)
			s->ns[1] += ns;
		else
			own_spell(cpu, place, run->slot, ns);
		return;
	}
	fold(cpu);
	s = spell_at(c, spell_place(c, 0, 0));
	__builtin_memset(s, 0, sizeof(*s));
	s->start = run->start;
	s->end = run->end;
	s->owner[0] = run->slot;
	s->ns[0] = ns;
}

/* Adds the elder half of the runs to the spells. */
__noinline int fold_runs(__u32 cpu)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct run *run;
	__u32 i;

	if (!c)
		return 0;
	for (i = 0; i < FOLDED; i++) {
		run = &c->runs[(c->runs_made + i) & (RUNS - 1)];
		if (run->end)
			fold_run(c, cpu, run);
	}
	return 0;
}

/* The last run that ended here. */
static __always_inline struct run *last_run(struct cpu_state *c)
{
	return &c->runs[(c->runs_made - 1) & (RUNS - 1)];
}

/* A run ended. */
static __always_inline void remember(struct cpu_state *c, __u32 cpu, __u32 slot, __u64 start, __u64 end)
{
	struct run *run = last_run(c);

	if (run->slot == slot && run->end == start) {
		run->end = end;
		return;
	}
	run = &c->runs[c->runs_made & (RUNS - 1)];
	run->start = start;
	run->end = end;
	run->slot = slot;
	c->runs_made++;
	if (!(c->runs_made & (FOLDED - 1)))
		fold_runs(cpu);
}

/* Runs that are not in the spells yet. */
static __always_inline __u32 single_runs(struct cpu_state *c)
{
	return FOLDED + (c->runs_made & (FOLDED - 1));
}

/* Blames a wait on a neighbour. */
__noinline int blame_on(__u32 cpu, __u32 pair, __u32 culprit, __u64 ns)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct pair *p = pair_at(pair);
	struct blame_key key = { .culprit = culprit };
	__u32 place = culprit & (PLACES - 1), there;
	__u64 *sum;

	if (!c || !p)
		return 0;
	there = p->culprits[place];
	if (there == culprit) {
		p->blamed[place] += ns;
		return 0;
	}
	if (!there) { /* userspace frees a place with its sum at zero */
		p->blamed[place] = ns;
		p->culprits[place] = culprit;
		return 0;
	}
	key.victim = p->slot;
	sum = bpf_map_lookup_elem(&blame, &key);
	if (sum)
		__sync_fetch_and_add(sum, ns);
	else if (bpf_map_update_elem(&blame, &key, &ns, BPF_NOEXIST))
		c->losses.blame_dropped += ns;
	return 0;
}

/* What of a spell's ns, of `length` it spans, lies in `part` of that. Those of a spell of several owners are at most the
 * coarsest grain, 2^28 ns, so that the product fits. */
static __always_inline __u64 in_part(__u64 ns, __u64 part, __u64 length)
{
	if (ns == length)
		return part;
	if (part == length)
		return ns;
	return ns * part / length;
}

/* What of [start, end) is to be told of: while the queue was throttled others would have run in any case. */
static __always_inline __u64 told_part(struct cpu_state *c, struct pair *p, __u32 pair, __u64 start, __u64 end, __u64 to)
{
	__u64 part = since(end, start);

	if (part && c->ask_stalls && (p->stalls || c->ask_open < to))
		part = since(part, stalled_within(pair, start, end) + overlap(start, end, c->ask_open, to));
	return part;
}

/* Blames what a cgroup ran in a wait, as far as there is something left to be blamed on anybody. */
static __always_inline void told(struct cpu_state *c, __u32 cpu, __u32 pair, __u32 own, __u32 slot, __u64 ns)
{
	__u64 most;

	if (slot == own) {
		c->told_own += ns;
		return;
	}
	c->told_neighbour += ns;
	most = earlier(ns, c->ask_most);
	c->ask_most -= most;
	if (most && slot != NONE)
		blame_on(cpu, pair, slot, most);
}

/* A spell of the walk; returns whether the wait began in or after it. */
__noinline int walk_spell(__u32 cpu, __u32 pair, __u32 place, __u64 to)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct pair *p = pair_at(pair);
	__u64 from, whole, part, length, own = 0, own_in;
	struct spell *s;
	__u32 k;

	if (!c || !p)
		return 1;
	s = spell_at(c, place);
	from = c->ask_from;
	if (s->end <= from) /* older ones ended earlier still; so did an empty one */
		return 1;
	length = s->end - s->start;
	whole = overlap(s->start, s->end, from, to);
	part = told_part(c, p, pair, later(s->start, from), earlier(s->end, to), to);
	if (!part || !length)
		return 0;
	for (k = 0; k < OWNERS; k++) {
		if (s->owner[k] == p->slot)
			own = s->ns[k];
	}
	/* Its own runs lie outside its stalls, and before a wait that begins within the spell. */
	own_in = earlier(earlier(in_part(own, whole, length), part), since(c->ask_own, c->told_own));
	c->told_own += own_in;
	part = since(part, own_in);
	length = since(length, own);
	if (!length)
		return 0;
	for (k = 0; k < OWNERS; k++) {
		if (s->owner[k] && s->owner[k] != p->slot)
			told(c, cpu, pair, NONE, s->owner[k], in_part(s->ns[k], part, length));
	}
	/* They have no names: what they ran is left in ask_most. */
	c->told_neighbour += in_part(s->others, part, length);
	return 0;
}

/* Walks back over who ran in [c->ask_from, to), blames neighbours with at most c->ask_most and leaves there what has no
 * name, and says in c->told_own what ran of the pair's own cgroup, and in c->told_neighbour what did of others. */
__noinline int walk(__u32 cpu, __u32 pair, __u64 to)
{
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	struct pair *p = pair_at(pair);
	__u64 from, part;
	struct run *run;
	__u32 tier, i, n;

	if (!c || !p)
		return 0;
	from = c->ask_from;
	c->told_own = c->told_neighbour = 0;
	c->told_exact = 1;
	/* The run in progress: there is one where the wait ends by a move. */
	if (c->slot != NONE) {
		part = told_part(c, p, pair, later(c->start, from), to, to);
		if (part)
			told(c, cpu, pair, p->slot, c->slot, part);
	}
	n = single_runs(c);
	barrier_var(n); /* else the compiler leaves out the bound that the verifier wants to see */
	for (i = 1; i < RUNS && i <= n; i++) {
		run = &c->runs[(c->runs_made - i) & (RUNS - 1)];
		if (run->end <= from) /* older ones ended earlier still; so did an empty one */
			return 0;
		if (run->slot == p->slot) /* not in a stall, and the eldest of those are known less well than the runs */
			part = overlap(run->start, run->end, from, to);
		else
			part = told_part(c, p, pair, later(run->start, from), earlier(run->end, to), to);
		if (part)
			told(c, cpu, pair, p->slot, run->slot, part);
	}
	c->told_exact = 0;
	for (tier = 0; tier < TIERS; tier++) {
		n = spells_of(tier);
		barrier_var(n);
		for (i = 0; i < 64 && i < n; i++) {
			if (walk_spell(cpu, pair, spell_place(c, tier, i), to))
				return 0;
		}
	}
	return 0;
}

#endif
