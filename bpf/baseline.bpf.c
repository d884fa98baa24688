// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* An empty program on sched_switch: what any program there costs. Loaded by benches/probe_cost.rs alone. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/sched_switch")
int baseline(void *ctx)
{
	return 0;
}
