//! On a terminal, with keys; and the terminal afterwards.

use super::{HOSTILE, throttled, top};
use crate::bed::cgroup::Cgroup;
use crate::bed::process::output;
use crate::bed::pty::{OnTerminal, Shown};

/// The rows of the table and what is below, without the title, which says how it is looked at, and the keys.
fn body(screen: &Shown) -> Vec<String> {
    screen.rows[1..screen.rows.len() - 1].to_vec()
}

/// The time of day in the title.
fn time(screen: &Shown) -> String {
    let words = screen.rows[0].split("  ").find(|word| word.len() == 8 && word.matches(':').count() == 2);
    words.unwrap_or_else(|| panic!("no time in {}", screen.rows[0])).to_owned()
}

#[test]
fn keys_do_what_they_say_and_a_replay_shows_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("frames").display().to_string();
    let (cgroup, _burner) = throttled("pty");
    let path = cgroup.path();
    let mut live = OnTerminal::start(&mut top(&["--no-color", "--record", &file]), 120, 30);
    let first = live.until("row of the loop", |screen| screen.row(&path).is_some());
    assert!(first.taken && first.cursor_hidden);
    assert!(first.rows[0].contains("by time lost"), "{}", first.text());
    live.press("s");
    live.until("order by CPU", |screen| screen.rows[0].contains("by CPU"));
    live.press("S");
    live.until("order by time lost", |screen| screen.rows[0].contains("by time lost"));
    live.press("/host-pty-nobody\r");
    live.until("empty list", |screen| screen.row(&path).is_none() && screen.row("esc lifts").is_some());
    live.press("\u{1b}");
    live.until("whole list", |screen| screen.row(&path).is_some());
    live.press("?");
    live.until("help", |screen| screen.row("Ctrl-C").is_some());
    live.press("?");
    live.until("whisper", |screen| screen.row("warning ").is_some());
    live.press(" ");
    live.until("frozen screen", |screen| screen.rows[0].contains("FROZEN"));
    // Rows are written from the top: all of it is there when the last one is.
    live.press("?");
    live.until("help", |screen| screen.rows[29].starts_with("esc back"));
    live.press("?");
    let frozen = live.until("list again", |screen| screen.rows[29].starts_with("q quit"));
    live.press("q");
    assert!(live.end().success());
    live.is_given_back();

    let mut replay = OnTerminal::start(&mut top(&["--no-color", "--replay", &file]), 120, 30);
    replay
        .until("recording", |screen| screen.rows[0].contains("REPLAY") || screen.rows[0].contains("PAUSED"));
    // To the end, and back as far as the frozen one.
    replay.press(">");
    let mut at = replay.until("end", |screen| screen.rows[0].contains("PAUSED"));
    while time(&at) != time(&frozen) {
        let before = at.rows[0].clone();
        replay.press("\u{1b}[D");
        at = replay.until("the frame before", |screen| screen.rows[0] != before);
    }
    println!("{}", frozen.text());
    replay.until("same screen as the frozen one", |screen| body(screen) == body(&frozen));
    replay.press("<");
    replay.until("beginning", |screen| screen.rows[0].contains("PAUSED 1/"));
    replay.press(" ");
    replay.until("second frame by itself", |screen| screen.rows[0].contains(" 2/"));
    replay.press("\u{3}");
    assert!(replay.end().success());
    replay.is_given_back();
}

#[test]
fn sigterm_gives_the_terminal_back() {
    let mut live = OnTerminal::start(&mut top(&[]), 80, 24);
    live.until("list", |screen| screen.row("WORKLOAD").is_some());
    live.signal(libc::SIGTERM);
    assert!(live.end().success());
    live.is_given_back();
}

/// A name is never more than a name: nothing of it is obeyed, in the list, in whispers, on its page.
#[test]
fn a_hostile_name_is_not_obeyed() {
    let cgroup = Cgroup::new(HOSTILE);
    cgroup.limit(Some(5 * super::MS), 100 * super::MS);
    let _burner = cgroup.burn(1, Some(0));
    let mut live = OnTerminal::start(&mut top(&["--no-color", "--filter", "evil"]), 200, 50);
    live.until("row of it", |screen| screen.row("0;owned").is_some());
    live.until("whisper of it", |screen| {
        screen.rows.iter().any(|row| row.contains("started  cpu_") && row.contains("owned"))
    });
    live.press("\r");
    live.until("page of it", |screen| screen.row("throttled  ").is_some());
    live.press("q");
    assert!(live.end().success());
    let raw = live.raw();
    let sent = String::from_utf8_lossy(&raw);
    for (what, bytes) in [("a title", "\u{1b}]0;"), ("a C1 control", "\u{9b}"), ("an override", "\u{202e}")] {
        assert!(!sent.contains(bytes), "{what} reached the terminal");
    }
    assert!(sent.contains("owned"), "it was shown");
    live.is_given_back();
}

/// This test's own program, run on a terminal and told by the variable to be the one that panics.
#[test]
fn a_panic_gives_the_terminal_back() {
    const PANICS: &str = "KG_TOP_PANICS";
    if std::env::var_os(PANICS).is_some() {
        let _screen = kernel_gossip::top::Screen::take().expect("a terminal");
        std::thread::spawn(|| panic!("on another thread")).join().expect_err("it panics");
        panic!("in the view");
    }
    let mut program = std::process::Command::new(std::env::current_exe().expect("this program"));
    let name = "host::top::terminal::a_panic_gives_the_terminal_back";
    program.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(PANICS, "1");
    let mut panicking = OnTerminal::start(&mut program, 200, 50);
    assert!(!panicking.end().success());
    panicking.is_given_back();
    assert!(String::from_utf8_lossy(&panicking.raw()).contains("\u{1b}[?1049h"), "it was taken");
    let screen = panicking.until("both messages", |screen| screen.row("in the view").is_some());
    assert!(screen.row("on another thread").is_some(), "{}", screen.text());
}

#[test]
fn help_is_for_people() {
    let help = output(&mut top(&["--help"]));
    for word in
        ["--attach", "--record", "--replay", "--once", "--no-color", "--palette", "--sort", "--filter"]
    {
        assert!(help.contains(word), "{help}");
    }
}
