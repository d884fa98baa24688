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
#include "core_fixes.h"
#include "how.h"
#include "syscalls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270
#define S_IFMT 00170000
#define S_IFSOCK 0140000
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define NETLINK_NETFILTER 12
#define SOL_IP 0
#define SOL_IPV6 41
#define IPT_SO_SET_REPLACE 64 /* IP6T_SO_SET_REPLACE is the same */
#define NFNL_SUBSYS_CTNETLINK 1
#define NFNL_SUBSYS_CTNETLINK_EXP 2
#define NFNL_SUBSYS_IPSET 6
#define NFNL_MSG_BATCH_BEGIN 0x10
#define NFNL_MSG_BATCH_END 0x11
#define PF_EXITING 4 /* include/linux/sched.h */
#define MOUNT_DEPTH 8
#define NO_SLOT 0 /* never handed out */

/* Set by userspace before loading: the tree that the scheduler's cgroups belong to is v2's. */
const volatile bool unified = true;
/* Userspace looks now and then; it is woken when this much waits. */
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

/* Those of all files of cgroups (kernfs_file_fops), once one was written to: other files are told by them. */
__u64 cgroup_operations;
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

static __always_inline __u64 cgroup_of(struct how how, struct task_struct *task)
{
	struct cgroup *cgroup;

	if (unified)
		return READ(how, task, cgroups, dfl_cgrp, kn, id);
	cgroup = READ(how, task, sched_task_group, css.cgroup);
	if (!cgroup) /* an autogroup has none: the root */
		return 1;
	return READ(how, cgroup, kn, id);
}

/* Mounts that /proc/<pid>/mountinfo lists: those that the process's root is mounted on are out of its sight. */
static __always_inline __u32 mounts_in_sight(struct how how, struct task_struct *task, struct mnt_namespace *ns)
{
	struct mnt_namespace___pre68 *old = (void *)ns;
	struct mount *mount, *below;
	__u32 mounts;
	int i;

	if (bpf_core_field_exists(ns->nr_mounts))
		mounts = READ(how, ns, nr_mounts);
	else
		mounts = READ(how, old, mounts);
	mount = (void *)BPF_CORE_READ(task, fs, root.mnt) - bpf_core_field_offset(struct mount, mnt);
	for (i = 0; i < MOUNT_DEPTH; i++) {
		below = BPF_CORE_READ(mount, mnt_parent);
		if (below == mount)
			break;
		mount = below;
		mounts--;
	}
	return mounts;
}

/* ns/pid: the namespace of the process's innermost id. */
static __always_inline __u32 pid_namespace(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *innermost = (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);

	return BPF_CORE_READ(innermost, ns, ns.inum);
}

static __always_inline void locate(struct how how, struct place *place, struct task_struct *task)
{
	struct nsproxy *nsproxy = READ(how, task, nsproxy);

	__builtin_memset(place, 0, sizeof(*place));
	place->cgroup = cgroup_of(how, task);
	if (!nsproxy)
		return;
	place->mnt = READ(how, nsproxy, mnt_ns, ns.inum);
	place->uts = READ(how, nsproxy, uts_ns, ns.inum);
	place->ipc = READ(how, nsproxy, ipc_ns, ns.inum);
	place->pid_for_children = READ(how, nsproxy, pid_ns_for_children, ns.inum);
	place->net = READ(how, nsproxy, net_ns, ns.inum);
	place->cgroup_ns = READ(how, nsproxy, cgroup_ns, ns.inum);
	place->time = READ(how, nsproxy, time_ns, ns.inum);
	place->user = READ(how, task, real_cred, user_ns, ns.inum);
	if (how.reads) {
		place->pid = pid_namespace(task);
		place->mounts = mounts_in_sight(how, task, READ(how, nsproxy, mnt_ns));
	}
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
	event->args_len = event->env_len = event->cut = 0;
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

/* The current process's open file of this number; NULL if there is none. */
static __always_inline struct file *file_of(struct how how, __u32 fd)
{
	struct file **files, *file = NULL;
	struct fdtable *table;

	/* 5.11, 3ca1032ab7ab "bpf: Implement get_current_task_btf and RET_PTR_TO_BTF_ID" */
	if (how.btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)) {
		table = bpf_get_current_task_btf()->files->fdt;
		if (fd >= table->max_fds)
			return NULL;
		files = table->fd;
	} else {
		table = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), files, fdt);
		if (fd >= BPF_CORE_READ(table, max_fds))
			return NULL;
		files = BPF_CORE_READ(table, fd);
	}
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

