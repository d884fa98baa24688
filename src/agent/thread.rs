//! The sampler's thread: how it begins, and how it ends in time.

use std::io::{PipeReader, PipeWriter};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tracing::warn;

/// How long the end may take, from SIGTERM on: the reading under way, and all sinks with what waits. Two seconds
/// are promised; the rest is the process's own.
const END: Duration = Duration::from_millis(1500);

const PANICKED: &str = "the sampler's thread panicked, nothing is read any more: start the agent again, and report the \
                        panic above";

/// The sampler's thread, and the way to end it.
pub(super) struct Running<T> {
    /// Its end is the sampler's.
    stop: PipeWriter,
    /// What the thread leaves.
    left: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Running<T> {
    /// `work` is to end when its pipe does.
    pub(super) fn start(work: impl FnOnce(&PipeReader) -> T + Send + 'static) -> Result<Self> {
        let (stopped, stop) = std::io::pipe().context("cannot make a pipe")?;
        let (leave, left) = oneshot::channel();
        std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || drop(leave.send(work(&stopped))))
            .context("cannot start the sampler's thread")?;
        Ok(Running { stop, left })
    }

    /// Waits for `shutdown`, or the thread's own end, which is a bug, and ends it: what it leaves, nothing if it does
    /// not end in time, and when the time is over for all the rest.
    pub(super) async fn until(self, shutdown: impl Future<Output = ()>) -> (Result<Option<T>>, Instant) {
        let Running { stop, mut left } = self;
        let ended = tokio::select! {
            () = shutdown => None,
            left = &mut left => Some(left),
        };
        let deadline = Instant::now() + END;
        drop(stop);
        let left = match ended {
            Some(left) => Ok(left),
            None => tokio::time::timeout_at(deadline.into(), left).await,
        };
        let left = match left {
            Ok(left) => left.map(Some).map_err(|_| anyhow::anyhow!(PANICKED)),
            Err(_) => {
                warn!("a reading does not end: what it read last is not published");
                Ok(None)
            }
        };
        (left, deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_panic_where_it_reads_is_the_end() {
        let running = Running::start(|_| panic!("a bug")).expect("a thread");
        let (left, _) = running.until(pending()).await;
        let left: Result<Option<()>> = left;
        assert!(left.expect_err("it panicked").to_string().contains("panicked"));
    }

    #[tokio::test]
    async fn what_ends_in_time_leaves_its_own_and_what_does_not_leaves_nothing() {
        let until_stopped =
            |mut stopped: &PipeReader| stopped.read_to_end(&mut Vec::new()).expect("the pipe's end");
        let running = Running::start(until_stopped).expect("a thread");
        let (left, _) = running.until(ready(())).await;
        assert_eq!(left.expect("no panic"), Some(0));

        let (never, hold) = std::io::pipe().expect("a pipe");
        let running = Running::start(move |_| until_stopped(&never)).expect("a thread");
        let (left, deadline) = running.until(ready(())).await;
        assert_eq!(left.expect("no panic"), None);
        assert!(Instant::now() >= deadline);
        drop(hold);
    }
}
