// SPDX-License-Identifier: GPL-2.0

//! kvmscope wss on a terminal: the last period of each VM, or how all of them were
//! distributed. The keys are those of `kvmscope stat`.

use std::collections::BTreeMap;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use ratatui::Frame;

use crate::cli::{period, Wss};
use crate::columns::Column;
use crate::screen::draw::{draw_foot, draw_prompt, fit, scrolled, Palette, COLUMNS_MIN, ROWS_MIN};
use crate::screen::prompt::{Prompt, Typed};
use crate::screen::{colors_wanted, Event, Screen};
use crate::snapshot::VmId;
use crate::wss::columns::{columns, percentile_columns};
use crate::wss::knobs::Setup;
use crate::wss::percentiles::Distribution;
use crate::wss::period::Period;
use crate::wss::sink::Sink;
use crate::wss::watch::Watch;
use crate::wss::which::Which;

const KEYS: &str = "h help  g VM  p PID  c clear  o sort  i percentiles  r zero  s seconds  q quit";

const HELP: &str = "\
g          filter by VM: PID-FD or guest's name
p          filter by PID
c          clear filters
o          sort by the next: VM, written, read set, name
i          the last period, or percentiles of all
r          percentiles start from zero
s          seconds of a period, of what this command tracks
Up, Down   scroll, also PageUp, PageDown, Home, End
q          quit, and stop tracking

Written and Read set are in pages of 4 KiB; the guest's page tables,
Tables, are apart. Lost is of pages that were written and not logged.
Entries are the log's, Full the VM exits for its being full, Spent the
time of the worker that reads it.";

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    None,
    Quit,
    /// Seconds of a period, in milliseconds.
    Period(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Vm,
    Pid,
    Period,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Vm,
    Written,
    ReadSet,
    Name,
}

pub struct App {
    which: Which,
    order: Order,
    latest: BTreeMap<VmId, Period>,
    /// Since the last r.
    distribution: Distribution,
    percentiles: bool,
    prompt: Option<Prompt<Field>>,
    help: bool,
    scroll: usize,
    period: Duration,
    /// How many are watched.
    pub vms: usize,
    pub remark: Option<String>,
}

impl App {
    pub fn new(period: Duration) -> App {
        App {
            which: Which::default(),
            order: Order::Vm,
            latest: BTreeMap::new(),
            distribution: Distribution::default(),
            percentiles: false,
            prompt: None,
            help: false,
            scroll: 0,
            period,
            vms: 0,
            remark: None,
        }
    }

    pub fn take(&mut self, period: &Period) {
        self.distribution.add(period);
        self.latest.insert(period.vm, period.clone());
        self.remark = None;
    }

    fn columns(&self) -> Vec<Column> {
        if self.percentiles {
            let vms = self.distribution.vms.iter();
            return percentile_columns(vms.filter(|(id, vm)| self.which.wants(**id, &vm.about)));
        }
        let mut periods: Vec<&Period> = self
            .latest
            .values()
            .filter(|period| self.which.wants(period.vm, &period.about))
            .collect();
        match self.order {
            Order::Vm => {}
            Order::Written => periods.sort_by_key(|p| std::cmp::Reverse(p.estimate.written)),
            Order::ReadSet => periods.sort_by_key(|p| std::cmp::Reverse(p.estimate.read_set)),
            Order::Name => periods.sort_by(|a, b| a.about.name.cmp(&b.about.name)),
        }
        columns(&periods)
    }

    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if let Some(prompt) = &mut self.prompt {
            let field = prompt.field;
            match prompt.key(key) {
                Typed::More => {}
                Typed::Never => self.prompt = None,
                Typed::Done(text) => match self.answer(field, &text) {
                    Ok(action) => {
                        self.prompt = None;
                        self.scroll = 0;
                        return action;
                    }
                    Err(error) => {
                        if let Some(prompt) = &mut self.prompt {
                            prompt.error = Some(error);
                        }
                    }
                },
            }
            return Action::None;
        }
        if self.help {
            self.help = false;
            return Action::None;
        }
        self.remark = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('o') => {
                self.order = match self.order {
                    Order::Vm => Order::Written,
                    Order::Written => Order::ReadSet,
                    Order::ReadSet => Order::Name,
                    Order::Name => Order::Vm,
                };
            }
            KeyCode::Char('g') => self.prompt = Some(Prompt::new(Field::Vm)),
            KeyCode::Char('p') => self.prompt = Some(Prompt::new(Field::Pid)),
            KeyCode::Char('s') => self.prompt = Some(Prompt::new(Field::Period)),
            KeyCode::Char('c') => {
                self.which = Which::default();
                self.scroll = 0;
            }
            KeyCode::Char('i') => {
                self.percentiles = !self.percentiles;
                self.scroll = 0;
            }
            KeyCode::Char('r') => self.distribution = Distribution::default(),
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = usize::MAX,
            _ => {}
        }
        Action::None
    }

    /// Nothing typed takes the filter away.
    fn answer(&mut self, field: Field, text: &str) -> Result<Action, String> {
        let none = text.is_empty();
        match field {
            Field::Vm if none => self.which.vms.clear(),
            Field::Vm => self.which.vms = vec![text.to_string()],
            Field::Pid if none => self.which.pids.clear(),
            Field::Pid => {
                let pid = text.parse().map_err(|_| format!("{text:?} is no number"))?;
                self.which.pids = vec![pid];
            }
            Field::Period if none => {}
            Field::Period => return Ok(Action::Period(period(text)?)),
        }
        Ok(Action::None)
    }
}

