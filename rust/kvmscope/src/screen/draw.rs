// SPDX-License-Identifier: GPL-2.0

//! The live table on a terminal of any size.

use clap::ValueEnum;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use ratatui::Frame;

use crate::columns::{columns, duration, Column};
use crate::screen::app::App;
use crate::screen::prompt::Prompt;
use crate::view::View;

const GAP: usize = 2;
/// Title, head, one line, total, keys.
pub const ROWS_MIN: u16 = 5;
pub const COLUMNS_MIN: u16 = 24;

const KEYS: &str =
    "h help  b by  f exits  g VM  p PID  o sort  i latest  r zero  s seconds  q quit";

const HELP: &str = "\
b          by reason, VM, vCPU, or all of them
f          filter by exit reason (regular expression)
g          filter by VM: PID-FD or guest's name
v          filter by vCPU
p          filter by PID
c          clear filters
o          sort by the next: count, time, avg, p99, max, name, number
i          since start, or the latest interval only
r          start from zero (this table only, not the kernel)
s          seconds between refreshes
space      refresh now
Up, Down   scroll, also PageUp, PageDown, Home, End
q          quit

Samples are exits; the times are of those taken while latency was
on. Min, Max, Avg, p50 and p99 are of KVM's part of the time.
User, Sleep and Preempt are where the rest went.";

pub struct Palette {
    color: bool,
}

impl Palette {
    pub fn new(color: bool) -> Palette {
        Palette { color }
    }

    pub fn fg(&self, color: Color) -> Style {
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
pub fn draw(frame: &mut Frame, app: &mut App, palette: &Palette) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        frame.render_widget(Paragraph::new("terminal too small"), area);
        return;
    }
    if app.help {
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(HELP), area);
        return;
    }

    let mut lines = vec![title(app)];
    lines.extend(filters(app, palette));
    let footer = Rect::new(area.x, area.bottom() - 1, area.width, 1);
    let space = usize::from(area.height - 1) - lines.len();
    let view = app.view();
    lines.extend(table(
        &mut app.scroll,
        &view,
        palette,
        area.width.into(),
        space,
    ));
    frame.render_widget(Paragraph::new(lines), area);

    match &app.prompt {
        Some(prompt) => draw_prompt(frame, footer, prompt.field.question(), prompt, palette),
        None => draw_foot(frame, footer, app.remark().as_deref(), KEYS, palette),
    }
}

pub fn draw_prompt<F>(
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
pub fn draw_foot(
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

fn title(app: &App) -> Line<'static> {
    let latest = &app.latest;
    let vcpus: usize = latest.vms.values().map(|vm| vm.vcpus.len()).sum();
    let shown = if app.latest_only {
        "latest interval".to_string()
    } else {
        format!("{} in all", duration(app.since_start.elapsed_ns))
    };
    let sort = app.sort.to_possible_value();
    let text = format!(
        "  {}  {} VMs  {vcpus} vCPUs  latency {}  by {}  every {:?}  {shown}",
        latest.isa,
        latest.vms.len(),
        if latest.latency { "on" } else { "off" },
        sort.as_ref().map_or("", |value| value.get_name()),
        app.pace,
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![Span::styled("kvmscope", bold), Span::raw(text)])
}

fn filters(app: &App, palette: &Palette) -> Option<Line<'static>> {
    let filter = &app.filter;
    let mut words = Vec::new();
    words.extend(filter.pids.iter().map(|pid| format!("pid {pid}")));
    words.extend(filter.vms.iter().map(|vm| format!("VM {vm:?}")));
    words.extend(filter.vcpus.iter().map(|vcpu| format!("vCPU {vcpu}")));
    if let Some(pattern) = &filter.reason {
        words.push(format!("exits {:?}", pattern.text));
    }
    let text = format!("only {}", words.join(", "));
    (!words.is_empty()).then(|| Line::styled(text, palette.fg(Color::Yellow)))
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// The head, as many lines as there is space for, and the total.
fn table(
    scroll: &mut usize,
    view: &View,
    palette: &Palette,
    width: usize,
    space: usize,
) -> Vec<Line<'static>> {
    let columns = fit(columns(view), width);
    let rows = view.lines.len();
    let mut lines = scrolled(
        scroll,
        &columns,
        rows,
        palette,
        width,
        space.saturating_sub(1),
    );
    let total = columns
        .iter()
        .map(|column| pad(column, &column.cells[rows]));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    lines.push(Line::styled(total.collect::<String>(), bold));
    lines
}

/// The head, and as many of the rows as there is space for.
pub fn scrolled(
    scroll: &mut usize,
    columns: &[Column],
    rows: usize,
    palette: &Palette,
    width: usize,
    space: usize,
) -> Vec<Line<'static>> {
    let shown = space.saturating_sub(1).min(rows);
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
    lines
}

/// Leaves out columns until the rest fits, or none can be spared.
pub fn fit(mut columns: Vec<Column>, width: usize) -> Vec<Column> {
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
