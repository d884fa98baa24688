//! What waits to be written: one entry per object, the latest wish wins, no faster than the rates
//! allow. [`Schedule`] is pure; [`Queue`] is it behind a lock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

/// How fast may be written.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Objects waiting or being written.
    pub capacity: usize,
    /// All objects together, a second.
    pub per_second: f64,
    /// All objects together, at once after a quiet time.
    pub burst: u32,
    /// One object: once in so long …
    pub object_interval: Duration,
    /// … but so many at once after a quiet time.
    pub object_burst: u32,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            capacity: 60_000,
            per_second: 100.0,
            burst: 200,
            object_interval: Duration::from_secs(15),
            object_burst: 6,
        }
    }
}

/// First and longest wait before a failed write is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The longest where somebody must act first, so that many such do not take the rate that is for all.
const BACKOFF_BLOCKED: Duration = Duration::from_secs(60);

/// When a write that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// What was wrong passes.
    Soon,
    /// After so long: the API server says so.
    After(Duration),
    /// Once somebody has set it right: a right, a definition.
    Blocked,
}

impl Retry {
    fn wait(self, attempts: u32) -> Duration {
        let backoff = BACKOFF.0.saturating_mul(1 << attempts.min(16));
        match self {
            Retry::Soon => backoff.min(BACKOFF.1),
            Retry::After(wait) => wait,
            Retry::Blocked => backoff.min(BACKOFF_BLOCKED),
        }
    }
}

/// A token bucket as one moment: when it would be full again (GCRA).
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    const FULL: Bucket = Bucket { full_at: None };

    /// When the next token is there, of `burst` that come one an `interval`.
    fn ready_at(self, interval: Duration, burst: u32, now: Instant) -> Instant {
        let spare = interval * burst.saturating_sub(1);
        self.full_at.and_then(|t| t.checked_sub(spare)).map_or(now, |t| t.max(now))
    }

    fn take(&mut self, interval: Duration, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |t| t.max(now)) + interval);
    }
}

struct Entry<W> {
    work: W,
    attempts: u32,
    /// Its place among the waiting; `None` while a writer has it and nothing newer came.
    place: Option<(Instant, u64)>,
    waiters: Vec<oneshot::Sender<bool>>,
}

/// One thing to write.
#[derive(Debug)]
pub struct Job<K, W> {
    pub key: K,
    pub work: W,
    /// Told true when it is written, false when it cannot be for now: dropped, the queue is gone.
    pub waiters: Vec<oneshot::Sender<bool>>,
    /// How often it has failed.
    pub attempts: u32,
}

/// What [`Schedule::pop`] found.
#[derive(Debug)]
pub enum Next<K, W> {
    Job(Job<K, W>),
    /// Nothing before this moment, unless something new comes.
    Wait(Instant),
    Empty,
}

/// The queue's rules, with time given from outside.
pub struct Schedule<K, W> {
    rates: Rates,
    entries: HashMap<K, Entry<W>>,
    order: BTreeSet<(Instant, u64, K)>,
    in_flight: HashSet<K>,
    all: Bucket,
    objects: HashMap<K, Bucket>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash + Ord, W> Schedule<K, W> {
    pub fn new(rates: Rates) -> Self {
        Schedule {
            rates,
            entries: HashMap::new(),
            order: BTreeSet::new(),
            in_flight: HashSet::new(),
            all: Bucket::FULL,
            objects: HashMap::new(),
            sequence: 0,
        }
    }

    /// Entries waiting or being written.
    pub fn len(&self) -> usize {
        self.entries.len() + self.in_flight.iter().filter(|k| !self.entries.contains_key(k)).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `work` in place of what waits for the same object. False when there is no room for another.
    pub fn push(&mut self, key: K, work: W, waiter: Option<oneshot::Sender<bool>>, now: Instant) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.work = work;
            // Who sends again while it cannot be written has given up the wait before.
            entry.waiters.retain(|w| !w.is_closed());
            entry.waiters.extend(waiter);
            return true;
        }
        if self.len() >= self.rates.capacity && !self.in_flight.contains(&key) {
            return false;
        }
        let at = self.ready_at(&key, now);
        self.enter(key, work, waiter.into_iter().collect(), 0, at);
        true
    }

