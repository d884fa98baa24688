//! Where frames come from: probes of this program's own, or an agent's `/top`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::{Body, to_bytes};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::agent::{self, AgentArgs};
use crate::causes::chain;
use crate::sinks::frames::lines::{self, Header};
use crate::sinks::frames::{Frame, Frames};

/// An agent answers within this time, with or without a frame.
const PATIENCE: Duration = Duration::from_secs(30);

/// Before an agent that does not answer any more is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Frames that wait for a slow terminal.
const QUEUE: usize = 16;

/// Frames as they come.
#[derive(Debug)]
pub struct Feed {
    pub header: Header,
    frames: mpsc::Receiver<Result<Arc<Frame>>>,
    /// Dropped, it ends what makes them.
    stop: Option<oneshot::Sender<()>>,
    work: JoinHandle<()>,
}

impl Feed {
    /// The next frame; `None`: there will be none any more.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn next(&mut self) -> Result<Option<Arc<Frame>>> {
        self.frames.recv().await.transpose()
    }

    /// Ends it: no probe is attached any more.
    pub async fn end(mut self) {
        self.frames.close();
        drop(self.stop.take());
        // The end of the process detaches what does not end by itself.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.work).await;
    }
}

/// Loads the probes and reads them, as an agent does.
///
/// # Errors
/// A configuration that is refused, or nothing to read here.
pub async fn own(args: AgentArgs, interval: Option<Duration>) -> Result<Feed> {
    let (say, frames) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel::<Arc<Frames>>();
    let broken = say.clone();
    let work = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        if let Err(error) = agent::live(args, interval, tell, shutdown).await {
            let _ = broken.send(Err(error)).await;
        }
    });
    let Ok(hub) = told.await else {
        let mut frames = frames;
        drop(say);
        return Err(match frames.recv().await {
            Some(Err(error)) => error,
            _ => anyhow::anyhow!("the probes ended before they began"),
        });
    };
    let header = hub.header().clone();
    tokio::spawn(async move {
        let mut last = 0;
        loop {
            for frame in hub.after(last).await {
                last = frame.number;
                if say.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            if say.is_closed() {
                return;
            }
        }
    });
    Ok(Feed { header, frames, stop: Some(stop), work })
}

/// The agent's address: what `--attach` is given, with or without the scheme.
///
/// # Errors
/// It is no such address, in one line that says what is.
pub fn agent_url(text: &str) -> Result<Uri, String> {
    let wrong =
        || format!("{text:?} is no agent's address: write http://HOST:PORT, that of its --prometheus");
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("http") && uri.authority().is_some();
    let root = matches!(uri.path(), "" | "/" | "/top" | "/metrics") && uri.query().is_none();
    if plain && root { Ok(uri) } else { Err(wrong()) }
}

/// An agent that is asked again and again.
#[derive(Debug)]
struct Agent {
    client: Client<HttpConnector, Body>,
    authority: String,
    /// The last frame of it.
    last: u64,
}

/// Attaches to an agent.
///
/// # Errors
/// Nobody answers there, or none that has frames of this version.
pub async fn attached(uri: &Uri) -> Result<Feed> {
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut agent = Agent { client, authority, last: 0 };
    let (header, first) = agent.ask().await?;
    let (say, frames) = mpsc::channel(QUEUE);
    let mut started = header.started_unix_ns;
    let work = tokio::spawn(async move {
        let mut answer = Ok(first);
        loop {
            let ended = match answer {
                Ok(frames) => {
                    let mut ended = false;
                    for frame in frames {
                        agent.last = frame.number;
                        ended |= say.send(Ok(Arc::new(frame))).await.is_err();
                    }
                    ended
                }
                Err(error) => {
                    tracing::error!("{error:#}");
                    tokio::time::sleep(AGAIN).await;
                    false
                }
            };
            if ended || say.is_closed() {
                return;
            }
            answer = tokio::select! {
                answer = agent.ask() => answer.map(|(header, frames)| {
                    // It was started again, and counts from 1.
                    if std::mem::replace(&mut started, header.started_unix_ns) != header.started_unix_ns {
                        tracing::error!("the agent was started again");
                    }
                    frames
                }),
                () = say.closed() => return,
            };
        }
    });
    Ok(Feed { header, frames, stop: None, work })
}

impl Agent {
    async fn ask(&self) -> Result<(Header, Vec<Frame>)> {
        let Agent { client, authority, last } = self;
        let uri: Uri = format!("http://{authority}/top?after={last}").parse()?;
        let unheard = || {
            format!("no agent answers at http://{authority}: --attach takes the address of its --prometheus")
        };
        let answer = tokio::time::timeout(PATIENCE, client.get(uri)).await.with_context(unheard)?;
        let answer = answer.map_err(|error| anyhow::anyhow!("{}: {}", unheard(), chain(&error)))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => bail!("http://{authority} has no /top: it is no agent, or an older one"),
            status => bail!("http://{authority}/top answers {status}: try again"),
        }
        let most = usize::try_from(lines::MAX_LINE).unwrap_or(usize::MAX);
        let body = to_bytes(Body::new(answer.into_body()), most);
        let body = tokio::time::timeout(PATIENCE, body).await.with_context(unheard)?;
        let body = body.with_context(unheard)?;
        read(&body).with_context(|| format!("what http://{authority}/top answers"))
    }
}

fn read(body: &[u8]) -> Result<(Header, Vec<Frame>)> {
    let mut input = body;
    let header = lines::read_header(&mut input)?;
    let (mut frames, mut line, mut number) = (Vec::new(), Vec::new(), 2);
    while lines::read_line(&mut input, &mut line, number)? {
        frames.push(lines::frame(&line, number)?);
        number += 1;
    }
    Ok((header, frames))
}
