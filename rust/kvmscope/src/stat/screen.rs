// SPDX-License-Identifier: GPL-2.0

//! kvmscope stat on a terminal: what its table shows, and what the keys change about it.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::cli::{seconds, Stat};
use crate::columns::{columns, duration, Column};
use crate::filter::Filter;
use crate::interval::{Interval, Tracker};
use crate::kernel::Kernel;
use crate::screen::live::{Action, Live, Reaction, Show};
use crate::screen::{self, Refreshed};
use crate::view::{any_vm, view, By, Sort, View};

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
}

impl Show for App {
    type Field = Field;

    const KEYS: &'static str =
        "h help  b by  f exits  g VM  p PID  o sort  i latest  r zero  s seconds  q quit";

    const HELP: &'static str = "\
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

    fn title(&self) -> String {
        let latest = &self.latest;
        let vcpus: usize = latest.vms.values().map(|vm| vm.vcpus.len()).sum();
        let shown = if self.latest_only {
            "latest interval".to_string()
        } else {
            format!("{} in all", duration(self.since_start.elapsed_ns))
        };
        let sort = self.sort.to_possible_value();
        format!(
            "{}  {} VMs  {vcpus} vCPUs  latency {}  by {}  every {:?}  {shown}",
            latest.isa,
            latest.vms.len(),
            if latest.latency { "on" } else { "off" },
            sort.as_ref().map_or("", |value| value.get_name()),
            self.pace,
        )
    }

    fn filters(&self) -> Vec<String> {
        let filter = &self.filter;
        let mut words = Vec::new();
        words.extend(filter.pids.iter().map(|pid| format!("pid {pid}")));
        words.extend(filter.vms.iter().map(|vm| format!("VM {vm:?}")));
        words.extend(filter.vcpus.iter().map(|vcpu| format!("vCPU {vcpu}")));
        if let Some(pattern) = &filter.reason {
            words.push(format!("exits {:?}", pattern.text));
        }
        words
    }

    fn columns(&self) -> Vec<Column> {
        columns(&self.view())
    }

    fn has_total(&self) -> bool {
        true
    }

    fn remark(&self) -> Option<String> {
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

    fn pace(&self) -> Duration {
        self.pace
    }

    fn key(&mut self, key: char) -> Reaction<Field> {
        match key {
            'b' => {
                self.by = match self.by {
                    By::Reason => By::Vm,
                    By::Vm => By::Vcpu,
                    By::Vcpu => By::All,
                    By::All => By::Reason,
                };
                return Reaction::Anew;
            }
            'o' => {
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
            'f' => return Reaction::Ask(Field::Reason),
            'g' => return Reaction::Ask(Field::Vm),
            'v' => return Reaction::Ask(Field::Vcpu),
            'p' => return Reaction::Ask(Field::Pid),
            's' => return Reaction::Ask(Field::Pace),
            'c' => {
                self.filter = Filter::default();
                return Reaction::Anew;
            }
            'i' => self.latest_only = !self.latest_only,
            // Of this table alone: others may be counting on the kernel's.
            'r' => self.since_start = self.latest.emptied(),
            _ => {}
        }
        Reaction::None
    }

    fn question(field: Field) -> &'static str {
        match field {
            Field::Reason => "Exits that match (regular expression)",
            Field::Vm => "VM (PID-FD or guest's name)",
            Field::Vcpu => "vCPU",
            Field::Pid => "PID",
            Field::Pace => "Seconds between refreshes",
        }
    }

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

/// Shows the table until the user quits or a signal comes.
pub fn run(kernel: &Kernel, args: &Stat) -> Result<()> {
    let mut app = App::new(args);
    let mut tracker = Tracker::default();
    // Before the screen is taken: what is wrong now is better said in the shell.
    app.start(&tracker.advance(kernel.snapshot()?));
    screen::run(Live::new(app), |app| {
        // It may be but for now: the module is being loaded anew, say.
        match kernel.snapshot() {
            Ok(snapshot) => app.advance(tracker.advance(snapshot)),
            Err(error) => app.trouble = Some(format!("{error:#}")),
        }
        Ok(Refreshed::Changed)
    })?;
    Ok(())
}
