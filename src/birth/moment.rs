//! Where two clocks meet: the API server's whole seconds on the kernel's nanoseconds. Pure.

/// A time that is known only to lie in [`early`, `late`], ms after the zero of a birth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    pub early: f64,
    pub late: f64,
}

impl Moment {
    /// What the kernel saw.
    pub fn exact(ms: f64) -> Moment {
        Moment { early: ms, late: ms }
    }

    /// A time that the API server has as `second` (since the Unix epoch, cut to whole seconds), for a birth
    /// whose zero is `zero_unix_ns`; it was not before `after` nor after `before` (ms), as far as those are
    /// known. Where the two contradict each other the clocks differ, and the API's word counts: in a whole second.
    pub fn of_second(second: i64, zero_unix_ns: u64, after: Option<f64>, before: Option<f64>) -> Moment {
        let from = (second as i128 * 1_000_000_000 - i128::from(zero_unix_ns)) as f64 / 1e6;
        let to = from + 1000.0;
        let early = after.map_or(from, |after| from.max(after));
        let late = before.map_or(to, |before| to.min(before));
        if early <= late { Moment { early, late } } else { Moment { early: from, late: to } }
    }

    /// How much earlier than [`Moment::late`] it may have been; `None` for what the kernel saw.
    pub fn uncertainty(self) -> Option<f64> {
        (self.late > self.early).then_some(self.late - self.early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: u64 = 1_700_000_000_400_000_000;

    #[test]
    fn a_second_is_narrowed_by_what_the_kernel_saw() {
        let at = |after, before| Moment::of_second(1_700_000_001, ZERO, after, before);
        assert_eq!(at(None, None), Moment { early: 600.0, late: 1600.0 });
        assert_eq!(at(Some(900.0), Some(1200.0)), Moment { early: 900.0, late: 1200.0 });
        assert_eq!(at(Some(900.0), Some(1200.0)).uncertainty(), Some(300.0));
        assert_eq!(at(Some(2000.0), None), Moment { early: 600.0, late: 1600.0 }, "the clocks differ");
        assert_eq!(Moment::exact(5.0).uncertainty(), None);
    }

    proptest::proptest! {
        #[test]
        fn the_moment_lies_in_its_second(
            second in 1_600_000_000i64..1_800_000_000,
            zero in 1_600_000_000u64..1_800_000_000,
            after in proptest::option::of(-1e6..1e6f64),
            before in proptest::option::of(-1e6..1e6f64),
        ) {
            let m = Moment::of_second(second, zero * 1_000_000_000, after, before);
            let from = (second - zero as i64) as f64 * 1000.0;
            proptest::prop_assert!(from <= m.early && m.early <= m.late && m.late <= from + 1000.0);
        }
    }
}
