// SPDX-License-Identifier: GPL-2.0

//! What the live table shows, and what the keys change about it. The keys are
//! kvm_stat's, with a few more.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::{seconds, Stat};
use crate::filter::Filter;
use crate::interval::Interval;
use crate::screen::prompt::{Prompt, Typed};
use crate::view::{any_vm, view, By, Sort, View};

/// What the user asks for that is not a matter of display alone.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    None,
    Refresh,
    Quit,
}

pub struct App {
    pub by: By,
    pub sort: Sort,
    pub filter: Filter,
    /// Between refreshes.
    pub pace: Duration,
    /// Whether only the latest interval is shown.
    pub latest_only: bool,
    pub since_start: Interval,
    pub latest: Interval,
    /// What is being typed.
    pub prompt: Option<Prompt<Field>>,
    pub help: bool,
    /// The first line shown.
    pub scroll: usize,
    /// What went wrong at the last refresh.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Reason,
    Vm,
    Vcpu,
    Pid,
    Pace,
}

impl Field {
    pub fn question(self) -> &'static str {
        match self {
            Field::Reason => "Exits that match (regular expression)",
            Field::Vm => "VM (PID-FD or guest's name)",
            Field::Vcpu => "vCPU",
            Field::Pid => "PID",
            Field::Pace => "Seconds between refreshes",
        }
    }
}

impl App {
    pub fn new(args: &Stat) -> App {
        App {
            by: args.look.by,
            sort: args.look.sort,
            filter: args.look.filter(),
            pace: args.interval,
            latest_only: false,
            since_start: Interval::default(),
            latest: Interval::default(),
            prompt: None,
            help: false,
            scroll: 0,
            trouble: None,
        }
    }

    /// Where counting starts from.
    pub fn start(&mut self, interval: &Interval) {
        self.latest = interval.emptied();
        self.since_start = interval.emptied();
    }

    /// What happened since the last refresh.
    pub fn advance(&mut self, interval: Interval) {
        self.since_start.merge(&interval);
        self.latest = interval;
        self.trouble = None;
    }

    pub fn view(&self) -> View {
        let shown = if self.latest_only {
            &self.latest
        } else {
            &self.since_start
        };
        view(shown, &self.latest, self.by, self.sort, &self.filter)
    }

    /// A remark on what is shown.
    pub fn remark(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        if self.filter.selects_vms() && !any_vm(&self.latest, &self.filter) {
            return Some("the filter matches no VM now; c clears it".to_string());
        }
        if !self.latest.counting {
            return Some("counting is off: kvmscope exits on".to_string());
        }
        None
    }

    pub fn key(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.prompt.is_some() {
            return self.prompt_key(key);
        }
        if self.help {
            self.help = false;
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('b') => {
                self.by = match self.by {
                    By::Reason => By::Vm,
                    By::Vm => By::Vcpu,
                    By::Vcpu => By::All,
                    By::All => By::Reason,
                };
                self.scroll = 0;
            }
            KeyCode::Char('o') => {
                self.sort = match self.sort {
                    Sort::Count => Sort::Time,
                    Sort::Time => Sort::Avg,
                    Sort::Avg => Sort::P99,
                    Sort::P99 => Sort::Max,
                    Sort::Max => Sort::Name,
                    Sort::Name => Sort::Number,
                    Sort::Number => Sort::Count,
                };
            }
            KeyCode::Char('f') => self.ask(Field::Reason),
            KeyCode::Char('g') => self.ask(Field::Vm),
            KeyCode::Char('v') => self.ask(Field::Vcpu),
            KeyCode::Char('p') => self.ask(Field::Pid),
            KeyCode::Char('s') => self.ask(Field::Pace),
            KeyCode::Char('c') => {
                self.filter = Filter::default();
                self.scroll = 0;
            }
            KeyCode::Char('i') => self.latest_only = !self.latest_only,
            // Of this table alone: others may be counting on the kernel's.
            KeyCode::Char('r') => self.since_start = self.latest.emptied(),
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Char(' ') => return Action::Refresh,
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

    fn ask(&mut self, field: Field) {
        self.prompt = Some(Prompt::new(field));
    }

    fn prompt_key(&mut self, key: KeyEvent) -> Action {
        let Some(prompt) = &mut self.prompt else {
            return Action::None;
        };
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
        Action::None
    }

    /// Nothing typed takes the filter away.
    fn answer(&mut self, field: Field, text: &str) -> Result<Action, String> {
        let none = text.is_empty();
        let number = || match text.parse() {
            Ok(number) => Ok(vec![number]),
            Err(_) if none => Ok(Vec::new()),
            Err(_) => Err(format!("{text:?} is no number")),
        };
        match field {
            Field::Reason if none => self.filter.reason = None,
            Field::Reason => self.filter.reason = Some(text.parse()?),
            Field::Vm if none => self.filter.vms.clear(),
            Field::Vm => self.filter.vms = vec![text.to_string()],
            Field::Vcpu => self.filter.vcpus = number()?,
            Field::Pid => self.filter.pids = number()?,
            Field::Pace if none => {}
            Field::Pace => {
                self.pace = seconds(text)?;
                return Ok(Action::Refresh);
            }
        }
        Ok(Action::None)
    }
}
