//! What the view knows: the newest frame, and what the ones before it come to. Made of the last [`FRAMES`] frames alone, so that
//! a replay that begins so far before a frame shows what the live view showed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::sinks::frames::{Frame, Row, Said, Shown};

/// Frames that lines are kept of.
pub const FRAMES: usize = 300;

/// Frames that a sparkline shows.
pub const SERIES: usize = 120;

/// Lines that are kept.
const LINES: usize = 200;

/// A workload's numbers in one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Percent of the interval.
    pub lost: f32,
    pub throttled: f32,
    pub contended: f32,
    pub memory: f32,
    pub disk: f32,
    /// Cores.
    pub cores: f32,
}

impl Point {
    fn of(row: &Row) -> Point {
        let number = |n: Option<f64>| n.unwrap_or(0.0) as f32;
        Point {
            lost: row.lost_percent as f32,
            throttled: number(row.throttled_percent),
            contended: number(row.contended_percent),
            memory: number(row.memory_percent),
            disk: number(row.disk_percent),
            cores: number(row.usage_cores),
        }
    }
}

/// The last points of one workload, and the frame of the newest.
#[derive(Clone, Debug, Default)]
struct Series {
    points: VecDeque<Point>,
    newest: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Past {
    newest: Arc<Frame>,
    /// Frames taken so far.
    taken: u64,
    lines: VecDeque<(u64, Said)>,
    series: HashMap<Shown, Series>,
}

impl Past {
    /// Takes the next frame.
    pub fn take(&mut self, frame: Arc<Frame>) {
        self.taken += 1;
        let taken = self.taken;
        for row in &frame.workloads {
            let series = match self.series.get_mut(&row.cgroup) {
                Some(series) => series,
                None => {
                    let series = Series { newest: taken - 1, ..Series::default() };
                    self.series.entry(row.cgroup.clone()).or_insert(series)
                }
            };
            // It did nothing meanwhile.
            let idle = (taken - series.newest - 1).min(SERIES as u64);
            series.points.extend((0..idle).map(|_| Point::default()));
            series.points.push_back(Point::of(row));
            series.points.drain(..series.points.len().saturating_sub(SERIES));
            series.newest = taken;
        }
        self.series.retain(|_, series| taken - series.newest < SERIES as u64);
        for said in frame.whispers.iter().chain(&frame.born) {
            self.lines.push_back((taken, said.clone()));
        }
        let old = |(of, _): &&(u64, Said)| taken - of >= FRAMES as u64;
        let old = self.lines.iter().take_while(old).count();
        self.lines.drain(..old.max(self.lines.len().saturating_sub(LINES)));
        self.newest = frame;
    }

    /// The newest frame; an empty one before the first.
    pub fn frame(&self) -> &Frame {
        &self.newest
    }

    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Whispers and births, the newest first.
    pub fn lines(&self) -> impl Iterator<Item = &Said> {
        self.lines.iter().rev().map(|(_, said)| said)
    }

    /// A number of a workload in the last frames, oldest first; one without any did nothing.
    pub fn series(&self, cgroup: &Shown, number: impl Fn(&Point) -> f32) -> Vec<f32> {
        let Some(series) = self.series.get(cgroup) else { return Vec::new() };
        let idle = usize::try_from(self.taken - series.newest).unwrap_or(SERIES);
        let mut all: Vec<f32> = series.points.iter().map(number).collect();
        all.extend(std::iter::repeat_n(0.0, idle));
        all.drain(..all.len().saturating_sub(SERIES));
        all
    }
}
