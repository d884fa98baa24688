/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* System calls as raw sys_enter gives them: the numbers the recorder looks into, and how a call of another ABI is
 * told. Numbers are those of arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. */
#ifndef KG_SYSCALLS_H
#define KG_SYSCALLS_H

#if defined(__TARGET_ARCH_x86)
enum {
	SYS_WRITE = 1,
	SYS_PWRITE64 = 18,
	SYS_WRITEV = 20,
	SYS_SENDTO = 44,
	SYS_SENDMSG = 46,
	SYS_SETSOCKOPT = 54,
	SYS_PWRITEV = 296,
	SYS_SENDMMSG = 307,
	SYS_PWRITEV2 = 328,
};
#define ARG(how, regs, n) READ(how, regs, ARG_##n)
#define ARG_1 di
#define ARG_2 si
#define ARG_3 dx
#define USER_CS 0x33 /* arch/x86/include/asm/segment.h; a 32-bit program has 0x23 */
#define OTHER_ABI(how, regs) (READ(how, regs, cs) != USER_CS)
#elif defined(__TARGET_ARCH_arm64)
enum {
	SYS_WRITE = 64,
	SYS_WRITEV = 66,
	SYS_PWRITE64 = 68,
	SYS_PWRITEV = 70,
	SYS_SENDTO = 206,
	SYS_SETSOCKOPT = 208,
	SYS_SENDMSG = 211,
	SYS_SENDMMSG = 269,
	SYS_PWRITEV2 = 287,
};
/* The registers are overwritten by the result alone, which comes later. */
#define ARG(how, regs, n) READ(how, regs, user_regs.regs[(n) - 1])
#define MODE32 0x10 /* PSR_MODE32_BIT, arch/arm64/include/uapi/asm/ptrace.h */
#define OTHER_ABI(how, regs) (READ(how, regs, user_regs.pstate) & MODE32)
#else
#error "no system call numbers for this machine"
#endif

#endif
