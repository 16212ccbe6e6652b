// SPDX-License-Identifier: GPL-2.0

//! Pages that are unmapped to see what they are used for and then not used any more:
//! others must get their place.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{ensure, Result};

use crate::machine::{Machine, Runner, Shape, Space};
use crate::pages::{Program, Touch, PAGE};
use crate::paging::{Paging, Tables};
use crate::tracking::{Tracking, CHUNK};

/// Have the kernel wait in vain for an access to pages that look like page tables
///
/// In one period the guest writes to pages of data that look like page tables, and never
/// again; the kernel unmaps each, to tell it by the next access. From the next period on
/// the guest walks page tables of which half are to be told at the same place as one of
/// those, which is taken. Prints `wss_probes free F taken T`: in so many periods all
/// tables of either half were known. Fails when one is not for 20 periods.
#[derive(clap::Args)]
pub struct Args {
    /// Length of a period
    #[arg(long, value_name = "T", default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..))]
    period_ms: u64,
}

const MEMORY: u64 = 64 << 20;
/// The first page of the data that looks like page tables.
const DECOYS: u64 = 8 * CHUNK;
/// What the tables map whose place is free, and taken: regions of 2 MiB.
const FREE: std::ops::Range<u64> = 10..16;
const TAKEN: std::ops::Range<u64> = 16..22;
/// An entry that the CPU has walked by, to any memory.
const WALKED: u64 = (DECOYS * PAGE) | 0x23;

/// Runs the guest.
pub fn run(args: &Args) -> Result<()> {
    for _ in 0..10 {
        if let Some((free, taken)) = trial(args)? {
            writeln!(io::stdout(), "wss_probes free {free} taken {taken}")?;
            return Ok(());
        }
    }
    anyhow::bail!("no pass falls within a period: make it longer")
}

/// In how many periods the tables are known; None if a pass was not within its period.
fn trial(args: &Args) -> Result<Option<(u64, u64)>> {
    const PERIODS: u64 = 20;
    let space = Arc::new(Space::new(MEMORY, false)?);
    let shape = Shape {
        paging: Some(Paging::Long),
        ..Shape::default()
    };
    let machine = Arc::new(Machine::new(space.clone(), shape)?);
    let tables = machine.tables().expect("it has page tables");
    // A place is that of all pages with the same number modulo 512.
    let decoys = TAKEN.map(|region| DECOYS + leaf(tables, region) % CHUNK);
    let decoys: Vec<_> = decoys.map(|gfn| (gfn, Touch::Write)).collect();
    for &(gfn, _) in &decoys {
        space.write(gfn * PAGE + 8, &WALKED.to_le_bytes())?;
    }
    let mut vcpu = machine.vcpu(0, Program::Sweep)?;
    let tracking = Tracking::here(machine.fd.as_raw_fd())?;
    tracking.set("period_ms", args.period_ms)?;
    // Once is then all the time.
    tracking.set("intervals", 1)?;
    ensure!(tracking.start()?, "working sets cannot be tracked here");

    let before = tracking.begun()?;
    pass(&mut vcpu, &decoys)?;
    let first = tracking.ended(before)?.get("period")?;
    if first != before + 1 || !written(&tracking, first, &decoys)? {
        return Ok(None);
    }
    let list: Vec<_> = (FREE.start..TAKEN.end)
        .map(|region| (region * CHUNK, Touch::Read))
        .collect();
    let (mut free, mut taken) = (0, 0);
    for number in 1..=PERIODS {
        pass(&mut vcpu, &list)?;
        if tracking.ended(first + number - 1)?.get("period")? != first + number {
            return Ok(None);
        }
        for (regions, known) in [(FREE, &mut free), (TAKEN, &mut taken)] {
            let mut leaves = regions.map(|region| leaf(tables, region));
            if *known == 0 && all_known(&tracking, &mut leaves)? {
                *known = number;
            }
        }
        if free != 0 && taken != 0 {
            return Ok(Some((free, taken)));
        }
    }
    anyhow::bail!("page tables are not known after {PERIODS} periods: free {free} taken {taken}")
}

/// The table that maps a region of 2 MiB.
fn leaf(tables: Tables, region: u64) -> u64 {
    let walk = tables.walk(region * CHUNK);
    walk.last().copied().expect("a walk has tables")
}

fn pass(vcpu: &mut Runner, list: &[(u64, Touch)]) -> Result<()> {
    vcpu.list(list)?;
    vcpu.order()?;
    vcpu.finish()
}

/// Whether all of them were written to in the last period, and that is its number.
fn written(tracking: &Tracking, period: u64, list: &[(u64, Touch)]) -> Result<bool> {
    let pages = tracking.pages()?;
    let pages = pages.filter(|pages| pages.period == period);
    Ok(pages.is_some_and(|pages| list.iter().all(|&(gfn, _)| pages.count(gfn) == 1)))
}

/// Whether all of them were known for page tables in the last period.
fn all_known(tracking: &Tracking, tables: &mut impl Iterator<Item = u64>) -> Result<bool> {
    let pages = tracking.pages()?;
    Ok(pages.is_some_and(|pages| tables.all(|gfn| pages.table(gfn))))
}
