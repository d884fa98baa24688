/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Where a process is when a fact is told of it: its cgroup, its namespaces and what is mounted in its sight. */
#ifndef KG_BIRTH_PLACE_H
#define KG_BIRTH_PLACE_H

#include "birth.h"
#include "core_fixes.h"
#include "how.h"

#define MOUNT_DEPTH 8

/* Set by userspace before loading: the tree that the scheduler's cgroups belong to is v2's. */
const volatile bool unified = true;
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

#endif
