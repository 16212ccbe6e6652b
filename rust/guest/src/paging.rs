// SPDX-License-Identifier: GPL-2.0

//! Page tables for 64-bit guests: memory mapped to itself in pages of 4 KiB,
//! each table in a page that is known.

use crate::pages::{DATA, PAGE, TABLES};

const ENTRIES: u64 = 512;
const PRESENT_WRITABLE: u64 = 3;

/// The tables that map a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    directories: u64,
    leaves: u64,
}

impl Tables {
    /// Tables for so many bytes. Panics if they do not fit below [`DATA`].
    pub fn new(bytes: u64) -> Self {
        let tables = Self {
            directories: bytes.div_ceil(PAGE * ENTRIES * ENTRIES),
            leaves: bytes.div_ceil(PAGE * ENTRIES),
        };
        assert!(tables.directories <= ENTRIES, "too much to map");
        assert!((tables.end() * PAGE) <= DATA, "no room for the tables");
        tables
    }

    /// What CR3 points to.
    pub const ROOT: u64 = TABLES;

    /// The first page after them.
    fn end(self) -> u64 {
        TABLES / PAGE + 2 + self.directories + self.leaves
    }

    /// The pages that are tables.
    pub fn gfns(self) -> std::ops::Range<u64> {
        TABLES / PAGE..self.end()
    }

    /// The four tables that the CPU walks to get to `gfn`.
    pub fn walk(self, gfn: u64) -> [u64; 4] {
        let root = TABLES / PAGE;
        [
            root,
            root + 1,
            root + 2 + gfn / (ENTRIES * ENTRIES),
            root + 2 + self.directories + gfn / ENTRIES,
        ]
    }

    /// Every entry that is not zero: its address and what it holds.
    pub fn entries(self) -> impl Iterator<Item = (u64, u64)> {
        let root = TABLES / PAGE;
        let point = |table: u64, index: u64, to: u64| {
            (table * PAGE + index * 8, (to * PAGE) | PRESENT_WRITABLE)
        };
        let (directories, leaves) = (self.directories, self.leaves);
        let first_leaf = root + 2 + directories;
        std::iter::once(point(root, 0, root + 1))
            .chain((0..directories).map(move |n| point(root + 1, n, root + 2 + n)))
            .chain(
                (0..leaves)
                    .map(move |n| point(root + 2 + n / ENTRIES, n % ENTRIES, first_leaf + n)),
            )
            .chain(
                (0..leaves * ENTRIES)
                    .map(move |gfn| point(first_leaf + gfn / ENTRIES, gfn % ENTRIES, gfn)),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// What a CPU makes of the tables.
    fn translate(memory: &HashMap<u64, u64>, address: u64) -> Option<(u64, Vec<u64>)> {
        let (mut table, mut walked) = (Tables::ROOT, Vec::new());
        for shift in [39, 30, 21, 12] {
            walked.push(table / PAGE);
            let entry = *memory.get(&(table + ((address >> shift) & 511) * 8))?;
            table = entry & !0xfff;
        }
        Some((table, walked))
    }

    #[test]
    fn a_walk_gets_there_by_the_tables_it_is_said_to() {
        for mib in [16, 64, 1024, 1056] {
            let bytes = mib << 20;
            let tables = Tables::new(bytes);
            let memory: HashMap<_, _> = tables.entries().collect();
            for gfn in [0, 1, 511, 512, 4095, bytes / PAGE - 1] {
                let (to, walked) = translate(&memory, gfn * PAGE).expect("is mapped");
                assert_eq!(to, gfn * PAGE);
                assert_eq!(walked, tables.walk(gfn));
                assert!(walked.iter().all(|table| tables.gfns().contains(table)));
            }
            assert!(translate(&memory, tables.leaves * ENTRIES * PAGE).is_none());
        }
    }
}
