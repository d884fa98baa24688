/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What a network namespace counts by itself: each CPU has a copy of its tables, which are added up. Of a table what lies
 * between the first counter that is wanted and the last is read at once. */
#ifndef KG_NET_COUNTERS_H
#define KG_NET_COUNTERS_H

#include <bpf/bpf_core_read.h>

#define MIB_IP 1
#define MIB_IP6 2
#define MIB_TCP 3
#define MIB_LINUX 4
#define MIB_UDP 5
#define MIB_UDP6 6
#define MIBS 7
#define COUNTERS 24
#define ROOM 128 /* counters of a table, and of all before it: a power of two */

/* A part of a table. */
struct span {
	__u32 first; /* the number of its first counter */
	__u32 size; /* bytes */
	__u32 at; /* where it goes in `table` */
};

const volatile struct span spans[MIBS];
const volatile __u32 wanted[COUNTERS]; /* where in `table` each is; the first place is nobody's, and zero */
__u64 table[2 * ROOM]; /* of one CPU; who walks is one at a time */

/* Where the tables of a namespace are, without a CPU's part. */
static __always_inline void find_tables(struct net *net, __u64 mibs[MIBS])
{
	mibs[MIB_IP] = (__u64)BPF_CORE_READ(net, mib.ip_statistics);
	if (bpf_core_field_exists(net->mib.ipv6_statistics))
		mibs[MIB_IP6] = (__u64)BPF_CORE_READ(net, mib.ipv6_statistics);
	mibs[MIB_TCP] = (__u64)BPF_CORE_READ(net, mib.tcp_statistics);
	mibs[MIB_LINUX] = (__u64)BPF_CORE_READ(net, mib.net_statistics);
	mibs[MIB_UDP] = (__u64)BPF_CORE_READ(net, mib.udp_statistics);
	if (bpf_core_field_exists(net->mib.udp_stats_in6))
		mibs[MIB_UDP6] = (__u64)BPF_CORE_READ(net, mib.udp_stats_in6);
}

/* Adds what the CPU whose copies are `far` away has counted. */
static __always_inline void add_copy(const __u64 mibs[MIBS], __u64 far, __u64 sums[COUNTERS])
{
	__u32 i, size, at;
	__u64 mib;

	for (i = 1; i < MIBS; i++) {
		size = spans[i].size;
		at = spans[i].at & (ROOM - 1);
		if (size > ROOM * sizeof(__u64))
			continue;
		/* What cannot be read is zero; so is what there is not. */
		mib = mibs[i] ? mibs[i] + far + spans[i].first * sizeof(__u64) : 0;
		bpf_probe_read_kernel(&table[at], size, (void *)mib);
	}
	for (i = 0; i < COUNTERS; i++)
		sums[i] += table[wanted[i] & (2 * ROOM - 1)];
}

#endif
