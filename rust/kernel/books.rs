// SPDX-License-Identifier: GPL-2.0

//! Totals that survive the vCPUs they came from, and a reset that loses nothing.
//!
//! The total at any moment is what dead vCPUs left behind plus what the live
//! ones show. It never goes down. Reset changes no counter (each has its one
//! writer): it remembers the total, and from then on that is subtracted. An
//! exit that races with a reset is in exactly one of the two.
//!
//! The caller serialises all of this with the coming and going of vCPUs.

use crate::counters::{Counters, Table};

/// What must be remembered besides the counters of live vCPUs.
pub struct Books {
    /// What vCPUs that are gone had counted.
    retired: Table,
    /// The total at the last reset.
    baseline: Table,
}

impl Books {
    /// Nothing counted, nothing reset.
    pub const fn new() -> Self {
        Self {
            retired: Table::new(),
            baseline: Table::new(),
        }
    }

    /// Takes over the counters of a vCPU that will not run again.
    pub fn retire(&mut self, vcpu: &Counters) {
        vcpu.add_to(&mut self.retired);
    }

    /// Writes what was counted since the last reset to `out`.
    pub fn since_reset<'a>(&self, live: impl Iterator<Item = &'a Counters>, out: &mut Table) {
        out.copy_from(&self.retired);
        live.for_each(|vcpu| vcpu.add_to(out));
        out.subtract(&self.baseline);
    }

    /// Counts from zero from now on.
    pub fn reset<'a>(&mut self, live: impl Iterator<Item = &'a Counters>) {
        self.baseline.copy_from(&self.retired);
        live.for_each(|vcpu| vcpu.add_to(&mut self.baseline));
    }
}

impl Default for Books {
    fn default() -> Self {
        Self::new()
    }
}
