// SPDX-License-Identifier: GPL-2.0

//! The counters of one vCPU, and sums of them.
//!
//! A counter has one writer, the thread that runs the vCPU, and any number of
//! readers. So neither side needs a lock or an atomic read-modify-write: an
//! aligned 64-bit load sees a value that was once there, and never one that is
//! smaller than what the same reader saw before.

use crate::atomic::{AtomicU64, Relaxed};
use crate::reasons::SLOTS;

/// One counter per slot, incremented by C in place (`kvm_scope_vm_exit()`).
#[repr(transparent)]
pub struct Counts([AtomicU64; SLOTS]);

/// One vCPU's counters. Laid out as C has it.
#[repr(C)]
pub struct Counters {
    /// All exits.
    pub all: Counts,
    /// Those of them that were taken while a guest of the guest ran.
    pub nested: Counts,
}

/// The values of counters as of some moment.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// All exits.
    pub all: [u64; SLOTS],
    /// Those of them that were taken while a guest of the guest ran.
    pub nested: [u64; SLOTS],
}

impl Counts {
    fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one event. To be called by the vCPU's thread only; a slot out of
    /// range is ignored.
    #[inline]
    pub fn count(&self, slot: usize) {
        if let Some(counter) = self.0.get(slot) {
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    fn set(&self, values: &[u64; SLOTS]) {
        for (counter, value) in self.0.iter().zip(values) {
            counter.store(*value, Relaxed);
        }
    }

    fn add_to(&self, sum: &mut [u64; SLOTS]) {
        for (sum, counter) in sum.iter_mut().zip(&self.0) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
    }
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            all: Counts::new(),
            nested: Counts::new(),
        }
    }

    /// Takes the values of a table. For sums: a vCPU's own are its thread's.
    pub fn set(&self, table: &Table) {
        self.all.set(&table.all);
        self.nested.set(&table.nested);
    }

    /// Adds what was counted so far to `sum`.
    pub fn add_to(&self, sum: &mut Table) {
        self.all.add_to(&mut sum.all);
        self.nested.add_to(&mut sum.nested);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            all: [0; SLOTS],
            nested: [0; SLOTS],
        }
    }

    /// Takes the values of another table.
    pub fn copy_from(&mut self, other: &Self) {
        self.all.copy_from_slice(&other.all);
        self.nested.copy_from_slice(&other.nested);
    }

    /// Subtracts an earlier table.
    pub fn subtract(&mut self, earlier: &Self) {
        let values = self.all.iter_mut().chain(&mut self.nested);
        for (value, earlier) in values.zip(earlier.all.iter().chain(&earlier.nested)) {
            *value = value.wrapping_sub(*earlier);
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}
