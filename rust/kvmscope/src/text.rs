// SPDX-License-Identifier: GPL-2.0

//! Columns as a plain table.

use std::fmt::Write;

use crate::columns::{columns, Column};
use crate::view::View;

pub fn text(view: &View) -> String {
    table(&columns(view))
}

pub fn table(columns: &[Column]) -> String {
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    head(columns, &widths) + &rows(columns, &widths)
}

/// The rows, and the head before the first ones. What is yet to come may be wider;
/// columns never become narrower.
pub fn more(widths: &mut Vec<usize>, columns: &[Column]) -> String {
    const LEAST: usize = 7;
    let is_first = widths.is_empty();
    widths.resize(columns.len(), LEAST);
    for (width, column) in widths.iter_mut().zip(columns) {
        *width = column.width().max(*width);
    }
    let mut text = String::new();
    if is_first {
        text = head(columns, widths);
    }
    text + &rows(columns, widths)
}

fn rows(columns: &[Column], widths: &[usize]) -> String {
    let rows = columns.first().map_or(0, |column| column.cells.len());
    (0..rows)
        .map(|row| line(columns, widths, &|column| &column.cells[row]))
        .collect()
}

fn head(columns: &[Column], widths: &[usize]) -> String {
    line(columns, widths, &|column| column.head)
}

fn line<'a>(
    columns: &'a [Column],
    widths: &[usize],
    cell: &dyn Fn(&'a Column) -> &'a str,
) -> String {
    let mut words = String::new();
    for (i, (column, width)) in columns.iter().zip(widths).enumerate() {
        let (gap, cell) = (if i == 0 { "" } else { "  " }, cell(column));
        // Writing to a string does not fail.
        let _ = match column.right {
            true => write!(words, "{gap}{cell:>width$}"),
            false => write!(words, "{gap}{cell:<width$}"),
        };
    }
    words.truncate(words.trim_end().len());
    words.push('\n');
    words
}
