//! What waits to be exported: encoded requests, bounded in bytes, the oldest metrics dropped first.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::encode::Request;
use crate::sinks::lock;

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Cumulative: a later point says again what a dropped one said.
    Metrics,
    /// Said once: kept in preference to metrics and traces.
    Events,
    /// Said once, and in short by an event too: kept in preference to metrics.
    Traces,
}

impl Lane {
    pub const COUNT: usize = 3;
    pub const ALL: [Lane; Lane::COUNT] = [Lane::Metrics, Lane::Events, Lane::Traces];

    /// The name in the agent's own telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Metrics => "metrics",
            Lane::Events => "events",
            Lane::Traces => "traces",
        }
    }
}

/// What waits in a lane, and what it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSize {
    pub bytes: usize,
    /// Data points, events or spans.
    pub items: usize,
    /// Items dropped for want of room. Cumulative.
    pub dropped: u64,
}

/// Requests that wait, in one lane for each kind of data, with one limit for all.
///
/// A request being sent counts until [`Queue::done`]. Nothing here waits but [`Queue::take`].
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    lanes: Mutex<[Waiting; Lane::COUNT]>,
    /// One each, so that each sender is woken by its own lane.
    arrived: [Notify; Lane::COUNT],
    draining: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    size: LaneSize,
}

impl Waiting {
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.requests.pop_front() else { return false };
        self.size.bytes -= oldest.body.len();
        self.size.items -= oldest.items;
        self.size.dropped += oldest.items as u64;
        true
    }
}

