// SPDX-License-Identifier: GPL-2.0

//! What a page costs that is written to, over and over, while writes are logged.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Result};

use crate::logs::Mode;
use crate::machine::{cpu_time, process_time, Machine, Runner, Shape, Space, HALF};
use crate::pages::{self, Program, DATA, PAGE};
use crate::sampling::{Config, Session, READ, WRITE};
use crate::tracking::Tracking;

/// Measure what rewriting pages costs, in the guest, its vCPU and the kernel
///
/// The guest stores to N pages, at equal distances, once per round; between two
/// rounds the log is harvested (dirty-log, manual) or a period ends (track, with
/// one sub-interval per period). Prints `page_cost mode M pages N stride S rounds R
/// guest_ticks X vcpu_ns X harvest_ns X worker_ns X idle_ns X entries E swaps S
/// in_place D full_exits X flushes F`, of which the first three X are medians of
/// the rounds, per page: ticks of the TSC between the first and the last store (under
/// Bochs instructions, whoever executed them), CPU time of the vCPU's thread for a
/// whole run, and of the harvesting one (of the sampler, the mean). worker_ns is the
/// tracking worker's CPU time per page, in the round that fewest interrupts fell into,
/// after idle_ns was taken off: what the quickest period without a write takes, in all.
/// The rest are sums.
#[derive(clap::Args)]
pub struct Args {
    /// What logs the writes
    #[arg(long, value_enum, default_value = "none")]
    mode: Logging,
    /// Pages
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pages: u32,
    /// From one to the next, in pages: 1 is dense, 37 scattered
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stride: u32,
    /// Rounds that are measured, after one that is not
    #[arg(long, value_name = "R", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a period
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..))]
    period_ms: u64,
    /// Accessed bits are read back as well
    #[arg(long)]
    reads: bool,
    /// Memory, if more than the pages need
    #[arg(long, value_name = "MIB", default_value_t = 16)]
    memory: u64,
    /// Besides, a memslot of so many GiB that nobody touches
    #[arg(long, value_name = "GIB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..8192))]
    reserve: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Logging {
    /// Nothing
    None,
    /// The dirty log: KVM_GET_DIRTY_LOG
    DirtyLog,
    /// The dirty log: KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG
    Manual,
    /// Working-set tracking
    Track,
    /// Nothing, and the pages are unmapped from the guest between two rounds, though
    /// not from the host: their slot is deleted and added
    Refault,
    /// Nothing, and the sampler has taken the pages' mappings away: counted are the
    /// pages that were samples
    Sample,
}

impl Logging {
    fn name(self) -> &'static str {
        match self {
            Logging::None => "none",
            Logging::DirtyLog => "dirty-log",
            Logging::Manual => "manual",
            Logging::Track => "track",
            Logging::Refault => "refault",
            Logging::Sample => "sample",
        }
    }

    fn log(self) -> Option<Mode> {
        match self {
            Logging::DirtyLog => Some(Mode::Bitmap),
            Logging::Manual => Some(Mode::Manual),
            _ => None,
        }
    }
}

/// What the rounds took.
#[derive(Default)]
struct Rounds {
    ticks: Vec<u64>,
    vcpu: Vec<u64>,
    harvest: Vec<u64>,
    worker: Vec<u64>,
    idle: u64,
    sums: [u64; 5],
}

/// Periods without a write that are measured.
const IDLE: usize = 5;

const SUMS: [&str; 5] = ["entries", "swaps", "in_place", "full_exits", "flushes"];

