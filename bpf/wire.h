/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Structs that cross to userspace through maps; the skeleton's Rust types are made from them, so there
 * is no second definition. All counters are cumulative; times are ns of the run queue's clock. */
#ifndef KG_WIRE_H
#define KG_WIRE_H

#define HIST_BUCKETS 32
#define PLACES 8 /* a power of two */
#define LATE 4
#define RECENT 6
#define JOINED 12
#define GAPS 14
#define OWNERS 6
#define RUNS 32 /* a power of two */
#define TIERS 4
#define SPELLS 128 /* of all tiers: 16, 16, 64 and 32; a power of two */
#define KNOWN 16 /* a power of two */

/* [start, end), of which ns count: fewer than its length where several were made into one. end is 0 in an empty place. */
struct stretch {
	__u64 start;
	__u64 end;
	__u64 ns;
};

/* A run of a cgroup on a CPU, [start, end). */
struct run {
	__u64 start;
	__u64 end;
	__u32 slot;
	__u32 pad;
};

/* Who ran on a CPU in [start, end), and for how long: the first OWNERS by slot, the rest together. What is missing
 * to its length, the CPU was idle. */
struct spell {
	__u64 start;
	__u64 end;
	__u32 owner[OWNERS]; /* slots; 0: free */
	__u64 ns[OWNERS];
	__u64 others;
};

/* One cgroup on one CPU, written only under that CPU's run-queue lock. What every switch touches comes first. */
struct pair {
	__u64 run;
	__u64 switches;
	__u64 queue; /* its run queue at the last look: another one where the controller was taken away and given back */
	__u64 clock_seen; /* that queue's throttle clock then */
	__u64 looked; /* when it was */
	__u64 idle_looked; /* how long the CPU had been idle then; in a stall, when that began */
	__u32 slot;
	__u32 tracked; /* whether any CPU runs the cgroup is kept track of */
	__u64 taken; /* of run: what interrupts and the hypervisor took */

	__u64 wait;
	__u64 stolen; /* of taken: what the hypervisor took */
	__u64 run_stalled; /* of run: while it was throttled, on the way out of the kernel */
	__u64 idle_stalled; /* the CPU was idle, of throttled_per_cpu */
	__u64 stall_since; /* switch-out that saw the queue throttled; 0: none */
	__u64 throttle;
	__u64 neighbour;
	__u64 own;
	__u64 stalls;
	__u64 throttled_per_cpu;
	__u64 waited; /* some task waited for a neighbour: the union of those waits */
	__u64 waited_start; /* the last interval of the union of all waits, and where the one before it ended */
	__u64 waited_end;
	__u64 waited_floor;
	__u64 waited_run; /* run and throttled_per_cpu at waited_end */
	__u64 waited_stalled;

	struct stretch late[LATE]; /* stalls still to be joined to those of other CPUs: one of them held the lock all the while */

	/* Wait blamed on the first neighbours of each slot modulo PLACES; on others: the table of pairs. Whoever has a
	 * place keeps it until its cgroup is gone, so that each sum only grows. */
	__u32 culprits[PLACES]; /* slots; 0: free */
	__u64 blamed[PLACES]; /* ns */

	struct stretch recent[RECENT]; /* stalls, the eldest made into one */
	__u64 waits[HIST_BUCKETS];
};

/* One cgroup, all CPUs. */
struct slot_all {
	__u64 cgroup; /* kernfs id; 0: the slot is free */
	__u64 throttled_wall;
	__u64 throttled_full;
	__u64 last_out; /* when the last CPU that ran it ceased to; kept while it is limited */
	__u32 limited; /* it was stalled lately: whether any CPU runs it is kept track of */
	__u32 running; /* on so many CPUs */
	__u32 lock; /* of what follows */
	__u32 pad;
	/* What its tasks slept for, from the switch-out to the wake-up, where the kernel marks it. Any CPU adds to them: there is a sleep
	 * between two times. */
	__u64 disk; /* I/O, what follows left out */
	__u64 reclaim; /* memory, within direct reclaim */
	__u64 refault; /* memory: a page is read back that had just been dropped */
	__u64 high; /* memory, else: memory.high, or compaction */
	struct stretch stalls[JOINED]; /* on any CPU, joined */
	struct stretch gaps[GAPS]; /* no CPU ran it */
	__u64 stall_lengths[HIST_BUCKETS];
};

/* Two cgroups, by slot. */
struct blame_key {
	__u32 victim;
	__u32 culprit;
};

/* What was lost, summed over CPUs by userspace. */
struct cpu_losses {
	__u64 slots_exhausted; /* switches of a cgroup for which there were no counters */
	__u64 blame_dropped; /* ns: the table was full */
	__u64 blame_unnamed; /* ns: the history no longer has who ran */
	__u64 switches_missed;
	__u64 stalls_unjoined; /* not in the wall time: other CPUs held the lock all the while */
	__u64 sleeps_lost; /* of two tasks that share a place in the table of those that sleep */
};

struct known {
	__u64 cgroup;
	__u32 pair;
	__u32 slot;
};

/* One CPU, written under its run-queue lock. */
struct cpu_state {
	__u64 start; /* of the run in progress, or of idling; 0 before the first switch */
	__u64 task; /* who runs: the address of its task_struct, unlike a pid never that of another while it runs */
	__u64 start_task; /* the clock without interrupts and stolen time, at start */
	__u64 start_steal;
	__u64 idle; /* how long nobody ran here, idling in progress left out */
	__u64 delay_seen; /* what rq_sched_info.run_delay comes to after this switch */
	__u32 pair; /* of the run in progress; 0 when idle or unknown */
	__u32 slot;
	__u32 counted; /* the slot whose `running` has this CPU in it */
	__u32 idling; /* since start */
	struct known last; /* the last cgroup looked up: often the next one again, after idling */
	__u32 runs_made; /* the newest is the one before, modulo RUNS */
	__u32 heads[TIERS]; /* of the spells, the newest of each tier */
	__u32 pad2;
	__u64 ran_into; /* the stall in progress when the run in progress began: since when; 0: none */
	__u32 pad4[4];
	/* A gap between two runs of a cgroup that is still to be joined to its others. */
	__u64 gap_start;
	__u64 gap_end;
	__u64 gap_ns;
	__u32 gap_slot;
	__u32 pad3;
	/* Who was on the CPU before the first switch, set by an iterator over tasks. */
	__u64 primed_start;
	__u64 primed_task;
	__u32 primed_pair;
	__u32 primed_slot;
	struct cpu_losses losses;
	struct known known[KNOWN]; /* cgroups looked up, each where its id modulo KNOWN has it; ids are not used again */
	/* What the walk over the history is asked, and what it answers: more than a function has arguments. */
	__u64 ask_from;
	__u64 ask_open;
	__u64 ask_most; /* ns to be blamed on neighbours */
	__u64 ask_own; /* ns that its own cgroup ran, at most */
	__u64 ask_stalls; /* whether the task is bound by them */
	__u64 told_own;
	__u64 told_neighbour;
	__u64 told_exact; /* no further back than single runs */
	struct spell carry[2]; /* on its way from a tier to the next: the stack of a program and all it calls is 512 bytes */
	struct run runs[RUNS];
	struct spell spells[SPELLS];
};

#endif
