/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The network as BPF programs see it, and what differs between kernels there. */
#ifndef KG_NET_H
#define KG_NET_H

#include <bpf/bpf_core_read.h>

/* An IP address in network order. */
struct address {
	__u32 words[4];
};

/* kfree_skb has the socket it was for since 6.11 (c53795d48ee8, "net: add rx_sk to trace_kfree_skb"). */
struct trace_event_raw_kfree_skb___rx {
	void *rx_sk;
} __attribute__((preserve_access_index));

/* What a driver keeps follows the device: a field since 6.11 (13cabc47f8ae, "netdevice: define and allocate
 * &net_device _properly_"), before it was found by the size, rounded up to 32. */
struct net_device___priv {
	unsigned char priv[0];
} __attribute__((preserve_access_index));

/* Of packets that conntrack refused since its table was full. The struct may be a module's alone, whose types need more rights
 * to be read: there `drop` is taken to be the sixth, as it is in 6.1, 6.12 and 6.18. */
struct ip_conntrack_stat___known {
	unsigned int drop;
} __attribute__((preserve_access_index));

static __always_inline __u64 conntrack_drop(void)
{
	if (bpf_core_field_exists(struct ip_conntrack_stat___known, drop))
		return bpf_core_field_offset(struct ip_conntrack_stat___known, drop);
	return 5 * sizeof(__u32);
}

static __always_inline __u64 net_device_priv(void)
{
	if (bpf_core_field_exists(struct net_device___priv, priv))
		return bpf_core_field_offset(struct net_device___priv, priv);
	return (bpf_core_type_size(struct net_device) + 31) & ~31ULL;
}

#endif
