// SPDX-License-Identifier: GPL-2.0

//! A vCPU whose log is full while the kernel's worker has much to do: it must not wait
//! for all of that.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Result};

use crate::machine::{now, Machine, Runner, Shape, Space};
use crate::pages::{self, Program, DATA, PAGE};
use crate::scheduling::{bind, fifo, worker};
use crate::tracking::Tracking;

/// Fill a vCPU's log while the worker clears the dirty bits of many pages
///
/// In each round the guest writes to B pages in the middle of a period, and in the next to
/// A pages and, when that is over and the worker busy with those, to the B again: with its
/// log full, it stands still until the worker lets it in. The vCPU's thread goes first: on
/// the worker's CPU, which is number 0, it has to drain its full log itself. Prints
/// `wss_full backlog A burst B in_place D quiet_ns Q busy_ns S worker_ns W lost L`: the
/// bursts took Q and S, and what the worker did at the period's end took W. It is the round
/// of N whose S is the longest. Fails when a page was not counted once, or the guest stood
/// still for half of W.
#[derive(clap::Args)]
pub struct Args {
    /// Pages that keep the worker busy
    #[arg(long, value_name = "A", default_value_t = 32768, value_parser = clap::value_parser!(u32).range(1..=1 << 18))]
    backlog: u32,
    /// Pages that do not fit in the log, which has room for 16384
    #[arg(long, value_name = "B", default_value_t = 17000, value_parser = clap::value_parser!(u32).range(1..=1 << 18))]
    burst: u32,
    /// Rounds, each with the burst a little later
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The vCPU's CPU
    #[arg(long, value_name = "C", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..64))]
    cpu: u32,
    /// Length of a period
    #[arg(long, value_name = "T", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
}

/// What a round found.
#[derive(Clone, Copy)]
struct Found {
    in_place: u64,
    quiet: u64,
    busy: u64,
    worker: u64,
    lost: u64,
}

/// Runs the guest.
pub fn run(args: &Args) -> Result<()> {
    let size = DATA + u64::from(args.backlog + args.burst) * PAGE;
    let space = Arc::new(Space::new(size.next_multiple_of(8 << 20), false)?);
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("period_ms", args.period_ms)?;
    tracking.set("intervals", 1)?;
    // Only what was written keeps the worker busy.
    tracking.set("reads", 0)?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    bind(worker()?, 0)?;
    bind(0, args.cpu)?;
    fifo()?;
    // Its thread is like this one.
    let vcpu = machine.vcpu(0, Program::Stride)?;
    vcpu.set(pages::STRIDE, PAGE as u32)?;
    let guest = Guest { vcpu, args };
    guest.write(0, args.backlog + args.burst)?;

    let mut longest: Option<Found> = None;
    for round in 0..args.rounds {
        let mut attempts = 0;
        let found = loop {
            // The first in a tenth of a millisecond, each other one in twice that.
            if let Some(found) = guest.round(&tracking, 100_000 << round.min(8))? {
                break found;
            }
            attempts += 1;
            ensure!(
                attempts < 20,
                "it takes longer than a period: make it longer"
            );
        };
        if longest.is_none_or(|longest| longest.busy < found.busy) {
            longest = Some(found);
        }
    }
    tracking.set("active", 0)?;
    if let Some(found) = longest {
        let stood = found.busy.saturating_sub(found.quiet);
        writeln!(
            io::stdout(),
            "wss_full backlog {} burst {} in_place {} quiet_ns {} busy_ns {} worker_ns {} lost {}",
            args.backlog,
            args.burst,
            found.in_place,
            found.quiet,
            found.busy,
            found.worker,
            found.lost
        )?;
        ensure!(
            stood <= found.worker / 2,
            "the guest stood still for {stood} ns"
        );
    }
    Ok(())
}

struct Guest<'a> {
    vcpu: Runner,
    args: &'a Args,
}

impl Guest<'_> {
    /// Writes to so many pages from the data's page `first` on, and says how long it took,
    /// in ns.
    fn write(&self, first: u32, count: u32) -> Result<u64> {
        self.vcpu
            .set(pages::BASE, (DATA + u64::from(first) * PAGE) as u32)?;
        self.vcpu.set(pages::COUNT, count)?;
        let before = now();
        self.vcpu.start()?;
        self.vcpu.wait()?;
        Ok(now() - before)
    }

    /// One burst in peace and one `delay` ns after a period's end; None if something was
    /// not within its period.
    fn round(&self, tracking: &Tracking, delay: u64) -> Result<Option<Found>> {
        let (backlog, burst) = (self.args.backlog, self.args.burst);
        let before = tracking.begun()?;
        let quiet = self.write(backlog, burst)?;
        let calm = tracking.ended(before)?;
        if calm.get("period")? != before + 1 || calm.get("written")? < u64::from(burst) {
            return Ok(None);
        }

        self.write(0, backlog)?;
        let end =
            calm.get("start_ns")? + calm.get("duration_ns")? + self.args.period_ms * 1_000_000;
        let Some(rest) = (end + delay).checked_sub(now()) else {
            return Ok(None);
        };
        thread::sleep(Duration::from_nanos(rest));
        let busy = self.write(backlog, burst)?;

        let first = tracking.ended(before + 1)?;
        let counted = self.counted(tracking, before + 2)?;
        let second = tracking.ended(before + 2)?;
        let also = self.counted(tracking, before + 3)?;
        let (Some(counted), Some(also)) = (counted, also) else {
            return Ok(None);
        };
        let total = u64::from(backlog + burst);
        ensure!(
            counted + also == total,
            "of {total} pages {counted} and {also} were counted"
        );
        Ok(Some(Found {
            in_place: calm.get("in_place")?,
            quiet,
            busy,
            worker: second.get("start_ns")? - first.get("start_ns")? - first.get("duration_ns")?,
            lost: calm.get("lost")? + first.get("lost")? + second.get("lost")?,
        }))
    }

    /// How many of the pages were counted in that period; None if it is not the last.
    fn counted(&self, tracking: &Tracking, period: u64) -> Result<Option<u64>> {
        let pages = tracking.pages()?.filter(|pages| pages.period == period);
        let gfns = DATA / PAGE..DATA / PAGE + u64::from(self.args.backlog + self.args.burst);
        Ok(pages.map(|pages| gfns.map(|gfn| u64::from(pages.count(gfn))).sum()))
    }
}
