// SPDX-License-Identifier: GPL-2.0

//! What the kernel writes of its counters, and the command reads: the same numbers.

use kernel::counters;
use kernel::dump::{dump, Line};
use kernel::knobs::Dump;
use kernel::latency::Latency;
use kernel::reasons::{reason, Isa, SLOTS};
use kernel::tables as written;
use kvmscope_command::format::{read_exits, read_latency};
use kvmscope_command::table::{Reason, Table};

/// Bytes as numbers, for as long as there are any.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    /// None at the end.
    fn next(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// An instruction set, a frequency, and then counts: a slot, and what was counted.
pub fn tables(bytes: &[u8]) {
    let mut numbers = Numbers(bytes);
    let Some(first) = numbers.next() else {
        return;
    };
    let isa = if first & 1 == 0 { Isa::Vmx } else { Isa::Svm };
    let khz = (first >> 32) as u32;

    let mut exits = Box::new(counters::Table::new());
    let latency = Box::<Latency>::default();
    let mut timed = 0;
    while let (Some(slot), Some(number)) = (numbers.next(), numbers.next()) {
        let (nested, slot) = (slot & (1 << 32) != 0, (slot as u32) as usize % SLOTS);
        exits.all[slot] = number;
        exits.nested[slot] = number >> (slot % 64);
        // As long as it does not overflow, which takes centuries.
        let ticks = number >> 16;
        latency
            .slot(slot, nested)
            .account([ticks, ticks / 2, 0, ticks / 3]);
        timed += u64::from(reason(isa, slot).is_some());
    }
    dumped(isa, &exits);

    let mut text = String::new();
    written::exits(&mut text, isa, &exits).expect("a string has room");
    let mut read = Table::default();
    let its = read_exits(&text, &mut read).expect("the kernel's table");
    assert_eq!(its, isa.name());
    for slot in 0..SLOTS {
        let Some(reason) = reason(isa, slot) else {
            continue;
        };
        let cost = read.cost_mut(Reason::new(reason.number, reason.name));
        assert_eq!(cost.exits, exits.all[slot], "{}", reason.name);
        assert_eq!(cost.nested, exits.nested[slot].min(exits.all[slot]));
    }

    let mut text = String::new();
    written::latency(&mut text, isa, Some(&latency), khz).expect("a string has room");
    let mut read = Table::default();
    read_latency(&text, &mut read).expect("the kernel's table");
    let sum = read.total().time;
    assert_eq!(sum.samples, timed);
    assert_eq!(sum.histogram.count(), timed);
}

/// The rows' counts are the total's, and no share is more than all of it.
fn dumped(isa: Isa, exits: &counters::Table) {
    let (mut sum, mut rows) = (0u64, 0);
    dump(isa, Dump::All, exits, |line| {
        match &line {
            Line::Row(_, count, _) => {
                sum = sum.wrapping_add(*count);
                rows += 1;
            }
            Line::Total(total) => {
                // What a slot without a reason counts is nobody's.
                let lost = (0..SLOTS).filter(|slot| reason(isa, *slot).is_none());
                let lost = lost.fold(0u64, |sum, slot| sum.wrapping_add(exits.all[slot]));
                assert_eq!(*total, sum.wrapping_add(lost));
            }
        }
        assert!(line.to_string().lines().count() == 1);
    });
    assert!(rows > 0);
}
