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

/* task_struct.on_rq and on_cpu shrank from int to u8 (in 7.3, not yet in 6.18). CO-RE resizes the load of an unsigned
 * field alone, so these are declared unsigned. */
struct task_struct___unsigned {
	__u32 on_rq;
	__u32 on_cpu;
} __attribute__((preserve_access_index));

/* Budgets of real-time tasks: rq.rt's own since 6.12 only with CONFIG_RT_GROUP_SCHED (5f6bd380c7bd, "sched/rt: Remove
 * default bandwidth control"), a task's queue always only with it. */
struct rt_rq___budget {
	__u32 rt_throttled;
} __attribute__((preserve_access_index));

struct rq___budget {
	struct rt_rq___budget rt;
} __attribute__((preserve_access_index));

struct sched_rt_entity___group {
	struct rt_rq___budget *rt_rq;
} __attribute__((preserve_access_index));

struct task_struct___group {
	struct sched_rt_entity___group rt;
} __attribute__((preserve_access_index));

/* rq.clock_idle came in 5.19 (e2f3e35f1f5a, "sched/fair: Decay task PELT values during wakeup migration"). */
struct rq___idle {
	__u64 clock_idle;
} __attribute__((preserve_access_index));

/* CONFIG_PARAVIRT_TIME_ACCOUNTING */
struct rq___steal {
	__u64 prev_steal_time_rq;
} __attribute__((preserve_access_index));

/* mnt_namespace.mounts became nr_mounts in 6.8 (2eea9ce4310d, "mounts: keep list of mounts in an rbtree"). */
struct mnt_namespace___pre68 {
	unsigned int mounts;
} __attribute__((preserve_access_index));

/* mm_struct.rss_stat was a struct of plain counters until 6.2 (f1a7941243c1, "mm: convert mm's rss stats into
 * percpu_counter"). */
struct mm_rss_stat___rss {
	atomic_long_t count[4];
} __attribute__((preserve_access_index));

struct mm_struct___rss {
	struct mm_rss_stat___rss rss_stat;
} __attribute__((preserve_access_index));

#define TASK_ON_RQ_MIGRATING 2 /* kernel/sched/sched.h; runnable, and the lock of the queue it leaves is held */

#endif
