// SPDX-License-Identifier: GPL-2.0

//! A heat map as a picture: time to the right, addresses upwards, the scale beside.

use crate::cli::Heatmap;
use crate::heatmap::axis::Row;
use crate::heatmap::canvas::{Anchor, Canvas, Rect};
use crate::heatmap::color::{of_cell, of_scale, Color, COLD, FOLD, INK, LINE, PAPER, SHADES};
use crate::heatmap::heat::{share_at, size_text, time_text, Heat, Subject, What};
use crate::heatmap::source::Source;
use crate::heatmap::text::address;

/// No cell is smaller, in pixels.
const CELL: u32 = 3;

pub fn draw(canvas: &mut impl Canvas, source: &Source, args: &Heatmap) {
    let subject = Subject::new(source, args);
    let (width, height) = canvas.size();
    let (letter, line) = (canvas.advance(), canvas.zoom() * 11);
    let plot = Rect {
        x: letter * 14,
        y: line * 3,
        width: width - letter * 14 - letter * 12,
        height: height - line * 3 - line * 4,
    };
    let fold = line.div_ceil(CELL);
    let heat = Heat::new(
        source,
        subject,
        (plot.width / CELL) as usize,
        (plot.height / CELL) as usize,
        fold as usize,
    );

    let whole = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    canvas.fill(&[(whole, PAPER)]);
    canvas.fill(&[(frame(plot), LINE)]);
    canvas.fill(&[(plot, COLD)]);
    title(canvas, source, &heat, subject, plot);
    let rows = Rows::new(&heat, plot, fold);
    cells(canvas, &heat, &rows, plot);
    addresses(canvas, &heat, &rows, plot);
    times(canvas, source, &heat, plot);
    legend(canvas, &heat, subject, plot);
}

fn frame(plot: Rect) -> Rect {
    Rect {
        x: plot.x - 1,
        y: plot.y - 1,
        width: plot.width + 2,
        height: plot.height + 2,
    }
}

fn title(canvas: &mut impl Canvas, source: &Source, heat: &Heat, subject: Subject, plot: Rect) {
    let what = subject.what.word();
    let text = format!(
        "{}: memory {what}, {} {} in rows of {}",
        source.name(),
        source.slots.len(),
        if source.slots.len() == 1 {
            "period"
        } else {
            "periods"
        },
        size_text(heat.axis.pages_per_row),
    );
    let most = (canvas.size().0 / canvas.advance()).saturating_sub(4) as usize;
    let text: String = text.chars().take(most).collect();
    // Over the plot if there is space for it there.
    let half = text.chars().count() as u32 * canvas.advance() / 2;
    let middle = (plot.x + plot.width / 2).max(half + canvas.advance());
    let middle = middle.min((canvas.size().0 - canvas.advance()).saturating_sub(half));
    canvas.text(middle, plot.y / 2, Anchor::Middle, &text, INK);
}

/// Where each row is: top and height, in pixels.
struct Rows(Vec<(u32, u32)>);

impl Rows {
    fn new(heat: &Heat, plot: Rect, fold: u32) -> Rows {
        let units = |row: &Row| match row {
            Row::Memory(_) => 1,
            Row::Fold(_) => u64::from(fold),
        };
        let all: u64 = heat.axis.rows.iter().map(units).sum();
        let mut below = 0;
        let place = |row: &Row| {
            let y = |units: u64| {
                let pixels = units * u64::from(plot.height) / all.max(1);
                plot.y + plot.height - pixels as u32
            };
            let bottom = y(below);
            below += units(row);
            let top = y(below);
            (top, bottom - top)
        };
        Rows(heat.axis.rows.iter().map(place).collect())
    }
}

fn column_x(heat: &Heat, plot: Rect, column: usize) -> u32 {
    let columns = heat.columns.len().max(1) as u64;
    plot.x + (column as u64 * u64::from(plot.width) / columns) as u32
}

fn cells(canvas: &mut impl Canvas, heat: &Heat, rows: &Rows, plot: Rect) {
    let mut rects: Vec<(Rect, Color)> = Vec::new();
    for ((row, cells), (y, height)) in heat.axis.rows.iter().zip(&heat.cells).zip(&rows.0) {
        if let Row::Fold(_) = row {
            let band = Rect {
                y: *y,
                height: *height,
                ..plot
            };
            rects.push((band, FOLD));
            continue;
        }
        let mut left = 0;
        for (i, cell) in cells.iter().enumerate() {
            let color = of_cell(cell);
            let next = cells.get(i + 1).map(of_cell);
            if next == Some(color) {
                continue;
            }
            let (x, right) = (column_x(heat, plot, left), column_x(heat, plot, i + 1));
            left = i + 1;
            if color != COLD {
                let rect = Rect {
                    x,
                    y: *y,
                    width: right - x,
                    height: *height,
                };
                rects.push((rect, color));
            }
        }
    }
    canvas.fill(&rects);
}

