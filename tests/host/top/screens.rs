//! The view of recorded frames on screens of several sizes, with ratatui's own test terminal.

use std::sync::Arc;

use super::{Recorded, recorded, row};
use kernel_gossip::plain::is_hidden;
use kernel_gossip::sinks::frames::Frame;
use kernel_gossip::sinks::frames::lines::Header;
use kernel_gossip::top::draw::draw;
use kernel_gossip::top::palette::Palette;
use kernel_gossip::top::past::{FRAMES, Past};
use kernel_gossip::top::view::{Asked, Mode, Page, Sort, View};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

fn view() -> View {
    let header = Header::new(Some("n1"), 1);
    View::new(header, Mode::Live, Palette::None, Sort::Lost, String::new())
}

/// With all frames of the run.
fn full(of: &Recorded) -> View {
    let mut view = view();
    of.frames.iter().for_each(|frame| view.past_mut().take(frame.clone()));
    view
}

fn press(view: &mut View, keys: &[KeyCode]) -> Asked {
    let mut asked = Asked::Nothing;
    keys.iter().for_each(|key| asked = view.press(KeyEvent::new(*key, KeyModifiers::NONE)));
    asked
}

fn typed(view: &mut View, text: &str) {
    let keys: Vec<_> = text.chars().map(KeyCode::Char).collect();
    press(view, &keys);
}

fn screen(view: &View, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("in memory");
    terminal.draw(|frame| draw(view, frame.area(), frame.buffer_mut())).expect("in memory");
    let buffer = terminal.backend().buffer();
    let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..rows).map(row).collect()
}

/// What a sparkline is made of.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn has(screen: &[String], part: &str) -> bool {
    screen.iter().any(|row| row.contains(part))
}

/// The end of a path, as the list has it where it is narrow.
fn end(path: &str) -> &str {
    &path[path.len() - 8..]
}

#[test]
fn every_size_shows_who_loses_time() {
    let recorded = recorded();
    let view = full(recorded);
    let newest = row(view.past().frame(), &recorded.throttled).expect("a row");
    for (columns, rows) in [(80, 24), (40, 10), (200, 50)] {
        let screen = screen(&view, columns, rows);
        println!("{columns}x{rows}\n{}\n", screen.join("\n"));
        assert!(screen[0].starts_with("top  "), "{screen:#?}");
        assert!(has(&screen, "LOST") && has(&screen, "WORKLOAD"), "{screen:#?}");
        let line = screen.iter().find(|row| row.contains(end(&recorded.throttled)));
        let line = line.unwrap_or_else(|| panic!("no row of it: {screen:#?}"));
        assert!(line.trim_start().starts_with(&format!("{:.0}%", newest.lost_percent)), "{line}");
        assert!(line.contains("TT") || line.contains("NN"), "the bar: {line}");
        if columns >= 80 {
            assert!(line.contains("0.05"), "the limit: {line}");
            // Kills that other tests make meanwhile may have taken the few lines there are.
            let said = has(&screen, "warning ") && has(&screen, "neighbour");
            assert!(said || has(&screen, " oom_kill "), "{screen:#?}");
            assert!(has(&screen, "q quit"), "{screen:#?}");
        }
        assert!(!screen.concat().chars().any(is_hidden));
    }
    // Too small for anything is no reason to fall over.
    for (columns, rows) in [(1, 1), (3, 2), (20, 3), (61, 5), (10, 200)] {
        screen(&view, columns, rows);
        for page in [Page::Help, Page::Detail] {
            let mut view = view.clone();
            press(&mut view, &[KeyCode::Enter]);
            view.page = page;
            screen(&view, columns, rows);
        }
    }
}

/// A bar has as many letters of each part as its share of the time, give or take one.
#[test]
fn a_bar_is_the_split() {
    let recorded = recorded();
    let view = full(recorded);
    let split = row(view.past().frame(), &recorded.throttled).expect("a row").split.expect("a split");
    let screen = screen(&view, 200, 50);
    let line = screen.iter().find(|row| row.contains(&recorded.throttled)).expect("a row of it");
    let bar: String = line.split_whitespace().nth(5).expect("after five numbers").to_owned();
    assert_eq!(bar.len(), 30, "{line}");
    for (mark, time) in [
        ('#', split.run),
        ('T', split.throttle),
        ('N', split.neighbour),
        ('o', split.own),
        ('.', split.unattributed),
    ] {
        let exact = time / split.total() * 30.0;
        let shown = bar.matches(mark).count() as f64;
        assert!((shown - exact).abs() <= 1.0, "{mark}: {shown} of {exact} in {bar}");
    }
}

