// SPDX-License-Identifier: GPL-2.0

//! A vCPU whose log is full while the kernel's worker has much to do: it must not wait
//! for all of that.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::machine::{now, Machine, Runner, Shape, Space};
use crate::pages::{self, Program, DATA, PAGE};
use crate::scheduling::{bind, fifo, worker};
use crate::tracking::Tracking;

/// Fill a vCPU's log while the worker clears the dirty bits of many pages
///
/// In each round the guest writes to B pages while the worker has nothing else to do. In
/// the next period it writes to A pages, and right after that period's end, while the worker
/// clears their dirty bits, to the B again: with its log full, it stands still until the
/// worker lets it in. The vCPU's thread has real-time priority (SCHED_FIFO), for which it
/// takes root: on the worker's CPU, number 0, it has to drain its full log itself. Prints
/// `wss_full backlog A burst B rounds N met M in_place D quiet_ns Q busy_ns S worker_ns W`:
/// M bursts met a busy worker. Of the one with the least S - Q, for which the guest stood
/// still, Q and S is what the writes took without and with that worker, W what the worker
/// did at the period's end, and D how many pages of the log the vCPU drained itself in Q.
/// Fails when a page was not counted exactly once, when no burst met a busy worker, or when
/// S - Q is more than half of W.
///
/// Times are right on an emulator or an idle host only.
#[derive(clap::Args)]
pub struct Args {
    /// Pages that keep the worker busy
    #[arg(long, value_name = "A", default_value_t = 32768, value_parser = clap::value_parser!(u32).range(1..=1 << 18))]
    backlog: u32,
    /// Pages that do not fit in the log, which has room for 16384
    #[arg(long, value_name = "B", default_value_t = 17000, value_parser = clap::value_parser!(u32).range(1..=1 << 18))]
    burst: u32,
    /// Rounds; the burst begins 0.1 ms after the period's end in the first, and twice as
    /// late in each one after that, until it is 25.6 ms
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
    /// The second burst began while the worker was busy.
    met: bool,
    in_place: u64,
    quiet: u64,
    busy: u64,
    worker: u64,
}

impl Found {
    /// For how long the guest stood still, in ns.
    fn stood(&self) -> u64 {
        self.busy.saturating_sub(self.quiet)
    }
}

/// Runs the guest.
pub fn run(args: &Args) -> Result<()> {
    let size = DATA + u64::from(args.backlog + args.burst) * PAGE;
    let space = Arc::new(Space::new(size.next_multiple_of(16 << 20), false)?);
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

    let mut met: Vec<Found> = Vec::new();
    for round in 0..args.rounds {
        let mut attempts = 0;
        let found = loop {
            if let Some(found) = guest.round(&tracking, 100_000 << round.min(8))? {
                break found;
            }
            attempts += 1;
            ensure!(
                attempts < 20,
                "it takes longer than a period: make it longer"
            );
        };
        met.extend(found.met.then_some(found));
    }
    tracking.set("active", 0)?;
    let least = met.iter().min_by_key(|found| found.stood());
    let least = least.context("no burst met a busy worker")?;
    writeln!(
        io::stdout(),
        "wss_full backlog {} burst {} rounds {} met {} in_place {} quiet_ns {} busy_ns {} worker_ns {}",
        args.backlog,
        args.burst,
        args.rounds,
        met.len(),
        least.in_place,
        least.quiet,
        least.busy,
        least.worker
    )?;
    ensure!(
        least.stood() <= least.worker / 2,
        "the guest stood still for {} ns",
        least.stood()
    );
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
        let quiet_end = now();
        let calm = tracking.ended(before)?;
        let end = calm.get("start_ns")? + calm.get("duration_ns")?;
        let Some(counts) = self.counts(tracking, before + 1)? else {
            return Ok(None);
        };
        if calm.get("period")? != before + 1 || quiet_end > end {
            return Ok(None);
        }
        for (page, &count) in (0..).zip(&counts) {
            let expected = u8::from(page >= backlog);
            ensure!(
                count == expected,
                "page {page} was counted {count} times, not {expected}"
            );
        }

        self.write(0, backlog)?;
        let end = end + self.args.period_ms * 1_000_000;
        let Some(rest) = (end + delay).checked_sub(now()) else {
            return Ok(None);
        };
        thread::sleep(Duration::from_nanos(rest));
        let began = now();
        let busy = self.write(backlog, burst)?;

        // In which of the two periods a page of the burst is depends on how far the worker
        // was.
        let first = tracking.ended(before + 1)?;
        let counts = self.counts(tracking, before + 2)?;
        let second = tracking.ended(before + 2)?;
        let more = self.counts(tracking, before + 3)?;
        let (Some(counts), Some(more)) = (counts, more) else {
            return Ok(None);
        };
        for (page, (count, more)) in counts.iter().zip(&more).enumerate() {
            ensure!(
                count + more == 1,
                "page {page} was counted {count} and {more} times"
            );
        }
        for estimate in [&calm, &first, &second] {
            let lost = estimate.get("lost")?;
            ensure!(lost == 0, "{lost} pages were lost");
        }
        let over = first.get("start_ns")? + first.get("duration_ns")?;
        let next = second.get("start_ns")?;
        Ok(Some(Found {
            met: (over..next).contains(&began),
            in_place: calm.get("in_place")?,
            quiet,
            busy,
            worker: next - over,
        }))
    }

    /// In how many sub-intervals of that period each page was counted; None if it is not the
    /// last.
    fn counts(&self, tracking: &Tracking, period: u64) -> Result<Option<Vec<u8>>> {
        let pages = tracking.pages()?.filter(|pages| pages.period == period);
        let gfns = DATA / PAGE..DATA / PAGE + u64::from(self.args.backlog + self.args.burst);
        Ok(pages.map(|pages| gfns.map(|gfn| pages.count(gfn)).collect()))
    }
}
