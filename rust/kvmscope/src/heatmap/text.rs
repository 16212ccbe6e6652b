// SPDX-License-Identifier: GPL-2.0

//! A heat map as text: time to the right, addresses upwards.

use std::io::{stdout, IsTerminal};

use ratatui::crossterm::terminal;

use crate::cli::Heatmap;
use crate::heatmap::axis::Row;
use crate::heatmap::heat::{scale, share_at, size_text, time_text, Cell, Heat, Subject};
use crate::heatmap::source::Source;
use crate::screen;

/// From next to nothing to all.
const ASCII: [char; 9] = ['.', ':', '-', '=', '+', '*', '#', '%', '@'];
const BLOCKS: [char; 9] = ['░', '░', '░', '▒', '▒', '▒', '▓', '▓', '█'];
/// Of the 256 colours of terminals: from dark red to yellow, and for page tables
/// from dark blue to light.
const HOT: [u8; 9] = [52, 88, 124, 160, 196, 202, 208, 214, 226];
const TABLES: [u8; 9] = [17, 18, 19, 20, 27, 33, 39, 45, 51];
const UNKNOWN: char = '?';

pub struct Style {
    width: usize,
    height: usize,
    shades: Shades,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shades {
    Ascii,
    Blocks,
    Colors,
}

impl Style {
    pub fn new(args: &Heatmap) -> Style {
        let on_terminal = screen::is_drawable();
        let size = if stdout().is_terminal() {
            terminal::size().ok()
        } else {
            None
        };
        // A serial line does not know.
        let (width, height) = size
            .filter(|size| size.0 != 0 && size.1 != 0)
            .unwrap_or((80, 24));
        let shades = match on_terminal && !args.ascii {
            true if screen::colors_wanted() => Shades::Colors,
            true => Shades::Blocks,
            false => Shades::Ascii,
        };
        Style {
            width: args.width.unwrap_or(width.clamp(40, 1000)).into(),
            // The prompt comes back below it.
            height: args.height.unwrap_or((height - 1).clamp(8, 1000)).into(),
            shades,
        }
    }

