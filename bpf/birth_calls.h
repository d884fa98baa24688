/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What a system call is about, by what its file is: a write to a file of a cgroup, a message that changes netfilter. Included where
 * the events and their ring buffer are. */
#ifndef KG_BIRTH_CALLS_H
#define KG_BIRTH_CALLS_H

#include "birth.h"
#include "how.h"

#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270
#define S_IFMT 00170000
#define S_IFSOCK 0140000
#define FMODE_WRITE 2 /* include/linux/fs.h */
#define AF_NETLINK 16
#define NETLINK_NETFILTER 12
#define NFNL_SUBSYS_CTNETLINK 1
#define NFNL_SUBSYS_CTNETLINK_EXP 2
#define NFNL_SUBSYS_IPSET 6
#define NFNL_MSG_BATCH_BEGIN 0x10
#define NFNL_MSG_BATCH_END 0x11

/* Those of all files of cgroups (kernfs_file_fops), once one was written to: other files are told by them. */
__u64 cgroup_operations;

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
	/* Anybody may open most of them to read, and ask for a write that is refused. */
	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return;
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

#endif
