/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How a program reads kernel memory; a constant in each entry point, so that the compiler leaves one of the ways. */
#ifndef KG_HOW_H
#define KG_HOW_H

#include <bpf/bpf_core_read.h>

struct how {
	bool btf; /* the arguments are typed: read fields directly, else by probe_read */
	bool reads; /* bpf_probe_read_kernel and bpf_probe_read_user may be used */
};

/* A field, through pointers: READ(how, task, cgroups, dfl_cgrp, kn, id). */
#define READ(how, ptr, ...) ((how).btf ? ___arrow(ptr, __VA_ARGS__) : BPF_CORE_READ(ptr, __VA_ARGS__))

#endif
