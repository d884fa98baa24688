//! Whispers and births on stdout: one line each, for people or as JSON.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::event::{AttrValue, birth_attributes, resource_attributes, whisper_attributes};
use crate::birth::Certificate;
use crate::names::{self, whisper as attr};
use crate::plain::Printable;
use crate::signals::{Severity, Transition, Whisper};

/// Whispers that wait for a slow reader of stdout; beyond it they are dropped and counted.
const QUEUE: usize = 1024;

/// What the terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// One line for people per whisper.
    Text,
    /// One JSON object a line per whisper.
    Json,
    /// Nothing.
    None,
}

/// What one line is about.
#[derive(Debug)]
enum Message {
    Whisper(Box<Whisper>),
    /// With the line for people.
    Birth(Box<Certificate>, String),
}

/// Stdout, behind a bounded queue and a thread of its own: a reader that is slow or gone holds up
/// nothing.
#[derive(Debug)]
pub struct Terminal {
    queue: Option<SyncSender<Message>>,
    done: Receiver<()>,
    dropped: Arc<AtomicU64>,
}

impl Terminal {
    /// Begins to write to stdout; in colour on a terminal unless `NO_COLOR` is set.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(output: Output, node: Option<String>) -> io::Result<Terminal> {
        let colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        Terminal::start_on(Lines { out: io::stdout(), output, node, colour })
    }

    fn start_on<W: Write + Send + 'static>(mut lines: Lines<W>) -> io::Result<Terminal> {
        // Nothing is ever sent on `done`: it closes with the thread.
        let (ends, done) = sync_channel(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let unwritten = dropped.clone();
        if lines.output == Output::None {
            return Ok(Terminal { queue: None, done, dropped });
        }
        let (queue, whispers) = sync_channel(QUEUE);
        std::thread::Builder::new().name("terminal".into()).spawn(move || {
            let _ends: SyncSender<()> = ends;
            let mut broken = false;
            for said in whispers {
                if !broken && let Err(error) = lines.write(&said) {
                    tracing::warn!(%error, "stdout cannot be written to: no more whispers are shown there");
                    broken = true;
                }
                unwritten.fetch_add(u64::from(broken), Ordering::Relaxed);
            }
        })?;
        Ok(Terminal { queue: Some(queue), done, dropped })
    }

    /// Shows a whisper, soon.
    pub fn say(&self, whisper: &Whisper) {
        self.queue(|| Message::Whisper(Box::new(whisper.clone())));
    }

    /// Shows a birth, soon; `text` says it to people.
    pub fn birth(&self, birth: &Certificate, text: &str) {
        self.queue(|| Message::Birth(Box::new(birth.clone()), text.to_owned()));
    }

    fn queue(&self, said: impl FnOnce() -> Message) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(said()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whispers not shown because the reader was too slow or is gone. Cumulative.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes out what waits, for `within` at most.
    pub fn close(mut self, within: Duration) {
        if self.queue.take().is_some() && self.done.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("stdout is not being read: the last whispers are not shown");
        }
    }
}

/// Writes whispers as lines.
struct Lines<W> {
    out: W,
    output: Output,
    node: Option<String>,
    colour: bool,
}

impl<W: Write> Lines<W> {
    /// Writes one line and flushes it.
    fn write(&mut self, said: &Message) -> io::Result<()> {
        match (self.output, said) {
            (Output::Text, Message::Whisper(whisper)) => {
                writeln!(self.out, "{}", Text { whisper, colour: self.colour })?;
            }
            (Output::Text, Message::Birth(birth, text)) => {
                writeln!(self.out, "{:.0} birth {}", time(birth.at.unix_ns), Printable(text))?;
            }
            (Output::Json, Message::Whisper(whisper)) => {
                serde_json::to_writer(&mut self.out, &Json { whisper, node: self.node.as_deref() })?;
                self.out.write_all(b"\n")?;
            }
            (Output::Json, Message::Birth(birth, _)) => {
                serde_json::to_writer(&mut self.out, &BirthJson { birth, node: self.node.as_deref() })?;
                self.out.write_all(b"\n")?;
            }
            (Output::None, _) => {}
        }
        self.out.flush()
    }
}

