/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A task's cgroups by controller, in v1 and v2 alike. */
#ifndef KG_CSS_H
#define KG_CSS_H

#include <bpf/bpf_core_read.h>

static __always_inline struct cgroup_subsys_state *css_of(struct task_struct *task, int controller)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)&set->subsys + controller * sizeof(css));
	return css;
}

static __always_inline struct mem_cgroup *memory_of(struct task_struct *task)
{
	/* whose first field it is */
	return (struct mem_cgroup *)css_of(task, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
}

/* The kernfs id by the cpu controller: what readings know a cgroup by. */
static __always_inline __u64 cpu_cgroup(struct task_struct *task)
{
	return BPF_CORE_READ(css_of(task, bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id)), cgroup, kn, id);
}

#endif