/// Measures, and prints the result.
pub fn run(args: &Args) -> Result<()> {
    let span = u64::from(args.pages) * u64::from(args.stride) * PAGE;
    let least = (DATA + span).next_multiple_of(8 << 20);
    let space = Arc::new(Space::new(least.max(args.memory << 20), false)?);
    let shape = Shape {
        reserve: args.reserve,
        ..Shape::default()
    };
    let shape = args.mode.log().map_or(shape, |mode| mode.shape(shape));
    let machine = Arc::new(Machine::new(space, shape)?);
    let vcpu = machine.vcpu(0, Program::Stride)?;
    vcpu.set(pages::BASE, DATA as u32)?;
    vcpu.set(pages::STRIDE, args.stride * PAGE as u32)?;
    vcpu.set(pages::COUNT, args.pages)?;
    // The first passes have the page faults: one maps, one makes pages writable.
    let mut rounds = Rounds::default();
    pass(&vcpu, &mut Rounds::default())?;
    match args.mode {
        Logging::None => {
            for _ in 0..args.rounds {
                pass(&vcpu, &mut rounds)?;
            }
        }
        Logging::DirtyLog | Logging::Manual => by_log(args, &machine, &vcpu, &mut rounds)?,
        Logging::Track => by_tracking(args, &machine, &vcpu, &mut rounds)?,
        Logging::Refault => by_refaults(args, &machine, &vcpu, &mut rounds)?,
        Logging::Sample => by_samples(args, &machine, &vcpu, &mut rounds)?,
    }
    print(args, rounds)
}

fn pass(vcpu: &Runner, rounds: &mut Rounds) -> Result<()> {
    vcpu.start()?;
    let cpu = vcpu.wait()?;
    let (before, after) = (
        vcpu.get_wide(pages::TSC_BEFORE)?,
        vcpu.get_wide(pages::TSC_AFTER)?,
    );
    ensure!(
        after > before,
        "the TSC ran backwards: bind this to one CPU"
    );
    rounds.ticks.push(after - before);
    rounds.vcpu.push(cpu);
    Ok(())
}

fn by_log(args: &Args, machine: &Machine, vcpu: &Runner, rounds: &mut Rounds) -> Result<()> {
    let mode = args.mode.log().unwrap_or(Mode::Bitmap);
    machine.log(true)?;
    for round in 0..=args.rounds {
        pass(vcpu, rounds)?;
        let before = cpu_time();
        let gfns = mode.harvest(machine, true)?;
        rounds.harvest.push(cpu_time() - before);
        ensure!(
            gfns.len() as u64 >= u64::from(args.pages),
            "the log has {} pages",
            gfns.len()
        );
        if round == 0 {
            *rounds = Rounds::default();
        }
    }
    Ok(())
}

fn by_refaults(args: &Args, machine: &Machine, vcpu: &Runner, rounds: &mut Rounds) -> Result<()> {
    for _ in 0..args.rounds {
        for index in [HALF - 1, HALF] {
            machine.delete(index)?;
            machine.add(index)?;
        }
        pass(vcpu, rounds)?;
    }
    Ok(())
}

/// A third of the pages at a time, so that finding them takes as long as in a guest
/// that has most of its memory mapped. The harvest is what it took the sampler to
/// find them and take their mappings away.
fn by_samples(args: &Args, machine: &Machine, vcpu: &Runner, rounds: &mut Rounds) -> Result<()> {
    let config = Config {
        // Arms next to nothing, while 0 would have what is armed be no sample.
        rate: 1,
        // Not writes alone, so that mappings go rather than be write-protected.
        access: (READ | WRITE).into(),
        ring_records: 1 << 20,
        ..Config::of(std::process::id(), machine.fd.as_raw_fd())
    };
    let mut session = Session::start(config)?;
    let pages = u64::from(args.pages);
    let mut plain = Rounds::default();
    let (mut count, mut spent) = (0, 0);
    for _ in 0..3 {
        pass(vcpu, &mut plain)?;
    }
    for _ in 0..args.rounds {
        // Until the sampler has accounted for the faults of the pass before, and the
        // guest has run for as long as its pages will cost it: that is the budget.
        let ran = process_time();
        while process_time() - ran < 300_000_000 {
            pass(vcpu, &mut Rounds::default())?;
        }
        let before = session.stats()?;
        let mut armed = before;
        session.change(Config {
            // Some hundreds at a time, or all that is mapped would be found.
            rate: 50_000,
            ..config
        })?;
        while armed.armed - before.armed < pages / 3 {
            thread::sleep(Duration::from_millis(1));
            armed = session.stats()?;
        }
        session.change(config)?;
        let armed = session.stats()?;
        let mut round = Rounds::default();
        pass(vcpu, &mut round)?;
        let taken = session.stats()?.taken - armed.taken;
        ensure!(taken >= pages / 6, "only {taken} pages were samples");
        let per_page = |all: &[u64], plain: &[u64]| {
            let (all, plain) = (middle(all), middle(plain));
            all.saturating_sub(plain) * pages / taken + plain
        };
        rounds.ticks.push(per_page(&round.ticks, &plain.ticks));
        rounds.vcpu.push(per_page(&round.vcpu, &plain.vcpu));
        count += armed.armed - before.armed;
        spent += armed.spent_ns - before.spent_ns;
        rounds.sums[0] += taken;
        rounds.sums[4] += armed.flushes - before.flushes;
    }
    session.stop()?;
    rounds.harvest.push(spent * pages / count);
    Ok(())
}

