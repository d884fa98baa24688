//! The list of workloads, what was whispered, and who is being born.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::palette::Part;
use super::super::view::View;
use super::{Pen, clock, cores, percent, tail};
use crate::sinks::frames::{Row, Said};

/// Where each column begins and how wide it is; zero: there is no room for it.
#[derive(Clone, Copy, Debug, Default)]
struct Columns {
    lost: (u16, u16),
    cpu: (u16, u16),
    limit: (u16, u16),
    memory: (u16, u16),
    disk: (u16, u16),
    bar: (u16, u16),
    name: (u16, u16),
    blame: (u16, u16),
}

impl Columns {
    fn of(width: u16) -> Columns {
        // The bar, the name and who is to blame share what the numbers leave.
        let (numbers, bar): (&[u16], u16) = match width {
            0..60 => (&[5], 8),
            60..120 => (&[5, 6, 6, 5, 5], 14),
            _ => (&[5, 6, 6, 5, 5], 30),
        };
        let mut x = 0;
        let mut next = |columns: u16| {
            let place = (x, columns);
            x += columns + 1;
            place
        };
        let mut columns = Columns { lost: next(numbers[0]), ..Columns::default() };
        if let [_, cpu, limit, memory, disk] = numbers {
            columns.cpu = next(*cpu);
            columns.limit = next(*limit);
            columns.memory = next(*memory);
            columns.disk = next(*disk);
        }
        columns.bar = next(bar);
        let left = width.saturating_sub(x);
        match width {
            0..60 => columns.name = (x, left),
            _ => {
                let name = left * 3 / 5;
                columns.name = (x, name.saturating_sub(1));
                columns.blame = (x + name, left - name);
            }
        }
        columns
    }
}

pub fn draw(view: &View, pen: &mut Pen<'_>) {
    let (width, height) = (pen.width(), pen.height());
    let roomy = width >= 60 && height >= 14;
    let mut top = 1;
    if roomy {
        legend(view, pen, top);
        top += 1;
    }
    let bottom = height.saturating_sub(1);
    let born = view.past().frame().births.len();
    let births = if roomy { u16::try_from(born).unwrap_or(3).min(3) } else { 0 };
    let has_lines = view.past().lines().next().is_some();
    let lines = if roomy && has_lines { ((height - 8) / 4).clamp(2, 10) } else { 0 };
    let panel = |rows: u16| if rows > 0 { rows + 1 } else { 0 };
    let table = bottom.saturating_sub(top + panel(births) + panel(lines));
    rows(view, pen, top, table);
    let mut y = top + table;
    if births > 0 {
        heading(pen, y, "BEING BORN");
        for birth in view.past().frame().births.iter().take(usize::from(births)) {
            y += 1;
            let of = birth.containers.map(|(made, all)| format!(", {made} of {all} containers made"));
            let text = format!("{:>7.1} s  {}{}", birth.seconds, birth.name, of.unwrap_or_default());
            pen.row(y, &text, Style::new());
        }
        y += 1;
    }
    if lines > 0 {
        heading(pen, y, "WHISPERS AND BIRTHS");
        for said in view.past().lines().take(usize::from(lines)) {
            y += 1;
            line(view, pen, y, said);
        }
    }
}

fn heading(pen: &mut Pen<'_>, y: u16, text: &str) {
    pen.row(y, text, Style::new().add_modifier(Modifier::UNDERLINED));
}

/// One line that was said; its date is not worth the room.
pub fn line(view: &View, pen: &mut Pen<'_>, y: u16, said: &Said) {
    let over = said.severity.is_none() || &*said.transition == "resolved";
    let style = match said.severity {
        Some(severity) => view.palette.severity(severity, over),
        None => Style::new(),
    };
    let word = match said.severity {
        Some(severity) => severity.as_str(),
        None => "birth",
    };
    pen.text(0, y, 8, &clock(said.at_unix_ns), Style::new().add_modifier(Modifier::DIM));
    pen.text(9, y, 17, &format!("{word:<8} {}", said.transition), style);
    pen.text(27, y, pen.width().saturating_sub(27), &said.text, Style::new());
}

fn legend(view: &View, pen: &mut Pen<'_>, y: u16) {
    let mut x = 0;
    let mut put = |pen: &mut Pen<'_>, text: &str, style: Style| {
        let columns = u16::try_from(text.chars().count()).unwrap_or(0);
        pen.text(x, y, columns, text, style);
        x += columns;
    };
    put(pen, "time of its threads: ", Style::new().add_modifier(Modifier::DIM));
    for part in Part::ALL {
        let mark = view.palette.mark(part).to_string().repeat(2);
        put(pen, &mark, view.palette.part(part));
        put(pen, &format!(" {}  ", part.name()), Style::new());
    }
}

