// SPDX-License-Identifier: GPL-2.0

//! kvmscope wss on a terminal: the last period of each VM, or how all of them were
//! distributed. The keys are those of `kvmscope stat`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::{period, Wss};
use crate::columns::Column;
use crate::screen::live::{Action, Live, Reaction, Show};
use crate::screen::{self, Refreshed};
use crate::snapshot::VmId;
use crate::wss::columns::{columns, percentile_columns};
use crate::wss::knobs::Setup;
use crate::wss::percentiles::Distribution;
use crate::wss::period::Period;
use crate::wss::sink::Sink;
use crate::wss::watch::Watch;
use crate::wss::which::Which;

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
    period: Duration,
    /// Between polls.
    pace: Duration,
    /// What the user wants a period to be, in milliseconds.
    pub wanted_ms: Option<u64>,
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
            period,
            pace: period / 10,
            wanted_ms: None,
            vms: 0,
            remark: None,
        }
    }

    pub fn take(&mut self, period: &Period) {
        self.distribution.add(period);
        self.latest.insert(period.vm, period.clone());
        self.remark = None;
    }
}

impl Show for App {
    type Field = Field;

    const KEYS: &'static str =
        "h help  g VM  p PID  c clear  o sort  i percentiles  r zero  s seconds  q quit";

    const HELP: &'static str = "\
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
Tables, are apart; a + says that it may be more. Lost is of pages that
were written and not logged.
Entries are the log's, Full the VM exits for its being full, Spent the
time of the worker that reads it.";

    fn title(&self) -> String {
        let shown = match (self.latest.is_empty(), self.percentiles) {
            (true, _) => "the first period is not over".to_string(),
            (_, true) => format!("{} periods in all", self.distribution.periods()),
            (_, false) => {
                let order = match self.order {
                    Order::Vm => "VM",
                    Order::Written => "written",
                    Order::ReadSet => "read set",
                    Order::Name => "name",
                };
                format!("last period  by {order}")
            }
        };
        format!(
            "working sets  {} VMs  periods of {:?}  {shown}",
            self.vms, self.period,
        )
    }

    fn filters(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.which.pids.iter().map(|pid| format!("pid {pid}")));
        words.extend(self.which.vms.iter().map(|vm| format!("VM {vm:?}")));
        words
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

    fn remark(&self) -> Option<String> {
        self.remark.clone()
    }

    fn pace(&self) -> Duration {
        self.pace
    }

    fn key(&mut self, key: char) -> Reaction<Field> {
        self.remark = None;
        match key {
            'o' => {
                self.order = match self.order {
                    Order::Vm => Order::Written,
                    Order::Written => Order::ReadSet,
                    Order::ReadSet => Order::Name,
                    Order::Name => Order::Vm,
                };
            }
            'g' => return Reaction::Ask(Field::Vm),
            'p' => return Reaction::Ask(Field::Pid),
            's' => return Reaction::Ask(Field::Period),
            'c' => {
                self.which = Which::default();
                return Reaction::Anew;
            }
            'i' => {
                self.percentiles = !self.percentiles;
                return Reaction::Anew;
            }
            'r' => self.distribution = Distribution::default(),
            _ => {}
        }
        Reaction::None
    }

    fn question(field: Field) -> &'static str {
        match field {
            Field::Vm => "VM (PID-FD or guest's name)",
            Field::Pid => "PID",
            Field::Period => "Seconds of a period",
        }
    }

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
            Field::Period => {
                self.wanted_ms = Some(period(text)?);
                return Ok(Action::Refresh);
            }
        }
        Ok(Action::None)
    }
}

/// Shows the table until the user quits, a signal comes, time is up or no VM is left.
pub fn run(watch: &mut Watch, sink: &mut Sink, args: &Wss) -> Result<()> {
    let end = args.duration.map(|time| watch.end(time));
    let mut app = App::new(watch.period());
    app.vms = watch.vms().len();
    app.pace = watch.pace();
    screen::run(Live::new(app), |app| {
        let mut refreshed = Refreshed::Same;
        if let Some(period_ms) = app.wanted_ms.take() {
            let setup = Setup {
                period_ms: Some(period_ms),
                ..Setup::default()
            };
            if let Err(error) = watch.set_up(setup) {
                app.remark = Some(format!("{error:#}"));
            }
            app.period = watch.period();
            app.pace = watch.pace();
            refreshed = Refreshed::Changed;
        }
        for period in watch.poll()? {
            sink.take(&period)?;
            app.take(&period);
            refreshed = Refreshed::Changed;
        }
        for remark in watch.remarks.drain(..) {
            app.remark = Some(remark);
            refreshed = Refreshed::Changed;
        }
        app.latest.retain(|id, _| watch.vms().contains_key(id));
        app.vms = watch.vms().len();
        if app.vms == 0 || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(Refreshed::Over);
        }
        Ok(refreshed)
    })?;
    Ok(())
}
