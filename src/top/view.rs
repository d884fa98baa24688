//! What is looked at and how: pure, keys in, what to do out.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::palette::Palette;
use super::past::Past;
use crate::sinks::frames::lines::Header;
use crate::sinks::frames::{Row, Shown};

/// What workloads are sorted by, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Time lost
    #[default]
    Lost,
    /// CPU used
    Cpu,
    /// Throttled time
    Throttled,
    /// Time a neighbour ran instead
    Neighbour,
    /// Time waited for memory
    Memory,
    /// Time waited for a disk
    Disk,
    /// Name
    Name,
}

impl Sort {
    const ALL: [Sort; 7] =
        [Sort::Lost, Sort::Cpu, Sort::Throttled, Sort::Neighbour, Sort::Memory, Sort::Disk, Sort::Name];

    pub fn name(self) -> &'static str {
        match self {
            Sort::Lost => "time lost",
            Sort::Cpu => "CPU",
            Sort::Throttled => "throttled",
            Sort::Neighbour => "neighbour",
            Sort::Memory => "memory",
            Sort::Disk => "disk",
            Sort::Name => "name",
        }
    }

    fn key(self, row: &Row) -> f64 {
        let key = match self {
            Sort::Lost => Some(row.lost_percent),
            Sort::Cpu => row.usage_cores,
            Sort::Throttled => row.throttled_percent,
            Sort::Neighbour => row.contended_percent,
            Sort::Memory => row.memory_percent,
            Sort::Disk => row.disk_percent,
            Sort::Name => None,
        };
        key.unwrap_or(-1.0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    List,
    Detail,
    Help,
}

/// Where the frames come from, as the first line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Live,
    Attached,
    /// The place of the frame that is shown, from 1, of how many.
    Replay {
        place: usize,
        frames: usize,
        playing: bool,
    },
}

/// What a key asks of who has the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    Quit,
    /// So many frames on, or back.
    Step(i64),
    /// To this tenth of the recording.
    Tenth(usize),
    /// Play, or pause.
    Play,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct View {
    pub header: Header,
    pub mode: Mode,
    pub palette: Palette,
    pub sort: Sort,
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub page: Page,
    /// The workload that is marked, by its cgroup.
    pub marked: Option<Shown>,
    /// Shown instead of what comes.
    frozen: Option<Past>,
    past: Past,
    /// The newest line of the log, while nobody sees stderr.
    pub log: Option<Shown>,
}

impl View {
    pub fn new(header: Header, mode: Mode, palette: Palette, sort: Sort, filter: String) -> View {
        View {
            header,
            mode,
            palette,
            sort,
            filter,
            typing: false,
            page: Page::List,
            marked: None,
            frozen: None,
            past: Past::default(),
            log: None,
        }
    }

    /// What comes in is taken in, frozen or not.
    pub fn past_mut(&mut self) -> &mut Past {
        &mut self.past
    }

    /// What is shown.
    pub fn past(&self) -> &Past {
        self.frozen.as_ref().unwrap_or(&self.past)
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The rows to show, in order. A filter is a part of a name or path, whatever its case.
    pub fn rows(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let all = self.past().frame().workloads.iter();
        let mut rows: Vec<&Row> =
            all.filter(|row| wanted.is_empty() || has(&row.name) || has(&row.cgroup)).collect();
        let by_name = |a: &&Row, b: &&Row| (&a.name, &a.cgroup).cmp(&(&b.name, &b.cgroup));
        match self.sort {
            Sort::Name => rows.sort_by(by_name),
            // The frame's own order, which is by time lost, decides between equals.
            sort => rows.sort_by(|a, b| sort.key(b).total_cmp(&sort.key(a))),
        }
        rows
    }

    /// The marked row's place; the first where none is marked, or the marked one is gone.
    pub fn place(&self, rows: &[&Row]) -> usize {
        let marked = self.marked.as_ref();
        rows.iter().position(|row| Some(&row.cgroup) == marked).unwrap_or(0)
    }

    /// Takes a key.
    pub fn press(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Asked::Quit;
        }
        if control {
            return Asked::Nothing;
        }
        if self.typing {
            self.type_filter(key.code);
            return Asked::Nothing;
        }
        let replay = matches!(self.mode, Mode::Replay { .. });
        match key.code {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Char('?' | 'h') => {
                self.page = if self.page == Page::Help { Page::List } else { Page::Help };
            }
            KeyCode::Esc | KeyCode::Backspace if self.page != Page::List => self.page = Page::List,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter if self.page == Page::List && self.mark(0) => self.page = Page::Detail,
            KeyCode::Enter => self.page = Page::List,
            KeyCode::Char('s') => self.sort = self.next_sort(1),
            KeyCode::Char('S') => self.sort = self.next_sort(Sort::ALL.len() - 1),
            KeyCode::Char('/') => (self.page, self.typing) = (Page::List, true),
            KeyCode::Char(' ') if replay => return Asked::Play,
            KeyCode::Char(' ') => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(self.past.clone()),
                }
            }
            KeyCode::Up | KeyCode::Char('k') => drop(self.mark(-1)),
            KeyCode::Down | KeyCode::Char('j') => drop(self.mark(1)),
            KeyCode::PageUp => drop(self.mark(-10)),
            KeyCode::PageDown => drop(self.mark(10)),
            KeyCode::Home | KeyCode::Char('g') => drop(self.mark(i64::MIN)),
            KeyCode::End | KeyCode::Char('G') => drop(self.mark(i64::MAX)),
            KeyCode::Left if replay => return Asked::Step(-1),
            KeyCode::Right if replay => return Asked::Step(1),
            KeyCode::Char('[') if replay => return Asked::Step(-10),
            KeyCode::Char(']') if replay => return Asked::Step(10),
            KeyCode::Char('<') if replay => return Asked::Step(i64::MIN),
            KeyCode::Char('>') if replay => return Asked::Step(i64::MAX),
            KeyCode::Char(c @ '0'..='9') if replay => return Asked::Tenth(c as usize - '0' as usize),
            _ => {}
        }
        Asked::Nothing
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.len() < 128 => self.filter.push(c),
            _ => {}
        }
    }

    fn next_sort(&self, by: usize) -> Sort {
        let place = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        Sort::ALL[(place + by) % Sort::ALL.len()]
    }

    /// Marks the row so many below the marked one; false: there is none.
    fn mark(&mut self, by: i64) -> bool {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else { return false };
        let place = (self.place(&rows) as i64).saturating_add(by).clamp(0, last as i64);
        let marked = rows[place as usize].cgroup.clone();
        self.marked = Some(marked);
        true
    }
}
