// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* What every process does that is forked or execs while a recording is on: system calls by number, time on CPU and
 * waiting, bytes, faults; and the facts that need a time: programs, exits, writes to cgroup files, listening sockets.
 * Knows nothing of pods: userspace joins processes to them.
 *
 * Hooks, all detached between recordings: sched_process_fork, sched_process_exec, sched_process_exit and
 * inet_sock_set_state (rare), sched_switch and raw sys_enter (hot).
 * Cost: see docs/figures.md. A system call or switch of a process without a segment is a look into an array; with
 * one, a hash look-up and an atomic add. A write by anybody is two reads by helper more, to know its file.
 *
 * Ways to miss something: a call that seccomp refuses is not seen (the tracepoint comes after it), nor a write by
 * io_uring, sendfile or splice. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "birth.h"
#include "birth_place.h"
#include "core_fixes.h"
#include "how.h"
#include "syscalls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define SOL_IP 0
#define SOL_IPV6 41
#define IPT_SO_SET_REPLACE 64 /* IP6T_SO_SET_REPLACE is the same */
#define PF_EXITING 4 /* include/linux/sched.h */
#define NO_SLOT 0 /* never handed out */

/* Set by userspace before loading: it looks now and then, and is woken when this much waits. */
const volatile __u64 wake_bytes = 4096;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* segments, and slot 0 */
	__type(key, __u32);
	__type(value, struct segment);
} segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* segments */
	__type(key, __u32); /* tgid */
	__type(value, __u32); /* slot */
} slot_of_process SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1); /* segments */
	__type(value, __u32);
} free_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* bytes */
} events SEC(".maps");

/* The run in progress on a CPU. */
struct run {
	__u64 since;
	__u64 task; /* its address */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct run);
} runs SEC(".maps");

/* How many processes with a segment there are of those that share a place; most of all system calls and switches are of
 * others, and need no look-up. */
#define PLACES 16384 /* a power of two */
__u32 followed[PLACES];

__u64 tally; /* the number of the tally in progress; counted up by userspace before each */
__u64 segments_lost;
__u64 events_lost;

/* Never set: make the types known to the skeleton. */
struct birth_event *event_type;
struct birth_forked *forked_type;
struct birth_execed *execed_type;
struct birth_ended *ended_type;
struct birth_wrote *wrote_type;
struct birth_listened *listened_type;

static __always_inline struct segment *segment_of(__u32 tgid, __u32 *slot)
{
	__u32 *found;

	if (!followed[tgid & (PLACES - 1)])
		return NULL;
	found = bpf_map_lookup_elem(&slot_of_process, &tgid);
	if (!found)
		return NULL;
	if (slot)
		*slot = *found;
	return bpf_map_lookup_elem(&segments, found);
}

/* Whether it was followed. */
static __always_inline bool unfollow(__u32 tgid)
{
	if (bpf_map_delete_elem(&slot_of_process, &tgid))
		return false;
	__sync_fetch_and_add(&followed[tgid & (PLACES - 1)], -1);
	return true;
}

