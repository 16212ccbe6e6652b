// SPDX-License-Identifier: GPL-2.0

//! Writing to a knob while guests are exiting.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::code::{Kind, Program, STOP};
use crate::vm::{Memory, Page, Vm, MAX_VCPUS};

/// Write to a knob, such as reset, at random moments while the guest exits
///
/// The guest executes CPUID all the time. Prints `race writes K vcpus V before
/// B after A end E`: how many CPUIDs the guest had counted just before and just
/// after the last write, and at the end. A vCPU counts a CPUID after its exit,
/// so if the last write reset the counters exactly, then between E - A - V and
/// E - B CPUID exits are counted since.
#[derive(clap::Args)]
pub struct Args {
    /// The knob
    #[arg(long, value_name = "FILE")]
    knob: PathBuf,
    /// What is written to it
    #[arg(long, value_name = "WORD", default_value = "1")]
    word: String,
    /// How often
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    writes: u32,
    /// vCPUs, each a thread
    #[arg(long, value_name = "V", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    vcpus: u32,
    /// Two writes are at most so many milliseconds apart
    #[arg(long, value_name = "MS", default_value_t = 10)]
    within: u64,
    /// Seed of the random moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the guest and the writer against each other.
pub fn run(args: &Args) -> Result<()> {
    let memory = Memory::new()?;
    let vm = Vm::new(&memory, false)?;
    let mut vcpus = (0..args.vcpus)
        .map(|index| vm.vcpu(index, Program::Spin))
        .collect::<Result<Vec<_>>>()?;
    let pages: Vec<_> = vcpus.iter().map(|vcpu| vcpu.page.clone()).collect();
    let failed = AtomicBool::new(false);

    thread::scope(|scope| {
        let threads: Vec<_> = vcpus
            .iter_mut()
            .map(|vcpu| {
                let failed = &failed;
                scope.spawn(move || {
                    let result = vcpu.run();
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    result
                })
            })
            .collect();
        let written = write_at_random(args, &pages, &failed);
        for page in &pages {
            page.set(STOP, 1)?;
        }
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|_| bail!("a vCPU's thread panicked"))?;
        }
        let (before, after) = written?;
        writeln!(
            io::stdout(),
            "race writes {} vcpus {} before {before} after {after} end {}",
            args.writes,
            args.vcpus,
            count(&pages)?
        )?;
        Ok(())
    })
}

/// Writes to the knob and returns the guest's count around the last time.
fn write_at_random(args: &Args, pages: &[Page], failed: &AtomicBool) -> Result<(u64, u64)> {
    // Not before every vCPU is running.
    for page in pages {
        while page.get(Kind::Cpuid.done())? == 0 && !failed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut around = (0, 0);
    for _ in 0..args.writes {
        thread::sleep(Duration::from_micros(random.u64(0..=args.within * 1000)));
        let before = count(pages)?;
        // A knob is there already: a wrong name must not become a new file.
        OpenOptions::new()
            .write(true)
            .open(&args.knob)
            .and_then(|mut knob| knob.write_all(args.word.as_bytes()))
            .with_context(|| format!("writing {} to {}", args.word, args.knob.display()))?;
        around = (before, count(pages)?);
    }
    // So that there is something to be counted after the last one.
    thread::sleep(Duration::from_millis(args.within));
    Ok(around)
}

fn count(pages: &[Page]) -> Result<u64> {
    pages
        .iter()
        .map(|page| page.get(Kind::Cpuid.done()).map(u64::from))
        .sum()
}
