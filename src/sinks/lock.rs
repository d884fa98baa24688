//! The one way a mutex of the sinks is locked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; what a panicked holder left is plain numbers and still good.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
