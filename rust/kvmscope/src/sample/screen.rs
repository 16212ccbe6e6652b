// SPDX-License-Identifier: GPL-2.0

//! kvmscope sample --heat on a terminal: the regions of a guest's memory, hottest
//! first, as they heat up and cool down.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::seconds;
use crate::columns::{harmless, Column};
use crate::heatmap::heat::size_text;
use crate::sample::columns::{region_lines, regions, Order};
use crate::sample::device::monotonic_ns;
use crate::sample::heat::HeatMap;
use crate::sample::sample::{Counts, Sample};
use crate::sample::session::{Session, State};
use crate::sample::sink::Sink;
use crate::sample::wanted::Wanted;
use crate::sample::PACE;
use crate::screen::live::{Action, Live, Reaction, Show};
use crate::screen::{self, Refreshed};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field {
    HalfLife,
    Pace,
}

pub struct App {
    /// Whose memory it is.
    vm: String,
    wanted: Wanted,
    pub order: Order,
    pub heat: HeatMap,
    /// Between two drawings.
    pub redraw: Duration,
    /// Now, whatever time it is.
    hurried: bool,
    pub counts: Counts,
    /// By CLOCK_MONOTONIC.
    pub now_ns: u64,
}

impl App {
    pub fn new(vm: String, wanted: Wanted, order: Order, heat: HeatMap) -> App {
        App {
            vm,
            wanted,
            order,
            heat,
            redraw: Duration::from_secs(1),
            hurried: false,
            counts: Counts::default(),
            now_ns: 0,
        }
    }

    pub fn take(&mut self, sample: &Sample) {
        self.heat.add(sample);
    }
}

impl Show for App {
    type Field = Field;

    const KEYS: &'static str = "h help  o sort  l half-life  r zero  s seconds  q quit";
    const HELP: &'static str = "\
o          sort by the next: heat, address, samples
l          seconds in which heat halves
r          start from zero
s          seconds between refreshes
space      refresh now
Up, Down   scroll, also PageUp, PageDown, Home, End
q          quit, and stop sampling

Heat is a sum of samples that halves with each half-life, Heat% the
region's part of all heat. Samples are counted since the start, by
Reads, Writes and Fetches (of instructions); Tables are walks of the
guest's page tables, which count as reads. Idle is the time since the
last sample.";

    fn title(&self) -> String {
        format!(
            "{}  {} regions of {}  half-life {:?}  by {}  {} samples  {} lost  {}/s",
            self.vm,
            self.heat.regions.len(),
            size_text(self.heat.pages),
            self.heat.half_life,
            match self.order {
                Order::Heat => "heat",
                Order::Address => "address",
                Order::Samples => "samples",
            },
            self.counts.delivered,
            self.counts.lost,
            self.counts.rate_now,
        )
    }

    fn filters(&self) -> Vec<String> {
        self.wanted.words()
    }

    fn columns(&self) -> Vec<Column> {
        regions(&region_lines(&self.heat, self.now_ns, self.order))
    }

    fn remark(&self) -> Option<String> {
        None
    }

    fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Samples must not pile up in the kernel.
    fn pace(&self) -> Duration {
        PACE
    }

    fn key(&mut self, key: char) -> Reaction<Field> {
        match key {
            'o' => {
                self.order = match self.order {
                    Order::Heat => Order::Address,
                    Order::Address => Order::Samples,
                    Order::Samples => Order::Heat,
                };
                return Reaction::Anew;
            }
            'l' => return Reaction::Ask(Field::HalfLife),
            's' => return Reaction::Ask(Field::Pace),
            'r' => self.heat.clear(),
            _ => {}
        }
        Reaction::None
    }

    fn question(field: Field) -> &'static str {
        match field {
            Field::HalfLife => "Seconds in which heat halves",
            Field::Pace => "Seconds between refreshes",
        }
    }

    fn answer(&mut self, field: Field, text: &str) -> Result<Action, String> {
        match field {
            _ if text.is_empty() => {}
            Field::HalfLife => self.heat.half_life = seconds(text)?,
            Field::Pace => self.redraw = seconds(text)?,
        }
        Ok(Action::Refresh)
    }
}

/// Shows the table until the user quits, a signal comes, it is over or the VM has
/// ended. The sink has then what was on the screen.
pub fn run(
    session: &mut dyn Session,
    sink: &mut Sink,
    is_over: &dyn Fn() -> bool,
) -> Result<State> {
    let begin = sink.begin();
    let name = format!("{} ({})", begin.vm, harmless(&begin.about.name));
    let mut app = App::new(name, sink.wanted.clone(), sink.order, sink.heat.clone());
    app.now_ns = begin.begin_ns;
    let mut samples = Vec::new();
    let mut drawn = Instant::now();
    let mut state = State::Running;
    let app = screen::run(Live::new(app), |app| {
        samples.clear();
        state = session.read(Duration::ZERO, &mut samples)?;
        sink.take(&samples)?;
        let wanted = samples.iter().filter(|sample| sink.wanted.wants(sample));
        wanted.for_each(|sample| app.take(sample));
        if state == State::Ended || is_over() {
            return Ok(Refreshed::Over);
        }
        if !std::mem::take(&mut app.hurried) && drawn.elapsed() < app.redraw {
            return Ok(Refreshed::Same);
        }
        drawn = Instant::now();
        app.counts = session.counts()?;
        app.now_ns = monotonic_ns();
        Ok(Refreshed::Changed)
    })?;
    sink.heat = app.heat;
    sink.order = app.order;
    Ok(state)
}
