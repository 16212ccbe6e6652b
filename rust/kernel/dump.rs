// SPDX-License-Identifier: GPL-2.0

//! The table of exits by reason, as text: a row each, then the total.

use core::fmt;

use crate::counters::Table;
use crate::knobs::Dump;
use crate::reasons::{reason, Isa, Number, Reason, SLOTS};

/// One line of the table.
pub enum Line {
    /// Number, name, count, share of the total.
    Row(Reason, u64, u64),
    /// The sum of all rows.
    Total(u64),
}

/// Gives every line of the table to `print`, in the order of the reasons.
pub fn dump(isa: Isa, what: Dump, table: &Table, mut print: impl FnMut(Line)) {
    let total = table.all.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));

    for (slot, &count) in (0..SLOTS).zip(&table.all) {
        let Some(reason) = reason(isa, slot) else {
            continue;
        };
        if count != 0 || (what == Dump::All && reason.defined) {
            print(Line::Row(reason, count, total));
        }
    }
    print(Line::Total(total));
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Line::Row(reason, count, total) => {
                let (percent, hundredths) = share(count, total);
                write!(
                    f,
                    "{:>10} {:<28} {count:>16} {percent:>3}.{hundredths:02}%",
                    Number(reason.number),
                    reason.name
                )
            }
            Line::Total(total) => write!(f, "{:>10} {:<28} {total:>16}", "total", ""),
        }
    }
}

/// `count` as a share of `total`: percent and hundredths of a percent, rounded
/// to the nearest. The kernel has no floats, and 128-bit division neither.
fn share(count: u64, total: u64) -> (u64, u64) {
    // Both shrink alike until 10000 of them fit.
    let shift = 64u32.wrapping_sub(total.leading_zeros()).saturating_sub(50);
    let (count, total) = (count >> shift, total >> shift);

    let scaled = count.wrapping_mul(10_000).wrapping_add(total / 2);
    let share = scaled.checked_div(total).unwrap_or(0);
    (share / 100, share % 100)
}
