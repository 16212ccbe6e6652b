// SPDX-License-Identifier: GPL-2.0

//! kvmscope wss: the working sets of VMs, period by period.
//!
//! - `knobs` reads and writes a VM's directory; `estimate` and `pages` parse it;
//! - `tracking` switches on and off, `watch` hands out each `period` once;
//! - `recording` stores periods, with their pages as `runs`;
//! - `columns`, `records`, `percentiles` and `screen` show them.

pub mod columns;
pub mod estimate;
pub mod knobs;
pub mod pages;
pub mod percentiles;
pub mod period;
pub mod recording;
pub mod records;
pub mod runs;
pub mod screen;
pub mod sink;
pub mod tracking;
pub mod watch;
pub mod which;

use std::collections::BTreeSet;
use std::io::{stderr, IsTerminal};
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use crate::cli::Wss;
use crate::kernel::Kernel;
use crate::output::{is_stdout, open};
use crate::say;
use crate::signals::Stop;
use recording::Reader;
use sink::Sink;
use watch::Watch;

pub fn run(kernel: &Kernel, args: &Wss) -> Result<()> {
    match &args.from {
        Some(file) => replay(file, args),
        None => live(kernel, args),
    }
}

fn live(kernel: &Kernel, args: &Wss) -> Result<()> {
    let stop = Stop::install()?;
    let on_screen = crate::screen::is_possible()
        && !(args.once || args.json || args.percentiles || args.csv.is_some())
        && !is_stdout(args.record.as_deref());
    let with_pages = args.record.is_some();
    let mut watch = Watch::start(kernel, args.which.clone(), args.setup(), with_pages)?;
    watch.check_duration(args.duration)?;
    let mut sink = Sink::new(args, on_screen)?;
    if on_screen {
        screen::run(&mut watch, &mut sink, args)?;
    } else {
        // For who waits in front of it.
        if stderr().is_terminal() {
            say(&format!("{}; Ctrl-C ends it", watch.about()));
        }
        watch_on(&mut watch, &mut sink, args, &stop)?;
    }
    let missed = watch.missed();
    if missed != 0 {
        say(&format!("{missed} periods ended unseen"));
    }
    // Nobody needs tracking any more, however long the reader takes.
    drop(watch);
    sink.finish()
}

fn watch_on(watch: &mut Watch, sink: &mut Sink, args: &Wss, stop: &Stop) -> Result<()> {
    let end = args.duration.map(|time| watch.end(time));
    // Of --once: those of whom there was none yet.
    let mut awaited: BTreeSet<_> = watch.vms().keys().copied().collect();
    loop {
        let interrupted = stop.wait(watch.pace()).err();
        for period in watch.poll()? {
            if !args.once || awaited.remove(&period.vm) {
                sink.take(&period)?;
            }
        }
        for remark in watch.remarks.drain(..) {
            say(&remark);
        }
        awaited.retain(|id| watch.vms().contains_key(id));
        match interrupted {
            // Only what ends by itself was cut short.
            Some(interrupted) if args.once && !awaited.is_empty() => return Err(interrupted.into()),
            Some(_) => return Ok(()),
            None => {}
        }
        if watch.vms().is_empty() || (args.once && awaited.is_empty()) {
            ensure!(
                sink.distribution.periods() != 0,
                "no VM is left, and none lived to the end of a period"
            );
            return Ok(());
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// What a recording holds.
fn replay(file: &Path, args: &Wss) -> Result<()> {
    let name = file.display();
    let mut reader = Reader::new(open(file)?).with_context(|| name.to_string())?;
    let mut sink = Sink::new(args, false)?;
    sink.introduce(reader.head())?;
    let mut others = BTreeSet::new();
    while let Some(period) = reader.read().with_context(|| name.to_string())? {
        if args.which.wants(period.vm, &period.about) {
            sink.take(&period)?;
        } else {
            others.insert(format!("{} ({:?})", period.vm, period.about.name));
        }
    }
    if sink.distribution.periods() == 0 {
        match others.into_iter().take(8).collect::<Vec<_>>()[..] {
            [] => bail!("{name}: there is no period in it"),
            ref vms => bail!(
                "{name}: the filter matches no VM; there are {}",
                vms.join(", ")
            ),
        }
    }
    sink.finish()
}
