//! The clock that everything here is measured by, and what is due once in a while.

use std::time::Duration;

use super::Instant;

/// This moment in both clocks.
#[must_use]
pub fn instant() -> Instant {
    Instant { mono_ns: now(), unix_ns: read(libc::CLOCK_REALTIME) }
}

/// CLOCK_MONOTONIC, ns.
#[must_use]
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// A clock of the kernel, ns.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: given a pointer to a whole timespec; the clocks asked for here cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Something to be done once in a period of time, however often, or seldom, it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Every {
    period_ns: u64,
    /// From the first time to the second.
    first_ns: u64,
    /// `None`: not asked for yet.
    next_ns: Option<u64>,
}

impl Every {
    /// Due the first time it is asked for, and then once in `period`.
    #[must_use]
    pub const fn new(period: Duration) -> Every {
        let period_ns = period.as_nanos() as u64;
        Every { period_ns, first_ns: period_ns, next_ns: None }
    }

    /// The same, but the second time comes sooner, by `of` (any number): what began together is not done together
    /// ever after.
    #[must_use]
    pub const fn spread(period: Duration, of: u64) -> Every {
        let every = Every::new(period);
        // Sixteen places in a period.
        Every { first_ns: every.period_ns / 16 * (of % 16 + 1), ..every }
    }

    /// Whether it is to be done now (CLOCK_MONOTONIC, ns); if so, it is taken to have been.
    pub fn due(&mut self, now_ns: u64) -> bool {
        let next = match self.next_ns {
            None => now_ns.saturating_add(self.first_ns),
            Some(next) if now_ns < next => return false,
            // In step, so that readings that are never on the dot do not make the period longer; what was missed
            // is not made up for.
            Some(next) => {
                let step = next.saturating_add(self.period_ns);
                if step > now_ns { step } else { now_ns.saturating_add(self.period_ns) }
            }
        };
        self.next_ns = Some(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How often it was due, asked every `step` ns for so many seconds.
    fn times(mut every: Every, step: u64, seconds: u64) -> usize {
        (0..seconds * SECOND / step).filter(|i| every.due(i * step)).count()
    }

    #[test]
    fn once_in_a_period_whatever_the_interval() {
        let minute = Duration::from_secs(60);
        // 100 ms to a minute are the intervals the configuration takes; the first is at once.
        for (step, seconds, expected) in [
            (SECOND / 10, 600, 10),
            (SECOND, 600, 10),
            (7 * SECOND, 600, 10),
            (60 * SECOND, 600, 10),
            (90 * SECOND, 900, 10),
        ] {
            assert_eq!(times(Every::new(minute), step, seconds), expected, "asked every {step} ns");
        }
        let mut every = Every::new(minute);
        assert!(every.due(5 * SECOND) && !every.due(5 * SECOND) && !every.due(65 * SECOND - 1));
        assert!(every.due(65 * SECOND));
        // Asked late, it is due once, and not again for what was missed.
        assert!(every.due(1000 * SECOND) && !every.due(1059 * SECOND) && every.due(1060 * SECOND));
    }

    #[test]
    fn what_began_together_is_spread() {
        let period = Duration::from_secs(16);
        let second = |of: u64| {
            let mut every = Every::spread(period, of);
            assert!(every.due(0));
            (1..).find(|s| every.due(s * SECOND)).expect("due again")
        };
        let mut seconds: Vec<u64> = (0..16).map(second).collect();
        seconds.sort_unstable();
        assert_eq!(seconds, (1..=16).collect::<Vec<_>>());
        assert_eq!(times(Every::spread(period, 3), SECOND, 160), 11);
    }

    #[test]
    fn the_clock_runs() {
        let before = now();
        assert!(before > 0 && now() >= before);
    }
}
