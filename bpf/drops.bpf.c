// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Packets that the kernel threw away, by network namespace and the kernel's reason, and what each namespace sent and received.
 *
 * Hooks: the tracepoint kfree_skb, which fires where a packet ends unused (the end of one that was read is consume_skb), and
 * an iterator over cgroups, run by userspace once in a while. A packet that arrives whole
 * costs nothing; one that is dropped 0.33 µs (20,000 behind a bridge, the dearest way), a walk 0.63 µs a cgroup.
 *
 * The iterator finds the namespaces: the tasks of each cgroup have one. An iterator over tasks would be shorter, but it
 * shows those of the reader's PID namespace alone, and the agent's pod has one of its own. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "net.h"
#include "net_counters.h"
#include "percpu.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define PACKET_HOST 0
#define PACKET_OUTGOING 4
#define TIME_WAIT 6 /* TCP_TIME_WAIT */
#define CLOSED 7 /* TCP_CLOSE */
#define NEW_SYN_RECV 12 /* TCP_NEW_SYN_RECV */
#define REASONS 256 /* a power of two */
#define ADDRESSES 8192
#define DROPS 8192

/* Who lost packets, and why. */
struct drop_key {
	__u64 space; /* cookie of the network namespace in which it was dropped; 0: unknown */
	__u64 other; /* of the one that sent it or that it was for, if that is another; 0: unknown */
	__u64 cgroup; /* of the socket, in the unified tree; 0: unknown */
	__u32 reason;
	__u8 out; /* `space` sent it; else it was for it */
	__u8 other_out; /* `other` sent it; else it was for it */
	__u8 early; /* of those that `space` sent: in OUTPUT, before it had a device */
	__u8 untracked; /* of those that netfilter dropped: conntrack has not taken them in */
};

/* A network namespace at the last walk. */
struct space {
	__u64 cookie;
	__u64 counters[COUNTERS]; /* as `wanted` says */
	__u64 conntrack_full; /* packets that conntrack had no room for */
	__u64 interface_dropped; /* by its interfaces' own counters */
	__u32 interfaces_unknown; /* some of which are of no kind that is known here */
	__u32 pad;
};

#include "net_walk.h"

const volatile __u8 ignored[REASONS]; /* reasons of the kernel's core that are no loss */
const volatile __u32 unspecified; /* SKB_DROP_REASON_NOT_SPECIFIED */
const volatile __u32 no_socket; /* SKB_DROP_REASON_NO_SOCKET */
const volatile __u32 odd_flags; /* SKB_DROP_REASON_TCP_FLAGS */
const volatile __u32 netfilter; /* SKB_DROP_REASON_NETFILTER_DROP */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DROPS);
	__type(key, struct drop_key);
	__type(value, __u64);
} drops SEC(".maps");

/* IP address -> the namespace that has it; those of v4 as ::ffff:a.b.c.d. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ADDRESSES);
	__type(key, struct address);
	__type(value, __u64);
} addresses SEC(".maps");

__u64 not_losses; /* packets and parts of them that ended without being lost */
__u64 drops_lost; /* packets for which the table had no room */

enum cable { NO_CABLE,
	     VETH,
	     NETKIT };

static __always_inline enum cable cable_of(struct net_device *dev)
{
	const char *name = BPF_CORE_READ(dev, rtnl_link_ops, kind);
	char kind[8] = {};

	if (!name)
		return NO_CABLE;
	bpf_probe_read_kernel_str(kind, sizeof(kind), name);
	if (kind[0] == 'v' && kind[1] == 'e' && kind[2] == 't' && kind[3] == 'h' && !kind[4])
		return VETH;
	if (kind[0] == 'n' && kind[1] == 'e' && kind[2] == 't' && kind[3] == 'k' && kind[4] == 'i')
		return NETKIT;
	return NO_CABLE;
}

