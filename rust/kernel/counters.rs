// SPDX-License-Identifier: GPL-2.0

//! The counters of one vCPU, and sums of them.
//!
//! A counter has one writer, the thread that runs the vCPU, and any number of
//! readers. So neither side needs a lock or an atomic read-modify-write: an
//! aligned 64-bit load sees a value that was once there, and never one that is
//! smaller than what the same reader saw before.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reasons::SLOTS;

/// One value per slot, as of some moment.
pub type Table = [u64; SLOTS];

/// One vCPU's counters, incremented by C in place (`kvm_scope_count()`).
#[repr(transparent)]
pub struct Counters([AtomicU64; SLOTS]);

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }

    /// Counts one event. To be called by the vCPU's thread only; a slot out of
    /// range is ignored.
    #[inline]
    pub fn count(&self, slot: usize) {
        if let Some(counter) = self.0.get(slot) {
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Adds what was counted so far to `sum`.
    pub fn add_to(&self, sum: &mut Table) {
        for (sum, counter) in sum.iter_mut().zip(&self.0) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Subtracts an earlier table from a later one, in place.
pub fn subtract(from: &mut Table, earlier: &Table) {
    for (value, earlier) in from.iter_mut().zip(earlier) {
        *value = value.wrapping_sub(*earlier);
    }
}