#[test]
fn keys_sort_filter_and_freeze() {
    let recorded = recorded();
    let mut view = full(recorded);
    press(&mut view, &[KeyCode::Char('s')]);
    assert_eq!(view.sort, Sort::Cpu);
    let used: Vec<f64> = view.rows().iter().map(|row| row.usage_cores.unwrap_or(-1.0)).collect();
    assert!(used.len() > 1 && used.is_sorted_by(|a, b| a >= b), "{used:?}");
    press(&mut view, &[KeyCode::Char('S'), KeyCode::Char('S')]);
    assert_eq!(view.sort, Sort::Name);
    press(&mut view, &[KeyCode::Char('s')]);

    let all = view.rows().len();
    typed(&mut view, "/RECORDED");
    assert!(screen(&view, 80, 24)[23].starts_with("filter: RECORDED"));
    assert_eq!(press(&mut view, &[KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Enter]), Asked::Nothing);
    let names: Vec<_> = view.rows().iter().map(|row| row.cgroup.to_string()).collect();
    assert_eq!(names, std::slice::from_ref(&recorded.throttled));
    typed(&mut view, "/\u{202e}");
    assert!(!screen(&view, 80, 24).concat().chars().any(is_hidden), "what is typed is shown as it is");
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!(view.rows().len(), all);

    press(&mut view, &[KeyCode::Char(' ')]);
    let (before, number) = (screen(&view, 80, 24), view.past().frame().number);
    assert!(has(&before, "FROZEN"));
    let next = Frame { number: number + 1, ..Frame::clone(&recorded.frames[0]) };
    view.past_mut().take(Arc::new(next));
    assert_eq!(screen(&view, 80, 24), before);
    press(&mut view, &[KeyCode::Char(' ')]);
    assert_eq!(view.past().frame().number, number + 1);
    assert_eq!(press(&mut view, &[KeyCode::Char('q')]), Asked::Quit);
}

#[test]
fn a_page_for_each_workload_and_one_of_help() {
    let recorded = recorded();
    let mut view = full(recorded);
    typed(&mut view, "/recorded");
    press(&mut view, &[KeyCode::Enter, KeyCode::Enter]);
    assert_eq!(view.page, Page::Detail);
    for (columns, rows) in [(80, 24), (40, 10), (200, 50)] {
        let screen = screen(&view, columns, rows);
        println!("{columns}x{rows}\n{}\n", screen.join("\n"));
        assert!(has(&screen, end(&recorded.throttled)), "{screen:#?}");
        assert!(has(&screen, "lost") && screen.concat().contains(BARS), "{screen:#?}");
    }
    let page = screen(&view, 80, 24);
    assert!(has(&page, "held up") && has(&page, "started "), "{page:#?}");
    // As many bars as there were frames.
    let bars = page.iter().find(|row| row.starts_with("throttled  ")).expect("a sparkline");
    let bars = bars.matches(BARS).count();
    assert!(bars + 1 >= recorded.frames.len().min(54), "{bars} of {}: {page:#?}", recorded.frames.len());
    press(&mut view, &[KeyCode::Esc, KeyCode::Char('?')]);
    let help = screen(&view, 80, 24);
    assert!(has(&help, "Ctrl-C") && has(&help, "a CPU limit"), "{help:#?}");
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!(view.page, Page::List);
}

/// What is shown of a frame is made of the frames before it that a replay reads, and of no others.
#[test]
fn a_replay_that_begins_in_the_middle_shows_the_same() {
    let recorded = recorded();
    let long: Vec<_> = recorded.frames.iter().cycle().take(FRAMES * 2 + 50).cloned().collect();
    let shown = |frames: &[Arc<Frame>]| {
        let mut view = view();
        frames.iter().for_each(|frame| view.past_mut().take(frame.clone()));
        let list = screen(&view, 200, 50);
        view.marked = Some(row(view.past().frame(), &recorded.throttled).expect("a row").cgroup.clone());
        press(&mut view, &[KeyCode::Enter]);
        (list, screen(&view, 200, 50), lines(view.past()))
    };
    assert_eq!(shown(&long), shown(&long[long.len() - FRAMES..]));
}

fn lines(past: &Past) -> Vec<String> {
    past.lines().map(|said| said.text.to_string()).collect()
}

/// Without colour no style has one; with the colour-blind palette each part has a character of its own.
#[test]
fn a_palette_without_colours_has_none() {
    use ratatui::style::Color;
    let recorded = recorded();
    for palette in [Palette::None, Palette::Default, Palette::ColourBlind] {
        let mut view = full(recorded);
        view.palette = palette;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("in memory");
        terminal.draw(|frame| draw(&view, frame.area(), frame.buffer_mut())).expect("in memory");
        let cells = terminal.backend().buffer().content();
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, palette != Palette::None, "{palette:?}");
    }
}
