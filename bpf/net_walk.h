/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A walk over those who are in network namespaces: each of them is noted, and each namespace is met once. Whoever includes this has a
 * `struct space`, which is what it keeps of a namespace, and says by what number it knows one. */
#ifndef KG_NET_WALK_H
#define KG_NET_WALK_H

#include <bpf/bpf_helpers.h>

#define NAMESPACES 1024

/* A task of this cgroup is in this namespace. */
struct member {
	__u64 space; /* its number */
	__u64 cgroup; /* in the tree of the cpu controller */
};

/* Those that the walk met, in its order. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, NAMESPACES);
	__type(key, __u32);
	__type(value, struct space);
} spaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* userspace says how many */
	__type(key, __u32);
	__type(value, struct member);
} members SEC(".maps");

/* Number -> the walk that met it last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NAMESPACES * 2);
	__type(key, __u64);
	__type(value, __u32);
} seen SEC(".maps");

__u32 walk; /* the number of this one; userspace counts it up, and sets the next two to zero */
__u32 found_spaces; /* by it; there may be more than there is room for */
__u32 found_members;

/* A task of this cgroup is in this namespace. */
static __always_inline void note_member(__u64 number, __u64 cgroup)
{
	__u32 at = found_members;
	struct member *member;

	found_members = at + 1;
	member = bpf_map_lookup_elem(&members, &at);
	if (!member)
		return;
	member->space = number;
	member->cgroup = cgroup;
}

/* The room of a namespace that the walk meets for the first time; NULL: it was met before, or there is no room left. */
static __always_inline struct space *meet(__u64 number)
{
	__u32 *last = bpf_map_lookup_elem(&seen, &number), now = walk, at = found_spaces;

	if (last && *last == now)
		return NULL;
	bpf_map_update_elem(&seen, &number, &now, BPF_ANY);
	found_spaces = at + 1;
	return bpf_map_lookup_elem(&spaces, &at);
}

#endif
