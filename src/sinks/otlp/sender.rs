//! Empties one lane of the queue into its receiver, again and again until it is accepted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::config::Retry;
use super::diagnosis::Fault;
use super::encode::Request;
use super::queue::{Lane, Queue};
use super::transport::{Partial, Receiver, retry_after};
use crate::causes::chain;
use crate::sinks::lock;

/// A receiver that asks to wait longer is asked again after this.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A receiver that is short of something without saying for how long is asked again so often, with the ordinary waiting
/// some four minutes. What is said once is worth that; what is cumulative is said again anyway.
const EXHAUSTED_MAX: u32 = 20;

/// What became of a lane's requests. Cumulative.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Requests accepted, and the items in them.
    pub delivered: AtomicU64,
    pub delivered_items: AtomicU64,
    /// Attempts that failed and were or will be repeated.
    pub retried: AtomicU64,
    /// Requests refused for good, and the items in them.
    pub refused: AtomicU64,
    pub refused_items: AtomicU64,
    /// Items rejected of requests that were accepted (partial success).
    pub rejected_items: AtomicU64,
}

/// What is known of a receiver that lanes may share: each change is told once.
#[derive(Debug)]
pub struct Health {
    endpoint: String,
    queue: Arc<Queue>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since the first lane failed, until none does.
    outage: Option<Outage>,
    /// By lane: a receiver may take one and not the other.
    failing: [bool; Lane::COUNT],
    refusing: [bool; Lane::COUNT],
    warning: [String; Lane::COUNT],
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// Items the queue had dropped when it began.
    dropped: u64,
}

impl Health {
    pub fn new(endpoint: String, queue: Arc<Queue>) -> Self {
        Health { endpoint, queue, state: Mutex::default() }
    }

    fn dropped(&self) -> u64 {
        Lane::ALL.iter().map(|lane| self.queue.size(*lane).dropped).sum()
    }

    pub(super) fn unreachable(&self, lane: Lane, status: &Status) {
        let mut state = lock(&self.state);
        state.failing[lane as usize] = true;
        if state.outage.is_none() {
            state.outage = Some(Outage { since: Instant::now(), dropped: self.dropped() });
            tracing::warn!(
                "OTLP receiver {}: cannot be reached ({}); what is to be sent is kept, as far as there is room, \
                 and sent again",
                self.endpoint,
                describe(status)
            );
        }
    }

    pub(super) fn refused(&self, lane: Lane, status: &Status) {
        let mut state = lock(&self.state);
        if !std::mem::replace(&mut state.refusing[lane as usize], true) {
            tracing::error!(
                "OTLP receiver {}: refuses {} ({}); they are dropped and counted",
                self.endpoint,
                lane.as_str(),
                describe(status)
            );
        }
    }

    fn accepted(&self, lane: Lane, partial: &Partial) {
        let mut state = lock(&self.state);
        state.refusing[lane as usize] = false;
        state.failing[lane as usize] = false;
        if state.failing == [false; Lane::COUNT]
            && let Some(outage) = state.outage.take()
        {
            let [metrics, events, _] = Lane::ALL.map(|lane| self.queue.size(lane).items);
            tracing::info!(
                "OTLP receiver {}: reachable again after {} s; {events} events and {metrics} data points were kept, \
                 {} were dropped",
                self.endpoint,
                outage.since.elapsed().as_secs(),
                self.dropped() - outage.dropped
            );
        }
        let warning = &mut state.warning[lane as usize];
        if partial.message != *warning {
            let (endpoint, lane, message) = (&self.endpoint, lane.as_str(), &partial.message);
            match partial.rejected {
                _ if message.is_empty() => {}
                0 => tracing::warn!("OTLP receiver {endpoint}: takes {lane} and warns: {message}"),
                rejected => tracing::warn!("OTLP receiver {endpoint}: rejects {rejected} {lane}: {message}"),
            }
            warning.clone_from(&partial.message);
        }
    }
}

