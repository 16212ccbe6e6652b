// SPDX-License-Identifier: GPL-2.0

//! Which pages a period touched and how often: the kernel's binary file `pages`,
//! version 1, and the runs of like pages that are made of it.
//!
//! Neighbours that were treated alike are one run, so what is kept grows with how
//! scattered the accesses were rather than with the guest's memory.

use anyhow::{bail, ensure, Context, Result};

pub const MAGIC: &[u8] = b"KVMSWSS1";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const RECORD: usize = 656;
/// Pages of a record.
const CHUNK: u64 = 512;
/// No guest has a page at or beyond this one: physical addresses have 52 bits.
pub const END: u64 = 1 << 40;
/// As many sub-intervals as the kernel allows.
const MAX_INTERVALS: u32 = 200;

/// What one period did to the pages of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    pub period: u64,
    pub start_ns: u64,
    pub duration_ns: u64,
    /// Sub-intervals, and in how many of them a page must have been written.
    pub intervals: u8,
    pub threshold: u8,
    /// Whether accesses were measured.
    pub reads: bool,
    /// Ascending, not overlapping, none of untouched pages.
    pub runs: Vec<Run>,
}

/// Neighbouring pages that differ in nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub gfn: u64,
    pub len: u32,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// In how many sub-intervals they were written.
    pub count: u8,
    /// Whether they were accessed at all.
    pub read: bool,
    /// Page tables of the guest's.
    pub table: bool,
    /// Tracked as one, being mapped by a huge page.
    pub huge: bool,
}

impl Kind {
    /// Nothing happened to them.
    pub fn is_idle(self) -> bool {
        self.count == 0 && !self.read
    }
}

impl Run {
    pub fn end(&self) -> u64 {
        self.gfn + u64::from(self.len)
    }
}

/// Appends pages, to the last run where they go on with it.
pub fn push(runs: &mut Vec<Run>, gfn: u64, len: u32, kind: Kind) {
    if let Some(last) = runs.last_mut() {
        if last.kind == kind && last.end() == gfn {
            if let Some(sum) = last.len.checked_add(len) {
                last.len = sum;
                return;
            }
        }
    }
    runs.push(Run { gfn, len, kind });
}

/// A `pages` file. None when it is empty: no period has ended.
pub fn read_pages(bytes: &[u8]) -> Result<Option<Pages>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    ensure!(bytes.starts_with(MAGIC), "it does not begin with KVMSWSS1");
    let header = bytes.get(..HEADER).context("it ends within its header")?;
    let (version, header_size) = (u32_at(header, 8), u32_at(header, 12));
    if version != VERSION {
        bail!(
            "its format is version {version}, and this kvmscope reads version {VERSION}: \
             use the kvmscope that came with the kernel"
        );
    }
    // A later kernel may append to either, which does not concern us.
    let record_size = u32_at(header, 16) as usize;
    let header_size = header_size as usize;
    ensure!(
        header_size >= HEADER && record_size >= RECORD,
        "its header has {header_size} bytes and its records {record_size}, which is too few"
    );
    let (intervals, threshold) = (u32_at(header, 20), u32_at(header, 24));
    ensure!(
        (1..=MAX_INTERVALS).contains(&intervals),
        "{intervals} is no number of sub-intervals"
    );
    let records = u64_at(header, 56);
    let body = bytes.get(header_size..).unwrap_or_default();
    ensure!(
        body.len() % record_size == 0 && (body.len() / record_size) as u64 == records,
        "it should have {records} records of {record_size} bytes, and has {} bytes",
        body.len()
    );

    let mut runs = Vec::new();
    let mut next = 0;
    for (number, record) in body.chunks_exact(record_size).enumerate() {
        next = add_record(&mut runs, record, next, intervals as u8)
            .with_context(|| format!("record {number}"))?;
    }
    Ok(Some(Pages {
        period: u64_at(header, 32),
        start_ns: u64_at(header, 40),
        duration_ns: u64_at(header, 48),
        intervals: intervals as u8,
        threshold: threshold.clamp(1, intervals) as u8,
        reads: u32_at(header, 28) & 1 != 0,
        runs,
    }))
}

/// Where the next record may begin.
fn add_record(runs: &mut Vec<Run>, record: &[u8], next: u64, intervals: u8) -> Result<u64> {
    let first = u64_at(record, 0);
    ensure!(
        first % CHUNK == 0 && first >= next && first < END,
        "{first:#x} is not where it can begin"
    );
    let huge = u32_at(record, 8) & 1 != 0;
    let bit = |bitmap: usize, page: usize| record[bitmap + page / 8] & (1 << (page % 8)) != 0;
    for (page, gfn) in (first..first + CHUNK).enumerate() {
        let kind = Kind {
            count: record[144 + page],
            read: bit(16, page),
            table: bit(80, page),
            huge,
        };
        ensure!(
            kind.count <= intervals,
            "page {gfn:#x} was counted {} times in {intervals} sub-intervals",
            kind.count
        );
        if !kind.is_idle() {
            push(runs, gfn, 1, kind);
        }
    }
    Ok(first + CHUNK)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
