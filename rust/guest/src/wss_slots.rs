// SPDX-License-Identifier: GPL-2.0

//! Memslots change as fast as they did, whatever the tracking of a working set does
//! meanwhile.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{ensure, Result};

use crate::machine::{now, Machine, Shape, Space, BYSTANDER};
use crate::pages::{self, Program, Touch, DATA, PAGE};
use crate::tracking::Tracking;

/// Add and delete a memslot all the time, first untracked, then tracked with reads
///
/// A vCPU reads and writes all of the memory meanwhile. Prints `wss_slots periods P
/// untracked N tracked M passes K`: so often the slot was deleted and added in P periods,
/// or the same time without tracking, and the vCPU has made K passes over the memory.
/// Fails when M is less than a quarter of N.
#[derive(clap::Args)]
pub struct Args {
    /// How many
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    periods: u64,
    /// Length of each
    #[arg(long, value_name = "T", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory: u64,
}

/// Runs the guest.
pub fn run(args: &Args) -> Result<()> {
    let space = Arc::new(Space::new(args.memory << 20, false)?);
    let data = DATA / PAGE..space.size / PAGE;
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let mut vcpu = machine.vcpu(0, Program::Sweep)?;
    let list: Vec<_> = data
        .take(pages::LIST_ENTRIES)
        .map(|gfn| (gfn, Touch::Both))
        .collect();
    vcpu.list(&list)?;
    vcpu.set(pages::REPEAT, 1)?;
    vcpu.order()?;
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("period_ms", args.period_ms)?;
    // What is held for a sub-interval is held for long.
    tracking.set("intervals", 1)?;
    tracking.set("reads", 1)?;
    while vcpu.get(pages::MADE)? == 0 {
        ensure!(!vcpu.done()?, "the guest came to an end");
    }

    let period = || tracking.estimate()?.get("period");
    let end = now() + args.periods * args.period_ms * 1_000_000;
    let untracked = changes(&machine, || Ok(period()? == 0 && now() < end))?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    let tracked = changes(&machine, || Ok(period()? < args.periods))?;
    let made = vcpu.get(pages::MADE)?;
    vcpu.set(pages::REPEAT, 0)?;
    vcpu.finish()?;
    tracking.set("active", 0)?;
    writeln!(
        io::stdout(),
        "wss_slots periods {} untracked {untracked} tracked {tracked} passes {made}",
        args.periods
    )?;
    ensure!(
        untracked >= 10 * args.periods,
        "too few changes to tell: make periods longer"
    );
    ensure!(tracked * 4 >= untracked, "tracking holds memslots up");
    Ok(())
}

/// How often the slot is deleted and added while `going` says so.
fn changes(machine: &Machine, going: impl Fn() -> Result<bool>) -> Result<u64> {
    let mut count = 0;
    while going()? {
        machine.delete(BYSTANDER)?;
        machine.add(BYSTANDER)?;
        count += 1;
    }
    Ok(count)
}
