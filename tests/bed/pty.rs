//! A program on a terminal: a pseudo-terminal whose screen is what an emulator (vt100) makes of all that it was sent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::{PATIENCE, process, until};

/// A program on a terminal of its own. Dropping it kills it.
pub struct OnTerminal {
    child: Child,
    keys: File,
    /// The program's end, kept open, so that the terminal's settings can be read after it ended.
    other_end: OwnedFd,
    before: libc::termios,
    seen: Arc<Seen>,
}

struct Seen {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    emulator: vt100::Parser,
    raw: Vec<u8>,
}

/// What stands on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub rows: Vec<String>,
    /// It is the other screen, which full-screen programs take and give back.
    pub taken: bool,
    pub cursor_hidden: bool,
}

impl Shown {
    pub fn text(&self) -> String {
        self.rows.join("\n")
    }

    /// The row that has this.
    pub fn row(&self, part: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.contains(part))
    }
}

impl OnTerminal {
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
        let (mut near, mut far) = (-1, -1);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: two integers and a size to be read; name and settings may be null.
        let made =
            unsafe { libc::openpty(&mut near, &mut far, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(made, 0, "openpty: {}", io::Error::last_os_error());
        // SAFETY: both were just opened and are nobody else's.
        let (near, far) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
        let before = settings(&far);
        let copy = || far.try_clone().expect("a descriptor");
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm-256color");
        // SAFETY: between fork and exec only setsid() and ioctl(), which are async-signal-safe; 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| match libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 {
                true => Ok(()),
                false => Err(io::Error::last_os_error()),
            });
        }
        let child = process::spawn(command);
        let size = |n: u16| NonZero::new(n).expect("a size");
        let state = State { emulator: vt100::Parser::new(size(rows), size(columns), 0), raw: Vec::new() };
        let seen = Arc::new(Seen { state: Mutex::new(state), more: Condvar::new() });
        let (to, mut from) = (seen.clone(), near.try_clone().expect("a descriptor"));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                let mut state = to.state.lock().unwrap();
                state.emulator.process(&bytes[..n]);
                state.raw.extend_from_slice(&bytes[..n]);
                to.more.notify_all();
            }
        });
        OnTerminal { child, keys: near, other_end: far, before, seen }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("pressed");
    }

    pub fn screen(&self) -> Shown {
        shown(&self.seen.state.lock().unwrap())
    }

    /// All that was sent to the terminal.
    pub fn raw(&self) -> Vec<u8> {
        self.seen.state.lock().unwrap().raw.clone()
    }

    /// Waits until the screen is like this.
    ///
    /// # Panics
    /// It is not within [`PATIENCE`], with what it is.
    pub fn until(&self, what: &str, mut like: impl FnMut(&Shown) -> bool) -> Shown {
        let end = Instant::now() + PATIENCE;
        let mut state = self.seen.state.lock().unwrap();
        loop {
            let screen = shown(&state);
            if like(&screen) {
                return screen;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}; the screen is\n{}", screen.text());
            state = self.seen.more.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill() takes no pointer; the child is not reaped yet.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }

    /// Waits for the program's end.
    pub fn end(&mut self) -> ExitStatus {
        until("end of the program", || self.child.try_wait().expect("wait for a child"))
    }

    /// The terminal is as it was before the program came: settings, screen, cursor.
    ///
    /// # Panics
    /// What is not.
    pub fn is_given_back(&self) {
        let same = |a: &libc::termios, b: &libc::termios| {
            (a.c_iflag, a.c_oflag, a.c_cflag, a.c_lflag, a.c_cc)
                == (b.c_iflag, b.c_oflag, b.c_cflag, b.c_lflag, b.c_cc)
        };
        assert!(same(&settings(&self.other_end), &self.before), "the terminal's settings are not restored");
        // What was written last may be on its way.
        self.until("screen that is given back", |screen| !screen.taken && !screen.cursor_hidden);
    }
}

fn shown(state: &State) -> Shown {
    let screen = state.emulator.screen();
    let columns = screen.size().1;
    Shown {
        rows: screen.rows(0, columns.get()).map(|row| row.trim_end().to_owned()).collect(),
        taken: screen.alternate_screen(),
        cursor_hidden: screen.hide_cursor(),
    }
}

fn settings(of: &OwnedFd) -> libc::termios {
    // SAFETY: termios is plain numbers, and the pointer is to a whole one.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(of.as_raw_fd(), &mut settings), 0, "{}", io::Error::last_os_error());
        settings
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
