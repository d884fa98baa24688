/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Structs of the recorder of births that cross to userspace. Times are ns of CLOCK_MONOTONIC. A segment is one
 * program's life in one process; (tgid, start) names it. */
#ifndef KG_BIRTH_H
#define KG_BIRTH_H

#define SYSCALLS 512
#define COMM_LEN 16
#define EXE_LEN 256
#define FILE_LEN 64
#define ARGS_LEN 1024
#define ENV_LEN 2304 /* of its end, where libcni puts CNI_…; with the rest below a page */

/* What the threads of a segment did. The sums of a thread are added when it exits; less what it had done before
 * the segment, which makes them negative in between: a tally of those that live tells the rest. */
struct segment {
	__u64 start; /* 0: the slot is free */
	__u64 ended; /* 0: it lives */
	__u64 run;
	__u64 wait;
	__u64 read_bytes;
	__u64 written_bytes;
	__u64 minor_faults;
	__u64 major_faults;
	__u64 forks;
	__u64 threads_begun;
	__u64 threads_ended;
	__u64 netfilter_changes;
	__u64 foreign_syscalls;

	/* What the threads that live have done in their lives, when it was last tallied. */
	__u64 tally; /* which one that was */
	__u64 tally_ended; /* threads_ended then */
	__u64 live_wait;
	__u64 live_read_bytes;
	__u64 live_written_bytes;
	__u64 live_minor_faults;
	__u64 live_major_faults;

	__u32 tgid;
	__u32 pad;
	__u32 syscalls[SYSCALLS];
};

/* Where a process is. Namespaces are inode numbers; all 0 if it has none any more. */
struct place {
	__u64 cgroup;
	__u32 mnt;
	__u32 uts;
	__u32 ipc;
	__u32 pid;
	__u32 pid_for_children;
	__u32 net;
	__u32 cgroup_ns;
	__u32 time;
	__u32 user;
	__u32 mounts; /* 0: unknown */
};

enum birth_kind {
	BIRTH_FORKED = 1,
	BIRTH_EXECED,
	BIRTH_ENDED,
	BIRTH_WROTE,
	BIRTH_LISTENED,
};

/* What every event begins with. */
struct birth_event {
	__u64 at;
	__u64 start; /* of the segment that is begun, ends or does it; 0: it has none */
	__u32 tgid;
	__u32 kind;
	__u8 comm[COMM_LEN];
};

struct birth_forked {
	struct birth_event event; /* of the child */
	__u64 parent_start; /* 0: the parent has no segment */
	__u32 parent_tgid;
	__u32 slot;
	struct place place;
};

/* Ends the segment before it, if there is one. */
struct birth_execed {
	struct birth_event event;
	__u64 prior_start;
	__u32 prior_slot; /* 0: none */
	__u32 slot;
	__u32 parent_tgid;
	__s32 exe_len; /* with the end, as all lengths of names; negative: unreadable */
	__s32 file_len;
	__u32 args_len; /* bytes read */
	__u32 env_len;
	__u32 cut; /* CUT_… */
	/* The real user, in the initial user namespace: whose word its arguments are. A program that is set-uid has root's
	 * effective one, with arguments of whoever called it. */
	__u32 uid;
	__u32 pad;
	struct place place;
	__u8 exe[EXE_LEN];
	__u8 file[FILE_LEN];
	__u8 args[ARGS_LEN];
	__u8 env[ENV_LEN];
};

_Static_assert(sizeof(struct place) == 48, "as userspace decodes it");
_Static_assert(sizeof(struct birth_execed) == 136 + EXE_LEN + FILE_LEN + ARGS_LEN + ENV_LEN, "no holes");
_Static_assert(sizeof(struct birth_execed) <= 4096 - 8, "a page, with the ring buffer's header");

#define CUT_ARGS 1
#define CUT_ENV 2

struct birth_ended {
	struct birth_event event;
	__u32 slot;
	__u32 exit_code; /* as wait() has it */
	struct place place;
};

/* A write to a cgroup's file. */
struct birth_wrote {
	struct birth_event event;
	__u64 cgroup;
	__u32 hierarchy;
	__s32 file_len;
	__u8 file[FILE_LEN];
};

struct birth_listened {
	struct birth_event event;
	__u32 family;
	__u32 port;
};

#endif
