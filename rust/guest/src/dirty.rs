// SPDX-License-Identifier: GPL-2.0

//! Live migration in small: memory copied by the dirty log while it is written
//! to, and compared at the end.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Result};

use crate::logs::Mode;
use crate::machine::{Machine, Runner, Shape, Space};
use crate::pages::{self, Program, DATA, MAX_VCPUS, PAGE};
use crate::paging::Paging;
use crate::tracking::Tracking;

/// Copy memory by the dirty log while the guest writes, and compare
///
/// The guest writes ever larger numbers to random words of random pages. The VMM
/// harvests the dirty log at random moments and copies the pages that are in it;
/// at the end it stops the vCPUs, harvests once more, and compares the copy with
/// the memory, byte for byte: a written page that the log does not have shows as
/// a difference. Prints `dirty mode M track T vcpus V rounds N writes W harvested
/// H switched S periods P differ D`, and a line for each of the first pages that
/// differ; fails when one does.
#[derive(clap::Args)]
pub struct Args {
    /// The kind of log
    #[arg(long, value_enum, default_value = "bitmap")]
    mode: Mode,
    /// The working set is tracked meanwhile
    #[arg(long, value_enum, default_value = "off", default_missing_value = "on", num_args = 0..=1)]
    track: Track,
    /// Harvests
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How often logging is switched off and on again, all memory being copied anew
    #[arg(long, value_name = "N", default_value_t = 0)]
    restarts: u32,
    /// vCPUs
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    memory: u64,
    /// Memory in huge pages, to begin with
    #[arg(long)]
    huge: bool,
    /// A guest in 64-bit mode, with page tables
    #[arg(long)]
    long: bool,
    /// Two harvests are at most so many milliseconds apart
    #[arg(long, value_name = "MS", default_value_t = 10)]
    within: u64,
    /// Length of the tracking's periods
    #[arg(long, value_name = "MS", default_value_t = 10)]
    period_ms: u64,
    /// Leave out every K-th harvested page, to prove that it shows
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    lose: Option<u64>,
    /// Seed of the random moments and pages
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Track {
    /// Not at all
    Off,
    /// All the time
    On,
    /// Switched on and off at random
    Toggle,
}

/// Copies and compares.
pub fn run(args: &Args) -> Result<()> {
    let space = Arc::new(Space::new(args.memory << 20, args.huge)?);
    if args.huge {
        ensure!(space.fill()?, "the host has no huge pages for the guest");
    }
    let shape = Shape {
        paging: args.long.then_some(Paging::Long),
        ..Shape::default()
    };
    let machine = Arc::new(Machine::new(space, args.mode.shape(shape))?);
    let tracking = match args.track {
        Track::Off => None,
        Track::On | Track::Toggle => Some(started(&machine, args.period_ms)?),
    };
    let over = AtomicBool::new(false);
    let flips = AtomicU32::new(0);
    let outcome = thread::scope(|scope| {
        let toggler = tracking.as_ref().filter(|_| args.track == Track::Toggle);
        let toggler = toggler.map(|tracking| {
            let (over, flips) = (&over, &flips);
            scope.spawn(move || toggle(tracking, args.seed, over, flips))
        });
        let outcome = migrate(args, &machine, tracking.as_ref());
        over.store(true, Ordering::Relaxed);
        if let Some(toggler) = toggler {
            toggler
                .join()
                .unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        outcome
    })?;
    let track = match args.track {
        Track::Off => "off",
        Track::On => "on",
        Track::Toggle => "toggle",
    };
    for line in outcome.different.iter().take(10) {
        writeln!(io::stdout(), "{line}")?;
    }
    writeln!(
        io::stdout(),
        "dirty mode {} track {track} vcpus {} rounds {} writes {} harvested {} switched {} periods {} differ {}",
        args.mode.name(),
        args.vcpus,
        args.rounds,
        outcome.writes,
        outcome.harvested,
        flips.load(Ordering::Relaxed),
        outcome.periods,
        outcome.different.len()
    )?;
    ensure!(
        outcome.different.is_empty(),
        "the copy is not what was written"
    );
    Ok(())
}

/// The tracking of a machine, on.
fn started(machine: &Machine, period_ms: u64) -> Result<Tracking> {
    use std::os::fd::AsRawFd;
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("intervals", 2)?;
    tracking.set("period_ms", period_ms)?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");
    Ok(tracking)
}

fn toggle(tracking: &Tracking, seed: u64, over: &AtomicBool, flips: &AtomicU32) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x7061_6765);
    let mut on = true;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.u64(0..=20_000)));
        on = !on;
        tracking.set("active", on.into())?;
        flips.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

struct Outcome {
    writes: u64,
    harvested: u64,
    periods: u64,
    different: Vec<String>,
}

/// The copy of the guest's data, and how it comes to be.
struct Shadow<'a> {
    machine: &'a Machine,
    mode: Mode,
    lose: Option<u64>,
    bytes: Vec<u8>,
    harvested: u64,
}