/* The namespace at the other end of a virtual cable; NULL: it is none. */
static __always_inline struct net *peer_of(struct net_device *dev)
{
	struct net_device *peer = NULL;

	if (cable_of(dev) == NO_CABLE)
		return NULL;
	bpf_probe_read_kernel(&peer, sizeof(peer), (void *)dev + net_device_priv());
	return peer ? BPF_CORE_READ(peer, nd_net.net) : NULL;
}

/* Whose address this is; `at`: where in the network header. */
static __always_inline __u64 owner_of(void *header, bool v6, __u32 at4, __u32 at6)
{
	struct address address = {};
	__u64 *cookie;

	if (v6) {
		bpf_probe_read_kernel(&address, sizeof(address), header + at6);
	} else {
		address.words[2] = bpf_htonl(0xffff);
		bpf_probe_read_kernel(&address.words[3], sizeof(__u32), header + at4);
	}
	cookie = bpf_map_lookup_elem(&addresses, &address);
	return cookie ? *cookie : 0;
}

/* That nobody waits for it is no loss: a segment with RST; an answer to a ping, of which a raw socket, as most pings use, has had
 * its copy before (ping_rcv() knows its own sockets alone). */
static __always_inline bool is_for_nobody(struct sk_buff *skb, void *header, bool v6)
{
	__u16 transport = BPF_CORE_READ(skb, transport_header), network = BPF_CORE_READ(skb, network_header);
	__u8 protocol = 0, flags = 0;

	bpf_probe_read_kernel(&protocol, 1, header + (v6 ? 6 : 9));
	if (protocol == (v6 ? 58 : 1)) /* ICMP */
		return true;
	if (protocol != 6 || transport == 0xffff || transport <= network)
		return false;
	bpf_probe_read_kernel(&flags, 1, header + (transport - network) + 13);
	return flags & 4;
}

/* A segment without data. One that came to its socket is freed with no reason where that has nothing more to receive, once what it
 * acknowledges is known: in CLOSE_WAIT, CLOSING and LAST_ACK (tcp_rcv_state_process()), and in TIME_WAIT, to which the other's end
 * comes. For its flags is one freed that comes late for a connection that is over, where a socket listens. */
static __always_inline bool is_empty_segment(struct sk_buff *skb, void *header, bool v6)
{
	__u16 transport = BPF_CORE_READ(skb, transport_header), network = BPF_CORE_READ(skb, network_header), length = 0;
	__u8 protocol = 0, offset = 0;

	bpf_probe_read_kernel(&protocol, 1, header + (v6 ? 6 : 9));
	if (protocol != 6 || transport == 0xffff || transport <= network)
		return false;
	bpf_probe_read_kernel(&length, sizeof(length), header + (v6 ? 4 : 2));
	bpf_probe_read_kernel(&offset, 1, header + (transport - network) + 12);
	/* IPv6 does not count its own header. */
	return bpf_ntohs(length) + (v6 ? 40 : 0) == transport - network + (offset >> 4) * 4;
}

