/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What differs between kernels in the scheduler and elsewhere, each with the commit or release that made it; cgroup.h has
 * the differences in cgroups. */
#ifndef KG_CORE_FIXES_H
#define KG_CORE_FIXES_H

#include <bpf/bpf_core_read.h>

/* task_struct.state became __state in 5.14 (2f064a59a11f, "sched: Change task_struct::state"). */
struct task_struct___pre514 {
	volatile long state;
} __attribute__((preserve_access_index));

/* throttled_clock_task_time became throttled_clock_pelt_time in 5.19 (64eaf50731ac,
 * "sched/fair: Fix cfs_rq_clock_pelt() for throttled cfs_rq"). */
struct cfs_rq___pre519 {
	__u64 throttled_clock_task_time;
} __attribute__((preserve_access_index));

/* task_struct.on_rq shrank from int to u8 (in 7.3, not yet in 6.18). CO-RE resizes the load of an unsigned field
 * alone, so this one is declared unsigned. */
struct task_struct___unsigned_on_rq {
	__u32 on_rq;
} __attribute__((preserve_access_index));

/* mnt_namespace.mounts became nr_mounts in 6.8 (2eea9ce4310d, "mounts: keep list of mounts in an rbtree"). */
struct mnt_namespace___pre68 {
	unsigned int mounts;
} __attribute__((preserve_access_index));

#define TASK_ON_RQ_MIGRATING 2 /* kernel/sched/sched.h; runnable, and the lock of the queue it leaves is held */

#endif
