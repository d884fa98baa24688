/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The CPU probe's maps, and how a cgroup's counters are found: cgroup and CPU -> pair, pair -> slot. */
#ifndef KG_CPU_STATE_H
#define KG_CPU_STATE_H

#include "wire.h"

#define NONE 0 /* no slot, no pair: never handed out */
#define TASK_BITS 15 /* 32,768 entries, 1.5 MiB: of 1,000 tasks that wait at once, 3 % share one and are split by the history */
#define DELAY_BITS 42 /* ns: 73 minutes */

struct pair_key {
	__u64 cgroup;
	__u32 cpu;
	__u32 pad;
};

/* Where the clocks of its cgroup on its CPU stood when a task was switched out runnable: the beginning of its wait. Or that it
 * sleeps for memory or a disk, and since when: a task does one at a time. */
struct mark {
	__u64 task;
	__u64 when; /* the task's last_queued, to the ns; when it was switched out */
	union {
		__u64 run;
		__u64 delay; /* what it had waited for a CPU, in all, then */
	};
	__u64 stalled;
	__u64 idle;
	__u32 pair; /* NONE where it sleeps */
	__u32 kind;
};

#define BARRED 1 /* kinds of marks: a budget of its own class was used up */
#define ASLEEP 2

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* the highest possible CPU's number + 1 */
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << TASK_BITS);
	__type(key, __u32);
	__type(value, struct mark);
} marks SEC(".maps");

/* What a task had waited, in all, when it was last switched in or moved: who it is over DELAY_BITS of the time, in one word,
 * as two tasks of one entry may be written by two CPUs. Used where the run queue keeps no sum. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << TASK_BITS);
	__type(key, __u32);
	__type(value, __u64);
} task_delays SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* pairs */
	__type(key, __u32);
	__type(value, struct pair);
} pairs SEC(".maps");

/* Whose counters these are: the slot over the CPU's number + 1; 0: free. Apart from them, so that userspace finds those in
 * use without touching the others. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* pairs */
	__type(key, __u32);
	__type(value, __u64);
} pair_of_whom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* pairs */
	__type(key, struct pair_key);
	__type(value, struct known);
} pair_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1); /* pairs */
	__type(value, __u32);
} free_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* slots */
	__type(key, __u32);
	__type(value, struct slot_all);
} slots SEC(".maps");

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

static __always_inline struct pair *pair_at(__u32 pair)
{
	return bpf_map_lookup_elem(&pairs, &pair);
}

static __always_inline struct slot_all *slot_at(__u32 slot)
{
	return bpf_map_lookup_elem(&slots, &slot);
}

static __always_inline __u32 place_of(__u32 pid)
{
	/* neighbours in number, which often run side by side, are not to share a cache line */
	return pid * 0x9e3779b1U >> (32 - TASK_BITS);
}

/* First sight of a cgroup. Two CPUs may see it at once: the one that comes second gives its slot back. */
static __always_inline __u32 new_slot(__u64 cgroup)
{
	struct slot_all *s;
	__u32 slot, *won;

	won = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);
	if (won)
		return *won;
	if (bpf_map_pop_elem(&free_slots, &slot))
		return NONE;
	if (bpf_map_update_elem(&slot_of_cgroup, &cgroup, &slot, BPF_NOEXIST)) {
		bpf_map_push_elem(&free_slots, &slot, 0);
		won = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);
		return won ? *won : NONE;
	}
	s = slot_at(slot);
	if (s)
		s->cgroup = cgroup;
	return slot;
}

/* First sight of a cgroup on this CPU, or no longer in its cache. */
static __noinline __u32 find_pair(__u64 cgroup, __u32 cpu)
{
	struct pair_key key = { .cgroup = cgroup, .cpu = cpu };
	struct known made = { .cgroup = cgroup }, *found;
	struct pair *p;
	__u64 *whom;

	found = bpf_map_lookup_elem(&pair_of, &key);
	if (found)
		return found->pair;
	made.slot = new_slot(cgroup);
	if (made.slot == NONE || bpf_map_pop_elem(&free_pairs, &made.pair))
		return NONE;
	p = pair_at(made.pair);
	whom = bpf_map_lookup_elem(&pair_of_whom, &made.pair);
	if (!p || !whom)
		return NONE;
	p->slot = made.slot;
	if (bpf_map_update_elem(&pair_of, &key, &made, BPF_NOEXIST)) {
		/* An iterator over tasks was faster, or the table is full. */
		bpf_map_push_elem(&free_pairs, &made.pair, 0);
		found = bpf_map_lookup_elem(&pair_of, &key);
		return found ? found->pair : NONE;
	}
	*(volatile __u64 *)whom = (__u64)made.slot << 32 | (cpu + 1);
	return made.pair;
}

/* Makes it c->last, from this CPU's cache where it is there. */
static __always_inline void look_up(struct cpu_state *c, __u32 cpu, __u64 cgroup)
{
	struct known *known = &c->known[cgroup & (KNOWN - 1)];
	struct pair *p;

	if (known->cgroup != cgroup || known->pair == NONE) {
		known->pair = find_pair(cgroup, cpu);
		p = pair_at(known->pair);
		known->slot = p ? p->slot : NONE;
		known->cgroup = cgroup;
	}
	c->last = *known;
}

#endif
