// SPDX-License-Identifier: GPL-2.0

//! A guest with a constant working set, as several estimators see it.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::idle::Idle;
use crate::machine::{cpu_time, now, Machine, Runner, Shape, Space};
use crate::pages::{self, Program, Touch, DATA, PAGE};
use crate::tracking::Tracking;

/// Estimate the working set of a guest that touches the same pages all the time
///
/// The micro-benchmark of Bitchebe et al. (VEE 2021), scaled: all memory has been
/// written to once; from then on the guest makes some passes over W pages in
/// each period, reading, writing or both. One line per period:
/// `wss_study by track pattern P period I reads R writes W memory M touched T
/// stored S written X tables X read_set X lost X spent_ns X [sampled N
/// sampled_touched X]`, or `wss_study by idle pattern P period I reads R writes W
/// memory M touched T stored S in_use X spent_ns X`. T pages were really touched and
/// S written to, those that the program itself needs among them, of M.
#[derive(clap::Args)]
pub struct Args {
    /// Whose estimate. They clear the same accessed bits, so it is one at a time
    #[arg(long, value_enum, default_value = "track")]
    by: By,
    /// What passes do
    #[arg(long, value_enum)]
    pattern: Pattern,
    /// The working set
    #[arg(long, value_name = "W", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=pages::LIST_ENTRIES as u64))]
    pages: u64,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory: u64,
    /// How many; the pattern changes in their middle
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..))]
    periods: u32,
    /// Length of each
    #[arg(long, value_name = "T", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
    /// Pages to sample in each, where the kernel can
    #[arg(long, value_name = "S", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1000))]
    sample: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    /// Working-set tracking: written, read, sampled
    Track,
    /// Idle page tracking
    Idle,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Pattern {
    /// Each page is read and written
    ReadWrite,
    /// Reads in the first half of the periods, writes afterwards
    ReadThenWrite,
    /// Writes in the first half of the periods, reads afterwards
    WriteThenRead,
}

impl Pattern {
    fn name(self) -> &'static str {
        match self {
            Pattern::ReadWrite => "read-write",
            Pattern::ReadThenWrite => "read-then-write",
            Pattern::WriteThenRead => "write-then-read",
        }
    }

    fn touch(self, first_half: bool) -> Touch {
        match (self, first_half) {
            (Pattern::ReadWrite, _) => Touch::Both,
            (Pattern::ReadThenWrite, true) | (Pattern::WriteThenRead, false) => Touch::Read,
            _ => Touch::Write,
        }
    }
}

/// Passes in each period.
const PASSES: u64 = 3;

/// Runs the guest, and prints what each period's estimates are.
pub fn run(args: &Args) -> Result<()> {
    let space = Arc::new(Space::new(args.memory << 20, false)?);
    let data = DATA / PAGE..space.size / PAGE;
    ensure!(
        args.pages * 2 <= data.end - data.start,
        "memory is to be twice the working set and more"
    );
    let machine = Arc::new(Machine::new(space.clone(), Shape::default())?);
    let mut study = Study {
        args,
        vcpu: machine.vcpu(0, Program::Sweep)?,
        memory: space.whole() / PAGE,
    };
    let all: Vec<u64> = data.clone().collect();
    for some in all.chunks(pages::LIST_ENTRIES) {
        study.list(some.iter().copied(), Touch::Both)?;
        study.pass()?;
    }
    match args.by {
        By::Track => study.track(&Tracking::here(machine.fd.as_raw_fd())?),
        By::Idle => study.idle(&space),
    }
}

struct Study<'a> {
    args: &'a Args,
    vcpu: Runner,
    /// All of it, in pages.
    memory: u64,
}

impl Study<'_> {
    fn list(&self, gfns: impl Iterator<Item = u64>, touch: Touch) -> Result<()> {
        self.vcpu
            .list(&gfns.map(|gfn| (gfn, touch)).collect::<Vec<_>>())
    }

    fn pass(&mut self) -> Result<()> {
        self.vcpu.order()?;
        self.vcpu.finish()
    }

    /// What passes do in period `index`, from 0.
    fn touch(&self, index: u32) -> Touch {
        self.args.pattern.touch(index < self.args.periods / 2)
    }

    /// Has the next passes be those of that period.
    fn prepare(&self, index: u32) -> Result<()> {
        let first = DATA / PAGE + self.args.pages / 2;
        self.list(first..first + self.args.pages, self.touch(index))
    }

    /// A period's passes; the time that they take is at most its half.
    fn passes(&mut self) -> Result<()> {
        for _ in 0..PASSES {
            self.pass()?;
            thread::sleep(Duration::from_millis(
                self.args.period_ms / (2 * PASSES + 2),
            ));
        }
        Ok(())
    }

    /// What is known of that period, to begin its line with.
    fn known(&self, by: &str, index: u32) -> String {
        let touch = self.touch(index) as u32;
        let (reads, writes) = (
            touch & Touch::Read as u32 != 0,
            touch & Touch::Write as u32 != 0,
        );
        // Its code and list are read, its control page is read and written.
        let list = (self.args.pages * 4).div_ceil(PAGE);
        format!(
            "wss_study by {by} pattern {} period {} reads {} writes {} memory {} touched {} stored {}",
            self.args.pattern.name(),
            index + 1,
            u32::from(reads),
            u32::from(writes),
            self.memory,
            self.args.pages + list + 2,
            if writes { self.args.pages } else { 0 } + 1
        )
    }

    fn track(&mut self, tracking: &Tracking) -> Result<()> {
        tracking.set("period_ms", self.args.period_ms)?;
        tracking.set("intervals", 10.min(self.args.period_ms))?;
        tracking.set("reads", 1)?;
        let samples = match tracking.write("sample", self.args.sample) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).context("writing to wss/sample"),
        };
        ensure!(tracking.start()?, "working sets cannot be tracked here");
        let mut again = 0;
        let mut index = 0;
        while index < self.args.periods {
            self.prepare(index)?;
            let before = tracking.begun()?;
            let begin = now();
            self.passes()?;
            let end = now();
            let estimate = tracking.ended(before)?;
            let from = estimate.get("start_ns")?;
            let to = from + estimate.get("duration_ns")?;
            // All passes in this period, or it is not one to compare with.
            if estimate.get("period")? != before + 1 || begin < from || end > to {
                again += 1;
                ensure!(again < 50, "no passes fall within a period: make it longer");
                continue;
            }
            let mut line = self.known("track", index);
            let mut names = vec!["written", "tables", "read_set", "lost", "spent_ns"];
            if samples && self.args.sample != 0 {
                names.extend(["sampled", "sampled_touched"]);
            }
            for name in names {
                line += &format!(" {name} {}", estimate.get(name)?);
            }
            writeln!(io::stdout(), "{line}")?;
            index += 1;
        }
        tracking.set("active", 0)
    }

    fn idle(&mut self, space: &Space) -> Result<()> {
        let idle = Idle::new(space)?;
        for index in 0..self.args.periods {
            self.prepare(index)?;
            let begin = now();
            let before = cpu_time();
            idle.mark()?;
            let mut spent = cpu_time() - before;
            self.passes()?;
            let passed = Duration::from_nanos(now() - begin);
            thread::sleep(Duration::from_millis(self.args.period_ms).saturating_sub(passed));
            let before = cpu_time();
            let in_use = idle.unmarked()?;
            spent += cpu_time() - before;
            let known = self.known("idle", index);
            writeln!(io::stdout(), "{known} in_use {in_use} spent_ns {spent}")?;
        }
        Ok(())
    }
}
