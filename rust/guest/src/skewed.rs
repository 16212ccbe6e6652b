// SPDX-License-Identifier: GPL-2.0

//! A guest most of whose accesses are to a small part of its memory, and where that is.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Result};

use crate::machine::{now, Machine, Shape, Space};
use crate::pages::{self, Program, DATA, PAGE};
use crate::paging::Paging;

/// Access a small part of memory most of the time, until killed
///
/// Bursts of random accesses, half of them stores, with a pause after each. One line a
/// second: `skewed time T hot H cold C hot_fast F hot_pages P cold_fast F cold_pages P
/// fast_permille S`: until now H accesses were to the P hot pages and C to the cold
/// ones, and of each F are on the fast node now; so S of a thousand accesses are to it.
#[derive(clap::Args)]
pub struct Args {
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory: u64,
    /// The hot part of it, from its middle on
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    hot: u64,
    /// Of a thousand accesses, those to the hot part
    #[arg(long, value_name = "N", default_value_t = 980, value_parser = clap::value_parser!(u32).range(1..1000))]
    share: u32,
    /// Accesses of a burst
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    burst: u32,
    /// Between two bursts
    #[arg(long, value_name = "MS", default_value_t = 10)]
    pause_ms: u64,
    /// Take all memory from this NUMA node
    #[arg(long, value_name = "NODE")]
    node: Option<u32>,
    /// The node that is called fast
    #[arg(long, value_name = "NODE", default_value_t = 0)]
    fast_node: u32,
    /// Allow huge pages
    #[arg(long)]
    huge: bool,
    /// Be hot elsewhere after so many seconds: in what comes after the hot part
    #[arg(long, value_name = "SECONDS")]
    turn: Option<u64>,
    /// A 64-bit guest, with page tables
    #[arg(long)]
    long: bool,
}

/// Runs the guest until something kills the process.
pub fn run(args: &Args) -> Result<()> {
    let space = Arc::new(Space::new(args.memory << 20, args.huge)?);
    if let Some(node) = args.node {
        space.prefer_node(node)?;
    }
    let hot = (args.hot << 20) / PAGE;
    let data = DATA / PAGE..space.size / PAGE;
    let middle = space.size / 2 / PAGE;
    ensure!(
        middle + 2 * hot <= data.end,
        "memory is to be four times its hot part"
    );
    let shape = Shape {
        paging: args.long.then_some(Paging::Long),
        ..Shape::default()
    };
    let machine = Arc::new(Machine::new(space.clone(), shape)?);
    for gfn in data.clone() {
        space.set(gfn * PAGE, 1)?;
    }
    let vcpu = machine.vcpu(0, Program::Skew)?;
    // What is not hot are two pieces; the larger one, before the middle, is cold.
    let cold = data.start..middle;
    let below = (u64::from(args.share) << 32) / 1000;
    vcpu.set(pages::HOT_BELOW, below as u32)?;
    vcpu.set(pages::COUNT, hot as u32)?;
    vcpu.set(pages::COLD_BASE, (cold.start * PAGE) as u32)?;
    vcpu.set(pages::COLD_COUNT, (cold.end - cold.start) as u32)?;
    vcpu.set(pages::ACCESSES, args.burst)?;
    vcpu.set(pages::SEED, 1)?;

    let start = now();
    let mut told = start;
    loop {
        let seconds = (now() - start) / 1_000_000_000;
        let turned = args.turn.is_some_and(|turn| seconds >= turn);
        let first = if turned { middle + hot } else { middle };
        vcpu.set(pages::BASE, (first * PAGE) as u32)?;
        vcpu.start()?;
        vcpu.wait()?;
        thread::sleep(Duration::from_millis(args.pause_ms));
        if now() - told < 1_000_000_000 {
            continue;
        }
        told = now();
        let fast = |gfns: std::ops::Range<u64>| -> Result<u64> {
            let nodes = space.nodes(gfns)?;
            let fast = nodes.iter().filter(|node| **node == Some(args.fast_node));
            Ok(fast.count() as u64)
        };
        let (hot_fast, cold_fast) = (fast(first..first + hot)?, fast(cold.clone())?);
        let cold_pages = cold.end - cold.start;
        // By the weights that are known, rather than by what was drawn.
        let share = u64::from(args.share);
        let permille = share * hot_fast / hot + (1000 - share) * cold_fast / cold_pages;
        writeln!(
            io::stdout(),
            "skewed time {} hot {} cold {} hot_fast {hot_fast} hot_pages {hot} \
             cold_fast {cold_fast} cold_pages {cold_pages} fast_permille {permille}",
            (told - start) / 1_000_000_000,
            vcpu.get(pages::HOT_DONE)?,
            vcpu.get(pages::COLD_DONE)?,
        )?;
    }
}