/// The header of the table and as many rows as there is room for, the marked one among them.
fn rows(view: &View, pen: &mut Pen<'_>, top: u16, height: u16) {
    let columns = Columns::of(pen.width());
    let Some(room) = height.checked_sub(1) else { return };
    let head = Style::new().add_modifier(Modifier::REVERSED);
    pen.mark(top, head);
    let mut title = |(x, width): (u16, u16), text: &str| pen.right(x, top, width, text, head);
    title(columns.lost, "LOST");
    title(columns.cpu, "CPU");
    title(columns.limit, "LIMIT");
    title(columns.memory, "MEM");
    title(columns.disk, "DISK");
    for ((x, width), text) in
        [(columns.bar, "WENT TO"), (columns.name, "WORKLOAD"), (columns.blame, "TO BLAME")]
    {
        pen.text(x, top, width, text, head);
    }
    let rows = view.rows();
    if rows.is_empty() {
        let why = match (view.past().is_empty(), view.filter.is_empty()) {
            (true, _) => "",
            (_, false) => "nothing has this in its name: esc lifts the filter",
            _ => "nothing ran, and nothing waited",
        };
        pen.row(top + 1, why, Style::new());
        return;
    }
    let place = view.place(&rows);
    let first = (place + 1).saturating_sub(usize::from(room).max(1));
    for (i, row) in rows.iter().enumerate().skip(first).take(usize::from(room)) {
        let y = top + 1 + u16::try_from(i - first).unwrap_or(0);
        one(view, pen, y, row, &columns);
        if view.marked.as_ref() == Some(&row.cgroup) {
            pen.mark(y, head);
        }
    }
}

fn one(view: &View, pen: &mut Pen<'_>, y: u16, row: &Row, columns: &Columns) {
    let worst = row.whispers.iter().map(|whisper| whisper.severity).max();
    let style = worst.map_or(Style::new(), |severity| view.palette.severity(severity, false));
    let mut number = |(x, width): (u16, u16), text: String| pen.right(x, y, width, &text, Style::new());
    number(columns.cpu, cores(row.usage_cores));
    number(columns.limit, cores(row.limit_cores));
    number(columns.memory, percent(row.memory_percent));
    number(columns.disk, percent(row.disk_percent));
    let (x, width) = columns.lost;
    pen.right(x, y, width, &percent(Some(row.lost_percent)), style);
    let (x, width) = columns.bar;
    match &row.split {
        Some(split) => pen.bar(x, y, width, split, view.palette),
        None => pen.text(x, y, width, "no probe", Style::new().add_modifier(Modifier::DIM)),
    }
    let (x, width) = columns.name;
    pen.text(x, y, width, &tail(&row.name, width), style);
    let (x, width) = columns.blame;
    pen.text(x, y, width, &tail(&blame(row), width), Style::new());
}

/// What takes most of the time that is lost.
pub fn blame(row: &Row) -> String {
    let or_zero = |percent: Option<f64>| percent.unwrap_or(0.0);
    let neighbour = row.blame.first().map_or("its neighbours", |first| &first.name);
    let limit = match row.limit_cores {
        Some(cores) => format!("its limit of {cores:.2}"),
        None => "a limit".to_owned(),
    };
    let causes = [
        (or_zero(row.throttled_percent), limit.as_str()),
        (or_zero(row.contended_percent), neighbour),
        (or_zero(row.memory_percent), "memory"),
        (or_zero(row.disk_percent), "disk"),
    ];
    let worst = causes.into_iter().filter(|(percent, _)| *percent >= 0.5).max_by(|a, b| a.0.total_cmp(&b.0));
    worst.map_or(String::new(), |(_, who)| who.to_owned())
}

/// The list as lines of text, all of it, for one look.
pub fn once(view: &View, width: u16) -> Vec<String> {
    let shown = view.rows().len().max(1);
    let height = u16::try_from(shown + 40).unwrap_or(u16::MAX);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    let mut pen = Pen { buffer: &mut buffer, area };
    pen.row(0, &super::title(view, usize::from(width)), Style::new());
    legend(view, &mut pen, 1);
    let table = u16::try_from(shown + 1).unwrap_or(u16::MAX);
    rows(view, &mut pen, 2, table);
    for (i, said) in view.past().lines().take(30).enumerate() {
        line(view, &mut pen, 2 + table + u16::try_from(i).unwrap_or(0), said);
    }
    let text = |y: u16| -> String {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    let mut lines: Vec<String> = (0..height).map(text).collect();
    lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
    lines
}
