// SPDX-License-Identifier: GPL-2.0

//! A live table on a terminal of any size.

use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use ratatui::Frame;

use crate::columns::Column;
use crate::screen::live::{Live, Show};
use crate::screen::prompt::Prompt;

const GAP: usize = 2;
/// Title, head, one line, total, keys.
const ROWS_MIN: u16 = 5;
const COLUMNS_MIN: u16 = 24;

pub struct Palette {
    color: bool,
}

impl Palette {
    pub fn new(color: bool) -> Palette {
        Palette { color }
    }

    fn fg(&self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    fn alarm(&self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Also keeps what is scrolled to within the table.
pub fn draw<S: Show>(frame: &mut Frame, live: &mut Live<S>, palette: &Palette) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        frame.render_widget(Paragraph::new("terminal too small"), area);
        return;
    }
    if live.help {
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(S::HELP), area);
        return;
    }

    let show = &live.show;
    let mut lines = vec![title(&show.title())];
    lines.extend(filters(&show.filters(), palette));
    let footer = Rect::new(area.x, area.bottom() - 1, area.width, 1);
    let space = usize::from(area.height - 1) - lines.len();
    let columns = fit(show.columns(), area.width.into());
    lines.extend(table(
        &mut live.scroll,
        &columns,
        show.has_total(),
        palette,
        area.width.into(),
        space,
    ));
    frame.render_widget(Paragraph::new(lines), area);

    match &live.prompt {
        Some(prompt) => draw_prompt(frame, footer, S::question(prompt.field), prompt, palette),
        None => draw_foot(frame, footer, show.remark().as_deref(), S::KEYS, palette),
    }
}

fn draw_prompt<F>(
    frame: &mut Frame,
    area: Rect,
    question: &str,
    prompt: &Prompt<F>,
    palette: &Palette,
) {
    let mut spans = vec![Span::raw(format!("{question}: {}", prompt.text))];
    if let Some(error) = &prompt.error {
        spans.push(Span::styled(
            format!("  {}", one_line(error)),
            palette.alarm(),
        ));
    }
    frame.render_widget(Clear, area);
    frame.render_widget(Line::from(spans), area);
    let width = question.len() + 2 + prompt.text.chars().count();
    let x = area.x + (width as u16).min(area.width - 1);
    frame.set_cursor_position(Position::new(x, area.y));
}

/// A remark, or what the keys do.
fn draw_foot(
    frame: &mut Frame,
    area: Rect,
    remark: Option<&str>,
    keys: &'static str,
    palette: &Palette,
) {
    let line = match remark {
        Some(remark) => Line::styled(one_line(remark), palette.alarm()),
        None => Line::styled(keys, Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(Clear, area);
    frame.render_widget(line, area);
}

fn title(text: &str) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let text = Span::raw(format!("  {text}"));
    Line::from(vec![Span::styled("kvmscope", bold), text])
}

fn filters(words: &[String], palette: &Palette) -> Option<Line<'static>> {
    let text = format!("only {}", words.join(", "));
    (!words.is_empty()).then(|| Line::styled(text, palette.fg(Color::Yellow)))
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// The head, and as many of the rows as there is space for; the total, if there is one,
/// stays where it is.
fn table(
    scroll: &mut usize,
    columns: &[Column],
    has_total: bool,
    palette: &Palette,
    width: usize,
    space: usize,
) -> Vec<Line<'static>> {
    let cells = columns.first().map_or(0, |column| column.cells.len());
    let totals = usize::from(has_total).min(cells);
    let rows = cells - totals;
    let shown = space.saturating_sub(1 + totals).min(rows);
    let first = (*scroll).min(rows - shown);
    *scroll = first;

    let head = columns.iter().map(|column| pad(column, column.head));
    let head = format!("{:<width$}", head.collect::<String>());
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let mut lines = vec![Line::styled(head, reversed)];
    for row in first..first + shown {
        let cells = columns.iter().map(|column| {
            let cell = &column.cells[row];
            Span::styled(pad(column, cell), cell_style(column, cell, palette))
        });
        lines.push(Line::from(cells.collect::<Vec<_>>()));
    }
    for total in rows..cells {
        let cells = columns
            .iter()
            .map(|column| pad(column, &column.cells[total]));
        let bold = Style::new().add_modifier(Modifier::BOLD);
        lines.push(Line::styled(cells.collect::<String>(), bold));
    }
    lines
}

/// Leaves out columns until the rest fits, or none can be spared.
fn fit(mut columns: Vec<Column>, width: usize) -> Vec<Column> {
    let total = |columns: &[Column]| columns.iter().map(|c| c.width() + GAP).sum::<usize>();
    while total(&columns) > width + GAP {
        let least = columns.iter().map(|column| column.weight).min();
        let at = columns
            .iter()
            .rposition(|c| Some(c.weight) == least && c.weight < 9);
        match at {
            Some(at) => drop(columns.remove(at)),
            None => break,
        }
    }
    columns
}

fn pad(column: &Column, cell: &str) -> String {
    let width = column.width();
    if column.right {
        format!("{cell:>width$}  ")
    } else {
        format!("{cell:<width$}  ")
    }
}

/// Shares as perf colours them.
fn cell_style(column: &Column, cell: &str, palette: &Palette) -> Style {
    let share: Option<f64> = cell.strip_suffix('%').and_then(|share| share.parse().ok());
    match share {
        Some(share) if share >= 5.0 => palette.fg(Color::Red),
        Some(share) if share >= 0.5 => palette.fg(Color::Green),
        None if column.head == "VM-EXIT" || column.head == "VM" => palette.fg(Color::Cyan),
        _ => Style::new(),
    }
}
