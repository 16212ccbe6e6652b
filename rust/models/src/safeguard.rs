// SPDX-License-Identifier: GPL-2.0

//! What a model does or leaves out.

use loom::sync::atomic::Ordering::{self, Relaxed};
use loom::sync::{Mutex, MutexGuard};

/// The ordering that is asked for, if that is in.
pub fn ordering_if(is_in: bool, ordering: Ordering) -> Ordering {
    if is_in {
        ordering
    } else {
        Relaxed
    }
}

/// The lock, if that is in.
pub fn guard_if(is_in: bool, mutex: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    is_in.then(|| mutex.lock().unwrap())
}