/// A whisper as one JSON object: `timestamp`, `event.name`, and the attributes of the OTLP event and
/// its resource under their own names. Points in time are RFC 3339, as most readers of JSON take
/// numbers for doubles, which cannot hold them; all else has the OTLP event's unit.
struct Json<'a> {
    whisper: &'a Whisper,
    node: Option<&'a str>,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let w = self.whisper;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &time(w.at.unix_ns))?;
        map.serialize_entry(names::EVENT_NAME, names::WHISPER_EVENT)?;
        for (name, value) in resource_attributes(&w.who, self.node) {
            map.serialize_entry(name, &Value(&value))?;
        }
        for (name, value) in whisper_attributes(w) {
            match &value {
                AttrValue::Int(ns) if name == attr::SINCE => map.serialize_entry(name, &signed_time(*ns))?,
                AttrValue::IntArray(all) if name == attr::HISTORY_TIME => {
                    let times: Vec<_> = all.iter().map(|ns| signed_time(*ns)).collect();
                    map.serialize_entry(name, &times)?;
                }
                value => map.serialize_entry(name, &Value(value))?,
            }
        }
        map.end()
    }
}

/// A birth likewise, its certificate not as text but as what it is.
struct BirthJson<'a> {
    birth: &'a Certificate,
    node: Option<&'a str>,
}

impl Serialize for BirthJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &time(self.birth.at.unix_ns))?;
        map.serialize_entry("event.name", names::BIRTH_EVENT)?;
        // To the nanosecond, which the certificate's `startedAt` does not have.
        map.serialize_entry("kernel_gossip.birth.zero", &time(self.birth.zero.unix_ns))?;
        for (name, value) in resource_attributes(&self.birth.who, self.node) {
            map.serialize_entry(name, &Value(&value))?;
        }
        for (name, value) in birth_attributes(self.birth) {
            match name {
                names::birth::CERTIFICATE => map.serialize_entry(name, &self.birth.status)?,
                name => map.serialize_entry(name, &Value(&value))?,
            }
        }
        map.end()
    }
}

struct Value<'a>(&'a AttrValue);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            AttrValue::Str(v) => v.serialize(serializer),
            AttrValue::Int(v) => v.serialize(serializer),
            AttrValue::Double(v) => v.serialize(serializer),
            AttrValue::StrArray(v) => v.serialize(serializer),
            AttrValue::IntArray(v) => v.serialize(serializer),
            AttrValue::DoubleArray(v) => v.serialize(serializer),
        }
    }
}

fn time(unix_ns: u64) -> Timestamp {
    // Never out of range: 64 bits of ns end in the year 2554, a timestamp in 9999.
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX)
}

fn signed_time(unix_ns: i64) -> Timestamp {
    time(u64::try_from(unix_ns).unwrap_or(0))
}

/// A whisper as one line for people, without colour.
pub fn text(whisper: &Whisper) -> String {
    Text { whisper, colour: false }.to_string()
}

/// The same without what its time, severity and transition say.
pub fn sentence(whisper: &Whisper) -> String {
    Sentence { whisper, name: Style::new() }.to_string()
}

/// A whisper as one line for people.
struct Text<'a> {
    whisper: &'a Whisper,
    colour: bool,
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = self.whisper;
        let (level, name) = match (self.colour, w.transition, w.severity) {
            (false, ..) => (Style::new(), Style::new()),
            (true, Transition::Resolved, _) => (AnsiColor::Green.on_default(), Style::new().bold()),
            (true, _, Severity::Warning) => (AnsiColor::Yellow.on_default(), Style::new().bold()),
            (true, _, Severity::Critical) => (AnsiColor::Red.on_default().bold(), Style::new().bold()),
        };
        let (severity, transition) = (w.severity.as_str(), w.transition.as_str());
        write!(f, "{:.0} {level}{severity:<8} {transition:<8}{level:#} ", time(w.at.unix_ns))?;
        Sentence { whisper: w, name }.fmt(f)
    }
}

/// What follows in the line: `cpu_throttle shop/web/app: throttled 80 % of the last 10.0 s: …`.
struct Sentence<'a> {
    whisper: &'a Whisper,
    name: Style,
}

impl Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sentence { whisper: w, name } = self;
        write!(f, "{} {name}{}{name:#}: ", w.signal.as_str(), Printable(&w.who.label()))?;
        let kind = w.signal.kind();
        let headline = kind.headline(&w.evidence);
        f.write_str(&headline)?;
        if let Some(seconds) = w.evidence.window_seconds {
            // "throttled 80 % of the last …", "throttled in the last …".
            let of = if headline.contains(|c: char| c.is_ascii_digit()) { "of" } else { "in" };
            write!(f, " {of} the last {seconds:.1} s")?;
        }
        f.write_str(&kind.details(w))?;
        if w.transition != Transition::Started {
            let lasted = Duration::from_nanos(w.at.mono_ns.saturating_sub(w.since.mono_ns));
            let lasted = SignedDuration::from_secs(lasted.as_secs().try_into().unwrap_or(i64::MAX));
            write!(f, "; since {:.0}, {lasted:#}", time(w.since.unix_ns))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
