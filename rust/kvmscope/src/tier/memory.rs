// SPDX-License-Identifier: GPL-2.0

//! The guest's memory in regions, and where the VM's process has their pages.

use std::collections::BTreeSet;

use crate::sample::sample::{Slot, PAGE};

pub struct Memory {
    slots: Vec<Slot>,
    /// Of a region.
    pages: u64,
}

impl Memory {
    pub fn new(slots: Vec<Slot>, pages: u64) -> Memory {
        Memory { slots, pages }
    }

    /// The first page of each region that has any memory.
    pub fn regions(&self) -> BTreeSet<u64> {
        let mut regions = BTreeSet::new();
        for slot in &self.slots {
            let gfns = slot.gfns();
            let first = gfns.start / self.pages * self.pages;
            regions.extend((first..gfns.end).step_by(self.pages as usize));
        }
        regions
    }

    /// The addresses of a region's pages, in the VM's process.
    pub fn addresses(&self, region: u64) -> Vec<u64> {
        let mut addresses = Vec::new();
        for slot in &self.slots {
            let gfns = slot.gfns();
            let within = region.max(gfns.start)..(region + self.pages).min(gfns.end);
            let address = |gfn: u64| slot.hva + (gfn - gfns.start) * PAGE;
            addresses.extend(within.map(address));
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(gfn: u64, hva: u64, pages: u64) -> Slot {
        Slot {
            gpa: gfn * PAGE,
            hva,
            pages,
            id: 0,
            readonly: false,
        }
    }

    #[test]
    fn regions_of_slots_that_are_not_aligned() {
        let memory = Memory::new(vec![slot(0, 0x10_0000, 3), slot(6, 0x50_0000, 7)], 4);
        assert_eq!(Vec::from_iter(memory.regions()), [0, 4, 8, 12]);
        assert_eq!(memory.addresses(0), [0x10_0000, 0x10_1000, 0x10_2000]);
        assert_eq!(memory.addresses(4), [0x50_0000, 0x50_1000]);
        assert_eq!(memory.addresses(8).len(), 4);
        assert_eq!(memory.addresses(12), [0x50_6000]);
        assert!(memory.addresses(16).is_empty());
    }
}
