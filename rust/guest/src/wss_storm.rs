// SPDX-License-Identifier: GPL-2.0

//! Tracking and sampling switched on and off from outside, in VMs that are killed in
//! the middle of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine::{Machine, Shape, Space};
use crate::pages::MAX_VCPUS;
use crate::sampling::{Config, Session, RANDOM, SWEEP};
use crate::tracking::Tracking;
use crate::victim::{priority, Victim};

/// Track VMs that come and go, from another process, and kill them at random
///
/// Each VM is a process of its own whose guest writes without end until it is sent
/// SIGKILL, which may also come while it is still being set up. This process
/// starts and stops its tracking at random, changes the parameters, and reads
/// what there is to read. Prints `wss-storm vms N switched N read N late N sampled N
/// samples N`: how often tracking was switched, and files were read, of a VM that was
/// there; how many files that were open when their VM was killed were read after that;
/// and how many sessions of samples there were, and how many samples.
#[derive(clap::Args)]
pub struct Args {
    /// How many VMs
    #[arg(long, value_name = "N", default_value_t = 100)]
    vms: u32,
    /// vCPUs in each
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// How many exist at a time
    #[arg(long, value_name = "P", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// A VM is killed at most so many milliseconds after it was started
    #[arg(long, value_name = "MS", default_value_t = 400)]
    within: u64,
    /// Have their accesses be sampled as well, at random
    #[arg(long)]
    sample: bool,
    /// Seed of the random moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

struct Storming {
    victim: Victim,
    /// Its session of samples, if it has one.
    session: Option<Session>,
    dies: Instant,
}

#[derive(Default)]
struct Tally {
    switched: u64,
    read: u64,
    late: u64,
    sampled: u64,
    samples: u64,
}

/// Creates, tracks and kills the VMs.
pub fn run(args: &Args) -> Result<()> {
    // Otherwise the children would be the ones to say so, by the hundred.
    drop(Machine::new(
        Arc::new(Space::new(16 << 20, false)?),
        Shape::default(),
    )?);
    priority(-10)?;
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut alive: Vec<Storming> = Vec::new();
    let mut tally = Tally::default();
    let mut started = 0;
    while started < args.vms || !alive.is_empty() {
        while started < args.vms && alive.len() < args.parallel as usize {
            let delay = Duration::from_micros(random.u64(0..=args.within * 1000));
            alive.push(Storming {
                victim: Victim::start(args.vcpus, random.u32(..))?,
                session: None,
                dies: Instant::now() + delay,
            });
            started += 1;
        }
        thread::sleep(Duration::from_micros(random.u64(0..2000)));
        let chosen = random.usize(0..alive.len());
        if args.sample && random.bool() {
            alive[chosen].sample(&mut random, &mut tally)?;
        } else {
            alive[chosen].disturb(&mut random, &mut tally)?;
        }
        let now = Instant::now();
        while let Some(next) = alive.iter().position(|one| one.dies <= now) {
            alive.swap_remove(next).kill(&mut tally)?;
        }
    }
    writeln!(
        io::stdout(),
        "wss-storm vms {} switched {} read {} late {} sampled {} samples {}",
        args.vms,
        tally.switched,
        tally.read,
        tally.late,
        tally.sampled,
        tally.samples
    )?;
    Ok(())
}

impl Storming {
    /// Its tracking, once there is a VM.
    fn tracking(&self) -> Result<Option<Tracking>> {
        let fd = self.victim.fd()?;
        Ok(fd.map(|fd| Tracking::of(self.victim.pid as u32, fd)))
    }

    fn disturb(&self, random: &mut fastrand::Rng, tally: &mut Tally) -> Result<()> {
        let Some(tracking) = self.tracking()? else {
            return Ok(());
        };
        let file = ["estimate", "history", "pages", "active"][random.usize(0..4)];
        match random.u32(0..6) {
            0..3 => tracking.set("active", random.u64(0..=1))?,
            3 => {
                tracking.set("period_ms", random.u64(10..=30))?;
                tracking.set("intervals", random.u64(1..=10))?;
                return Ok(());
            }
            _ => {
                tracking
                    .read(file)
                    .with_context(|| format!("reading wss/{file}"))?;
                tally.read += 1;
                return Ok(());
            }
        }
        tally.switched += 1;
        Ok(())
    }

    fn sample(&mut self, random: &mut fastrand::Rng, tally: &mut Tally) -> Result<()> {
        let Some(fd) = self.victim.fd()? else {
            return Ok(());
        };
        let config = Config {
            strategy: random.u32(SWEEP..=RANDOM),
            access: random.u32(1..8),
            rate: random.u32(0..5000),
            ring_records: 64 << random.u32(0..4),
            ..Config::of(self.victim.pid as u32, fd)
        };
        let Some(mut session) = self.session.take() else {
            self.session = Some(Session::start(config).context("starting a session")?);
            tally.sampled += 1;
            return Ok(());
        };
        match random.u32(0..4) {
            0 => return session.stop().context("stopping a session"),
            1 => session.change(config).context("changing a session")?,
            2 => drop(session.stats().context("the counters of a session")?),
            _ => tally.samples += session.read(64)?.len() as u64,
        }
        self.session = Some(session);
        Ok(())
    }

    fn kill(self, tally: &mut Tally) -> Result<()> {
        // Opened while it lives, read when it is dead.
        let open = match self.tracking()? {
            Some(tracking) => ["estimate", "history", "pages"]
                .into_iter()
                .map(|name| tracking.open(name))
                .collect::<io::Result<Vec<File>>>()
                .context("opening a file of a VM that lives")?,
            None => Vec::new(),
        };
        self.victim.kill()?;
        if let Some(mut session) = self.session {
            tally.samples += session.read(64)?.len() as u64;
            tally.late += 1;
        }
        for mut file in open {
            // An error or an end are both right: the file is gone from debugfs.
            let _ = file.read_to_end(&mut Vec::new());
            tally.late += 1;
        }
        Ok(())
    }
}
