// SPDX-License-Identifier: GPL-2.0

//! More pages unmapped at once than the kernel has room to remember: it must say so.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use anyhow::{bail, ensure, Result};

use crate::machine::{now, Machine, Runner, Shape, Space};
use crate::pages::{self, Program, Touch, DATA, PAGE};
use crate::scheduling::{bind, fifo, worker};
use crate::tracking::Tracking;

/// Touch pages, unmap them all before the kernel's worker runs, and see what it tells
///
/// Of P pages one after the other, every second one is written to and the others are
/// read, so that each is remembered by itself. All are given back to the host within the
/// same period, by a thread that leaves the worker no CPU. Prints `wss_unmapped pages P
/// missing M unmapped_lost U lost L` for each P: M pages are in none of that period's
/// sets. Fails when more than U are, or one that was written to.
#[derive(clap::Args)]
pub struct Args {
    /// How many, one period after the other
    #[arg(long, value_name = "P", value_delimiter = ',', default_value = "18000,16000", value_parser = clap::value_parser!(u64).range(2..=2 * pages::LIST_ENTRIES as u64))]
    pages: Vec<u64>,
    /// Length of a period
    #[arg(long, value_name = "T", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
}

/// Runs the guest.
pub fn run(args: &Args) -> Result<()> {
    let most = args.pages.iter().max().copied().unwrap_or_default();
    let size = (DATA + most * PAGE).next_multiple_of(8 << 20);
    let space = Arc::new(Space::new(size, false)?);
    let machine = Arc::new(Machine::new(space, Shape::default())?);
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("period_ms", args.period_ms)?;
    // What was read in a sub-interval that is over need not be remembered.
    tracking.set("intervals", 1)?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    let mut round = Round {
        vcpu: machine.vcpu(0, Program::Sweep)?,
        worker: worker()?,
        machine,
        tracking,
    };
    for &count in &args.pages {
        let mut attempts = 0;
        while !round.run(DATA / PAGE..DATA / PAGE + count)? {
            attempts += 1;
            ensure!(
                attempts < 20,
                "it takes longer than a period: make it longer"
            );
        }
    }
    round.tracking.set("active", 0)
}

struct Round {
    vcpu: Runner,
    machine: Arc<Machine>,
    tracking: Tracking,
    /// The thread that the kernel has for this VM.
    worker: libc::pid_t,
}

impl Round {
    /// Touches and unmaps these pages; false if that was not within one period.
    fn run(&mut self, gfns: std::ops::Range<u64>) -> Result<bool> {
        // What is mapped takes less time to be touched again.
        self.touch(gfns.clone())?;
        let before = self.tracking.begun()?;
        let begin = now();
        self.touch(gfns.clone())?;
        self.unmap(gfns.clone())?;
        let end = now();

        let estimate = self.tracking.ended(before)?;
        let from = estimate.get("start_ns")?;
        let to = from + estimate.get("duration_ns")?;
        let pages = self.tracking.pages()?;
        let Some(pages) = pages.filter(|pages| pages.period == before + 1) else {
            return Ok(false);
        };
        if estimate.get("period")? != before + 1 || begin < from || end > to {
            return Ok(false);
        }
        let missing: Vec<u64> = gfns.clone().filter(|&gfn| !pages.read(gfn)).collect();
        let lost = estimate.get("unmapped_lost")?;
        writeln!(
            io::stdout(),
            "wss_unmapped pages {} missing {} unmapped_lost {lost} lost {}",
            gfns.end - gfns.start,
            missing.len(),
            estimate.get("lost")?
        )?;
        ensure!(
            missing.len() as u64 <= lost,
            "{} pages are missing, and only {lost} said to be lost",
            missing.len()
        );
        if let Some(gfn) = missing
            .into_iter()
            .find(|&gfn| touched(gfn) == Touch::Write)
        {
            bail!("gfn {gfn:#x} was written to and is missing");
        }
        Ok(true)
    }

    fn touch(&mut self, gfns: std::ops::Range<u64>) -> Result<()> {
        let list: Vec<_> = gfns.map(|gfn| (gfn, touched(gfn))).collect();
        for part in list.chunks(pages::LIST_ENTRIES) {
            self.vcpu.list(part)?;
            self.vcpu.order()?;
            self.vcpu.finish()?;
        }
        Ok(())
    }

    /// Gives them back to the host, by a thread that has the worker's CPU to itself.
    fn unmap(&self, gfns: std::ops::Range<u64>) -> Result<()> {
        let space = self.machine.space.clone();
        let worker = self.worker;
        let thread = thread::spawn(move || {
            bind(worker, 0)?;
            bind(0, 0)?;
            fifo()?;
            space.discard(gfns.start, gfns.end - gfns.start)
        });
        thread
            .join()
            .unwrap_or_else(|_| bail!("the thread panicked"))
    }
}

/// What is done to each page.
fn touched(gfn: u64) -> Touch {
    if gfn % 2 == 0 {
        Touch::Read
    } else {
        Touch::Write
    }
}
