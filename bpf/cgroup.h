/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Cgroups as BPF programs see them, and what differs between kernels there. */
#ifndef KG_CGROUP_H
#define KG_CGROUP_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The kernel keeps CPU time per CPU and sums it up when someone asks. Since 6.1 a BPF program may ask
 * (a319185be9f5, "cgroup: bpf: enable bpf programs to integrate with rstat"). The function went from cgroup_ to
 * css_rstat_flush in 6.16, when each css got counters of its own (a97915559f5c, "cgroup: change rstat function
 * signatures from cgroup-based to css-based"; 5da3bfa029d6, "cgroup: use separate rstat trees for each subsystem").
 * bpf_ksym_exists() would say which, but only since 6.4 (58aa2afbb1e6, "bpf: Allow ld_imm64 instruction to point
 * to kfunc"). */
extern void cgroup_rstat_flush(struct cgroup *cgroup) __ksym __weak;
extern void css_rstat_flush(struct cgroup_subsys_state *css) __ksym __weak;

struct cgroup_subsys_state___616 {
	void *rstat_cpu;
} __attribute__((preserve_access_index));

/* Brings the CPU time of a cgroup and all below it up to date. May sleep. */
static __always_inline void flush_usage(struct cgroup *cgroup)
{
	struct cgroup_subsys_state___616 *css = (void *)&cgroup->self;

	if (bpf_core_field_exists(css->rstat_cpu))
		css_rstat_flush(&cgroup->self);
	else
		cgroup_rstat_flush(cgroup);
}

#endif
