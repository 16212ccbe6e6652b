// SPDX-License-Identifier: GPL-2.0

//! How much longer a guest takes for the same work while its working set is tracked.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{ensure, Result};

use crate::machine::{Machine, Runner, Shape, Space};
use crate::pages::{self, Program, DATA, PAGE};
use crate::tracking::Tracking;

/// Measure how much tracking slows down a guest that writes all the time
///
/// The guest makes the same passes over N pages untracked and tracked, and reads the
/// TSC before and after. On one CPU that has everything in it: its vCPU's exits, the
/// worker, and under Bochs, where nothing has a latency, nothing else. Prints
/// `slowdown pages N passes P untracked_ticks X tracked_ticks X periods K
/// intervals I written W spent_ns S lost L`, the last four of the last of K periods
/// that ended meanwhile.
#[derive(clap::Args)]
pub struct Args {
    /// Pages
    #[arg(long, value_name = "N", default_value_t = 10000, value_parser = clap::value_parser!(u32).range(1..))]
    pages: u32,
    /// Passes over them; to be so many that at least one period ends meanwhile
    #[arg(long, value_name = "P", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1 << 31))]
    passes: u32,
    /// Length of a period
    #[arg(long, value_name = "T", default_value_t = 10000, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
    /// Its sub-intervals
    #[arg(long, value_name = "N", default_value_t = 10)]
    intervals: u64,
}

/// Measures, and prints the result.
pub fn run(args: &Args) -> Result<()> {
    let span = u64::from(args.pages) * PAGE;
    let space = Arc::new(Space::new((DATA + span).next_multiple_of(8 << 20), false)?);
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let vcpu = machine.vcpu(0, Program::Stride)?;
    vcpu.set(pages::BASE, DATA as u32)?;
    vcpu.set(pages::STRIDE, PAGE as u32)?;
    vcpu.set(pages::COUNT, args.pages)?;
    // The first pass has the page faults.
    passes(&vcpu, 1)?;
    let untracked = passes(&vcpu, args.passes)?;

    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("period_ms", args.period_ms)?;
    tracking.set("intervals", args.intervals)?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    let tracked = passes(&vcpu, args.passes)?;
    let last = tracking.estimate()?;
    let periods = last.get("period")?;
    ensure!(periods > 0, "no period has ended: make more passes");
    let mut line = format!(
        "slowdown pages {} passes {} untracked_ticks {untracked} tracked_ticks {tracked} periods {periods}",
        args.pages, args.passes
    );
    for name in ["intervals", "written", "spent_ns", "lost"] {
        line += &format!(" {name} {}", last.get(name)?);
    }
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

/// Has the guest make so many passes; returns the ticks of the TSC that they took.
fn passes(vcpu: &Runner, count: u32) -> Result<u64> {
    vcpu.set(pages::PASSES, count)?;
    vcpu.start()?;
    vcpu.wait()?;
    let before = vcpu.get_wide(pages::TSC_BEFORE)?;
    let after = vcpu.get_wide(pages::TSC_AFTER)?;
    ensure!(
        after > before,
        "the TSC ran backwards: bind this to one CPU"
    );
    Ok(after - before)
}
