/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Where each CPU has its copy of a per-CPU variable of the kernel, without any kernel symbol: as far from the variable's base as
 * the copy of a map of our own is from the base of that.
 *
 * A CPU is known by its number, and numbers may be left out (0-3,8-11): of one that no CPU has the kernel tells a place all the
 * same, and what is there is nothing's. Userspace says which there are (src/kernel/cpus.rs). */
#ifndef KG_PERCPU_H
#define KG_PERCPU_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define MOST_CPUS 8192 /* for which a kernel can be built (x86's MAXSMP); a power of two */

const volatile __u64 possible_cpus[MOST_CPUS / 64]; /* a bit each */
const volatile __u32 cpus_end; /* the highest one's number, and one */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} anchor SEC(".maps");

/* An address as a number: the verifier allows no arithmetic on it otherwise. A program that includes this runs on one CPU at
 * a time. */
static volatile __u64 address_as_number;

/* The base of our own variable. */
static __always_inline __u64 anchor_base(void)
{
	address_as_number = (__u64)&anchor;
	return (__u64)BPF_CORE_READ((struct bpf_array *)address_as_number, pptrs[0]);
}

/* How far from a variable's base this CPU has its copy; `base`: anchor_base(). False: there is no such CPU. (5.19) */
static __always_inline bool copy_at(__u32 cpu, __u64 base, __u64 *far)
{
	__u32 zero = 0;
	void *own;

	if (!(possible_cpus[cpu / 64 & (MOST_CPUS / 64 - 1)] >> (cpu % 64) & 1))
		return false;
	own = bpf_map_lookup_percpu_elem(&anchor, &zero, cpu);
	if (!own)
		return false;
	address_as_number = (__u64)own;
	*far = address_as_number - base;
	return true;
}

#endif