static __always_inline void submit(void *event)
{
	bool wake = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= wake_bytes;

	bpf_ringbuf_submit(event, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* In the ring buffer; NULL (and counted) if there is no room. */
#define RESERVE(type)                                                           \
	({                                                                      \
		type *reserved = bpf_ringbuf_reserve(&events, sizeof(type), 0); \
		if (!reserved)                                                  \
			__sync_fetch_and_add(&events_lost, 1);                  \
		reserved;                                                       \
	})

static __always_inline void head(struct birth_event *event, enum birth_kind kind, __u32 tgid, __u64 start, __u64 now)
{
	event->at = now;
	event->start = start;
	event->tgid = tgid;
	event->kind = kind;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* A zeroed slot for a segment that begins now, instead of the one the process had. */
static __noinline __u32 begin(__u32 tgid, __u64 now)
{
	struct segment *s, *zeroes;
	__u32 slot = NO_SLOT;

	zeroes = bpf_map_lookup_elem(&segments, &slot); /* of a slot that nobody has */
	if (!zeroes)
		return NO_SLOT;
	if (bpf_map_pop_elem(&free_slots, &slot)) {
		__sync_fetch_and_add(&segments_lost, 1);
		unfollow(tgid);
		return NO_SLOT;
	}
	bpf_map_update_elem(&segments, &slot, zeroes, BPF_ANY);
	s = bpf_map_lookup_elem(&segments, &slot);
	if (!s)
		return NO_SLOT;
	s->start = now;
	s->tgid = tgid;
	s->threads_begun = 1;
	if (!bpf_map_update_elem(&slot_of_process, &tgid, &slot, BPF_NOEXIST)) {
		__sync_fetch_and_add(&followed[tgid & (PLACES - 1)], 1);
	} else if (bpf_map_update_elem(&slot_of_process, &tgid, &slot, BPF_EXIST)) {
		__sync_fetch_and_add(&segments_lost, 1);
		s->start = 0;
		bpf_map_push_elem(&free_slots, &slot, 0);
		return NO_SLOT;
	}
	return slot;
}

/* Time the current task has run since the last look, for the segment it ran for; next runs from now on. */
static __always_inline __u64 run_until(struct how how, struct task_struct *task, struct task_struct *next, __u64 now)
{
	__u32 zero = 0;
	struct run *run = bpf_map_lookup_elem(&runs, &zero);
	__u64 ran;

	if (!run)
		return 0;
	if (run->task == (__u64)task)
		ran = run->since < now ? now - run->since : 0;
	else /* a switch was not told of, or none was yet: the books of the scheduler, as of its last look at them */
		ran = READ(how, task, se.sum_exec_runtime) - READ(how, task, se.prev_sum_exec_runtime);
	run->since = now;
	run->task = (__u64)next;
	return ran;
}

/* Adds what a thread has done in its life, or takes it off; on its own behalf. */
static __always_inline void add_thread(struct how how, struct segment *s, struct task_struct *task, __u64 sign)
{
	/* Several threads may exit at a time. */
	if (bpf_core_field_exists(task->sched_info.run_delay)) /* CONFIG_SCHED_INFO */
		__sync_fetch_and_add(&s->wait, sign * READ(how, task, sched_info.run_delay));
	if (bpf_core_field_exists(task->ioac.rchar)) {
		__sync_fetch_and_add(&s->read_bytes, sign * READ(how, task, ioac.rchar));
		__sync_fetch_and_add(&s->written_bytes, sign * READ(how, task, ioac.wchar));
	}
	__sync_fetch_and_add(&s->minor_faults, sign * READ(how, task, min_flt));
	__sync_fetch_and_add(&s->major_faults, sign * READ(how, task, maj_flt));
}

static __always_inline int on_fork(struct how how, struct task_struct *parent, struct task_struct *child)
{
	__u32 tgid = READ(how, child, tgid), parent_tgid = READ(how, parent, tgid), slot;
	struct segment *s = segment_of(parent_tgid, NULL);
	struct birth_forked *event;
	__u64 now;

	if (READ(how, child, pid) != tgid) {
		if (s)
			__sync_fetch_and_add(&s->threads_begun, 1);
		return 0;
	}
	if (s)
		__sync_fetch_and_add(&s->forks, 1);
	now = bpf_ktime_get_ns();
	slot = begin(tgid, now);
	if (slot == NO_SLOT)
		return 0;
	event = RESERVE(struct birth_forked);
	if (!event)
		return 0;
	head(&event->event, BIRTH_FORKED, tgid, now, now);
	event->parent_start = s ? s->start : 0;
	event->parent_tgid = parent_tgid;
	event->slot = slot;
	locate(how, &event->place, child);
	submit(event);
	return 0;
}

/* The name given to execve, the file's, the arguments and the environment. */
static __always_inline void describe(struct birth_execed *event, struct task_struct *task, struct linux_binprm *bprm)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 start, length;

	event->exe_len = bpf_probe_read_kernel_str(event->exe, sizeof(event->exe), BPF_CORE_READ(bprm, filename));
	event->file_len = bpf_probe_read_kernel_str(event->file, sizeof(event->file),
						    BPF_CORE_READ(bprm, file, f_path.dentry, d_name.name));

	start = BPF_CORE_READ(mm, arg_start);
	length = BPF_CORE_READ(mm, arg_end) - start;
	if (length > ARGS_LEN) {
		length = ARGS_LEN;
		event->cut |= CUT_ARGS;
	}
	if (!bpf_probe_read_user(event->args, length, (void *)start))
		event->args_len = length;

	start = BPF_CORE_READ(mm, env_start);
	length = BPF_CORE_READ(mm, env_end) - start;
	if (length > ENV_LEN) {
		start += length - ENV_LEN;
		length = ENV_LEN;
		event->cut |= CUT_ENV;
	}
	if (!bpf_probe_read_user(event->env, length, (void *)start))
		event->env_len = length;
}

static __always_inline int on_exec(struct how how, struct task_struct *task, struct linux_binprm *bprm)
{
	__u32 tgid = READ(how, task, tgid), prior_slot = NO_SLOT, slot;
	__u64 now = bpf_ktime_get_ns(), ran = run_until(how, task, task, now), prior_start = 0;
	struct segment *s = segment_of(tgid, &prior_slot);
	struct birth_execed *event;

	if (s) { /* the other threads are gone: this one's sums complete it */
		__sync_fetch_and_add(&s->run, ran);
		add_thread(how, s, task, 1);
		prior_start = s->start;
		s->ended = now;
	}
	slot = begin(tgid, now);
	if (slot == NO_SLOT && prior_slot == NO_SLOT)
		return 0;
	s = bpf_map_lookup_elem(&segments, &slot);
	if (slot != NO_SLOT && s)
		add_thread(how, s, task, -1);

	event = RESERVE(struct birth_execed);
	if (!event)
		return 0;
	head(&event->event, BIRTH_EXECED, tgid, now, now);
	event->prior_start = prior_start;
	event->prior_slot = prior_slot;
	event->slot = slot;
	event->parent_tgid = READ(how, task, real_parent, tgid);
	event->exe_len = event->file_len = -1;
	event->args_len = event->env_len = event->cut = event->pad = 0;
	event->uid = READ(how, task, real_cred, uid.val);
	locate(how, &event->place, task);
	if (how.reads)
		describe(event, task, bprm);
	submit(event);
	return 0;
}

static __always_inline int on_exit(struct how how, struct task_struct *task)
{
	__u32 tgid = READ(how, task, tgid), slot = NO_SLOT;
	__u64 now = bpf_ktime_get_ns(), ran = run_until(how, task, task, now);
	struct segment *s = segment_of(tgid, &slot);
	struct birth_ended *event;

	if (!s)
		return 0;
	__sync_fetch_and_add(&s->run, ran);
	add_thread(how, s, task, 1);
	__sync_fetch_and_add(&s->threads_ended, 1);
	/* Of two that exit at once both may find that they are the last: one gets to delete. */
	if (*(volatile __u64 *)&s->threads_ended < *(volatile __u64 *)&s->threads_begun ||
	    !unfollow(tgid))
		return 0;
	s->ended = now;
	event = RESERVE(struct birth_ended);
	if (!event)
		return 0;
	head(&event->event, BIRTH_ENDED, tgid, s->start, now);
	event->slot = slot;
	event->exit_code = READ(how, task, exit_code);
	locate(how, &event->place, task);
	submit(event);
	return 0;
}

static __always_inline int on_switch(struct how how, struct task_struct *prev, struct task_struct *next)
{
	__u64 ran = run_until(how, prev, next, bpf_ktime_get_ns());
	struct segment *s;

	if (!READ(how, prev, pid)) /* idle */
		return 0;
	s = segment_of(READ(how, prev, tgid), NULL);
	if (s)
		__sync_fetch_and_add(&s->run, ran);
	return 0;
}

#include "birth_calls.h"

static __always_inline int on_syscall(struct how how, struct pt_regs *regs, long id)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, level;
	struct segment *s = segment_of(tgid, NULL);

	if (s) {
		if (id < 0 || id >= SYSCALLS || OTHER_ABI(how, regs)) {
			__sync_fetch_and_add(&s->foreign_syscalls, 1);
			return 0;
		}
		__sync_fetch_and_add(&s->syscalls[id], 1);
	}
	switch (id) {
	case SYS_WRITE:
	case SYS_PWRITE64:
	case SYS_WRITEV:
	case SYS_PWRITEV:
	case SYS_PWRITEV2:
		if (how.reads && !OTHER_ABI(how, regs))
			on_write(how, ARG(how, regs, 1), tgid, s);
		break;
	case SYS_SENDTO:
		if (how.reads && s)
			on_send(how, ARG(how, regs, 1), (void *)ARG(how, regs, 2), true, s);
		break;
	case SYS_SENDMSG:
	case SYS_SENDMMSG: /* an array of them: the first is looked at */
		if (how.reads && s)
			on_send(how, ARG(how, regs, 1), (void *)ARG(how, regs, 2), false, s);
		break;
	case SYS_SETSOCKOPT:
		level = ARG(how, regs, 2);
		if (s && (level == SOL_IP || level == SOL_IPV6) && ARG(how, regs, 3) == IPT_SO_SET_REPLACE)
			__sync_fetch_and_add(&s->netfilter_changes, 1);
		break;
	}
	return 0;
}

static __always_inline int on_socket(struct how how, struct sock *sk, int to)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, family;
	struct birth_listened *event;
	struct segment *s;

	if (to != TCP_LISTEN)
		return 0;
	family = READ(how, sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (READ(how, sk, sk_protocol) != IPPROTO_TCP) /* MPTCP listens by a TCP socket of its own */
		return 0;
	s = segment_of(tgid, NULL);
	event = RESERVE(struct birth_listened);
	if (!event)
		return 0;
	head(&event->event, BIRTH_LISTENED, tgid, s ? s->start : 0, bpf_ktime_get_ns());
	event->family = family;
	event->port = READ(how, sk, __sk_common.skc_num);
	submit(event);
	return 0;
}

/* Adds up what the threads that live have done; run by userspace when it wants to know. */
SEC("?iter/task")
int tally_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct segment *s;

	if (!task || task->flags & PF_EXITING)
		return 0;
	s = segment_of(task->tgid, NULL);
	if (!s)
		return 0;
	if (s->tally != tally) {
		s->tally = tally;
		s->tally_ended = s->threads_ended;
		s->live_wait = s->live_read_bytes = s->live_written_bytes = s->live_minor_faults = s->live_major_faults = 0;
	}
	if (bpf_core_field_exists(task->sched_info.run_delay))
		s->live_wait += task->sched_info.run_delay;
	if (bpf_core_field_exists(task->ioac.rchar)) {
		s->live_read_bytes += task->ioac.rchar;
		s->live_written_bytes += task->ioac.wchar;
	}
	s->live_minor_faults += task->min_flt;
	s->live_major_faults += task->maj_flt;
	return 0;
}

