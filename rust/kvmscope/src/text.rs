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
    let mut text = head(columns, &widths);
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..rows {
        text.push_str(&line(columns, &widths, &|column| &column.cells[row]));
    }
    text
}

pub fn head(columns: &[Column], widths: &[usize]) -> String {
    line(columns, widths, &|column| column.head)
}

pub fn line<'a>(
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
