//! The terminal: taken and given back, whatever ends the program; and its log meanwhile, which must not write over the view.

use std::collections::VecDeque;
use std::io::{self, Stdout, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::draw::draw;
use super::view::View;

/// Lines of the log that are kept for the end.
const LINES: usize = 200;

/// What would be on stderr; `None`: the terminal is not taken, and it goes there.
static HELD: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

/// Lines that were held so far.
static LOGGED: AtomicU64 = AtomicU64::new(0);

fn held() -> MutexGuard<'static, Option<VecDeque<String>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal, as long as this lives.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal. It is given back when this is dropped, and by a panic of any thread before its message.
    ///
    /// # Errors
    /// Stdout is no terminal, or does not do what it is told.
    pub fn take() -> io::Result<Screen> {
        static PANIC: Once = Once::new();
        PANIC.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        *held() = Some(VecDeque::new());
        let taken = execute!(io::stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        if taken.is_err() {
            give_back();
        }
        Ok(Screen { terminal: taken? })
    }

    /// Shows the view; nothing after a panic gave the terminal back.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn show(&mut self, view: &View) -> io::Result<()> {
        if held().is_none() {
            return Ok(());
        }
        self.terminal.draw(|frame| draw(view, frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, and the log its way to stderr. Only once.
fn give_back() {
    let Some(lines) = held().take() else { return };
    // There is nobody to tell what does not work any more.
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
    let mut stderr = io::stderr().lock();
    lines.iter().for_each(|line| drop(writeln!(stderr, "{line}")));
}

/// How many lines the log had since the terminal was taken, and the newest.
pub fn log() -> (u64, Option<String>) {
    let held = held();
    let newest = held.as_ref().and_then(|lines| lines.back().cloned());
    (LOGGED.load(Ordering::Relaxed), newest)
}

/// Stderr, but while the terminal is taken.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            None => io::stderr().write_all(bytes)?,
            Some(lines) => {
                for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()) {
                    if lines.len() == LINES {
                        lines.pop_front();
                    }
                    lines.push_back(line.to_owned());
                    LOGGED.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
