//! What the tests' own process logs, line by line. Always compiled, for tests that are crates of their own; nothing of the
//! program calls it.
//!
//! One subscriber for the whole process, not one for a test (`set_default`): whether a line of code logs at all is decided
//! once, for the thread that comes there first (`tracing_core::callsite`), and where that is another test's, which has no
//! subscriber, the line is never logged again.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};

static LINES: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<(ThreadId, String)>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one line, which comes in one piece.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim().to_owned();
        // Also where a test that fails shows it.
        println!("{line}");
        kept().push((thread::current().id(), line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on all lines from INFO on are kept, without the time. To be called before what is to be logged.
///
/// # Panics
/// Where something else already takes the log.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(|| Line);
        subscriber.init();
        // What was reached before is asked again.
        tracing::callsite::rebuild_interest_cache();
    });
}

/// The lines of all threads since [`keep`], oldest first.
pub fn lines() -> Vec<String> {
    kept().iter().map(|(_, line)| line.clone()).collect()
}

/// The lines of this thread since [`keep`], oldest first.
pub fn lines_of_this_thread() -> Vec<String> {
    let own = thread::current().id();
    kept().iter().filter(|(id, _)| *id == own).map(|(_, line)| line.clone()).collect()
}
