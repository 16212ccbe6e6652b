// SPDX-License-Identifier: GPL-2.0

//! What programs read of a working set in debugfs: the last period by name, all
//! that are remembered as a table, and the pages of the last one. Documented, for
//! readers, in Documentation/virt/kvm/x86/scope.rst.

use core::fmt::{self, Write};

use crate::wss::{Estimate, Regions, Wss, PAGES};

/// The version of each format: raised when a reader of the old one would misread.
const VERSION: u32 = 1;

/// The names of an estimate's values, in the order of [`values`].
const NAMES: [&str; 22] = [
    "period",
    "start_ns",
    "duration_ns",
    "intervals",
    "threshold",
    "written",
    "tables",
    "read_set",
    "reads",
    "huge",
    "entries",
    "swaps",
    "in_place",
    "full_exits",
    "flushes",
    "rearmed",
    "spent_ns",
    "lost",
    "nested_runs",
    "sampled",
    "sampled_touched",
    "unmapped_lost",
];

fn values(estimate: &Estimate) -> [u64; 22] {
    let period = &estimate.period;
    [
        estimate.number,
        period.start_ns,
        period.duration_ns,
        estimate.intervals.into(),
        estimate.threshold.into(),
        estimate.written,
        estimate.tables,
        estimate.read_set,
        estimate.reads.into(),
        estimate.huge,
        estimate.entries,
        period.swaps,
        period.in_place,
        period.full_exits,
        period.flushes,
        estimate.rearmed,
        period.spent_ns,
        estimate.lost,
        period.nested_runs,
        period.sampled,
        period.sampled_touched,
        period.unmapped_lost,
    ]
}

/// Writes an estimate, a name and a value per line.
pub fn estimate(out: &mut impl Write, estimate: &Estimate) -> fmt::Result {
    writeln!(out, "kvmscope {VERSION} wss")?;
    for (name, value) in NAMES.iter().zip(values(estimate)) {
        writeln!(out, "{name} {value}")?;
    }
    Ok(())
}

/// Writes estimates, one per line.
pub fn history<'a>(
    out: &mut impl Write,
    estimates: impl Iterator<Item = &'a Estimate>,
) -> fmt::Result {
    writeln!(out, "kvmscope {VERSION} wss-history")?;
    line(out, NAMES.iter())?;
    for estimate in estimates {
        line(out, values(estimate).iter())?;
    }
    Ok(())
}

fn line(out: &mut impl Write, words: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    let mut separator = "";
    for word in words {
        write!(out, "{separator}{word}")?;
        separator = " ";
    }
    writeln!(out)
}

/// The first bytes of what [`pages`] writes.
const MAGIC: [u8; 8] = *b"KVMSWSS1";

/// The size of its header and of a record.
const HEADER: u32 = 64;
const RECORD: u32 = 8 + 4 + 4 + 64 + 64 + PAGES as u32;

/// Takes bytes one piece after the other.
struct Bytes<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Bytes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.wrapping_add(bytes.len());
        if let Some(to) = self.room.get_mut(self.len..end) {
            to.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn words(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.put(&word.to_le_bytes()));
    }

    fn ints(&mut self, ints: &[u32]) {
        ints.iter().for_each(|int| self.put(&int.to_le_bytes()));
    }
}

/// Writes the pages of the last period to `out`, little-endian, unless there is too
/// little room, and returns how many bytes that takes.
pub fn pages<R: Regions>(wss: &mut Wss<R>, out: &mut [u8]) -> usize {
    let estimate = wss.estimate();
    if estimate.number == 0 {
        return 0;
    }
    let mut records = 0u64;
    wss.for_each_region(|_, region| {
        records = records.wrapping_add(region.last().is_some().into());
    });
    let size = records
        .wrapping_mul(RECORD.into())
        .wrapping_add(HEADER.into()) as usize;
    if out.len() < size {
        return size;
    }

    let mut bytes = Bytes { room: out, len: 0 };
    bytes.put(&MAGIC);
    bytes.ints(&[VERSION, HEADER, RECORD]);
    bytes.ints(&[
        estimate.intervals,
        estimate.threshold,
        estimate.reads.into(),
    ]);
    bytes.words(&[
        estimate.number,
        estimate.period.start_ns,
        estimate.period.duration_ns,
        records,
    ]);
    wss.for_each_region(|number, region| {
        let Some(last) = region.last() else {
            return;
        };
        bytes.words(&[number.wrapping_mul(PAGES)]);
        bytes.ints(&[last.huge.into(), 0]);
        bytes.words(&last.touched);
        bytes.words(&last.table);
        bytes.words(&last.counts);
    });
    bytes.len
}
