/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* One program for each thing the agent would like to use. src/kernel/facts/trials.rs loads and attaches them
 * one at a time: what the kernel refuses here it would refuse the probes. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "cgroup.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u64 cell;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024); /* a multiple of the page size on every machine */
} ring SEC(".maps");

SEC("?tp_btf/sched_switch")
int BPF_PROG(tp_btf, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return 0;
}

SEC("?raw_tp/sched_switch")
int raw_tracepoint(void *ctx)
{
	return 0;
}

SEC("?tracepoint/sched/sched_switch")
int tracepoint(void *ctx)
{
	return 0;
}

SEC("?iter/cgroup")
int iter_cgroup(struct bpf_iter__cgroup *ctx)
{
	return 0;
}

/* A program that may sleep, and brings the cgroups' CPU time up to date. */
SEC("?iter.s/cgroup")
int rstat_flush(struct bpf_iter__cgroup *ctx)
{
	struct cgroup *cgroup = ctx->cgroup;

	if (cgroup && ctx->meta->seq_num == 0)
		flush_usage(cgroup);
	return 0;
}

SEC("?iter/task")
int iter_task(struct bpf_iter__task *ctx)
{
	return 0;
}

/* lockdown=confidentiality takes this helper away (5.4, 9d1f8be5cf42). */
SEC("?raw_tp/sched_switch")
int read_kernel(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_probe_read_kernel(&cell, sizeof(cell), (void *)ctx->args[1]);
	return 0;
}

SEC("?raw_tp/sched_switch")
int ring_buffer(void *ctx)
{
	__u64 *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (event)
		bpf_ringbuf_discard(event, 0);
	return 0;
}

/* Atomics that return a value: since 5.12 (5ffa25502b5a, "bpf: Add instructions for atomic_[cmp]xchg"). */
SEC("?raw_tp/sched_switch")
int fetch_atomics(void *ctx)
{
	__sync_val_compare_and_swap(&cell, 1, 2);
	return 0;
}

SEC("?fentry/vfs_read")
int BPF_PROG(fentry)
{
	return 0;
}

SEC("?kprobe/vfs_read")
int kprobe(void *ctx)
{
	return 0;
}

SEC("?lsm/file_open")
int BPF_PROG(lsm, struct file *file)
{
	return 0;
}
