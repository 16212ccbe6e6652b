// SPDX-License-Identifier: GPL-2.0

//! A view as a plain table.

use std::fmt::Write;

use crate::columns::columns;
use crate::view::View;

pub fn text(view: &View) -> String {
    let columns = columns(view);
    let mut text = String::new();
    let mut line = |cell: &dyn Fn(usize) -> String| {
        let mut words = String::new();
        for (i, column) in columns.iter().enumerate() {
            let (gap, width) = (if i == 0 { "" } else { "  " }, column.width());
            let cell = cell(i);
            // Writing to a string does not fail.
            let _ = match column.right {
                true => write!(words, "{gap}{cell:>width$}"),
                false => write!(words, "{gap}{cell:<width$}"),
            };
        }
        text.push_str(words.trim_end());
        text.push('\n');
    };

    line(&|i| columns[i].head.to_string());
    for row in 0..=view.lines.len() {
        line(&|i| columns[i].cells[row].clone());
    }
    text
}
