//! The keys, and what the columns mean.

use ratatui::style::Style;

use super::super::view::{Mode, View};
use super::Pen;

const KEYS: [&str; 8] = [
    "q, Ctrl-C  quit",
    "s, S       sort by the next, the previous number",
    "/          show only names and paths with this in them; esc shows all",
    "space      freeze, and go on with what is newest",
    "up, down   mark a workload (j, k, PgUp, PgDn, g, G)",
    "enter      all that is known of it; esc goes back",
    "?          this page",
    "",
];

const REPLAY: [&str; 5] = [
    "space      play and pause",
    "left,right one interval back, on;  [ ] ten",
    "< >        to the beginning, to the end",
    "0 to 9     to a tenth of the recording",
    "",
];

const COLUMNS: [&str; 9] = [
    "LOST     share of the interval in which it could not go on: THROTTLED + NEIGHBOUR + the longer of MEM and DISK",
    "CPU      cores used;  LIMIT  the CPU limit that binds, its own or a parent's",
    "MEM,DISK share in which a task waited for memory, for a disk (PSI);  -  not known",
    "WENT TO  the time of its threads on a CPU or ready to run:",
    "           run        on a CPU",
    "           throttled  stopped by a CPU limit",
    "           neighbour  ready, while another workload ran on the CPU",
    "           own        ready, while another thread of its own ran;  other  nobody's",
    "TO BLAME what took most of the time lost",
];

pub fn draw(view: &View, pen: &mut Pen<'_>) {
    let replay = matches!(view.mode, Mode::Replay { .. });
    let live = KEYS.iter().filter(|line| !(replay && line.starts_with("space")));
    let replay = REPLAY.iter().filter(|_| replay);
    for (y, line) in (1..).zip(live.chain(replay).chain(&COLUMNS)) {
        pen.row(y, line, Style::new());
    }
}