/// One lane's way out.
pub struct Sender {
    pub lane: Lane,
    pub queue: Arc<Queue>,
    pub receiver: Receiver,
    pub outcomes: Arc<Outcomes>,
    pub health: Arc<Health>,
    pub retry: Retry,
    /// Bytes: requests that wait are joined up to this.
    pub most_at_once: usize,
    /// How often in a row the receiver was short of something.
    pub exhausted: u32,
}

impl Sender {
    /// Sends until the queue drains and the lane is empty, or an attempt fails while it drains.
    pub async fn run(mut self) {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.retry.first)
            .with_max_delay(self.retry.longest)
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        while let Some(request) = self.queue.take(self.lane, self.most_at_once).await {
            let Some(status) = self.attempt(request).await else {
                delays = backoff.build();
                continue;
            };
            if self.queue.draining() {
                return;
            }
            let asked = retry_after(&status).map(|wait| wait.min(LONGEST_WAIT));
            let wait = asked.or_else(|| delays.next()).unwrap_or(self.retry.longest);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.queue.drained(self.lane) => {}
            }
        }
    }

    /// Sends once; the status of a failure that is worth another attempt, for which the request is put back.
    async fn attempt(&mut self, request: Request) -> Option<Status> {
        let (lane, items) = (self.lane, request.items as u64);
        match self.receiver.send(request.body.clone()).await {
            Ok(partial) => {
                self.exhausted = 0;
                self.health.accepted(lane, &partial);
                self.queue.done(lane, &request);
                let rejected = partial.rejected.min(items);
                self.outcomes.delivered.fetch_add(1, Ordering::Relaxed);
                self.outcomes.delivered_items.fetch_add(items - rejected, Ordering::Relaxed);
                self.outcomes.rejected_items.fetch_add(rejected, Ordering::Relaxed);
                None
            }
            Err(status) if worth_another(&status) || self.waits_for_room(&status) => {
                self.health.unreachable(lane, &status);
                self.queue.put_back(lane, request);
                self.outcomes.retried.fetch_add(1, Ordering::Relaxed);
                Some(status)
            }
            Err(status) => {
                self.exhausted = 0;
                self.health.refused(lane, &status);
                self.queue.done(lane, &request);
                self.outcomes.refused.fetch_add(1, Ordering::Relaxed);
                self.outcomes.refused_items.fetch_add(items, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Sender {
    /// A collector whose memory_limiter refuses may say so without RetryInfo. OTLP's specification has the sender drop
    /// then; but it is short of memory for a while, and an event is said once. A message that is too large for it would
    /// stay so.
    fn waits_for_room(&mut self, status: &Status) -> bool {
        let short = status.code() == Code::ResourceExhausted && !status.message().contains("larger than max");
        if !short || self.lane == Lane::Metrics || self.exhausted >= EXHAUSTED_MAX {
            return false;
        }
        self.exhausted += 1;
        true
    }
}

/// The retryable codes of the OTLP specification. `ResourceExhausted` is one only where the receiver says
/// when to come back. A lost connection may have any code, but has a cause, which no answer has.
fn worth_another(status: &Status) -> bool {
    match status.code() {
        _ if std::error::Error::source(status).is_some() => true,
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => retry_after(status).is_some(),
        _ => false,
    }
}

/// What a failed request says, with its causes.
pub(super) fn text(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(chain);
    match (status.message(), cause) {
        (message, Some(cause)) if cause.contains(message) => cause,
        (message, Some(cause)) => format!("{message}: {cause}"),
        (message, None) => format!("{:?}: {message}", status.code()),
    }
}

/// The same with what to do, if that is known.
fn describe(status: &Status) -> String {
    match Fault::of(status).what_to_do() {
        Some(advice) => format!("{}; {advice}", text(status)),
        None => text(status),
    }
}

#[cfg(test)]
mod tests;
