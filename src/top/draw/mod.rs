//! The view as characters: pure, into a buffer of any size.
//!
//! Inside belongs how a view looks; what is in it, and what keys do, does not.

mod detail;
mod help;
mod list;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::palette::{Palette, Part};
use super::view::{Mode, Page, View};
use crate::plain::Printable;
use crate::sinks::frames::Split;

pub use list::once;

/// Draws all of it.
pub fn draw(view: &View, area: Rect, buffer: &mut Buffer) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let mut pen = Pen { buffer, area };
    pen.row(0, &title(view, usize::from(area.width)), Style::new().add_modifier(Modifier::BOLD));
    match view.page {
        Page::List => list::draw(view, &mut pen),
        Page::Detail => detail::draw(view, &mut pen),
        Page::Help => help::draw(view, &mut pen),
    }
    let last = area.height - 1;
    if last > 0 {
        pen.clear(last);
        let (text, style) = footer(view);
        pen.row(last, &text, style);
    }
}

/// Writes within an area, and never beyond it.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
}

impl Pen<'_> {
    fn width(&self) -> u16 {
        self.area.width
    }

    fn height(&self) -> u16 {
        self.area.height
    }

    /// Text at a place, of at most so many columns.
    fn text(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) {
        let columns = columns.min(self.area.width.saturating_sub(x));
        if y < self.area.height && columns > 0 {
            self.buffer.set_stringn(self.area.x + x, self.area.y + y, text, usize::from(columns), style);
        }
    }

    fn row(&mut self, y: u16, text: &str, style: Style) {
        self.text(0, y, self.area.width, text, style);
    }

    /// The same at the right of so many columns.
    fn right(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) {
        let from = columns.saturating_sub(u16::try_from(text.chars().count()).unwrap_or(columns));
        self.text(x + from, y, columns - from, text, style);
    }

    fn clear(&mut self, y: u16) {
        self.row(y, &" ".repeat(usize::from(self.area.width)), Style::new());
    }

    /// The whole row in a style.
    fn mark(&mut self, y: u16, style: Style) {
        let row = Rect { y: self.area.y + y, height: 1, ..self.area };
        self.buffer.set_style(row, style);
    }

    /// The split of a workload's time.
    fn bar(&mut self, x: u16, y: u16, columns: u16, split: &Split, palette: Palette) {
        let mut x = x;
        for (part, columns) in parts(split, columns) {
            let text = palette.mark(part).to_string().repeat(usize::from(columns));
            self.text(x, y, columns, &text, palette.part(part));
            x += columns;
        }
    }
}

/// The columns of each part: in all as many as there are, a part that is there at all at least one if there is room.
fn parts(split: &Split, columns: u16) -> Vec<(Part, u16)> {
    let times = [split.run, split.throttle, split.neighbour, split.own, split.unattributed];
    let total = split.total();
    if total <= 0.0 || !total.is_finite() {
        return Vec::new();
    }
    let exact = times.map(|time| time.max(0.0) / total * f64::from(columns));
    let mut whole = exact.map(|exact| exact as u16);
    let mut left = columns.saturating_sub(whole.iter().sum());
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|a, b| (exact[*b] - exact[*b].floor()).total_cmp(&(exact[*a] - exact[*a].floor())));
    for place in order {
        if left > 0 && exact[place] > 0.0 {
            whole[place] += 1;
            left -= 1;
        }
    }
    Part::ALL.into_iter().zip(whole).filter(|(_, columns)| *columns > 0).collect()
}

/// The end of a name, which tells it from others, where there is no room for all of it.
fn tail(name: &str, columns: u16) -> String {
    let columns = usize::from(columns);
    let width = |text: &str| ratatui::text::Span::raw(text).width();
    if columns == 0 || width(name) <= columns {
        return name.to_owned();
    }
    // "the root cgroup (kernel threads, …)"
    if let Some((short, _)) = name.split_once(" (").filter(|(short, _)| width(short) <= columns) {
        return short.to_owned();
    }
    let mut kept: Vec<char> = name.chars().rev().take(columns - 1).collect();
    kept.reverse();
    let mut text: String = kept.into_iter().collect();
    while width(&text) >= columns {
        text.remove(0);
    }
    format!("…{text}")
}

/// A time of day, in UTC as all that the program says.
fn clock(unix_ns: u64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    at.strftime("%H:%M:%S").to_string()
}

fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}%"))
}

fn cores(cores: Option<f64>) -> String {
    cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"))
}

/// What is known first where there is little room: the time, what is shown of what, and from whom.
fn title(view: &View, columns: usize) -> String {
    let frame = view.past().frame();
    let mut all = vec!["top".to_owned()];
    match view.mode {
        Mode::Live if !view.is_frozen() => {}
        Mode::Attached if !view.is_frozen() => all.push("ATTACHED".to_owned()),
        Mode::Live | Mode::Attached => all.push("FROZEN".to_owned()),
        Mode::Replay { place, frames, playing } => {
            all.push(format!("{} {place}/{frames}", if playing { "REPLAY" } else { "PAUSED" }));
        }
    }
    if view.past().is_empty() {
        all.push("waiting for the first two readings".to_owned());
        return all.join("  ");
    }
    all.push(clock(frame.at_unix_ns));
    if columns >= 60 {
        all.push(match &view.header.node {
            Some(node) => tail(node, 24),
            None => "this machine".to_owned(),
        });
        all.push(format!("{} CPUs", frame.cpus));
    }
    all.push(format!("{} active, {} idle", frame.workloads.len(), frame.idle));
    if columns >= 60 {
        all.push(format!("by {}", view.sort.name()));
    }
    if columns >= 100 {
        all.push(format!("{:.1} s", frame.seconds));
    }
    if !view.filter.is_empty() {
        all.push(format!("/{}", Printable(&view.filter)));
    }
    all.join("  ")
}

fn footer(view: &View) -> (String, Style) {
    if view.typing {
        return (format!("filter: {}_", Printable(&view.filter)), Style::new().add_modifier(Modifier::BOLD));
    }
    if let Some(line) = &view.log {
        return (line.to_string(), Style::new().add_modifier(Modifier::REVERSED));
    }
    let replay = matches!(view.mode, Mode::Replay { .. });
    let keys = match view.page {
        Page::Help | Page::Detail => "esc back  q quit",
        Page::List if replay => {
            "q quit  ? help  space play  ←→ step  [] ten  <> ends  s sort  / filter  ↵ detail"
        }
        Page::List => "q quit  ? help  s sort  / filter  space freeze  ↑↓ mark  ↵ detail",
    };
    (keys.to_owned(), Style::new().add_modifier(Modifier::DIM))
}