static __always_inline int on_drop(struct sk_buff *skb, __u32 reason, struct sock *rx_sk)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	struct sock *sk = BPF_CORE_READ(skb, sk);
	struct drop_key key = {};
	__u16 protocol = BPF_CORE_READ(skb, protocol), network;
	bool v6 = protocol == bpf_htons(ETH_P_IPV6), of_socket;
	__u8 type = BPF_CORE_READ_BITFIELD_PROBED(skb, pkt_type), state = 0;
	__u32 iif = BPF_CORE_READ(skb, skb_iif), ifindex = 0;
	struct net *net = NULL, *peer;
	void *header;
	__u64 *count, one = 1, by;

	if ((!v6 && protocol != bpf_htons(ETH_P_IP)) || (type != PACKET_HOST && type != PACKET_OUTGOING))
		return 0;
	if (reason < REASONS && ignored[reason & (REASONS - 1)])
		goto no_loss;
	network = BPF_CORE_READ(skb, network_header);
	header = (void *)BPF_CORE_READ(skb, head) + network;
	if (reason == no_socket && is_for_nobody(skb, header, v6))
		goto no_loss;
	if ((reason == unspecified || reason == odd_flags) && iif && is_empty_segment(skb, header, v6))
		goto no_loss;
	if (!sk)
		sk = rx_sk;
	of_socket = sk != NULL;
	if (sk) {
		__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

		if (family != 2 && family != 10) /* AF_INET, AF_INET6: others, as AF_PACKET, are copies */
			goto no_loss;
		state = BPF_CORE_READ(sk, __sk_common.skc_state);
		/* What a TCP socket still had when it was closed is told with no reason: all of it before 6.2 (a QUEUE_PURGE since), and
		 * what had come out of order since then too (there the tree it was in has overwritten `dev`). */
		if (reason == unspecified && state == CLOSED && BPF_CORE_READ(sk, sk_protocol) == 6)
			goto no_loss;
		/* Data for a connection that its program closed is answered with a reset. */
		if (reason == unspecified && state == TIME_WAIT)
			goto no_loss;
		net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
		key.out = !rx_sk && !iif;
		key.early = key.out && !dev;
	} else if (dev) {
		ifindex = BPF_CORE_READ(dev, ifindex);
		net = BPF_CORE_READ(dev, nd_net.net);
		key.out = !iif;
	} else {
		unsigned long dst = BPF_CORE_READ(skb, _skb_refdst) & ~1UL;

		net = dst ? BPF_CORE_READ((struct dst_entry *)dst, dev, nd_net.net) : NULL;
		key.out = 1;
	}
	if (net)
		key.space = BPF_CORE_READ(net, net_cookie);
	if (!of_socket) {
		/* On its way through the host it is of whoever is at the other end, or has one of the addresses. A bridge keeps no
		 * port: behind one the address is all there is. Which of the two namespaces it is given to, userspace decides, as
		 * that depends on who is in them. */
		peer = dev ? peer_of(dev) : NULL;
		if (peer && peer != net) {
			key.other = BPF_CORE_READ(peer, net_cookie);
			key.other_out = iif == ifindex;
		} else if ((by = owner_of(header, v6, 12, 8)) && by != key.space) {
			key.other = by;
			key.other_out = 1;
		} else if ((by = owner_of(header, v6, 16, 24)) && by != key.space) {
			key.other = by;
		}
	} else if (state != TIME_WAIT && state != NEW_SYN_RECV) {
		/* The others are no full sockets. */
		key.cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	}
	key.reason = reason;
	if (reason == netfilter && bpf_core_field_exists(skb->_nfct))
		key.untracked = !BPF_CORE_READ(skb, _nfct);
	count = bpf_map_lookup_elem(&drops, &key);
	if (count) {
		__sync_fetch_and_add(count, 1);
		return 0;
	}
	if (!bpf_map_update_elem(&drops, &key, &one, BPF_NOEXIST))
		return 0;
	/* Another CPU was first, or there is no room. */
	count = bpf_map_lookup_elem(&drops, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&drops_lost, 1);
	return 0;
no_loss:
	__sync_fetch_and_add(&not_losses, 1);
	return 0;
}

#define ON_DROP(suffix, hook)                                                            \
	SEC("?" hook "/kfree_skb")                                                       \
	int kfree_skb_##suffix(__u64 *ctx)                                               \
	{                                                                                \
		struct sock *rx_sk = NULL;                                               \
                                                                                         \
		if (bpf_core_field_exists(struct trace_event_raw_kfree_skb___rx, rx_sk)) \
			rx_sk = (struct sock *)ctx[3];                                   \
		return on_drop((struct sk_buff *)ctx[0], ctx[2], rx_sk);                 \
	}

ON_DROP(btf, "tp_btf")
ON_DROP(raw, "raw_tp")

