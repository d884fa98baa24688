//! `kernel-gossip top`: which workloads lose time, to what, and who is to blame, live. One type, the
//! [`Frame`], is shown, written as JSON, recorded, and read again.
//!
//! Inside belongs what a person does with frames. How they are made does not: an agent makes them, this program's own or another.

pub mod draw;
pub mod palette;
pub mod past;
mod recording;
mod screen;
mod source;
pub mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Uri;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use crate::agent::AgentArgs;
use crate::attribution::{HostArgs, watch};
use crate::sinks::frames::lines;
use crate::sinks::frames::{Frame, Shown};
use crate::sinks::otlp::OtlpArgs;
use palette::Palette;
use recording::{Recorder, Recording};
use source::Feed;
use view::{Asked, Mode, Sort, View};

pub use screen::{Log, Screen};

/// What to show, and where from.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// Show what this agent reads instead of reading the kernel: the address of its --prometheus, such as
    /// http://127.0.0.1:9464
    #[arg(long, value_name = "URL", value_parser = source::agent_url, conflicts_with_all = ["replay", "HostArgs"])]
    pub attach: Option<Uri>,
    /// Show a recording: space plays and pauses, the arrows go one interval on or back
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "HostArgs"])]
    pub replay: Option<PathBuf>,
    /// Also write what is shown to this new file, for --replay
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Show one interval, then end
    #[arg(long)]
    pub once: bool,
    /// Output format: a screen (with --once a table), or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Sort by this number, the most first
    #[arg(long, value_enum, default_value_t = Sort::Lost)]
    pub sort: Sort,
    /// Show only workloads with this in their name or cgroup path
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Colours
    #[arg(long, value_enum, default_value_t = Palette::Default)]
    pub palette: Palette,
    /// No colours, as --palette none; so does the variable NO_COLOR
    #[arg(long)]
    pub no_color: bool,
    /// Time between two readings, 100ms to 1m [default: that of the configuration, 1s]
    #[arg(long, value_name = "TIME", value_parser = interval, conflicts_with_all = ["attach", "replay"])]
    pub interval: Option<Duration>,
    /// Configuration file of the agent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["attach", "replay"])]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub host: HostArgs,
    /// Name of this node in the API server [default: $NODE_NAME, else the host name]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["attach", "replay"],
          value_parser = |name: &str| watch::valid_node_name(name))]
    pub node_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// With --once one object, else a recording: a line that says what it is, then one object a line
    Json,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    let fits = parsed.filter(|d| (Duration::from_millis(100)..=Duration::from_secs(60)).contains(d));
    fits.ok_or_else(|| "a time from 100ms to 1m is wanted, such as 500ms or 2s".to_owned())
}

impl TopArgs {
    fn palette(&self) -> Palette {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        if self.no_color || set("NO_COLOR") || dumb { Palette::None } else { self.palette }
    }

    fn view(&self, header: &lines::Header, mode: Mode) -> View {
        View::new(header.clone(), mode, self.palette(), self.sort, self.filter.clone())
    }

    async fn feed(&self) -> Result<Feed> {
        if let Some(uri) = &self.attach {
            return source::attached(uri).await;
        }
        let args = AgentArgs {
            config: self.config.clone(),
            output: None,
            host: self.host.clone(),
            node_name: self.node_name.clone(),
            prometheus: None,
            otlp: OtlpArgs::default(),
        };
        source::own(args, self.interval).await
    }

    fn recorder(&self, header: &lines::Header) -> Result<Option<Recorder>> {
        let Some(path) = &self.record else { return Ok(None) };
        let mut recorder = Recorder::create(path)?;
        recorder.write(header)?;
        Ok(Some(recorder))
    }
}

/// Shows it, until `shutdown` or the user ends it.
///
/// # Errors
/// Nothing to read, no agent, no recording, or a terminal that cannot be written to.
pub async fn run(args: TopArgs, shutdown: impl Future<Output = ()>) -> Result<()> {
    let plain = args.once || args.output == Format::Json;
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !plain && !on_terminal {
        bail!(
            "top shows itself on a terminal, and this is none: --once shows one interval, --output json all of them"
        );
    }
    let mut shutdown = std::pin::pin!(shutdown);
    if let Some(path) = &args.replay {
        let mut recording = Recording::open(path)?;
        return match plain {
            true => print_recording(&args, &mut recording),
            false => replay(&args, recording, shutdown).await,
        };
    }
    let mut feed = tokio::select! {
        feed = args.feed() => feed?,
        () = &mut shutdown => return Ok(()),
    };
    let ended = match plain {
        true => print(&args, &mut feed, shutdown).await,
        false => live(&args, &mut feed, shutdown).await,
    };
    feed.end().await;
    ended
}

/// One frame for a person, or as many as come as lines of JSON.
async fn print(args: &TopArgs, feed: &mut Feed, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut recorder = args.recorder(&feed.header)?;
    let mut shutdown = std::pin::pin!(shutdown);
    if !args.once {
        line(&feed.header)?;
    }
    loop {
        let frame = tokio::select! {
            frame = feed.next() => frame?,
            () = &mut shutdown => return Ok(()),
        };
        let Some(frame) = frame else { return Ok(()) };
        if let Some(recorder) = &mut recorder {
            recorder.write(&*frame)?;
        }
        if args.output == Format::Json {
            line(&*frame)?;
        }
        if args.once {
            return match args.output {
                Format::Json => Ok(()),
                Format::Text => table(args, &feed.header, frame),
            };
        }
    }
}