fn by_tracking(args: &Args, machine: &Machine, vcpu: &Runner, rounds: &mut Rounds) -> Result<()> {
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("intervals", 1)?;
    tracking.set("period_ms", args.period_ms)?;
    tracking.set("reads", args.reads.into())?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    // From the first whole period without a write on.
    let first = next(&tracking, args, 0)?;
    let mut last = next(&tracking, args, first)?;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        last = next(&tracking, args, last)?;
        idle.push(tracking.estimate()?.get("spent_ns")?);
    }
    rounds.idle = quickest(&idle);
    let (mut measured, mut again) = (0, 0);
    while measured <= args.rounds {
        let mut round = Rounds::default();
        pass(vcpu, &mut round)?;
        let period = next(&tracking, args, last)?;
        let estimate = tracking.estimate()?;
        // All of it in this period, or else not a round.
        let whole = estimate.get("period")? == period && period == last + 1;
        last = next(&tracking, args, period)?;
        if !whole || estimate.get("written")? < u64::from(args.pages) {
            again += 1;
            ensure!(
                again < 50,
                "no pass falls within a period: make periods longer"
            );
            continue;
        }
        measured += 1;
        // The first one arms the pages.
        if measured == 1 {
            continue;
        }
        rounds.ticks.append(&mut round.ticks);
        rounds.vcpu.append(&mut round.vcpu);
        rounds
            .worker
            .push(estimate.get("spent_ns")?.saturating_sub(rounds.idle));
        for (sum, name) in rounds.sums.iter_mut().zip(SUMS) {
            *sum += estimate.get(name)?;
        }
    }
    Ok(())
}

/// Waits for another period than `last` to end; returns its number. To look seldom is not to
/// interrupt the worker.
fn next(tracking: &Tracking, args: &Args, last: u64) -> Result<u64> {
    for _ in 0..800 {
        let period = tracking.estimate()?.get("period")?;
        if period != last {
            return Ok(period);
        }
        thread::sleep(Duration::from_micros(args.period_ms * 1000 / 4));
    }
    anyhow::bail!("period {} does not end", last + 1)
}

fn middle(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

fn quickest(values: &[u64]) -> u64 {
    values.iter().copied().min().unwrap_or(0)
}

fn print(args: &Args, rounds: Rounds) -> Result<()> {
    let per_page = |value: u64| value as f64 / f64::from(args.pages);
    let mut line = format!(
        "page_cost mode {} pages {} stride {} rounds {} guest_ticks {:.1} vcpu_ns {:.1} harvest_ns {:.1} worker_ns {:.1} idle_ns {}",
        args.mode.name(),
        args.pages,
        args.stride,
        args.rounds,
        per_page(middle(&rounds.ticks)),
        per_page(middle(&rounds.vcpu)),
        per_page(middle(&rounds.harvest)),
        per_page(quickest(&rounds.worker)),
        rounds.idle
    );
    for (sum, name) in rounds.sums.iter().zip(SUMS) {
        line += &format!(" {name} {sum}");
    }
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