/* The sums of a namespace's counters. */
struct summing {
	__u64 base;
	__u64 mibs[MIBS];
	__u64 conntrack; /* its table, without a CPU's part; 0: it has none */
	__u64 conntrack_full;
	__u64 core[2]; /* the core's counters of its first interfaces, without a CPU's part; 0: none */
	__u64 dropped;
	__u64 sums[COUNTERS];
};

static int add_cpu(__u32 cpu, struct summing *sum)
{
	__u64 far, core[2]; /* rx_dropped, tx_dropped: the first of net_device_core_stats, local_t in 6.1 */
	__u32 full = 0;
	int i;

	if (!copy_at(cpu, sum->base, &far))
		return 0;
	add_copy(sum->mibs, far, sum->sums);
	if (sum->conntrack) {
		bpf_probe_read_kernel(&full, sizeof(full), (void *)(sum->conntrack + far + conntrack_drop()));
		sum->conntrack_full += full;
	}
	for (i = 0; i < 2; i++) {
		if (!sum->core[i])
			continue; /* nothing to count so far: allocated by the first */
		bpf_probe_read_kernel(core, sizeof(core), (void *)(sum->core[i] + far));
		sum->dropped += core[0] + core[1];
	}
	return 0;
}

/* What its interfaces say was dropped, as /proc/net/dev has it (dev_get_stats): the driver's counter, and those of the core on
 * each CPU. Drops by XDP programs on a veth are left out. */
static __always_inline void find_interfaces(struct net *net, struct summing *sum, struct space *space)
{
	__u64 head = (__u64)net + bpf_core_field_offset(struct net, dev_base_head);
	__u64 at = (__u64)BPF_CORE_READ(net, dev_base_head.next), dropped;
	struct net_device *dev;
	__u32 i, found = 0, flags;
	enum cable cable;

	space->interfaces_unknown = 0;
	for (i = 0; i < 8 && at && at != head; i++) {
		dev = (void *)(at - bpf_core_field_offset(struct net_device, dev_list));
		at = (__u64)BPF_CORE_READ(dev, dev_list.next);
		flags = BPF_CORE_READ(dev, flags);
		if (flags & 8 || !(flags & 1)) /* IFF_LOOPBACK, IFF_UP */
			continue;
		cable = cable_of(dev);
		if (cable == NO_CABLE || found >= 2 || !bpf_core_field_exists(dev->core_stats)) {
			space->interfaces_unknown = 1;
			continue;
		}
		dropped = 0;
		if (cable == VETH)
			bpf_probe_read_kernel(&dropped, sizeof(dropped), (void *)dev + net_device_priv() + 8);
		else
			dropped = BPF_CORE_READ(dev, stats.tx_dropped);
		sum->dropped += dropped;
		sum->core[found++ & 1] = (__u64)BPF_CORE_READ(dev, core_stats);
	}
	if (at && at != head)
		space->interfaces_unknown = 1;
}

static __always_inline void read_counters(struct net *net, struct space *space)
{
	struct summing sum = { .base = anchor_base() };
	int i;

	find_tables(net, sum.mibs);
	if (bpf_core_field_exists(net->ct.stat))
		sum.conntrack = (__u64)BPF_CORE_READ(net, ct.stat);
	find_interfaces(net, &sum, space);
	bpf_loop(cpus_end, add_cpu, &sum, 0);
	for (i = 0; i < COUNTERS; i++)
		space->counters[i] = sum.sums[i];
	space->conntrack_full = sum.conntrack_full;
	space->interface_dropped = sum.dropped;
}