    /// Plain, of a size.
    #[cfg(test)]
    pub fn plain(width: usize, height: usize) -> Style {
        Style {
            width,
            height,
            shades: Shades::Ascii,
        }
    }
}

pub fn draw(source: &Source, args: &Heatmap, style: &Style) -> String {
    let subject = Subject::new(source, args);
    // A line each for the head, the time axis, its labels and the scale.
    let rows = style.height - 4;
    let highest = source.slots.iter().filter_map(|slot| slot.pages.as_ref());
    let highest = highest.filter_map(|pages| pages.runs.last());
    let highest = highest.map(|run| run.end()).max().unwrap_or(0);
    let label_width = address(highest).len();
    // The time of the end sticks out.
    let width = style.width - label_width - 10;
    let heat = Heat::new(source, subject, width, rows, 1);
    let wide = (width / heat.columns.len().max(1)).clamp(1, 8);

    let mut lines = vec![title(source, &heat, subject)];
    let rows = heat.axis.rows.iter().zip(&heat.cells).zip(labels(&heat));
    for ((row, cells), label) in rows.rev() {
        let mut line = format!("{label:>label_width$} ");
        match row {
            Row::Fold(pages) => line.push_str(&format!("~ {} untouched", size_text(*pages))),
            Row::Memory(_) => {
                line.push('|');
                let shades = cells.iter().map(|cell| shade(cell, style.shades, wide));
                line.extend(shades);
            }
        }
        lines.push(line.trim_end().to_string());
    }
    if heat.axis.rows.is_empty() {
        lines.push(format!("{:label_width$} | nothing was touched", ""));
    }
    lines.extend(time_axis(source, &heat, wide, label_width));
    lines.push(legend(&heat, style));
    lines.join("\n") + "\n"
}

fn title(source: &Source, heat: &Heat, subject: Subject) -> String {
    let what = subject.what.word();
    let periods = source.slots.len();
    let per_column = heat.columns.first().map_or(1, |column| column.len());
    let columns = match per_column {
        1 => String::new(),
        n => format!(", {n} to a column"),
    };
    format!(
        "{}: {what}, {} a line, {periods} {}{columns}",
        source.name(),
        size_text(heat.axis.pages_per_row),
        if periods == 1 { "period" } else { "periods" },
    )
}

pub fn address(gfn: u64) -> String {
    format!("{:#x}", gfn << 12)
}

/// Where a piece of memory begins, and every fourth line after it.
fn labels(heat: &Heat) -> Vec<String> {
    let mut of_piece = 0;
    let label = |row: &Row| match row {
        Row::Fold(_) => {
            of_piece = 0;
            String::new()
        }
        Row::Memory(pages) => {
            of_piece += 1;
            if of_piece % 4 == 1 {
                address(pages.start)
            } else {
                String::new()
            }
        }
    };
    heat.axis.rows.iter().map(label).collect()
}

fn shade(cell: &Cell, shades: Shades, wide: usize) -> String {
    if cell.unknown {
        return UNKNOWN.to_string().repeat(wide);
    }
    let Some(level) = level(cell.share) else {
        return " ".repeat(wide);
    };
    match shades {
        Shades::Colors => {
            let palette = if cell.table { TABLES } else { HOT };
            format!("\x1b[48;5;{}m{:wide$}\x1b[0m", palette[level], "")
        }
        Shades::Blocks | Shades::Ascii if cell.table => table_shade(level).to_string().repeat(wide),
        Shades::Blocks => BLOCKS[level].to_string().repeat(wide),
        Shades::Ascii => ASCII[level].to_string().repeat(wide),
    }
}

/// A level is a third of a decade.
fn level(share: f64) -> Option<usize> {
    let levels = ASCII.len();
    scale(share).map(|scale| ((scale * levels as f64) as usize).min(levels - 1))
}

fn table_shade(level: usize) -> char {
    if level < 6 {
        't'
    } else {
        'T'
    }
}

/// The line, and under it the time at some of its marks.
fn time_axis(source: &Source, heat: &Heat, wide: usize, label_width: usize) -> [String; 2] {
    const APART: usize = 12;
    let length = heat.columns.len() * wide;
    let span = source.seconds(source.end_ns());
    let (mut marks, mut times) = (String::new(), String::new());
    let mut next = 0;
    for (i, column) in heat.columns.iter().enumerate() {
        let at = i * wide;
        // The end has a time of its own.
        let is_mark = at >= next && (at == 0 || at + APART <= length + 4);
        for x in at..at + wide {
            marks.push(if is_mark && x == at { '|' } else { '-' });
        }
        if is_mark {
            next = at + APART;
            let time = source.seconds(source.slots[column.start].start_ns);
            times = format!("{times:<at$}{}", time_text(time, span));
        }
    }
    let end = time_text(span, span);
    let at = length.max(times.len() + 2);
    times = format!("{times:<at$}{end}");
    [
        format!("{:label_width$} +{marks}|", ""),
        format!("{:label_width$}  {times}", ""),
    ]
}

/// As much of the explanation as there is space for.
fn legend(heat: &Heat, style: &Style) -> String {
    let shown = |level: usize, table: bool| {
        let middle = share_at((level as f64 + 0.5) / ASCII.len() as f64);
        let cell = Cell {
            share: middle,
            table,
            unknown: false,
        };
        shade(&cell, style.shades, 1)
    };
    let scale: String = (0..ASCII.len()).map(|level| shown(level, false)).collect();
    let mut line = format!("0% {scale} 100%");
    let mut space = style.width.saturating_sub("0%  100%".len() + ASCII.len());
    let mut add = |mark: String, marks: usize, words: &str| {
        let long = 2 + marks + words.len();
        if long <= space {
            space -= long;
            line.push_str(&format!("  {mark}{words}"));
        }
    };
    let mut cells = heat.cells.iter().flatten();
    if cells.clone().any(|cell| cell.table && cell.share > 0.0) {
        let both = shown(2, true) + &shown(8, true);
        add(both, 2, " page tables");
    }
    if cells.any(|cell| cell.unknown) {
        add(UNKNOWN.to_string(), 1, " not recorded");
    }
    add(String::new(), 0, "three shades to a factor of ten");
    line
}
