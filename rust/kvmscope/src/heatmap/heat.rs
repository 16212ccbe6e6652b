// SPDX-License-Identifier: GPL-2.0

//! How hot each piece of memory was in each stretch of time.

use std::ops::Range;

use clap::ValueEnum;

use crate::cli::Heatmap;
use crate::heatmap::axis::{grains, union, Axis, Row};
use crate::heatmap::source::Source;
use crate::wss::pages::{Pages, Run};

/// The share below which all is one shade: 10 to the power of -DECADES.
const DECADES: f64 = 3.0;

/// What to do about page tables of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tables {
    /// Show them in a shade of their own
    Mark,
    /// Leave them out
    Omit,
}

/// What makes memory hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Written,
    Accessed,
    /// Sampled accesses, next to those of the hottest memory.
    Sampled,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            What::Written => "written",
            What::Accessed => "accessed",
            What::Sampled => "sampled",
        }
    }
}

/// What is hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub what: What,
    pub tables: Tables,
}

impl Subject {
    pub fn new(source: &Source, args: &Heatmap) -> Subject {
        Subject {
            what: match args.reads {
                _ if source.sampled => What::Sampled,
                true => What::Accessed,
                false => What::Written,
            },
            tables: args.tables,
        }
    }
}

pub struct Heat {
    pub axis: Axis,
    /// Of the periods, to each column.
    pub columns: Vec<Range<usize>>,
    /// A row of cells for each of the axis's.
    pub cells: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Of its pages and sub-intervals, the share that was touched.
    pub share: f64,
    /// Whether most of that was page tables.
    pub table: bool,
    /// Nothing is known of it.
    pub unknown: bool,
}

impl Heat {
    /// At most as wide and high.
    pub fn new(
        source: &Source,
        subject: Subject,
        width: usize,
        height: usize,
        fold: usize,
    ) -> Heat {
        let mut memory = Vec::new();
        for pages in source.slots.iter().filter_map(|slot| slot.pages.as_ref()) {
            let hot = pages
                .runs
                .iter()
                .filter(|run| share(run, pages, subject) > 0.0);
            let mut touched: Vec<Range<u64>> = Vec::new();
            for range in hot.map(|run| grains(run.gfn..run.end())) {
                match touched.last_mut() {
                    Some(last) if range.start <= last.end => last.end = range.end,
                    _ => touched.push(range),
                }
            }
            union(&mut memory, touched.into_iter());
        }
        let axis = Axis::new(&memory, height, fold);

        let periods = source.slots.len();
        let per_column = periods.div_ceil(width.max(1)).max(1);
        let columns: Vec<Range<usize>> = (0..periods)
            .step_by(per_column)
            .map(|first| first..periods.min(first + per_column))
            .collect();

        let mut cells = vec![vec![Cell::default(); columns.len()]; axis.rows.len()];
        for (i, column) in columns.iter().enumerate() {
            let slots = &source.slots[column.clone()];
            for (row, cell) in column_of(&axis, slots, subject).into_iter().enumerate() {
                cells[row][i] = cell;
            }
        }
        Heat {
            axis,
            columns,
            cells,
        }
    }
}

fn column_of(axis: &Axis, slots: &[crate::heatmap::source::Slot], subject: Subject) -> Vec<Cell> {
    let mut hot = vec![[0.0; 2]; axis.rows.len()];
    let mut known = 0_u64;
    for pages in slots.iter().filter_map(|slot| slot.pages.as_ref()) {
        if subject.what == What::Accessed && !pages.reads {
            continue;
        }
        known += 1;
        for run in &pages.runs {
            let share = share(run, pages, subject);
            if share > 0.0 {
                for (row, touched) in axis.rows_of(run.gfn..run.end()) {
                    hot[row][usize::from(run.kind.table)] += share * touched as f64;
                }
            }
        }
    }
    let cell = |(row, [data, tables]): (&Row, [f64; 2])| {
        let size = match row {
            Row::Memory(pages) => pages.end - pages.start,
            Row::Fold(_) => return Cell::default(),
        };
        let whole = (size * known.max(1)) as f64;
        Cell {
            share: (data + tables) / whole,
            table: tables > data,
            unknown: known == 0,
        }
    };
    axis.rows.iter().zip(hot).map(cell).collect()
}

/// Of a run's pages and sub-intervals.
fn share(run: &Run, pages: &Pages, subject: Subject) -> f64 {
    if run.kind.table && subject.tables == Tables::Omit {
        0.0
    } else if subject.what == What::Accessed {
        f64::from(u8::from(run.kind.read))
    } else {
        f64::from(run.kind.count) / f64::from(pages.intervals)
    }
}

/// Where a share is on the scale: 0 for all that is next to nothing, 1 for all.
/// None of nothing.
pub fn scale(share: f64) -> Option<f64> {
    (share > 0.0).then(|| (1.0 + share.log10() / DECADES).clamp(0.0, 1.0))
}

/// The share that is there.
pub fn share_at(scale: f64) -> f64 {
    10.0_f64.powf((scale - 1.0) * DECADES)
}

pub fn size_text(pages: u64) -> String {
    let kib = pages as f64 * 4.0;
    let (number, unit) = match kib {
        _ if kib < 1024.0 => (kib, "KiB"),
        _ if kib < 1_048_576.0 => (kib / 1024.0, "MiB"),
        _ if kib < 1_073_741_824.0 => (kib / 1_048_576.0, "GiB"),
        _ => (kib / 1_073_741_824.0, "TiB"),
    };
    // A place after the point where it says anything.
    if number.fract() < 0.05 || number >= 100.0 {
        format!("{number:.0} {unit}")
    } else {
        format!("{number:.1} {unit}")
    }
}

/// Seconds, with as many places as a span of so many asks for.
pub fn time_text(seconds: f64, span: f64) -> String {
    match span {
        _ if span < 0.1 => format!("{seconds:.3}s"),
        _ if span < 1.0 => format!("{seconds:.2}s"),
        _ if span < 20.0 => format!("{seconds:.1}s"),
        _ if span < 7_200.0 => format!("{seconds:.0}s"),
        _ => format!("{:.0}min", seconds / 60.0),
    }
}
