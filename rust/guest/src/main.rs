// SPDX-License-Identifier: GPL-2.0

//! Small VMMs whose guests do something known, to hold kvmscope's numbers
//! against. One subcommand per behaviour; what a guest did is printed as words
//! and numbers on one line, for scripts to read.

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod bpf;
mod code;
mod compare;
mod cost;
mod dirty;
mod exits;
mod faults;
mod fuzz;
mod idle;
mod leaves;
mod logs;
mod machine;
mod page_cost;
mod pages;
mod paging;
mod race;
mod refused;
mod remains;
mod sample;
mod sample_calls;
mod sample_fuzz;
mod sampling;
mod scheduling;
mod scribble;
mod skewed;
mod sleep;
mod slowdown;
mod storm;
mod tracking;
mod truth;
mod victim;
mod vm;
mod work;
mod wss;
mod wss_full;
mod wss_probes;
mod wss_slots;
mod wss_storm;
mod wss_study;
mod wss_unmapped;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Run guests that do something known")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Exits(exits::Args),
    Faults(faults::Args),
    Fuzz(fuzz::Args),
    Storm(storm::Args),
    Race(race::Args),
    Refused(refused::Args),
    Remains(remains::Args),
    CpuidCost(cost::Args),
    Work(work::Args),
    Dirty(dirty::Args),
    Skewed(skewed::Args),
    PageCost(page_cost::Args),
    Slowdown(slowdown::Args),
    Wss(wss::Args),
    WssFull(wss_full::Args),
    WssProbes(wss_probes::Args),
    WssSlots(wss_slots::Args),
    WssStorm(wss_storm::Args),
    WssStudy(wss_study::Args),
    WssUnmapped(wss_unmapped::Args),
    Sample(sample::Args),
    SampleCalls(sample_calls::Args),
    SampleFuzz(sample_fuzz::Args),
    Leaves(leaves::Args),
    Sleep(sleep::Args),
    Scribble(scribble::Args),
    Compare(compare::Args),
    BpfCount(bpf::Args),
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Exits(args) => exits::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::Race(args) => race::run(&args),
        Command::Refused(args) => refused::run(&args),
        Command::Remains(args) => remains::run(&args),
        Command::CpuidCost(args) => cost::run(&args),
        Command::Work(args) => work::run(&args),
        Command::Dirty(args) => dirty::run(&args),
        Command::Skewed(args) => skewed::run(&args),
        Command::PageCost(args) => page_cost::run(&args),
        Command::Slowdown(args) => slowdown::run(&args),
        Command::Wss(args) => wss::run(&args),
        Command::WssFull(args) => wss_full::run(&args),
        Command::WssProbes(args) => wss_probes::run(&args),
        Command::WssSlots(args) => wss_slots::run(&args),
        Command::WssStorm(args) => wss_storm::run(&args),
        Command::WssStudy(args) => wss_study::run(&args),
        Command::WssUnmapped(args) => wss_unmapped::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::SampleCalls(args) => sample_calls::run(&args),
        Command::SampleFuzz(args) => sample_fuzz::run(&args),
        Command::Leaves(args) => leaves::run(&args),
        Command::Sleep(args) => sleep::run(&args),
        Command::Scribble(args) => scribble::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::BpfCount(args) => bpf::run(&args),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
