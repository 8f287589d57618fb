//! Locks whose holder may have panicked. No I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. Nobody leaves what is locked half written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
