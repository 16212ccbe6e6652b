// SPDX-License-Identifier: GPL-2.0

//! The tables that programs read, in debugfs: one record per line, fields
//! separated by a space, version and columns first. Documented, for readers,
//! in Documentation/virt/kvm/x86/scope.rst.

use core::fmt::{self, Write};

use crate::counters::Table;
use crate::latency::{nanoseconds, Latency};
use crate::reasons::{reason, Isa, Number, SLOTS};

/// The format's version: raised when a reader of the old one would misread.
const VERSION: u32 = 1;

/// Writes the table of exits: all, and of these those of nested guests.
pub fn exits(out: &mut impl Write, isa: Isa, table: &Table) -> fmt::Result {
    writeln!(out, "kvmscope {VERSION} exits {}", isa.name())?;
    writeln!(out, "number name exits nested")?;

    for ((slot, all), nested) in (0..SLOTS).zip(&table.all).zip(&table.nested) {
        let Some(reason) = reason(isa, slot).filter(|_| *all != 0) else {
            continue;
        };
        // Read after the others, they may have grown beyond.
        let nested = nested.min(all);
        writeln!(
            out,
            "{} {} {all} {nested}",
            Number(reason.number),
            reason.name
        )?;
    }
    Ok(())
}

/// Writes the table of what exits cost, in nanoseconds, on a CPU whose TSC
/// counts so many kHz.
pub fn latency(out: &mut impl Write, isa: Isa, latency: Option<&Latency>, khz: u32) -> fmt::Result {
    writeln!(out, "kvmscope {VERSION} latency {}", isa.name())?;
    writeln!(
        out,
        "number name samples kvm_ns user_ns sleep_ns preempt_ns min_ns max_ns \
         nested nested_kvm_ns histogram"
    )?;

    let Some(latency) = latency else {
        return Ok(());
    };
    for slot in 0..SLOTS {
        let (Some(reason), Some(row)) = (reason(isa, slot), latency.row(slot)) else {
            continue;
        };
        write!(
            out,
            "{} {} {}",
            Number(reason.number),
            reason.name,
            row.samples()
        )?;
        for ticks in row.time().chain([row.min(), row.max()]) {
            write!(out, " {}", nanoseconds(ticks, khz))?;
        }
        let (nested, ticks) = row.nested();
        write!(out, " {nested} {}", nanoseconds(ticks, khz))?;
        // With a fast TSC the first buckets are less than a nanosecond apart.
        let mut separator = ' ';
        let mut last: Option<(u64, u64)> = None;
        for (lower, count) in row.histogram() {
            let lower = nanoseconds(lower, khz);
            match &mut last {
                Some((same, sum)) if *same == lower => *sum = sum.wrapping_add(count),
                _ => {
                    if let Some((lower, count)) = last.replace((lower, count)) {
                        write!(out, "{separator}{lower}:{count}")?;
                        separator = ',';
                    }
                }
            }
        }
        if let Some((lower, count)) = last {
            write!(out, "{separator}{lower}:{count}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
