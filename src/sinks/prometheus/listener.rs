//! Connections, bounded in number and in how long one may do nothing.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at one time; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 16;

/// A connection ends this long after the last byte its client sent: one kept for the next request, and one
/// whose client reads its answer too slowly.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener with at most [`CONNECTIONS`] connections.
pub struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Bounded {
    pub fn new(listener: TcpListener) -> Self {
        Bounded { listener, free: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; were it, connections would only go uncounted.
        let permit = self.free.clone().acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(tokio::time::sleep(PATIENCE));
        (Connection { stream, deadline, _permit: permit }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its client was silent for [`PATIENCE`].
pub struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Ready with an error when time is up, else wakes the task then.
    fn expired(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                this.deadline.as_mut().reset(Instant::now() + PATIENCE);
            }
            return Poll::Ready(result);
        }
        this.expired(cx)?;
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.expired(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    // Vectored: or hyper would copy a whole answer into a buffer of its own, which no limit knows of.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.expired(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.expired(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (Bounded, Connection, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut bounded = Bounded::new(listener);
        let (client, (connection, _)) = tokio::join!(TcpStream::connect(address), bounded.accept());
        (bounded, connection, client.expect("connected"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let (_bounded, mut connection, mut client) = pair().await;
        let began = Instant::now();
        client.write_all(b"GET").await.expect("written");
        let mut bytes = [0; 16];
        assert_eq!(connection.read(&mut bytes).await.expect("read"), 3);
        let error = connection.read(&mut bytes).await.expect_err("time is up");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_let_go() {
        let (_bounded, mut connection, _client) = pair().await;
        let much = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = connection.write_all(&much).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn one_too_many_waits_until_another_ends() {
        let (mut bounded, first, _client) = pair().await;
        let address = bounded.local_addr().expect("its address");
        let mut all = Vec::new();
        for _ in 1..CONNECTIONS {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), bounded.accept());
            all.push((client.expect("connected"), accepted));
        }
        // The kernel accepts it, the listener does not.
        let _one_more = TcpStream::connect(address).await.expect("connected");
        tokio::select! {
            biased;
            _ = bounded.accept() => panic!("more than {CONNECTIONS} connections"),
            () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
        }
        drop(first);
        tokio::select! {
            _ = bounded.accept() => {}
            () = pending() => {}
        }
    }
}
