//! The log2 histogram the BPF programs keep (`bpf/hist.h`), bucket for bucket an OTLP exponential
//! histogram of scale 0 in seconds.

/// Buckets of a [`Log2Histogram`]; the same number as `HIST_BUCKETS` in `bpf/hist.h`.
pub const BUCKETS: usize = 32;

/// Bucket `i` holds durations in (2^(i+MIN_EXPONENT), 2^(i+1+MIN_EXPONENT)] seconds: the OTLP
/// exponential-histogram bucket of index `i + MIN_EXPONENT` at scale 0. The first bucket also takes
/// everything shorter (below 60 ns), the last everything longer (over 128 s).
pub const MIN_EXPONENT: i32 = -24;

/// Durations counted by powers of two of a second. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log2Histogram {
    /// Counts; see [`MIN_EXPONENT`] for the bounds of bucket `i`.
    pub counts: [u64; BUCKETS],
}

impl Log2Histogram {
    /// Counts a duration, ns, as `hist_bucket` in `bpf/hist.h` does.
    pub fn record(&mut self, ns: u64) {
        // The first bucket whose upper bound, 2^(i - 23) s, is not below it.
        let bound = |i: &usize| u128::from(ns) << 23 <= 1_000_000_000_u128 << i;
        let bucket = (0..BUCKETS).find(bound).unwrap_or(BUCKETS - 1);
        self.counts[bucket] += 1;
    }

    /// The number of durations counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of bucket `i`, in seconds.
    pub fn upper_bound(i: usize) -> f64 {
        f64::powi(2.0, i as i32 + 1 + MIN_EXPONENT)
    }

    /// The upper bound, in seconds, of the bucket that holds the `q` quantile (0..=1); `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (q * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= rank {
                return Some(Self::upper_bound(i));
            }
        }
        None
    }
}
