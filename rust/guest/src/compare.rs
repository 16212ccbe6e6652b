// SPDX-License-Identifier: GPL-2.0

//! Two memories, page by page.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

/// Compare two files that hold the memory of guests, page by page
///
/// Prints `compare pages N used U differ D`, and before that up to ten lines `compare
/// page P bytes B at A has X and Y`: a page that differs in B bytes, of which the first
/// is at address A, and the 64-bit words there. U pages of the first are not all zeros. Fails if
/// any differ, or the files are of different length.
#[derive(clap::Args)]
pub struct Args {
    /// One
    first: PathBuf,
    /// The other
    second: PathBuf,
}

const PAGE: usize = 4096;
/// What is read at a time.
const CHUNK: usize = 256 * PAGE;

/// What was found.
#[derive(Debug, Default, PartialEq)]
struct Found {
    pages: u64,
    used: u64,
    differ: Vec<Difference>,
}

/// A page that is not the same in both.
#[derive(Debug, PartialEq)]
struct Difference {
    page: u64,
    /// Bytes that differ, and the address of the first.
    bytes: usize,
    at: u64,
    /// The words there.
    words: [u64; 2],
}

impl Difference {
    fn new(page: u64, one: &[u8], other: &[u8]) -> Option<Self> {
        let differs = |i: &usize| one[*i] != other[*i];
        let first = (0..PAGE).find(differs)?;
        let start = first / 8 * 8;
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[start..start + 8]);
            u64::from_le_bytes(word)
        };
        Some(Self {
            page,
            bytes: (0..PAGE).filter(differs).count(),
            at: page * PAGE as u64 + first as u64,
            words: [word(one), word(other)],
        })
    }
}

impl Found {
    /// Takes note of a part of both, which begins with page `self.pages`.
    fn chunk(&mut self, first: &[u8], second: &[u8]) {
        for (one, other) in first.chunks(PAGE).zip(second.chunks(PAGE)) {
            if *one != [0; PAGE] {
                self.used += 1;
            }
            if one != other {
                self.differ.extend(Difference::new(self.pages, one, other));
            }
            self.pages += 1;
        }
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let length = file.metadata()?.len();
    ensure!(
        length > 0 && length % PAGE as u64 == 0,
        "{} does not hold whole pages",
        path.display()
    );
    Ok((file, length))
}

/// Compares, and prints what was found.
pub fn run(args: &Args) -> Result<()> {
    let (mut first, length) = open(&args.first)?;
    let (mut second, other) = open(&args.second)?;
    ensure!(length == other, "{length} bytes here, {other} there");
    let (mut one, mut two) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut found = Found::default();
    let mut left = length;
    while left > 0 {
        let size = CHUNK.min(usize::try_from(left)?);
        first.read_exact(&mut one[..size])?;
        second.read_exact(&mut two[..size])?;
        found.chunk(&one[..size], &two[..size]);
        left -= size as u64;
    }

    let mut out = io::stdout();
    for at in found.differ.iter().take(10) {
        let (page, [one, other]) = (at.page, at.words);
        writeln!(
            out,
            "compare page {page:#x} bytes {} at {:#x} has {one:#x} and {other:#x}",
            at.bytes, at.at
        )?;
    }
    let (pages, used, differ) = (found.pages, found.used, found.differ.len());
    writeln!(out, "compare pages {pages} used {used} differ {differ}")?;
    ensure!(differ == 0, "{differ} pages differ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_makes_a_page_differ() {
        let first = vec![0; 4 * PAGE];
        let mut second = first.clone();
        second[2 * PAGE + 17] = 1;
        let mut found = Found::default();
        found.chunk(&first, &second);
        found.chunk(&second, &second);
        assert_eq!(
            found,
            Found {
                pages: 8,
                used: 1,
                differ: vec![Difference {
                    page: 2,
                    bytes: 1,
                    at: 2 * PAGE as u64 + 17,
                    words: [0, 0x100]
                }]
            }
        );
    }
}
