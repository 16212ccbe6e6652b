// SPDX-License-Identifier: GPL-2.0

//! Working sets as columns of words and numbers, for people.

use crate::columns::{duration, harmless, Column};
use crate::snapshot::VmId;
use crate::wss::percentiles::{Percentiles, Samples};
use crate::wss::period::Period;

const PAGES_PER_MIB: f64 = 256.0;

pub fn mib(pages: u64) -> String {
    format!("{:.1}", pages as f64 / PAGES_PER_MIB)
}

/// Behind a read set that the kernel may not know all of.
fn or_more(period: &Period) -> &'static str {
    match period.estimate.unmapped_lost {
        0 => "",
        _ => "+",
    }
}

/// A line for each period.
pub fn columns(periods: &[&Period]) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut add = |head, right, weight, cell: &dyn Fn(&Period) -> String| {
        columns.push(Column {
            head,
            right,
            weight,
            cells: periods.iter().map(|period| cell(period)).collect(),
        });
    };
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_string());

    add("VM", false, 9, &|p| p.vm.to_string());
    add("Name", false, 7, &|p| harmless(&p.about.name));
    add("Period", true, 4, &|p| p.estimate.period.to_string());
    add("Written", true, 9, &|p| p.estimate.written.to_string());
    add("MiB", true, 8, &|p| mib(p.estimate.written));
    add("Tables", true, 6, &|p| p.estimate.tables.to_string());
    add("Read set", true, 9, &|p| {
        let set = p.estimate.read_set();
        or_dash(set.map(|pages| format!("{pages}{}", or_more(p))))
    });
    add("MiB", true, 8, &|p| {
        or_dash(
            p.estimate
                .read_set()
                .map(|pages| format!("{}{}", mib(pages), or_more(p))),
        )
    });
    add("Lost", true, 6, &|p| p.estimate.lost.to_string());
    add("Entries", true, 5, &|p| p.estimate.entries.to_string());
    add("Full", true, 3, &|p| p.estimate.full_exits.to_string());
    add("Spent", true, 5, &|p| duration(p.estimate.spent_ns));
    columns
}

/// Four lines for each VM: what was written, and what was written or read, in
/// pages and in MiB.
pub fn percentile_columns<'a>(
    vms: impl IntoIterator<Item = (&'a VmId, &'a Samples)>,
) -> Vec<Column> {
    let mut rows: Vec<[String; 10]> = Vec::new();
    for (id, vm) in vms {
        let sets = [
            ("written", &vm.written, false),
            ("read set", &vm.read_set, vm.or_more),
        ];
        for (set, values, or_more) in sets {
            let Some(percentiles) = Percentiles::of(values) else {
                continue;
            };
            for (unit, word) in [
                ("pages", u64::to_string as fn(&u64) -> String),
                ("MiB", |n| mib(*n)),
            ] {
                let mut row = <[String; 10]>::default();
                row[0] = id.to_string();
                row[1] = harmless(&vm.about.name);
                row[2] = format!("{set}, {unit}");
                row[3] = values.len().to_string();
                for (cell, value) in row[4..].iter_mut().zip(percentiles.values()) {
                    *cell = word(&value) + if or_more { "+" } else { "" };
                }
                rows.push(row);
            }
        }
    }
    let heads = [
        ("VM", false, 9),
        ("Name", false, 7),
        ("Working set", false, 9),
        ("Periods", true, 3),
        ("Min", true, 6),
        ("p25", true, 5),
        ("p50", true, 8),
        ("p75", true, 5),
        ("p90", true, 7),
        ("Max", true, 8),
    ];
    let column = |(i, (head, right, weight)): (usize, (&'static str, bool, u8))| Column {
        head,
        right,
        weight,
        cells: rows.iter().map(|row| row[i].clone()).collect(),
    };
    heads.into_iter().enumerate().map(column).collect()
}
