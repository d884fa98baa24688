//! Makes frames while somebody wants them, and keeps the last few for who is a little late.

use foldhash::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::frame::{Active, Frame, Said, Shown};
use super::lines::Header;
use super::maker::{self, Maker, said};
use crate::attribution::Attributed;
use crate::birth::{Certificate, UnderWay};
use crate::kernel::{Instant, clock};
use crate::signals::Whisper;
use crate::sinks::lock::lock;
use crate::sinks::terminal;

/// Frames are made for so long after they were last asked for; asking lasts [`PATIENCE`] at most.
const WANTED: Duration = Duration::from_secs(45);

/// A question is answered after this time at the latest, without a frame.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Frames kept for who asks a little late.
const KEPT: usize = 8;

/// Lines that wait for the next frame, and the latest that the first frame begins with.
const LINES: usize = 256;
const RECENT: usize = 32;

/// The frames of one agent.
#[derive(Debug)]
pub struct Frames {
    header: Header,
    inner: Mutex<Inner>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: nobody wants frames.
    maker: Option<Maker>,
    /// CLOCK_MONOTONIC, ns, until which they are wanted.
    wanted_until: u64,
    number: u64,
    /// The one that this reading makes.
    open: Option<Frame>,
    kept: VecDeque<Arc<Frame>>,
    /// By cgroup. Kept always, as it is told of on transitions alone.
    active: HashMap<String, Vec<Active>>,
    recent: VecDeque<Said>,
    whispers: Vec<Said>,
    born: Vec<Said>,
    left_out: u64,
}

impl Frames {
    pub fn new(node: Option<&str>, started: Instant) -> Frames {
        Frames {
            header: Header::new(node, started.unix_ns),
            inner: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// The first line of what is made of these frames.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Takes a reading.
    pub fn observe(&self, reading: &Attributed) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if inner.wanted_until < reading.at.mono_ns {
            (inner.maker, inner.open) = (None, None);
            inner.kept.clear();
            inner.whispers.clear();
            inner.born.clear();
            return;
        }
        let maker = inner.maker.get_or_insert_default();
        inner.open = maker.observe(reading, &inner.active);
    }

    /// Takes a whisper.
    pub fn whisper(&self, whisper: &Whisper) {
        let mut inner = self.inner();
        let cgroup = whisper.who.cgroup.as_str();
        let all = inner.active.entry(cgroup.to_owned()).or_default();
        let signal = Shown::new(whisper.signal.as_str());
        all.retain(|active| active.signal != signal);
        if whisper.active() {
            all.push(Active { signal, severity: whisper.severity });
        }
        if all.is_empty() {
            inner.active.remove(cgroup);
        }
        let line = said(&whisper.who, whisper.at, whisper.transition.as_str(), &terminal::sentence(whisper));
        inner.say(Said { severity: Some(whisper.severity), ..line });
    }

    /// Takes a birth; `text` says it to people.
    pub fn birth(&self, birth: &Certificate, text: &str) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if inner.maker.is_none() {
            return;
        }
        match inner.born.len() < LINES {
            true => inner.born.push(said(&birth.who, birth.at, "born", text)),
            false => inner.left_out += 1,
        }
    }

    /// Ends the reading: what was said of it is said. `births` tells of those under way, if that is wanted.
    pub fn close(&self, births: impl FnOnce() -> Vec<UnderWay>) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(mut frame) = inner.open.take() else { return };
        inner.number += 1;
        frame.number = inner.number;
        if inner.kept.is_empty() {
            // What was said before anybody looked, too.
            let before = inner.recent.len().saturating_sub(inner.whispers.len());
            frame.whispers.extend(inner.recent.iter().take(before).cloned());
        }
        frame.whispers.append(&mut inner.whispers);
        frame.born.append(&mut inner.born);
        frame.left_out = std::mem::take(&mut inner.left_out);
        let now = clock::instant();
        frame.births = births().iter().map(|birth| maker::birth(birth, now)).collect();
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Arc::new(frame));
        self.newest.send_replace(inner.number);
    }

    /// The frames after the one of this number, as soon as there is one, and no later than [`PATIENCE`]. The first who asks
    /// waits for two readings, as a frame is what lies between them.
    pub async fn after(&self, number: u64) -> Vec<Arc<Frame>> {
        let mut newest = self.newest.subscribe();
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            newest.mark_unchanged();
            {
                let mut inner = self.inner();
                let wanted = clock::now() + WANTED.as_nanos() as u64;
                inner.wanted_until = inner.wanted_until.max(wanted);
                // Of an agent that was started again since.
                let number = if number > inner.number { 0 } else { number };
                let found: Vec<_> =
                    inner.kept.iter().filter(|frame| frame.number > number).cloned().collect();
                if !found.is_empty() {
                    return found;
                }
            }
            match tokio::time::timeout_at(until, newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Vec::new(),
            }
        }
    }
}

impl Inner {
    fn say(&mut self, said: Said) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(said.clone());
        if self.maker.is_none() {
            return;
        }
        match self.whispers.len() < LINES {
            true => self.whispers.push(said),
            false => self.left_out += 1,
        }
    }
}