fn addresses(canvas: &mut impl Canvas, heat: &Heat, rows: &Rows, plot: Rect) {
    let line = canvas.zoom() * 11;
    let mut lines = Vec::new();
    // The bottom of the label below, so that none is drawn over another.
    let mut free = u32::MAX;
    let mut is_first = true;
    for (row, (top, height)) in heat.axis.rows.iter().zip(&rows.0) {
        let bottom = top + height;
        match row {
            Row::Fold(pages) => {
                let text = format!("{} untouched", size_text(*pages));
                let middle = plot.x + plot.width / 2;
                canvas.text(middle, top + height / 2, Anchor::Middle, &text, LINE);
                for y in [*top, bottom - 1] {
                    lines.push((rect(plot.x - 1, y, plot.width + 2, 1), LINE));
                }
                is_first = true;
            }
            Row::Memory(pages) => {
                let space = if is_first { line } else { line * 3 };
                if bottom.saturating_add(space) <= free {
                    let x = plot.x - canvas.advance();
                    canvas.text(x, bottom - 1, Anchor::End, &address(pages.start), INK);
                    lines.push((rect(plot.x - 5, bottom - 1, 5, 1), LINE));
                    free = bottom;
                    is_first = false;
                }
            }
        }
    }
    for line in lines {
        canvas.fill(&[line]);
    }
}

fn times(canvas: &mut impl Canvas, source: &Source, heat: &Heat, plot: Rect) {
    let (letter, line) = (canvas.advance(), canvas.zoom() * 11);
    let bottom = plot.y + plot.height;
    let span = source.seconds(source.end_ns());
    let mut next = plot.x;
    let end = plot.x + plot.width;
    let mut mark = |x: u32, seconds: f64| {
        canvas.fill(&[(rect(x, bottom, 1, 5), LINE)]);
        let text = time_text(seconds, span);
        canvas.text(x, bottom + line, Anchor::Middle, &text, INK);
    };
    for (i, column) in heat.columns.iter().enumerate() {
        let x = column_x(heat, plot, i);
        if x >= next && x + letter * 9 <= end {
            let start = source.slots[column.start].start_ns;
            mark(x, source.seconds(start));
            next = x + letter * 12;
        }
    }
    mark(end, span);
}

fn legend(canvas: &mut impl Canvas, heat: &Heat, subject: Subject, plot: Rect) {
    let (letter, line) = (canvas.advance(), canvas.zoom() * 11);
    let bar = Rect {
        x: plot.x + plot.width + letter * 2,
        y: plot.y + line * 2,
        width: letter * 2,
        height: plot.height.saturating_sub(line * 4).min(line * 20),
    };
    let has_tables = heat
        .cells
        .iter()
        .flatten()
        .any(|cell| cell.table && cell.share > 0.0);
    let mut shades = Vec::new();
    for (part, table) in [(0, false), (1, true)] {
        if table && !has_tables {
            continue;
        }
        let width = if has_tables { bar.width / 2 } else { bar.width };
        for step in 0..=SHADES {
            let y = |step: u32| bar.y + bar.height * step / (SHADES + 1);
            let band = rect(bar.x + part * width, y(step), width, y(step + 1) - y(step));
            let scale = 1.0 - f64::from(step) / f64::from(SHADES);
            shades.push((band, of_scale(scale, table)));
        }
    }
    canvas.fill(&shades);
    for third in 0..=3 {
        let scale = 1.0 - f64::from(third) / 3.0;
        let y = bar.y + bar.height * third / 3;
        let text = format!("{}%", (share_at(scale) * 1e3).round() / 10.0);
        canvas.text(bar.x + bar.width + letter / 2, y, Anchor::Start, &text, INK);
    }
    let mut text = match subject.what {
        What::Written => "share of pages and sub-intervals written",
        What::Accessed => "share of pages accessed in a period",
        What::Sampled => "samples of a period, next to the most in any 2 MiB",
    }
    .to_string();
    if has_tables {
        text.push_str("; blue: page tables");
    }
    if heat.cells.iter().flatten().any(|cell| cell.unknown) {
        text.push_str("; grey: not recorded");
    }
    // Below the plot, unless it needs the space beside it.
    let room = canvas.size().0 - letter;
    let x = plot.x.min(room.saturating_sub(letter * text.len() as u32));
    canvas.text(x, canvas.size().1 - line, Anchor::Start, &text, INK);
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}
