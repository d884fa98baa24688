//! Structs of cumulative counters: what is done to all of them is written once, so that none can be forgotten.

use super::Log2Histogram;

/// One number that only grows, or several: until what is counted starts over at zero.
pub trait Counter: Copy {
    /// Adds what another counted.
    fn add(&mut self, other: &Self);
    /// The growth since an earlier state; `None`: something shrank, it started over meanwhile.
    fn since(&self, earlier: &Self) -> Option<Self>;
    /// The same, where what shrank counts as nothing.
    fn growth(&self, earlier: &Self) -> Self;
}

impl Counter for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        self.checked_sub(*earlier)
    }

    fn growth(&self, earlier: &Self) -> Self {
        self.saturating_sub(*earlier)
    }
}

/// One that may be unknown, as a whole: with what is unknown nothing grows, and the first that is known counts from zero in a sum.
impl Counter for Option<u64> {
    fn add(&mut self, other: &Self) {
        if let Some(other) = other {
            *self.get_or_insert(0) += other;
        }
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        match (self, earlier) {
            (Some(now), Some(then)) => now.checked_sub(*then).map(Some),
            _ => Some(None),
        }
    }

    fn growth(&self, earlier: &Self) -> Self {
        self.map(|now| now.saturating_sub(earlier.unwrap_or_default()))
    }
}

/// Bucket by bucket.
impl Counter for Log2Histogram {
    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        let shrank = self.counts.iter().zip(&earlier.counts).any(|(now, then)| now < then);
        (!shrank).then(|| self.growth(earlier))
    }

    fn growth(&self, earlier: &Self) -> Self {
        let mut growth = *self;
        growth
            .counts
            .iter_mut()
            .zip(&earlier.counts)
            .for_each(|(now, then)| *now = now.saturating_sub(*then));
        growth
    }
}

/// Writes a struct of [`Counter`]s that is one itself. With `from Other`, it is a part of another: its fields are those of the
/// same names there.
macro_rules! counters {
    (
        $(#[$about:meta])*
        pub struct $name:ident $(from $whole:ty)? {
            $($(#[$doc:meta])* pub $field:ident: $counter:ty,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $counter,)+
        }

        impl $crate::kernel::Counter for $name {
            fn add(&mut self, other: &Self) {
                $($crate::kernel::Counter::add(&mut self.$field, &other.$field);)+
            }

            fn since(&self, earlier: &Self) -> Option<Self> {
                Some($name {
                    $($field: $crate::kernel::Counter::since(&self.$field, &earlier.$field)?,)+
                })
            }

            fn growth(&self, earlier: &Self) -> Self {
                $name { $($field: $crate::kernel::Counter::growth(&self.$field, &earlier.$field),)+ }
            }
        }

        $crate::kernel::counters::counters! { @part $name $($whole)?; $($field)+ }
    };
    (@part $name:ident; $($field:ident)+) => {};
    (@part $name:ident $whole:ty; $($field:ident)+) => {
        impl From<&$whole> for $name {
            fn from(whole: &$whole) -> Self {
                $name { $($field: whole.$field,)+ }
            }
        }
    };
}
pub(crate) use counters;

#[cfg(test)]
mod tests {
    use super::*;

    counters! {
        /// Two, and a histogram.
        pub struct Whole {
            pub a: u64,
            pub b: u64,
            pub lengths: Log2Histogram,
        }
    }

    counters! {
        pub struct Part from Whole {
            pub b: u64,
        }
    }

    fn whole(a: u64, b: u64, lengths: &[u64]) -> Whole {
        let mut whole = Whole { a, b, ..Whole::default() };
        lengths.iter().for_each(|ns| whole.lengths.record(*ns));
        whole
    }

    #[test]
    fn every_counter_is_added_and_subtracted() {
        let (before, after) = (whole(1, 10, &[5]), whole(4, 30, &[5, 5_000]));
        let mut sum = before;
        sum.add(&after);
        assert_eq!(sum, whole(5, 40, &[5, 5, 5_000]));
        assert_eq!(after.since(&before), Some(whole(3, 20, &[5_000])));
        assert_eq!(Part::from(&after), Part { b: 30 });
    }

    #[test]
    fn what_is_unknown_stays_so_and_is_no_beginning() {
        let (known, unknown): (Option<u64>, Option<u64>) = (Some(7), None);
        assert_eq!((known.since(&Some(5)), known.since(&Some(8))), (Some(Some(2)), None));
        assert_eq!((known.since(&unknown), unknown.since(&known)), (Some(None), Some(None)));
        assert_eq!((known.growth(&unknown), unknown.growth(&known)), (Some(7), None));
        let mut sum = unknown;
        sum.add(&unknown);
        assert_eq!(sum, None);
        sum.add(&known);
        sum.add(&unknown);
        assert_eq!(sum, Some(7));
    }

    #[test]
    fn whichever_shrank_it_began_anew() {
        let before = whole(4, 30, &[5, 5_000]);
        for after in [whole(3, 99, &[5, 5_000]), whole(9, 29, &[5, 5_000]), whole(9, 99, &[5])] {
            assert_eq!(after.since(&before), None, "{after:?}");
        }
        assert_eq!(whole(9, 29, &[5, 5_000]).growth(&before), whole(5, 0, &[]));
    }
}
