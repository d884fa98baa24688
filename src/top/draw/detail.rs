//! All that is known of one workload.

use ratatui::style::{Modifier, Style};

use super::super::past::Point;
use super::super::view::View;
use super::{Pen, cores, list, percent};
use crate::sinks::frames::Row;

/// Eight heights.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub fn draw(view: &View, pen: &mut Pen<'_>) {
    let Some(cgroup) = &view.marked else { return };
    let frame = view.past().frame();
    let Some(row) = frame.workloads.iter().find(|row| row.cgroup == *cgroup) else {
        pen.row(2, cgroup, Style::new());
        pen.row(3, "did nothing in this interval, or is gone", Style::new());
        return;
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let dim = Style::new().add_modifier(Modifier::DIM);
    pen.row(1, &row.name, bold);
    let mut y = 2;
    if row.cgroup != row.name {
        pen.row(y, &format!("cgroup {}", row.cgroup), dim);
        y += 1;
    }
    let numbers = format!(
        "lost {}  CPU {} of {}  throttled {}  neighbours {}  memory {}  disk {}",
        percent(Some(row.lost_percent)),
        cores(row.usage_cores),
        row.limit_cores.map_or("no limit".to_owned(), |limit| format!("{limit:.2}")),
        percent(row.throttled_percent),
        percent(row.contended_percent),
        percent(row.memory_percent),
        percent(row.disk_percent),
    );
    pen.row(y, &numbers, Style::new());
    y += 1;
    if let Some(split) = &row.split {
        pen.bar(0, y, pen.width(), split, view.palette);
        let text = format!(
            "run {:.3} s  throttled {:.3}  neighbour {:.3}  own {:.3}  other {:.3}",
            split.run, split.throttle, split.neighbour, split.own, split.unattributed
        );
        pen.row(y + 1, &text, dim);
        y += 2;
    }
    y = sparklines(view, pen, y + 1, row);
    y = neighbours(view, pen, y + 1, row);
    let end = pen.height().saturating_sub(1);
    let of = |cgroup: &str| cgroup == &*row.cgroup;
    for said in view.past().lines().filter(|said| of(&said.cgroup)) {
        if y + 1 >= end {
            break;
        }
        y += 1;
        list::line(view, pen, y, said);
    }
}

fn sparklines(view: &View, pen: &mut Pen<'_>, y: u16, row: &Row) -> u16 {
    // What a number is called, the number, and what the highest bar is.
    type Line = (&'static str, fn(&Point) -> f32, Option<f32>);
    let lines: [Line; 6] = [
        ("lost", |p| p.lost, Some(100.0)),
        ("CPU", |p| p.cores, None),
        ("throttled", |p| p.throttled, Some(100.0)),
        ("neighbours", |p| p.contended, Some(100.0)),
        ("memory", |p| p.memory, Some(100.0)),
        ("disk", |p| p.disk, Some(100.0)),
    ];
    let mut y = y;
    for (name, number, most) in lines {
        let room = usize::from(pen.width().saturating_sub(26));
        let mut series = view.past().series(&row.cgroup, number);
        series.drain(..series.len().saturating_sub(room));
        let highest = series.iter().copied().fold(0.0, f32::max);
        // A line without a limit of its own is as high as its highest.
        let top = most.unwrap_or_else(|| row.limit_cores.map_or(highest, |limit| highest.max(limit as f32)));
        let unit = if most.is_some() { "%" } else { "" };
        let digits = if most.is_some() { 0 } else { 2 };
        pen.text(0, y, 24, &format!("{name:<11} up to {highest:.digits$}{unit}"), Style::new());
        pen.text(25, y, pen.width().saturating_sub(25), &sparkline(&series, top), Style::new());
        y += 1;
    }
    y
}

fn sparkline(series: &[f32], top: f32) -> String {
    let bar = |n: &f32| match n / top {
        share if !share.is_finite() || share <= 0.0 => ' ',
        share => BARS[((share * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    series.iter().map(bar).collect()
}

/// Who holds it up, and whom it holds up.
fn neighbours(view: &View, pen: &mut Pen<'_>, y: u16, row: &Row) -> u16 {
    let mut y = y;
    let mut put = |text: String| {
        pen.row(y, &text, Style::new());
        y += 1;
    };
    for blamed in &row.blame {
        put(format!("held up {:.3} s by {}", blamed.seconds, blamed.name));
    }
    let all = &view.past().frame().workloads;
    let mut holds: Vec<_> = all
        .iter()
        .filter_map(|other| {
            let of = other.blame.iter().find(|blamed| blamed.cgroup == row.cgroup)?;
            Some((of.seconds, &other.name))
        })
        .collect();
    holds.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, name) in holds.into_iter().take(5) {
        put(format!("holds up {seconds:.3} s of {name}"));
    }
    y
}
