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

/// `None` is unknown: so is the growth since or until then. What is added to nothing known is all that is known.
impl Counter for Option<u64> {
    fn add(&mut self, other: &Self) {
        *self = other.map(|other| self.unwrap_or_default() + other);
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        Some(self.zip(*earlier).and_then(|(now, then)| now.checked_sub(then)))
    }

    fn growth(&self, earlier: &Self) -> Self {
        self.zip(*earlier).map(|(now, then)| now.saturating_sub(then))
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
    use crate::kernel::Pressure;

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
    fn what_is_unknown_stays_so() {
        let mut sum = None;
        for (more, expected) in [(Some(0), Some(0)), (Some(5), Some(5)), (None, None), (Some(2), Some(2))] {
            sum.add(&more);
            assert_eq!(sum, expected);
        }
        assert_eq!((Some(7).since(&Some(5)), Some(7).since(&None)), (Some(Some(2)), Some(None)));
        assert_eq!((None.since(&Some(5)), Some(2).since(&Some(5))), (Some(None), Some(None)));
    }

    #[test]
    fn whichever_shrank_it_began_anew() {
        let before = whole(4, 30, &[5, 5_000]);
        for after in [whole(3, 99, &[5, 5_000]), whole(9, 29, &[5, 5_000]), whole(9, 99, &[5])] {
            assert_eq!(after.since(&before), None, "{after:?}");
        }
        assert_eq!(whole(9, 29, &[5, 5_000]).growth(&before), whole(5, 0, &[]));
    }

    #[test]
    fn all_of_a_pressure_is_at_most_its_part_and_unknown_on_its_own() {
        let pressure = |some, full| Pressure { some, full };
        let since = |now: Pressure, then| now.since(&then);
        let then = pressure(100, Some(50));
        assert_eq!(since(pressure(200, Some(90)), then), Some(pressure(100, Some(40))));
        assert_eq!(
            since(pressure(200, Some(151)), then),
            Some(pressure(100, Some(100))),
            "ahead by a moment"
        );
        assert_eq!(since(pressure(200, None), then), Some(pressure(100, None)));
        assert_eq!(since(pressure(99, Some(90)), then), None, "it began anew");
        assert_eq!(since(pressure(200, Some(49)), then), None);
        assert_eq!(pressure(90, Some(60)).growth(&then), pressure(0, Some(0)));
        let mut sum = then;
        sum.add(&pressure(1, Some(2)));
        assert_eq!(sum, pressure(101, Some(52)));
    }
}