static __always_inline void on_write(struct how how, __u32 fd, __u32 tgid, struct segment *s)
{
	struct file *file = file_of(how, fd);
	struct birth_wrote *event;
	struct dentry *dentry;
	struct cgroup *cgroup;
	struct kernfs_node *kn;
	__u64 magic, operations;

	if (!file)
		return;
	operations = (__u64)BPF_CORE_READ(file, f_op);
	if (cgroup_operations && operations != cgroup_operations)
		return;
	magic = BPF_CORE_READ(file, f_inode, i_sb, s_magic);
	if (magic != CGROUP_SUPER_MAGIC && magic != CGROUP2_SUPER_MAGIC)
		return;
	cgroup_operations = operations;
	event = RESERVE(struct birth_wrote);
	if (!event)
		return;
	head(&event->event, BIRTH_WROTE, tgid, s ? s->start : 0, bpf_ktime_get_ns());
	dentry = BPF_CORE_READ(file, f_path.dentry);
	kn = BPF_CORE_READ(dentry, d_parent, d_inode, i_private); /* kernfs's node of the directory; its priv: the cgroup */
	cgroup = BPF_CORE_READ(kn, priv);
	event->cgroup = BPF_CORE_READ(kn, id);
	event->hierarchy = BPF_CORE_READ(cgroup, root, hierarchy_id);
	event->file_len = bpf_probe_read_kernel_str(event->file, sizeof(event->file), BPF_CORE_READ(dentry, d_name.name));
	submit(event);
}

/* Whether a message to the kernel's netfilter changes something. Rules are sent in batches; what is sent without is
 * a question, or of ipset or connection tracking. */
static __always_inline bool changes_netfilter(void *data)
{
	struct nlmsghdr header = {};
	__u32 subsystem, message;

	if (bpf_probe_read_user(&header, sizeof(header), data))
		return false;
	subsystem = header.nlmsg_type >> 8;
	message = header.nlmsg_type & 0xff;
	if (header.nlmsg_type == NFNL_MSG_BATCH_BEGIN) { /* iptables-nft sends an empty one to list */
		data += (header.nlmsg_len + 3) & ~3;
		return bpf_probe_read_user(&header, sizeof(header), data) || header.nlmsg_type != NFNL_MSG_BATCH_END;
	}
	if (subsystem == NFNL_SUBSYS_CTNETLINK || subsystem == NFNL_SUBSYS_CTNETLINK_EXP)
		return message == 0 || message == 2; /* new, delete */
	if (subsystem == NFNL_SUBSYS_IPSET) /* create to swap, add, delete */
		return (message >= 2 && message <= 6) || message == 9 || message == 10;
	return false;
}

static __always_inline void on_send(struct how how, __u32 fd, void *message, bool is_data, struct segment *s)
{
	struct file *file = file_of(how, fd);
	struct socket *socket;
	struct iovec *vector;
	struct sock *sk;
	void *data = message;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_NETLINK || BPF_CORE_READ(sk, sk_protocol) != NETLINK_NETFILTER)
		return;
	if (!is_data) {
		vector = BPF_PROBE_READ_USER((struct user_msghdr *)message, msg_iov);
		data = BPF_PROBE_READ_USER(vector, iov_base);
	}
	if (changes_netfilter(data))
		__sync_fetch_and_add(&s->netfilter_changes, 1);
}

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