/* The addresses of the first devices of a namespace, the first few of each. */
static __always_inline void read_addresses(struct net *net, __u64 cookie)
{
	__u64 head = (__u64)net + bpf_core_field_offset(struct net, dev_base_head);
	__u64 at = (__u64)BPF_CORE_READ(net, dev_base_head.next), next6, head6;
	struct address address;
	struct net_device *dev;
	struct in_ifaddr *v4;
	struct inet6_dev *in6;
	struct in_device *in4;
	int i, j;

	for (i = 0; i < 8 && at && at != head; i++) {
		dev = (void *)(at - bpf_core_field_offset(struct net_device, dev_list));
		if (BPF_CORE_READ(dev, flags) & 8) /* IFF_LOOPBACK */
			goto next;
		in4 = BPF_CORE_READ(dev, ip_ptr);
		v4 = in4 ? BPF_CORE_READ(in4, ifa_list) : NULL;
		for (j = 0; j < 4 && v4; j++) {
			address = (struct address){ { 0, 0, bpf_htonl(0xffff), BPF_CORE_READ(v4, ifa_local) } };
			bpf_map_update_elem(&addresses, &address, &cookie, BPF_ANY);
			v4 = BPF_CORE_READ(v4, ifa_next);
		}
		if (!bpf_core_field_exists(dev->ip6_ptr)) /* no CONFIG_IPV6 */
			goto next;
		in6 = BPF_CORE_READ(dev, ip6_ptr);
		if (!in6)
			goto next;
		head6 = (__u64)in6 + bpf_core_field_offset(struct inet6_dev, addr_list);
		next6 = (__u64)BPF_CORE_READ(in6, addr_list.next);
		for (j = 0; j < 4 && next6 && next6 != head6; j++) {
			struct inet6_ifaddr *v6 = (void *)(next6 - bpf_core_field_offset(struct inet6_ifaddr, if_list));

			bpf_core_read(&address, sizeof(address), &v6->addr);
			/* Each link has its fe80::/10: they name nobody. */
			if ((bpf_ntohl(address.words[0]) & 0xffc00000) != 0xfe800000)
				bpf_map_update_elem(&addresses, &address, &cookie, BPF_ANY);
			next6 = (__u64)BPF_CORE_READ(v6, if_list.next);
		}
	next:
		at = (__u64)BPF_CORE_READ(dev, dev_list.next);
	}
}

SEC("?iter/cgroup")
int find_spaces(struct bpf_iter__cgroup *ctx)
{
	struct cgroup *cgrp = ctx->cgroup, *self;
	struct task_struct *task = NULL;
	struct cgrp_cset_link *link;
	struct css_set *set;
	struct space *space;
	struct net *net = NULL;
	__u64 at, head, task_at, cookie;
	int i, j;

	if (!cgrp)
		return 0;
	self = BPF_CORE_READ(cgrp, self.cgroup); /* itself, as a number */
	head = (__u64)self + bpf_core_field_offset(struct cgroup, cset_links);
	at = (__u64)BPF_CORE_READ(self, cset_links.next);
	for (i = 0; i < 8 && at && at != head && !net; i++) {
		link = (void *)(at - bpf_core_field_offset(struct cgrp_cset_link, cset_link));
		set = BPF_CORE_READ(link, cset);
		task_at = (__u64)BPF_CORE_READ(set, tasks.next);
		/* The first may be on its way out, and have no namespaces any more. */
		for (j = 0; j < 4 && !net; j++) {
			if (!task_at || task_at == (__u64)set + bpf_core_field_offset(struct css_set, tasks))
				break;
			task = (void *)(task_at - bpf_core_field_offset(struct task_struct, cg_list));
			net = BPF_CORE_READ(task, nsproxy, net_ns);
			task_at = (__u64)BPF_CORE_READ(task, cg_list.next);
		}
		at = (__u64)BPF_CORE_READ(link, cset_link.next);
	}
	if (!net)
		return 0;
	cookie = BPF_CORE_READ(net, net_cookie);
	if (!cookie)
		return 0;
	note_member(cookie, BPF_CORE_READ(self, kn, id));
	space = meet(cookie);
	if (!space)
		return 0;
	space->cookie = cookie;
	read_counters(net, space);
	read_addresses(net, cookie);
	return 0;
}
