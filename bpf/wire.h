/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Structs that cross to userspace through maps; the skeleton's Rust types are made from them, so there
 * is no second definition. All counters are cumulative; times are ns of the run queue's clock. */
#ifndef KG_WIRE_H
#define KG_WIRE_H

#define HIST_BUCKETS 32
#define RECENT_STALLS 4
#define PLACES 8 /* a power of two */

/* A stall that ended: [start, end). */
struct stall {
	__u64 start;
	__u64 end;
};

/* One cgroup on one CPU, written only under that CPU's run-queue lock. What every switch touches
 * comes first, so that it shares a cache line. */
struct slot_cpu {
	__u64 run;
	__u64 wait;
	__u64 switches;
	__u64 clock_seen; /* the kernel's throttle clock at the last look */
	__u64 stall_since; /* switch-out that saw the queue throttled; 0: none */
	__u64 last_in; /* the last run that ended: [last_in, last_out) */
	__u64 last_out;
	__u64 prior_out; /* and the end of the run before it */

	__u64 throttle;
	__u64 neighbour;
	__u64 own;
	__u64 stalls;
	__u64 stall_sum;
	__u64 recent_head;
	__u64 pad[2];

	struct stall recent[RECENT_STALLS];

	/* Wait blamed on the first neighbours of each slot modulo PLACES; on others: the table of pairs. Whoever has a
	 * place keeps it until its cgroup is gone, so that each sum only grows. */
	__u32 culprits[PLACES]; /* slots; 0: free */
	__u64 blamed[PLACES]; /* ns */
	__u64 pad2[4];
};

/* One cgroup, all CPUs. */
struct slot_all {
	__u64 cgroup; /* kernfs id; 0: the slot is free */
	__u64 stall_wall;
	__u64 stall_full;
	__u64 covered; /* stall_wall is complete up to here */
	__u64 covered_full;
	__u64 pad[3];
};

/* One cgroup, one bank of CPUs. */
struct slot_hist {
	__u64 wait[HIST_BUCKETS];
	__u64 stall[HIST_BUCKETS];
};

struct blame_key {
	__u32 victim; /* slots */
	__u32 culprit;
};

/* What was lost, summed over CPUs by userspace. */
struct cpu_losses {
	__u64 slots_exhausted; /* switches of a cgroup that has no slot */
	__u64 blame_dropped; /* ns */
	__u64 switches_missed;
};

#endif
