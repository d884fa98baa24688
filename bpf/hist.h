/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Log2 histograms whose buckets are exactly those of an OTLP exponential histogram of scale 0 in
 * seconds: bucket i counts durations in (2^(i-24), 2^(i-23)] s. src/kernel/hist.rs is the reader. */
#ifndef KG_HIST_H
#define KG_HIST_H

#include "wire.h"

/* 2^-30 s units per ns, times 2^30: bounds that are powers of two of a nanosecond would not be
 * powers of two of a second. */
#define UNITS_PER_NS 1152921505ULL
#define HIST_MIN_LOG2 6 /* 2^-24 s in units of 2^-30 s */

static __always_inline __u32 hist_bucket(__u64 ns)
{
	__u64 units;
	__u32 log2 = 0, bucket;

	if (ns >> 33) /* keeps the product within 64 bits */
		units = ((ns >> 16) * UNITS_PER_NS) >> 14;
	else
		units = (ns * UNITS_PER_NS) >> 30;
	if (units) /* a bucket holds its upper bound, not its lower */
		units--;
	if (units >> 32) {
		units >>= 32;
		log2 += 32;
	}
	if (units >> 16) {
		units >>= 16;
		log2 += 16;
	}
	if (units >> 8) {
		units >>= 8;
		log2 += 8;
	}
	if (units >> 4) {
		units >>= 4;
		log2 += 4;
	}
	if (units >> 2) {
		units >>= 2;
		log2 += 2;
	}
	log2 += units >> 1;
	bucket = log2 < HIST_MIN_LOG2 ? 0 : log2 - HIST_MIN_LOG2;
	return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

#endif
