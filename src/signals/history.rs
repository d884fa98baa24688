//! The last two minutes of a workload, for readers that integrate over a window of their own. Kept
//! only for those that are throttled or whisper.

use std::collections::VecDeque;
use std::time::Duration;

use super::window::{Counters, nanos};
use crate::evidence::HistoryPoint;
use crate::kernel::Instant;

/// Points kept.
const MAX: usize = 120;

/// How far back, and how far apart at least: with an interval of a second each sample is a point,
/// late ones included.
const REACH: Duration = Duration::from_secs(120);
const SPACING: Duration = Duration::from_millis(900);

#[derive(Debug)]
pub struct History {
    points: VecDeque<(u64, HistoryPoint)>,
    /// Last time throttled time grew, ns of the monotonic clock.
    throttled_ns: u64,
}

impl History {
    /// Begins at `now` with the samples at hand.
    pub fn new<'a>(now: Instant, samples: impl Iterator<Item = &'a (Instant, Counters)>) -> Self {
        let mut history = History { points: VecDeque::with_capacity(MAX), throttled_ns: now.mono_ns };
        for (at, counters) in samples {
            history.push(*at, counters);
        }
        history
    }

    /// Adds a sample unless it is too close to the last or does not know enough.
    pub fn push(&mut self, at: Instant, counters: &Counters) {
        let (Some(used), Some(throttled)) = (counters.used(), counters.throttled_per_cpu()) else { return };
        let point = HistoryPoint {
            unix_ns: at.unix_ns,
            cpu_usage_ns: used,
            throttled_ns: throttled,
            throttled_wall_ns: counters.scheduler.map(|s| s.throttled_wall),
        };
        if let Some((last_ns, last)) = self.points.back() {
            if !follows(last, &point) {
                self.points.clear();
            } else if at.mono_ns.saturating_sub(*last_ns) < nanos(SPACING) {
                return;
            } else if point.throttled_ns > last.throttled_ns {
                self.throttled_ns = at.mono_ns;
            }
        }
        let old = |(mono_ns, _): &(u64, _)| at.mono_ns.saturating_sub(*mono_ns) > nanos(REACH);
        while self.points.len() >= MAX || self.points.front().is_some_and(old) {
            self.points.pop_front();
        }
        self.points.push_back((at.mono_ns, point));
    }

    /// Nothing was throttled for as long as it reaches back.
    pub fn quiet(&self, now: Instant) -> bool {
        now.mono_ns.saturating_sub(self.throttled_ns) > nanos(REACH)
    }

    /// Copies the points, oldest first.
    pub fn copy_to(&self, out: &mut Vec<HistoryPoint>) {
        out.clear();
        out.extend(self.points.iter().map(|(_, point)| *point));
    }
}

/// Counters of the same source that did not shrink.
fn follows(last: &HistoryPoint, next: &HistoryPoint) -> bool {
    next.cpu_usage_ns >= last.cpu_usage_ns
        && next.throttled_ns >= last.throttled_ns
        && next.throttled_wall_ns.is_some() == last.throttled_wall_ns.is_some()
        && next.throttled_wall_ns >= last.throttled_wall_ns
}
