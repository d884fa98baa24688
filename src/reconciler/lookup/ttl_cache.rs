//! Answers remembered for a while: a bounded table that forgets what was used longest ago.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Answers by question.
pub struct TtlCache<K: Hash + Eq, V> {
    known: Mutex<LruCache<K, (V, Instant)>>,
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    pub fn new(most: NonZeroUsize) -> Self {
        TtlCache { known: Mutex::new(LruCache::new(most)) }
    }

    /// The answer, if there is one not older than `keep` says of it.
    pub fn get<Q>(&self, key: &Q, keep: impl Fn(&V) -> Duration) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut known = self.lock();
        let (answer, at) = known.get(key)?;
        (at.elapsed() < keep(answer)).then(|| answer.clone())
    }

    /// Remembers an answer as of now.
    pub fn put(&self, key: K, answer: V) {
        self.lock().put(key, (answer, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<K, (V, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_old_and_the_unused() {
        let cache = TtlCache::new(NonZeroUsize::new(2).unwrap());
        let hour = |_: &i32| Duration::from_secs(3600);
        cache.put("a", 1);
        cache.put("b", 2);
        assert_eq!(cache.get("a", hour), Some(1));
        assert_eq!(cache.get("a", |_| Duration::ZERO), None);
        cache.put("c", 3);
        assert_eq!(
            (cache.get("a", hour), cache.get("b", hour), cache.get("c", hour)),
            (Some(1), None, Some(3))
        );
    }
}