impl Field {
    fn question(self) -> &'static str {
        match self {
            Field::Vm => "VM (PID-FD or guest's name)",
            Field::Pid => "PID",
            Field::Period => "Seconds of a period",
        }
    }
}

/// Shows the table until the user quits, a signal comes, time is up or no VM is left.
pub fn run(watch: &mut Watch, sink: &mut Sink, args: &Wss) -> Result<()> {
    let (sender, events) = channel();
    let mut screen = Screen::take(sender)?;
    let palette = Palette::new(colors_wanted());
    let end = args.duration.map(|time| watch.end(time));
    let mut app = App::new(watch.period());
    let mut changed = true;
    let mut next = Instant::now();
    while !watch.vms().is_empty() && end.is_none_or(|end| Instant::now() < end) {
        app.vms = watch.vms().len();
        if changed {
            let drawn = screen.0.draw(|frame| draw(frame, &mut app, &palette));
            drawn.context("cannot draw on the terminal")?;
        }
        changed = true;
        let action = match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Event::Input(Input::Key(key))) if key.kind != KeyEventKind::Release => app.key(key),
            // A new size: drawn anew.
            Ok(Event::Input(_)) => Action::None,
            Ok(Event::Deaf(error)) => return Err(error).context("cannot read the terminal"),
            Ok(Event::Signal) | Err(RecvTimeoutError::Disconnected) => Action::Quit,
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + watch.pace();
                changed = false;
                for period in watch.poll()? {
                    sink.take(&period)?;
                    app.take(&period);
                    changed = true;
                }
                for remark in watch.remarks.drain(..) {
                    app.remark = Some(remark);
                    changed = true;
                }
                app.latest.retain(|id, _| watch.vms().contains_key(id));
                Action::None
            }
        };
        match action {
            Action::None => {}
            Action::Quit => break,
            Action::Period(period_ms) => {
                let setup = Setup {
                    period_ms: Some(period_ms),
                    ..Setup::default()
                };
                if let Err(error) = watch.set_up(setup) {
                    app.remark = Some(format!("{error:#}"));
                }
                app.period = watch.period();
            }
        }
    }
    Ok(())
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
    lines.extend(filters(&app.which, palette));
    let footer = Rect::new(area.x, area.bottom() - 1, area.width, 1);
    let space = usize::from(area.height - 1) - lines.len();
    let columns = fit(app.columns(), area.width.into());
    let rows = columns.first().map_or(0, |column| column.cells.len());
    lines.extend(scrolled(
        &mut app.scroll,
        &columns,
        rows,
        palette,
        area.width.into(),
        space,
    ));
    frame.render_widget(Paragraph::new(lines), area);

    match &app.prompt {
        Some(prompt) => draw_prompt(frame, footer, prompt.field.question(), prompt, palette),
        None => draw_foot(frame, footer, app.remark.as_deref(), KEYS, palette),
    }
}

fn title(app: &App) -> Line<'static> {
    let shown = match (app.latest.is_empty(), app.percentiles) {
        (true, _) => "the first period is not over".to_string(),
        (_, true) => format!("{} periods in all", app.distribution.periods()),
        (_, false) => {
            let order = match app.order {
                Order::Vm => "VM",
                Order::Written => "written",
                Order::ReadSet => "read set",
                Order::Name => "name",
            };
            format!("last period  by {order}")
        }
    };
    let text = format!(
        "  working sets  {} VMs  periods of {:?}  {shown}",
        app.vms, app.period,
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![Span::styled("kvmscope", bold), Span::raw(text)])
}

fn filters(which: &Which, palette: &Palette) -> Option<Line<'static>> {
    let mut words = Vec::new();
    words.extend(which.pids.iter().map(|pid| format!("pid {pid}")));
    words.extend(which.vms.iter().map(|vm| format!("VM {vm:?}")));
    let text = format!("only {}", words.join(", "));
    (!words.is_empty()).then(|| Line::styled(text, palette.fg(Color::Yellow)))
}