impl Queue {
    /// A queue of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Queue {
            limit,
            lanes: Mutex::default(),
            arrived: Default::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Adds a request. Where it does not fit, the oldest metrics give way, then the oldest traces (to an event or a
    /// trace), then (to an event) the oldest events; if that is not enough it is itself dropped.
    pub fn push(&self, lane: Lane, request: Request) {
        {
            let mut lanes = lock(&self.lanes);
            while lanes.iter().map(|l| l.size.bytes).sum::<usize>() + request.body.len() > self.limit {
                let gave_way = lanes[Lane::Metrics as usize].drop_oldest()
                    || (lane != Lane::Metrics && lanes[Lane::Traces as usize].drop_oldest())
                    || (lane == Lane::Events && lanes[Lane::Events as usize].drop_oldest());
                if !gave_way {
                    lanes[lane as usize].size.dropped += request.items as u64;
                    return;
                }
            }
            let waiting = &mut lanes[lane as usize];
            waiting.size.bytes += request.body.len();
            waiting.size.items += request.items;
            waiting.requests.push_back(request);
        }
        self.arrived[lane as usize].notify_one();
    }

    /// Waits for requests of a lane and takes as many of the oldest as make at most `max_bytes` (one, if
    /// that one is larger). `None`: the lane is empty and [`Queue::drain`] was called.
    pub async fn take(&self, lane: Lane, max_bytes: usize) -> Option<Request> {
        loop {
            if let Some(request) = self.try_take(lane, max_bytes) {
                return Some(request);
            }
            if self.draining() {
                return None;
            }
            self.arrived[lane as usize].notified().await;
        }
    }

    fn try_take(&self, lane: Lane, max_bytes: usize) -> Option<Request> {
        let mut lanes = lock(&self.lanes);
        let requests = &mut lanes[lane as usize].requests;
        let first = requests.pop_front()?;
        let mut bytes = first.body.len();
        let fit = requests.iter().take_while(|r| {
            bytes += r.body.len();
            bytes <= max_bytes
        });
        match fit.count() {
            0 => Some(first),
            more => {
                let all: Vec<Request> = std::iter::once(first).chain(requests.drain(..more)).collect();
                drop(lanes);
                let items = all.iter().map(|r| r.items).sum();
                let bodies: Vec<&[u8]> = all.iter().map(|r| &*r.body).collect();
                Some(Request { body: bodies.concat().into(), items })
            }
        }
    }

    /// The request taken from the lane has ended, one way or the other.
    pub fn done(&self, lane: Lane, request: &Request) {
        let mut lanes = lock(&self.lanes);
        let size = &mut lanes[lane as usize].size;
        size.bytes -= request.body.len();
        size.items -= request.items;
    }

    /// Puts back a request that was taken, as the oldest.
    pub fn put_back(&self, lane: Lane, request: Request) {
        lock(&self.lanes)[lane as usize].requests.push_front(request);
    }

    /// What waits in a lane.
    pub fn size(&self, lane: Lane) -> LaneSize {
        lock(&self.lanes)[lane as usize].size
    }

    /// From now on [`Queue::take`] ends where it would wait.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for arrived in &self.arrived {
            // Kept by the lane's one sender even if it does not wait at the moment.
            arrived.notify_one();
        }
    }

    /// Whether [`Queue::drain`] was called.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends when [`Queue::drain`] is called, for the lane's sender while it waits for something else.
    pub async fn drained(&self, lane: Lane) {
        while !self.draining() {
            self.arrived[lane as usize].notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn request(byte: u8, length: usize) -> Request {
        Request { body: Bytes::from(vec![byte; length]), items: 1 }
    }

    fn bodies(queue: &Queue, lane: Lane) -> Vec<u8> {
        std::iter::from_fn(|| queue.try_take(lane, 0)).map(|r| r.body[0]).collect()
    }

    #[test]
    fn metrics_give_way_to_events_and_events_only_to_events() {
        let queue = Queue::new(100);
        queue.push(Lane::Events, request(1, 40));
        queue.push(Lane::Metrics, request(2, 30));
        queue.push(Lane::Metrics, request(3, 30));
        queue.push(Lane::Metrics, request(4, 30)); // the older metrics go
        queue.push(Lane::Events, request(5, 40)); // and the next
        queue.push(Lane::Metrics, request(6, 30)); // no room among events: dropped itself
        assert_eq!(queue.size(Lane::Metrics), LaneSize { bytes: 0, items: 0, dropped: 4 });
        queue.push(Lane::Events, request(7, 40)); // the oldest event goes
        assert_eq!(queue.size(Lane::Events), LaneSize { bytes: 80, items: 2, dropped: 1 });
        assert_eq!(bodies(&queue, Lane::Events), [5, 7]);
    }

    #[test]
    fn what_is_being_sent_counts_until_it_ends() {
        let queue = Queue::new(100);
        queue.push(Lane::Events, request(1, 60));
        let sending = queue.try_take(Lane::Events, 100).expect("one");
        queue.push(Lane::Events, request(2, 60));
        assert_eq!(queue.size(Lane::Events), LaneSize { bytes: 60, items: 1, dropped: 1 });
        queue.put_back(Lane::Events, sending);
        let again = queue.try_take(Lane::Events, 100).expect("put back");
        assert_eq!(again.body[0], 1);
        queue.done(Lane::Events, &again);
        assert_eq!(queue.size(Lane::Events), LaneSize { bytes: 0, items: 0, dropped: 1 });
    }

    #[tokio::test]
    async fn small_requests_are_taken_together() {
        let queue = Queue::new(1000);
        for byte in 0..5 {
            queue.push(Lane::Events, request(byte, 30));
        }
        let taken = queue.take(Lane::Events, 100).await.expect("requests");
        assert_eq!((taken.body.len(), taken.items), (90, 3));
        assert_eq!([taken.body[0], taken.body[30], taken.body[60]], [0, 1, 2]);
        queue.drain();
        assert!(queue.take(Lane::Events, 100).await.is_some());
        assert!(queue.take(Lane::Events, 100).await.is_none());
        assert!(queue.take(Lane::Metrics, 100).await.is_none());
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_every_drop_is_counted(
            pushes in prop::collection::vec((0usize..Lane::COUNT, 1usize..60), 1..60),
        ) {
            let queue = Queue::new(100);
            let (mut pushed, mut taken) = ([0u64; Lane::COUNT], [0u64; Lane::COUNT]);
            for (i, (lane, length)) in pushes.into_iter().enumerate() {
                let lane = Lane::ALL[lane];
                queue.push(lane, request(0, length));
                pushed[lane as usize] += 1;
                let bytes: usize = Lane::ALL.iter().map(|l| queue.size(*l).bytes).sum();
                prop_assert!(bytes <= 100, "{bytes} bytes");
                if i % 7 == 0 && let Some(request) = queue.try_take(lane, 0) {
                    queue.done(lane, &request);
                    taken[lane as usize] += 1;
                }
            }
            for lane in Lane::ALL {
                let LaneSize { items, dropped, .. } = queue.size(lane);
                prop_assert_eq!(items as u64 + dropped + taken[lane as usize], pushed[lane as usize]);
            }
        }
    }
}
