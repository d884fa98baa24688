//! Accepts connections: bounded in number, in time, and handed on to the leader by a follower.
//!
//! A follower passes a connection's bytes through as they are, so TLS, client certificates and tokens
//! reach the leader untouched. [`FORWARDED`] goes before them: what was handed on once is never handed
//! on again.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::leader::{Address, Role};
use super::tls::Tls;
use crate::reconciler::telemetry::Telemetry;

/// What a follower sends before the bytes it hands on. No TLS record, no HTTP request begins so.
const FORWARDED: &[u8; 8] = b"KGFWD 1\n";
/// Connections of one port at once.
const CONNECTIONS: usize = 4096;
/// A connection without a request, or a request without an end of its head, is closed after this.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long answers under way may take when this replica ends or stops leading.
const DRAIN: Duration = Duration::from_secs(3);
/// Streams of one HTTP/2 connection at once: a batch each, 4 MiB at most.
const STREAMS: u32 = 16;

/// In the extensions of each request whose client certificate our client CA has signed.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedPeer;

/// Which connections a follower hands to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// None: every replica answers for itself.
    Nothing,
    /// All.
    Otlp,
    /// Those that begin with a POST; probes are answered here.
    Webhook,
}

/// One port and what answers on it.
pub struct Port {
    pub name: &'static str,
    pub listener: TcpListener,
    pub app: Router,
    pub tls: Option<Arc<Tls>>,
    pub forward: Forward,
    pub role: watch::Receiver<Role>,
    pub telemetry: Arc<Telemetry>,
}

/// Serves until `stop`, then lets what is under way end.
pub async fn serve(port: Port, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let port = Arc::new(port);
    loop {
        let accepted = tokio::select! {
            accepted = port.listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: the next accept would fail at once too.
                tracing::warn!(port = port.name, %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            port.telemetry.connection("refused");
            continue;
        };
        let (port, stop) = (port.clone(), stop.clone());
        tasks.spawn(async move {
            connection(&port, stream, stop).await;
            drop(permit);
        });
    }
    tasks.close();
    let _ = timeout(DRAIN, tasks.wait()).await;
}

async fn connection(port: &Port, mut stream: TcpStream, stop: CancellationToken) {
    // Small messages, each answered: Nagle's delay would be added to every whisper.
    let _ = stream.set_nodelay(true);
    let mut first = [0u8];
    if !matches!(timeout(PATIENCE, stream.peek(&mut first)).await, Ok(Ok(1))) {
        return;
    }
    let mut handed_on = false;
    if port.forward != Forward::Nothing && first[0] == FORWARDED[0] {
        let mut magic = [0u8; FORWARDED.len()];
        let read = timeout(PATIENCE, stream.read_exact(&mut magic)).await;
        if !matches!(read, Ok(Ok(_))) || magic != *FORWARDED {
            return port.telemetry.connection("refused");
        }
        handed_on = true;
    }
    let mut role = port.role.clone();
    let role_now = role.borrow_and_update().clone();
    let ours = match port.forward {
        Forward::Nothing => true,
        Forward::Webhook => !handed_on && first[0] != b'P',
        Forward::Otlp => false,
    };
    match role_now {
        _ if ours => serve_connection(port, stream, stop, std::future::pending()).await,
        // A paused leader answers as well: come again.
        Role::Leader { .. } | Role::Paused { .. } => {
            let lost = async {
                let _ = role.wait_for(Role::follows).await;
            };
            serve_connection(port, stream, stop, lost).await;
        }
        Role::Follower { leader: Some(leader) } if !handed_on => {
            tokio::select! {
                () = hand_on(port, stream, &leader) => {}
                _ = role.changed() => {}
                () = stop.cancelled() => {}
            }
        }
        // Nobody to hand it to. The sender sees a closed connection and comes again.
        Role::Follower { .. } => port.telemetry.connection("refused"),
    }
}

/// Passes bytes between the caller and the leader until either is done.
async fn hand_on(port: &Port, mut stream: TcpStream, leader: &Address) {
    let number = if port.forward == Forward::Otlp { leader.otlp_port } else { leader.webhook_port };
    let to = SocketAddr::new(leader.ip, number);
    let Ok(Ok(mut there)) = timeout(Duration::from_secs(2), TcpStream::connect(to)).await else {
        return port.telemetry.connection("refused");
    };
    let _ = there.set_nodelay(true);
    port.telemetry.connection("forwarded");
    if there.write_all(FORWARDED).await.is_ok() {
        let _ = copy_bidirectional(&mut stream, &mut there).await;
    }
}

async fn serve_connection(
    port: &Port,
    stream: TcpStream,
    stop: CancellationToken,
    lost: impl Future<Output = ()>,
) {
    port.telemetry.connection("served");
    let Some(tls) = &port.tls else {
        return serve_http(port, stream, None, stop, lost).await;
    };
    match timeout(PATIENCE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            // rustls has verified it against the client CA, or there is none.
            let verified = stream.get_ref().1.peer_certificates().is_some_and(|c| !c.is_empty());
            serve_http(port, stream, verified.then_some(VerifiedPeer), stop, lost).await;
        }
        Ok(Err(error)) => tracing::debug!(port = port.name, %error, "TLS handshake"),
        Err(_) => {}
    }
}

async fn serve_http<S>(
    port: &Port,
    stream: S,
    peer: Option<VerifiedPeer>,
    stop: CancellationToken,
    lost: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let app = port.app.clone().map_request({
        let asked = asked.clone();
        move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(32 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(PATIENCE);
    // OTLP comes as gRPC and as plain HTTP.
    let http = if port.forward == Forward::Otlp { http } else { http.http1_only() };
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    // HTTP's own timers begin with the first request: nothing else ends a preface that never comes.
    let silent = async {
        tokio::time::sleep(PATIENCE).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    tokio::select! {
        result = served.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(port = port.name, error, "connection");
            }
            return;
        }
        () = silent => return,
        () = stop.cancelled() => {}
        () = lost => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(DRAIN, served).await;
}