    /// The next to write, if the rates allow one now. It stays counted until [`Schedule::done`] or
    /// [`Schedule::failed`]; meanwhile no second writer gets the same object.
    pub fn pop(&mut self, now: Instant) -> Next<K, W> {
        let Some((at, ..)) = self.order.first() else { return Next::Empty };
        let ready = (*at).max(self.all.ready_at(self.every(), self.rates.burst, now));
        if ready > now {
            return Next::Wait(ready);
        }
        let Some((_, _, key)) = self.order.pop_first() else { return Next::Empty };
        let Some(entry) = self.entries.remove(&key) else { return Next::Empty };
        self.all.take(self.every(), now);
        self.objects.entry(key.clone()).or_insert(Bucket::FULL).take(self.rates.object_interval, now);
        self.in_flight.insert(key.clone());
        Next::Job(Job { key, work: entry.work, waiters: entry.waiters, attempts: entry.attempts })
    }

    /// It is written, or given up.
    pub fn done(&mut self, key: &K, now: Instant) {
        self.in_flight.remove(key);
        self.admit(key, now);
        self.forget_full_buckets(now);
    }

    /// It failed: again after a while. What somebody must set right first waits for the object's own rate as well;
    /// a conflict is still the same write. What came for the same object meanwhile takes its place.
    pub fn failed(&mut self, job: Job<K, W>, retry: Retry, now: Instant) {
        let Job { key, work, waiters, attempts } = job;
        self.in_flight.remove(&key);
        let mut at = now + retry.wait(attempts);
        if retry == Retry::Blocked {
            at = at.max(self.ready_at(&key, now));
        }
        let attempts = attempts.saturating_add(1);
        match self.entries.get_mut(&key) {
            Some(newer) => {
                newer.attempts = attempts;
                newer.waiters.extend(waiters);
                self.place(&key, at);
            }
            None => self.enter(key, work, waiters, attempts, at),
        }
    }

    /// Forgets all that waits; what is being written is not affected.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// When the object's own rate allows a write.
    fn ready_at(&self, key: &K, now: Instant) -> Instant {
        let bucket = self.objects.get(key).copied().unwrap_or(Bucket::FULL);
        bucket.ready_at(self.rates.object_interval, self.rates.object_burst, now)
    }

    fn every(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rates.per_second.max(0.001))
    }

    fn enter(&mut self, key: K, work: W, waiters: Vec<oneshot::Sender<bool>>, attempts: u32, at: Instant) {
        self.entries.insert(key.clone(), Entry { work, attempts, place: None, waiters });
        // A writer that has the object admits what came for it when it is done.
        if !self.in_flight.contains(&key) {
            self.place(&key, at);
        }
    }

    /// What came for an object while it was written may go now.
    fn admit(&mut self, key: &K, now: Instant) {
        if self.entries.get(key).is_some_and(|e| e.place.is_none()) {
            let at = self.ready_at(key, now);
            self.place(key, at);
        }
    }

    fn place(&mut self, key: &K, at: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some((at, sequence)) = entry.place.take() {
            self.order.remove(&(at, sequence, key.clone()));
        }
        self.sequence += 1;
        entry.place = Some((at, self.sequence));
        self.order.insert((at, self.sequence, key.clone()));
    }

    /// A full bucket is the same as none.
    fn forget_full_buckets(&mut self, now: Instant) {
        if self.objects.len() > 2 * self.entries.len() + 1024 {
            self.objects.retain(|_, b| b.full_at.is_some_and(|t| t > now));
        }
    }
}

/// A [`Schedule`] that writers wait on.
pub struct Queue<K, W> {
    schedule: Mutex<Schedule<K, W>>,
    news: Notify,
}

impl<K: Clone + Eq + Hash + Ord, W> Queue<K, W> {
    pub fn new(rates: Rates) -> Self {
        Queue { schedule: Mutex::new(Schedule::new(rates)), news: Notify::new() }
    }

    /// See [`Schedule::push`].
    pub fn push(&self, key: K, work: W, waiter: Option<oneshot::Sender<bool>>) -> bool {
        let taken = self.lock().push(key, work, waiter, Instant::now());
        self.news.notify_one();
        taken
    }

    /// Waits for the next thing to write. To drop the future loses nothing.
    pub async fn next(&self) -> Job<K, W> {
        loop {
            let news = self.news.notified();
            let next = self.lock().pop(Instant::now());
            match next {
                Next::Job(job) => {
                    // There may be more: the next writer looks too.
                    self.news.notify_one();
                    return job;
                }
                Next::Wait(at) => {
                    let _ = tokio::time::timeout_at(at.into(), news).await;
                }
                Next::Empty => news.await,
            }
        }
    }

    /// See [`Schedule::done`].
    pub fn done(&self, key: &K) {
        self.lock().done(key, Instant::now());
        self.news.notify_one();
    }

    /// See [`Schedule::failed`].
    pub fn failed(&self, job: Job<K, W>, retry: Retry) {
        self.lock().failed(job, retry, Instant::now());
        self.news.notify_one();
    }

    /// See [`Schedule::clear`].
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// See [`Schedule::len`].
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<K, W>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
