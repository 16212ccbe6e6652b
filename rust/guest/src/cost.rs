// SPDX-License-Identifier: GPL-2.0

//! What a CPUID exit costs, as the guest's TSC sees it.

use std::io::{self, Write};

use anyhow::{ensure, Context, Result};

use crate::code::{Kind, Program, TSC_AFTER, TSC_BEFORE};
use crate::vm::{Memory, Vcpu, Vm};

/// Measure the round trip of a CPUID exit in ticks of the TSC
///
/// The guest reads the TSC around a loop of CPUIDs, alternately few and many of
/// them, so that the difference holds nothing but round trips (the loop's own
/// three instructions included). Prints `cpuid_cost min X median X mean X tsc_khz
/// K`, in ticks per exit: `min` from the quickest loops, which no host interrupt
/// fell into, and `mean` from all of them, readings of the TSC included. Under Bochs with one CPU a tick is an
/// instruction.
#[derive(clap::Args)]
pub struct Args {
    /// CPUIDs in the short loop
    #[arg(long, value_name = "N", default_value_t = 10)]
    few: u32,
    /// CPUIDs in the long loop
    #[arg(long, value_name = "N", default_value_t = 110)]
    many: u32,
    /// How often each loop is run
    #[arg(long, value_name = "N", default_value_t = 101, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Print one JSON object instead, with every loop's ticks
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the result.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.few > 0, "--few must be at least 1");
    ensure!(args.many > args.few, "--many must be more than --few");
    let vm = Vm::new(&Memory::new()?, false)?;
    let mut vcpu = vm.vcpu(0, Program::Timed)?;
    // The first run has the page faults.
    ticks(&mut vcpu, args.few)?;

    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..args.repeat {
        few.push(ticks(&mut vcpu, args.few)?);
        many.push(ticks(&mut vcpu, args.many)?);
    }
    let exits = f64::from(args.many - args.few);
    let per_exit = |few: u64, many: u64| (many as f64 - few as f64) / exits;
    let min = per_exit(smallest(&few), smallest(&many));
    let median = per_exit(middle(&few), middle(&many));
    let all: u64 = few.iter().chain(&many).sum();
    let mean = all as f64 / (f64::from(args.repeat) * f64::from(args.few + args.many));
    let khz = vcpu.fd.get_tsc_khz().context("KVM_GET_TSC_KHZ failed")?;

    if args.json {
        writeln!(
            io::stdout(),
            r#"{{"min":{min:.1},"median":{median:.1},"mean":{mean:.1},"tsc_khz":{khz},"few":{},"many":{},"ticks_few":{few:?},"ticks_many":{many:?}}}"#,
            args.few,
            args.many
        )?;
    } else {
        writeln!(
            io::stdout(),
            "cpuid_cost min {min:.1} median {median:.1} mean {mean:.1} tsc_khz {khz}"
        )?;
    }
    Ok(())
}

/// The ticks that a loop of so many CPUIDs took.
fn ticks(vcpu: &mut Vcpu, times: u32) -> Result<u64> {
    vcpu.order(Kind::Cpuid, times)?;
    vcpu.run()?;
    let (before, after) = (
        vcpu.page.get_wide(TSC_BEFORE)?,
        vcpu.page.get_wide(TSC_AFTER)?,
    );
    // They differ between the CPUs of some machines.
    ensure!(
        after > before,
        "the TSC ran backwards: bind this to one CPU"
    );
    Ok(after - before)
}

fn smallest(ticks: &[u64]) -> u64 {
    ticks.iter().copied().min().unwrap_or(0)
}

fn middle(ticks: &[u64]) -> u64 {
    let mut sorted = ticks.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
