//! Locks whose holder may have panicked. No I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. What a panicking thread left behind is still whole: every change under these locks is
/// one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
