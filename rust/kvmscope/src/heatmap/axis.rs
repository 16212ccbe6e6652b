// SPDX-License-Identifier: GPL-2.0

//! The guest's memory as rows of equal size, without what nobody touched.

use std::ops::Range;

/// Less than a huge page is not worth leaving out.
const GRAIN: u64 = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    pub pages_per_row: u64,
    /// Ascending by address.
    pub rows: Vec<Row>,
    /// Where each piece of memory is, and which row is its first.
    pieces: Vec<(Range<u64>, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Pages; the last row of a piece may have fewer.
    Memory(Range<u64>),
    /// As many pages are left out.
    Fold(u64),
}

/// Adds ranges to others; all are ascending and disjoint then.
pub fn union(ranges: &mut Vec<Range<u64>>, more: impl Iterator<Item = Range<u64>>) {
    ranges.extend(more);
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joined = next.start <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
}

/// Whole grains.
pub fn grains(pages: Range<u64>) -> Range<u64> {
    pages.start / GRAIN * GRAIN..pages.end.next_multiple_of(GRAIN)
}

impl Axis {
    /// Of memory that is ascending and disjoint. A fold is as high as `fold` rows,
    /// and all of it at most as `height`.
    pub fn new(memory: &[Range<u64>], height: usize, fold: usize) -> Axis {
        let pieces = fold_gaps(memory, (height / 4 / fold).max(1));
        let folds = pieces.len().saturating_sub(1) * fold;
        let rows = |size: u64| -> u64 {
            let of_piece = |piece: &Range<u64>| (piece.end - piece.start).div_ceil(size);
            pieces.iter().map(of_piece).sum()
        };
        let space = height.saturating_sub(folds).max(pieces.len()) as u64;
        let mut pages_per_row = 1;
        while rows(pages_per_row) > space {
            pages_per_row = next_size(pages_per_row);
        }

        let mut axis = Axis {
            pages_per_row,
            rows: Vec::new(),
            pieces: Vec::new(),
        };
        let mut last_end = None;
        for piece in pieces {
            if let Some(end) = last_end {
                axis.rows.push(Row::Fold(piece.start - end));
            }
            last_end = Some(piece.end);
            axis.pieces.push((piece.clone(), axis.rows.len()));
            let mut start = piece.start;
            while start < piece.end {
                let end = piece.end.min(start + pages_per_row);
                axis.rows.push(Row::Memory(start..end));
                start = end;
            }
        }
        axis
    }

    /// The rows that pages are in, with how many of the pages each.
    pub fn rows_of(&self, pages: Range<u64>) -> impl Iterator<Item = (usize, u64)> + '_ {
        let at = self
            .pieces
            .partition_point(|(piece, _)| piece.end <= pages.start);
        let reached = self.pieces[at..].iter();
        let within = pages.clone();
        let reached = reached.take_while(move |(piece, _)| piece.start < within.end);
        reached.flat_map(move |(piece, first)| {
            let start = pages.start.max(piece.start);
            let end = pages.end.min(piece.end);
            let row = |gfn: u64| (gfn - piece.start) / self.pages_per_row;
            (row(start)..=row(end - 1)).map(move |row| {
                let from = piece.start + row * self.pages_per_row;
                let pages = end.min(from + self.pages_per_row) - start.max(from);
                (first + row as usize, pages)
            })
        })
    }
}

/// Joins what is near enough for at most so many gaps to be left.
fn fold_gaps(memory: &[Range<u64>], most: usize) -> Vec<Range<u64>> {
    let touched: u64 = memory.iter().map(|range| range.end - range.start).sum();
    let mut gap = GRAIN.max(touched / 8);
    loop {
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for range in memory {
            match pieces.last_mut() {
                Some(last) if range.start - last.end <= gap => last.end = range.end,
                _ => pieces.push(range.clone()),
            }
        }
        if pieces.len() <= most + 1 {
            return pieces;
        }
        gap = gap.saturating_mul(2);
    }
}

/// Sizes that make round addresses: 1, 2, 3, 4, 6, 8, 12...
fn next_size(size: u64) -> u64 {
    match size {
        1 => 2,
        _ if size.is_power_of_two() => size / 2 * 3,
        _ => size / 3 * 4,
    }
}
