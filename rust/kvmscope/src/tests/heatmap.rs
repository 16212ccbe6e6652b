// SPDX-License-Identifier: GPL-2.0

//! The axis of addresses, and how hot its cells are.

use std::ops::Range;

use clap::Parser;
use proptest::prelude::*;

use crate::cli::{Cli, Command, Heatmap};
use crate::heatmap::axis::{union, Axis, Row};
use crate::heatmap::heat::{scale, share_at, size_text, time_text, Heat, Subject, Tables, What};
use crate::heatmap::png::Png;
use crate::heatmap::source::{Slot, Source};
use crate::heatmap::{canvas::Canvas, picture, text};
use crate::wss::pages::{Kind, Pages, Run};

const WRITES: Subject = Subject {
    what: What::Written,
    tables: Tables::Mark,
};

fn run(gfn: u64, len: u32, count: u8, table: bool) -> Run {
    let kind = Kind {
        count,
        read: true,
        table,
        huge: false,
    };
    Run { gfn, len, kind }
}

fn slot(number: u64, runs: Option<Vec<Run>>) -> Slot {
    Slot {
        start_ns: number * 1_000_000_000,
        duration_ns: 1_000_000_000,
        pages: runs.map(|runs| Pages {
            period: number,
            start_ns: number * 1_000_000_000,
            duration_ns: 1_000_000_000,
            intervals: 10,
            threshold: 1,
            reads: number != 2,
            runs,
        }),
    }
}

fn source() -> Source {
    Source::of_slots(vec![
        slot(1, Some(vec![run(0, 256, 10, false), run(256, 64, 1, true)])),
        slot(
            2,
            Some(vec![run(0, 256, 5, false), run(0x10_0000, 1, 1, false)]),
        ),
        slot(3, None),
    ])
}

#[test]
fn shares() {
    let heat = Heat::new(&source(), WRITES, 80, 9, 1);
    // Two pieces of 512 pages and what is between them, in at most nine rows.
    assert_eq!(heat.axis.pages_per_row, 128);
    let folds = heat
        .axis
        .rows
        .iter()
        .filter(|row| matches!(row, Row::Fold(0xffe00)));
    assert_eq!((heat.axis.rows.len(), folds.count()), (9, 1));
    let share = |row: usize, column: usize| heat.cells[row][column].share;
    assert_eq!((share(0, 0), share(0, 1)), (1.0, 0.5));
    assert_eq!((share(2, 0), share(3, 0)), (0.05, 0.0));
    assert!(heat.cells[2][0].table && !heat.cells[0][0].table);
    assert_eq!(share(5, 1), 0.1 / 128.0);
    assert!(heat.cells[0][2].unknown && !heat.cells[0][1].unknown);

    // Periods that share a column: what is known of them.
    let heat = Heat::new(&source(), WRITES, 1, 9, 1);
    assert_eq!(heat.columns.len(), 1);
    assert_eq!(heat.cells[0][0].share, 0.75);

    let reads = Subject {
        what: What::Accessed,
        tables: Tables::Omit,
    };
    let heat = Heat::new(&source(), reads, 80, 9, 1);
    assert_eq!(heat.cells[0][0].share, 1.0);
    assert_eq!(heat.cells[2][0].share, 0.0, "page tables are left out");
    assert!(heat.cells[0][1].unknown, "reads were not measured");
}

#[test]
fn scales() {
    assert_eq!(
        (scale(0.0), scale(1e-9), scale(1.0)),
        (None, Some(0.0), Some(1.0))
    );
    for step in 0..=10 {
        let at = f64::from(step) / 10.0;
        assert!((scale(share_at(at)).unwrap() - at).abs() < 1e-9);
    }
}

#[test]
fn words() {
    let sizes = [1, 255, 256, 384, 26_214_400, 1 << 40].map(size_text);
    assert_eq!(
        sizes,
        ["4 KiB", "1020 KiB", "1 MiB", "1.5 MiB", "100 GiB", "4096 TiB"]
    );
    let times = [0.05, 0.5, 10.0, 600.0, 86_400.0].map(|span| time_text(span / 2.0, span));
    assert_eq!(times, ["0.025s", "0.25s", "5.0s", "300s", "720min"]);
}

