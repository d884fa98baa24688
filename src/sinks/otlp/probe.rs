//! Tries the configured receivers: with a request of each kind that has nothing in it, so that nothing is stored.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::Uri;

use super::config::{OtlpConfig, Signal};
use super::diagnosis::Fault;
use super::queue::Lane;
use super::sender::text;
use super::transport::Receiver;

/// A receiver is given no longer than this to answer, whatever the timeout of requests.
const WITHIN: Duration = Duration::from_secs(5);
/// To look what else is spoken at a port that does not speak gRPC.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// How trying a receiver went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub endpoint: String,
    /// `metrics`, `events`, `traces`.
    pub kinds: Vec<&'static str>,
    /// Why the agent would not start with this configuration.
    pub refused_at_start: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what_to_do: Option<String>,
}

/// Tries every receiver of the configuration, all at once. Takes [`WITHIN`] at most, and a second to look closer.
pub async fn try_receivers(config: &OtlpConfig) -> Vec<Tried> {
    let signals =
        [(Lane::Metrics, &config.metrics), (Lane::Events, &config.events), (Lane::Traces, &config.traces)];
    let tries = signals
        .into_iter()
        .filter_map(|(lane, signal)| Some((lane, signal.as_ref()?)))
        .map(|(lane, signal)| one(config, lane, signal));
    let mut all: Vec<Tried> = Vec::new();
    for tried in futures::future::join_all(tries).await {
        // Kinds of data that go the same way to the same end are one line. What the libraries say of one fault differs by
        // the moment.
        let end = |tried: &Tried| match &tried.what_to_do {
            Some(what_to_do) => Some(what_to_do.clone()),
            None => tried.error.clone(),
        };
        let same = |other: &&mut Tried| other.endpoint == tried.endpoint && end(other) == end(&tried);
        match all.iter_mut().find(same) {
            Some(other) => other.kinds.extend(tried.kinds),
            None => all.push(tried),
        }
    }
    all
}

async fn one(config: &OtlpConfig, lane: Lane, signal: &Signal) -> Tried {
    let signal = Signal { timeout: signal.timeout.min(WITHIN), ..signal.clone() };
    let mut tried = Tried {
        endpoint: signal.endpoint.to_string(),
        kinds: vec![lane.as_str()],
        refused_at_start: false,
        error: None,
        what_to_do: None,
    };
    let receiver = match Receiver::new(lane, signal.clone(), config.token_file.as_deref()) {
        Ok(receiver) => receiver,
        Err(error) => {
            tried.refused_at_start = true;
            tried.error = Some(error);
            return tried;
        }
    };
    // An export request without anything in it is no bytes at all.
    if let Err(status) = receiver.send(Bytes::new()).await {
        let fault = closer(&signal, &status).await;
        tried.error = Some(text(&status));
        tried.what_to_do = fault.what_to_do().map(str::to_owned);
    }
    tried
}

/// What is wrong; where a port was spoken to without TLS and does not speak gRPC, what it does speak.
async fn closer(signal: &Signal, status: &Status) -> Fault {
    let fault = Fault::of(status);
    // An answer has no cause, a connection that was lost has.
    let lost = std::error::Error::source(status).is_some();
    let unsaid = matches!(fault, Fault::NoGrpc | Fault::Closed) || fault == Fault::Other && lost;
    if signal.tls.is_some() || !unsaid {
        return fault;
    }
    let looked = tokio::time::timeout(LOOK_WITHIN, speaks(&signal.endpoint)).await;
    looked.ok().flatten().unwrap_or(fault)
}

/// What is spoken at a port where gRPC is not. The first words of HTTP/2 make a server of TLS alert and one of HTTP/1
/// refuse; some of HTTP/1 close without a word, but answer a request of their own.
async fn speaks(endpoint: &Uri) -> Option<Fault> {
    let host = endpoint.host()?.trim_matches(['[', ']']);
    let port = endpoint.port_u16().unwrap_or(80);
    let request = format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for words in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], request.as_bytes()] {
        let stream = TcpStream::connect((host, port)).await.ok()?;
        if let Some(fault) = answers(stream, words).await {
            return Some(fault);
        }
    }
    None
}

async fn answers(mut stream: TcpStream, words: &[u8]) -> Option<Fault> {
    stream.write_all(words).await.ok()?;
    let mut answer = Vec::with_capacity(512);
    // As far as it comes: it may close while it is read.
    while answer.len() < 512 && stream.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {}
    let text = String::from_utf8_lossy(&answer);
    match answer[..] {
        // A record of TLS: an alert, version 3.x.
        [0x15, 0x03, ..] => Some(Fault::WantsTls),
        // nginx's, Go's: "… to an HTTPS server".
        _ if text.starts_with("HTTP/") && text.contains("HTTPS") => Some(Fault::WantsTls),
        _ if text.starts_with("HTTP/") => Some(Fault::Http),
        _ => None,
    }
}
