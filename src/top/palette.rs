//! Colours and characters. What a colour says a character says too, unless there are colours that everybody tells apart.

use ratatui::style::{Color, Modifier, Style};

use crate::evidence::Severity;

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Palette {
    /// The terminal's own red, green, blue and magenta
    #[default]
    Default,
    /// Colours that are distinct with any kind of colour vision, and a shade for each
    ColourBlind,
    /// No colour: a letter for each
    None,
}

/// Where the time of threads went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Run,
    Throttled,
    Neighbour,
    Own,
    Other,
}

impl Part {
    pub const ALL: [Part; 5] = [Part::Run, Part::Throttled, Part::Neighbour, Part::Own, Part::Other];

    pub fn name(self) -> &'static str {
        match self {
            Part::Run => "run",
            Part::Throttled => "throttled",
            Part::Neighbour => "neighbour",
            Part::Own => "own",
            Part::Other => "other",
        }
    }
}

impl Palette {
    /// The character a part's bar is made of.
    pub fn mark(self, part: Part) -> char {
        let place = part as usize;
        let marks = match self {
            Palette::Default => ['█'; 5],
            Palette::ColourBlind => ['█', '▓', '▒', '░', '·'],
            Palette::None => ['#', 'T', 'N', 'o', '.'],
        };
        marks[place]
    }

    pub fn part(self, part: Part) -> Style {
        // Okabe and Ito's: bluish green, vermilion, sky blue, orange; as near as 256 colours come.
        let colours = match self {
            Palette::Default => [Color::Green, Color::Red, Color::Magenta, Color::Blue, Color::DarkGray],
            Palette::ColourBlind => [
                Color::Indexed(36),
                Color::Indexed(166),
                Color::Indexed(74),
                Color::Indexed(214),
                Color::Indexed(245),
            ],
            Palette::None => return Style::new(),
        };
        Style::new().fg(colours[part as usize])
    }

    pub fn severity(self, severity: Severity, over: bool) -> Style {
        let (warning, critical, fine) = match self {
            Palette::Default => (Color::Yellow, Color::Red, Color::Green),
            Palette::ColourBlind => (Color::Indexed(214), Color::Indexed(166), Color::Indexed(36)),
            Palette::None if over => return Style::new(),
            Palette::None => return Style::new().add_modifier(Modifier::BOLD),
        };
        match severity {
            _ if over => Style::new().fg(fine),
            Severity::Warning => Style::new().fg(warning),
            Severity::Critical => Style::new().fg(critical).add_modifier(Modifier::BOLD),
        }
    }
}