fn print_recording(args: &TopArgs, recording: &mut Recording) -> Result<()> {
    let last = recording.frames() - 1;
    if !args.once {
        line(recording.header())?;
        return (0..=last).try_for_each(|place| line(&recording.frame(place)?));
    }
    let frame = recording.frame(last)?;
    match args.output {
        Format::Json => line(&frame),
        Format::Text => table(args, recording.header(), Arc::new(frame)),
    }
}

fn line(of: &impl serde::Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    lines::write(&mut out, of).and_then(|()| out.flush()).context("stdout")
}

/// The list as text: as wide as the terminal, or 120 columns.
fn table(args: &TopArgs, header: &lines::Header, frame: Arc<Frame>) -> Result<()> {
    let mut view = args.view(header, Mode::Live);
    view.palette = Palette::None;
    view.past_mut().take(frame);
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    let width = if columns == 0 { 120 } else { columns.max(60) };
    let mut out = io::stdout().lock();
    draw::once(&view, width).iter().try_for_each(|line| writeln!(out, "{line}")).context("stdout")
}

/// Keys and changes of size, from a thread of its own, as reading them blocks.
fn events() -> Result<mpsc::Receiver<Event>> {
    let (say, events) = mpsc::channel(64);
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(event) = event::read() {
            if say.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}

async fn live(args: &TopArgs, feed: &mut Feed, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut recorder = args.recorder(&feed.header)?;
    let mode = if args.attach.is_some() { Mode::Attached } else { Mode::Live };
    let mut view = args.view(&feed.header, mode);
    let mut screen = Screen::take().context("the terminal")?;
    let mut events = events()?;
    let mut shutdown = std::pin::pin!(shutdown);
    // Lines of the log by the newest frame: what was told before it is over.
    let mut told = 0;
    loop {
        let (lines, newest) = screen::log();
        view.log = newest.filter(|_| lines > told).map(|line| Shown::new(&line));
        screen.show(&view).context("the terminal")?;
        tokio::select! {
            frame = feed.next() => match frame? {
                Some(frame) => {
                    if let Some(recorder) = &mut recorder {
                        recorder.write(&*frame)?;
                    }
                    view.past_mut().take(frame);
                    told = lines;
                }
                None => return Ok(()),
            },
            // An agent that is gone is told of in the log alone.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            event = events.recv() => match event {
                Some(Event::Key(key)) if view.press(key) == Asked::Quit => return Ok(()),
                Some(_) => {}
                None => return Ok(()),
            },
            () = &mut shutdown => return Ok(()),
        }
    }
}

/// A recording, and the place in it that is shown.
struct Player {
    recording: Recording,
    place: usize,
    playing: bool,
}

impl Player {
    fn last(&self) -> usize {
        self.recording.frames() - 1
    }

    /// Goes to a place. What is shown there is made of the frames before it, as many as the live view kept.
    fn go(&mut self, view: &mut View, place: usize) -> Result<()> {
        let place = place.min(self.last());
        let on = place == self.place + 1 && !view.past().is_empty();
        let from = if on { place } else { (place + 1).saturating_sub(past::FRAMES) };
        if !on {
            *view.past_mut() = past::Past::default();
        }
        for i in from..=place {
            view.past_mut().take(Arc::new(self.recording.frame(i)?));
        }
        self.place = place;
        self.playing &= place < self.last();
        self.tell(view);
        Ok(())
    }

    fn tell(&self, view: &mut View) {
        view.mode =
            Mode::Replay { place: self.place + 1, frames: self.recording.frames(), playing: self.playing };
    }

    /// Does what a key asks; false: it is the end.
    fn press(&mut self, view: &mut View, event: &Event) -> Result<bool> {
        let Event::Key(key) = event else { return Ok(true) };
        match view.press(*key) {
            Asked::Nothing => {}
            Asked::Quit => return Ok(false),
            Asked::Step(by) => {
                self.playing = false;
                let to = (self.place as i64).saturating_add(by).clamp(0, self.last() as i64);
                self.go(view, usize::try_from(to).unwrap_or(0))?;
            }
            Asked::Tenth(tenth) => self.go(view, self.last() * tenth / 10)?,
            Asked::Play => {
                self.playing = !self.playing && self.place < self.last();
                self.tell(view);
            }
        }
        Ok(true)
    }
}

async fn replay(args: &TopArgs, recording: Recording, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut view = args.view(recording.header(), Mode::Live);
    let mut player = Player { recording, place: 0, playing: true };
    player.go(&mut view, 0)?;
    let mut screen = Screen::take().context("the terminal")?;
    let mut events = events()?;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        screen.show(&view).context("the terminal")?;
        // As fast as it was. What a file says of that is not worth more than a minute.
        let seconds = view.past().frame().seconds.clamp(0.05, 60.0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(seconds)), if player.playing => {
                let next = player.place + 1;
                player.go(&mut view, next)?;
            }
            event = events.recv() => match event {
                Some(event) if player.press(&mut view, &event)? => {}
                _ => return Ok(()),
            },
            () = &mut shutdown => return Ok(()),
        }
    }
}
