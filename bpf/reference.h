/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the tests' recorder of the scheduler hands to userspace. Times are ns of the run queue's clock. */
#ifndef KG_REFERENCE_H
#define KG_REFERENCE_H

enum ref_kind {
	REF_SWITCH = 1,
	REF_WAKE,
	REF_MOVE,
	REF_LOOK,
	REF_THROTTLE,
	REF_UNTHROTTLE,
};

enum ref_flags {
	REF_RUNNABLE = 1, /* who is switched out still wants the CPU */
	REF_BUDGET = 2, /* its real-time or deadline budget is used up */
	REF_FRESH = 4, /* a queue not seen before: its clocks begin anew */
	REF_THROTTLED = 8, /* throttle_count is not 0 */
};

struct ref_event {
	__u64 at;
	__u64 task; /* who is switched in, woken or moved: the kernel's address, as pids change and are used again */
	__u64 cgroup; /* its; of a look, whose queue */
	__u64 queued; /* since when it has been runnable; 0: not said. Of a look: the time throttled, up to the last unthrottle */
	__u64 prev; /* who is switched out. Of a look: when the stall in progress began, 0 if there is none */
	__u64 arrived; /* when that one was switched in */
	__u64 delay; /* what task has waited in all, a wait that ends now left out (of a move: with it) */
	__u32 pid;
	__u32 prev_pid;
	__u16 cpu;
	__u16 to; /* of a move */
	__u8 kind;
	__u8 flags;
	__u8 policy; /* of task */
	__u8 pad;
};

#endif
