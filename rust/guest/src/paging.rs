// SPDX-License-Identifier: GPL-2.0

//! Page tables for guests: memory mapped to itself in pages of 4 KiB, each table in a
//! page that is known.

use crate::pages::{DATA, PAGE, TABLES};

const PRESENT: u64 = 1;
const PRESENT_WRITABLE: u64 = 3;
/// What CR3 points to, as a gfn.
const ROOT: u64 = TABLES / PAGE;

/// The form of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Paging {
    /// 64-bit mode: four levels of 512 entries
    Long,
    /// 32-bit mode with PAE: two levels of 512 entries, and what CR3 points to
    Pae,
    /// 32-bit mode without: two levels of 1024 entries
    Narrow,
}

impl Paging {
    fn entries(self) -> u64 {
        match self {
            Paging::Long | Paging::Pae => 512,
            Paging::Narrow => 1024,
        }
    }

    /// Tables before those that point to leaves. Of two levels the first has that part.
    fn before_directories(self) -> u64 {
        match self {
            Paging::Long => 2,
            Paging::Pae => 1,
            Paging::Narrow => 0,
        }
    }
}

/// The tables that map a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    paging: Paging,
    directories: u64,
    leaves: u64,
}

impl Tables {
    /// Tables for so many bytes. Panics if they do not fit below [`DATA`].
    pub fn new(paging: Paging, bytes: u64) -> Self {
        let entries = paging.entries();
        let tables = Self {
            paging,
            directories: bytes.div_ceil(PAGE * entries * entries),
            leaves: bytes.div_ceil(PAGE * entries),
        };
        let most = match paging {
            Paging::Long => entries,
            Paging::Pae => 4,
            Paging::Narrow => 1,
        };
        assert!(tables.directories <= most, "too much to map");
        assert!((tables.end() * PAGE) <= DATA, "no room for the tables");
        tables
    }

    /// What CR3 points to.
    pub const ROOT: u64 = TABLES;

    fn first_directory(self) -> u64 {
        ROOT + self.paging.before_directories()
    }

    fn first_leaf(self) -> u64 {
        self.first_directory() + self.directories
    }

    /// The first page after them.
    fn end(self) -> u64 {
        self.first_leaf() + self.leaves
    }

    /// The pages that are tables.
    pub fn gfns(self) -> std::ops::Range<u64> {
        ROOT..self.end()
    }

    /// The tables that the CPU walks to get to `gfn`.
    pub fn walk(self, gfn: u64) -> Vec<u64> {
        let entries = self.paging.entries();
        let mut walk = match self.paging {
            Paging::Long => vec![ROOT, ROOT + 1],
            Paging::Pae | Paging::Narrow => vec![],
        };
        walk.push(self.first_directory() + gfn / (entries * entries));
        walk.push(self.first_leaf() + gfn / entries);
        walk
    }

    /// A table that the CPU reads when CR3 is written, and keeps.
    pub fn kept(self) -> Option<u64> {
        (self.paging == Paging::Pae).then_some(ROOT)
    }

    /// Every entry that is not zero: its address and the bytes there.
    pub fn entries(self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let entries = self.paging.entries();
        let width = PAGE / entries;
        let point = move |table: u64, index: u64, to: u64, bits: u64| {
            let entry = ((to * PAGE) | bits).to_le_bytes();
            (
                table * PAGE + index * width,
                entry[..width as usize].to_vec(),
            )
        };
        let (directory, leaf) = (self.first_directory(), self.first_leaf());
        let mut first = Vec::new();
        if self.paging == Paging::Long {
            first.push(point(ROOT, 0, ROOT + 1, PRESENT_WRITABLE));
        }
        if self.paging != Paging::Narrow {
            // In what CR3 points to with PAE, the bit for writable is reserved.
            let bits = match self.paging {
                Paging::Pae => PRESENT,
                Paging::Long | Paging::Narrow => PRESENT_WRITABLE,
            };
            let to = |n| point(directory - 1, n, directory + n, bits);
            first.extend((0..self.directories).map(to));
        }
        first
            .into_iter()
            .chain((0..self.leaves).map(move |n| {
                point(
                    directory + n / entries,
                    n % entries,
                    leaf + n,
                    PRESENT_WRITABLE,
                )
            }))
            .chain(
                (0..self.leaves * entries).map(move |gfn| {
                    point(leaf + gfn / entries, gfn % entries, gfn, PRESENT_WRITABLE)
                }),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// What a CPU makes of the tables: where `address` leads, and the tables walked.
    fn translate(
        paging: Paging,
        memory: &HashMap<u64, u64>,
        address: u64,
    ) -> Option<(u64, Vec<u64>)> {
        let (shifts, bits, width): (&[u32], u32, u64) = match paging {
            Paging::Long => (&[39, 30, 21, 12], 9, 8),
            Paging::Pae => (&[30, 21, 12], 9, 8),
            Paging::Narrow => (&[22, 12], 10, 4),
        };
        let (mut table, mut walked) = (Tables::ROOT, Vec::new());
        for shift in shifts {
            walked.push(table / PAGE);
            let index = (address >> shift) & ((1 << bits) - 1);
            table = *memory.get(&(table + index * width))? & !0xfff;
        }
        if paging == Paging::Pae {
            walked.remove(0);
        }
        Some((table, walked))
    }

    #[test]
    fn a_walk_gets_there_by_the_tables_it_is_said_to() {
        for paging in [Paging::Long, Paging::Pae, Paging::Narrow] {
            for mib in [16, 64, 1024, 1056] {
                let bytes = mib << 20;
                let tables = Tables::new(paging, bytes);
                let memory: HashMap<_, _> = tables
                    .entries()
                    .map(|(address, entry)| {
                        let mut word = [0; 8];
                        word[..entry.len()].copy_from_slice(&entry);
                        (address, u64::from_le_bytes(word))
                    })
                    .collect();
                for gfn in [0, 1, 511, 512, 4095, bytes / PAGE - 1] {
                    let (to, walked) = translate(paging, &memory, gfn * PAGE).expect("is mapped");
                    assert_eq!(to, gfn * PAGE, "{paging:?}");
                    assert_eq!(walked, tables.walk(gfn), "{paging:?}");
                    assert!(walked.iter().all(|table| tables.gfns().contains(table)));
                }
                let end = tables.leaves * paging.entries() * PAGE;
                assert!(translate(paging, &memory, end).is_none());
            }
        }
    }
}