/* tp_btf is the cheapest: fields are read directly; the raw tracepoint reads them by helper. The _bare programs are
 * for lockdown=confidentiality, where that helper is not to be had: no names, no arguments, no cgroup files. */
#define PROGRAMS(suffix, hook, ...)                                                                     \
	SEC("?" hook "/sched_process_fork")                                                             \
	int BPF_PROG(fork_##suffix, struct task_struct *parent, struct task_struct *child)              \
	{                                                                                               \
		return on_fork((struct how){ __VA_ARGS__ }, parent, child);                             \
	}                                                                                               \
	SEC("?" hook "/sched_process_exec")                                                             \
	int BPF_PROG(exec_##suffix, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm) \
	{                                                                                               \
		return on_exec((struct how){ __VA_ARGS__ }, task, bprm);                                \
	}                                                                                               \
	SEC("?" hook "/sched_process_exit")                                                             \
	int BPF_PROG(exit_##suffix, struct task_struct *task)                                           \
	{                                                                                               \
		return on_exit((struct how){ __VA_ARGS__ }, task);                                      \
	}                                                                                               \
	SEC("?" hook "/sched_switch")                                                                   \
	int BPF_PROG(switch_##suffix, bool preempt, struct task_struct *prev, struct task_struct *next) \
	{                                                                                               \
		return on_switch((struct how){ __VA_ARGS__ }, prev, next);                              \
	}                                                                                               \
	SEC("?" hook "/inet_sock_set_state")                                                            \
	int BPF_PROG(socket_##suffix, struct sock *sk, int from, int to)                                \
	{                                                                                               \
		return on_socket((struct how){ __VA_ARGS__ }, sk, to);                                  \
	}                                                                                               \
	SEC("?" hook "/sys_enter")                                                                      \
	int BPF_PROG(syscall_##suffix, struct pt_regs *regs, long id)                                   \
	{                                                                                               \
		return on_syscall((struct how){ __VA_ARGS__ }, regs, id);                               \
	}

PROGRAMS(btf, "tp_btf", .btf = true, .reads = true)
PROGRAMS(raw, "raw_tp", .btf = false, .reads = true)
PROGRAMS(bare, "tp_btf", .btf = true, .reads = false)