fn args(words: &[&str]) -> Heatmap {
    let words = [&["kvmscope", "heatmap"], words].concat();
    let Command::Heatmap(args) = Cli::parse_from(words).command else {
        unreachable!()
    };
    args
}

fn any_source() -> impl Strategy<Value = Source> {
    let piece = (0..1_u64 << 39, 1..100_000_u32, 0..=10_u8, any::<bool>());
    let runs = prop::collection::vec(piece, 0..12).prop_map(|mut pieces| {
        pieces.sort_unstable();
        let (mut runs, mut at) = (Vec::new(), 0);
        for (gfn, len, count, table) in pieces {
            let gfn = gfn.max(at);
            at = gfn + u64::from(len);
            runs.push(run(gfn, len, count, table));
        }
        runs
    });
    prop::collection::vec(prop::option::of(runs), 0..30).prop_map(|all| {
        let slots = (0..).zip(all).map(|(number, runs)| slot(number, runs));
        Source::of_slots(slots.collect())
    })
}

proptest! {
    /// Every page of the memory is in exactly one row, and rows keep their bounds.
    #[test]
    fn axes(starts in prop::collection::vec((0..1_u64 << 40, 1..1_000_000_u64), 1..40), height in 8..400_usize, fold in 1..8_usize) {
        let mut memory: Vec<Range<u64>> = Vec::new();
        union(&mut memory, starts.iter().map(|(start, len)| *start..start + len));
        prop_assert!(memory.windows(2).all(|pair| pair[0].end < pair[1].start));
        let axis = Axis::new(&memory, height, fold);

        let units = |row: &Row| if matches!(row, Row::Fold(_)) { fold } else { 1 };
        prop_assert!(axis.rows.iter().map(units).sum::<usize>() <= height.max(2 + fold));
        let mut at = memory[0].start;
        for row in &axis.rows {
            match row {
                Row::Memory(pages) => {
                    prop_assert!(pages.start == at && pages.end - pages.start <= axis.pages_per_row);
                    at = pages.end;
                }
                Row::Fold(pages) => {
                    let folded = at..at + pages;
                    prop_assert!(!memory.iter().any(|m| m.start < folded.end && folded.start < m.end));
                    at = folded.end;
                }
            }
        }
        prop_assert_eq!(at, memory[memory.len() - 1].end);

        for range in &memory {
            let mut at = range.start;
            for (row, pages) in axis.rows_of(range.clone()) {
                let Row::Memory(its) = &axis.rows[row] else { panic!("in a fold") };
                prop_assert!(its.start <= at && at + pages <= its.end);
                at += pages;
            }
            prop_assert_eq!(at, range.end);
        }
    }

    /// Whatever there is to draw: no share beyond its bounds, no line too long.
    #[test]
    fn drawings(source in any_source(), width in 40..200_usize, height in 8..60_usize, reads in any::<bool>()) {
        let what = if reads { What::Accessed } else { What::Written };
        let subject = Subject { what, tables: Tables::Mark };
        let heat = Heat::new(&source, subject, width, height, 1);
        prop_assert!(heat.columns.len() <= width);
        for cell in heat.cells.iter().flatten() {
            prop_assert!((0.0..=1.000001).contains(&cell.share));
        }
        let args = args(if reads { &["--reads"] } else { &[] });
        let map = text::draw(&source, &args, &text::Style::plain(width, height));
        prop_assert!(map.lines().count() <= height.max(8), "{}", map);
        for line in map.lines().skip(1) {
            prop_assert!(line.chars().count() <= width, "{}\n{}", width, map);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn pictures(source in any_source(), width in 480..900_u32, height in 320..600_u32) {
        let mut canvas = Png::new(width, height);
        picture::draw(&mut canvas, &source, &args(&[]));
        prop_assert!(canvas.finish().is_ok());
    }
}