impl Shadow<'_> {
    fn page(&mut self, gfn: u64) -> Result<()> {
        let data = DATA / PAGE..self.machine.space.size / PAGE;
        if data.contains(&gfn) {
            let at = ((gfn - data.start) * PAGE) as usize;
            self.machine
                .space
                .copy(gfn, &mut self.bytes[at..at + PAGE as usize])?;
        }
        Ok(())
    }

    fn all(&mut self) -> Result<()> {
        (DATA / PAGE..self.machine.space.size / PAGE).try_for_each(|gfn| self.page(gfn))
    }

    fn harvest(&mut self, all: bool) -> Result<()> {
        for gfn in self.mode.harvest(self.machine, all)? {
            self.harvested += 1;
            if self.lose.is_none_or(|k| self.harvested % k != 0) {
                self.page(gfn)?;
            }
        }
        Ok(())
    }

    /// Switches logging on; from then on a page is in the copy or in the log.
    fn begin(&mut self) -> Result<()> {
        self.machine.log(true)?;
        // Where every page is in the log to begin with, that is to be proved.
        if self.mode == Mode::InitiallySet {
            return Ok(());
        }
        self.all()
    }

    fn differences(&self) -> Result<Vec<String>> {
        let mut page = [0; PAGE as usize];
        let mut lines = Vec::new();
        for (copy, gfn) in self.bytes.chunks_exact(PAGE as usize).zip(DATA / PAGE..) {
            self.machine.space.copy(gfn, &mut page)?;
            if let Some(at) = copy.iter().zip(&page).position(|(a, b)| a != b) {
                let word = |bytes: &[u8]| {
                    let word = bytes[at / 4 * 4..].first_chunk().copied();
                    u32::from_le_bytes(word.unwrap_or_default())
                };
                lines.push(format!(
                    "gfn {gfn:#x} offset {:#x} memory {:#x} copy {:#x}",
                    at / 4 * 4,
                    word(&page),
                    word(copy)
                ));
            }
        }
        Ok(lines)
    }
}

fn migrate(args: &Args, machine: &Arc<Machine>, tracking: Option<&Tracking>) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(args.seed);
    let vcpus = (0..args.vcpus)
        .map(|index| machine.vcpu(index, Program::Scribble))
        .collect::<Result<Vec<_>>>()?;
    for vcpu in &vcpus {
        vcpu.set(pages::SEED, random.u32(..))?;
        // Each a word of its own, so that none undoes what another did.
        vcpu.set(pages::WORD, 4 * vcpu.index)?;
        aim(vcpu, machine, &mut random)?;
        vcpu.start()?;
    }
    let mut copy = Shadow {
        machine,
        mode: args.mode,
        lose: args.lose,
        bytes: vec![0; (machine.space.size - DATA) as usize],
        harvested: 0,
    };
    thread::sleep(Duration::from_micros(random.u64(0..=args.within * 1000)));
    copy.begin()?;
    for round in 0..args.rounds {
        thread::sleep(Duration::from_micros(random.u64(0..=args.within * 1000)));
        if restarts(args, round) {
            machine.log(false)?;
            thread::sleep(Duration::from_micros(random.u64(0..=args.within * 1000)));
            copy.begin()?;
        }
        copy.harvest(random.bool())?;
        for vcpu in &vcpus {
            aim(vcpu, machine, &mut random)?;
        }
    }
    let periods = match tracking {
        Some(tracking) => tracking.estimate()?.get("period")?,
        None => 0,
    };

    for vcpu in &vcpus {
        vcpu.set(pages::STOP, 1)?;
    }
    for vcpu in &vcpus {
        // It may be waiting for room in its ring.
        while !vcpu.done()? {
            copy.harvest(false)?;
            thread::sleep(Duration::from_micros(200));
        }
    }
    copy.harvest(true)?;
    let writes = vcpus
        .iter()
        .map(|vcpu| vcpu.get(pages::DONE).map(u64::from));
    let writes = writes.sum::<Result<u64>>()?;
    ensure!(writes > 0, "the guest wrote nothing");
    Ok(Outcome {
        writes,
        harvested: copy.harvested,
        periods,
        different: copy.differences()?,
    })
}

/// Whether logging is switched off and on in this round: as often as asked for,
/// at even distances.
fn restarts(args: &Args, round: u32) -> bool {
    let so_far =
        |rounds: u32| u64::from(rounds) * u64::from(args.restarts) / u64::from(args.rounds);
    so_far(round + 1) > so_far(round)
}

/// Has a vCPU write elsewhere and at another pace. The two words are not read as
/// one, so either half of the memory is the base, and at most half the extent.
fn aim(vcpu: &Runner, machine: &Machine, random: &mut fastrand::Rng) -> Result<()> {
    let half = (machine.space.size - DATA) / PAGE / 2;
    let extent = random.u64(1..=half) >> random.u32(0..6);
    vcpu.set(pages::BASE, (DATA + PAGE * random.u64(0..=half)) as u32)?;
    vcpu.set(pages::COUNT, extent.max(1) as u32)?;
    vcpu.set(pages::PACE, [0, 0, 10, 100][random.usize(0..4)])
}
