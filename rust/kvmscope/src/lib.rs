// SPDX-License-Identifier: GPL-2.0

//! kvmscope: why KVM's guests exit, and what each exit costs.
//!
//! From the kernel to the reader:
//!
//! - `kernel` reads files that `format` parses into a `snapshot` of `table`s;
//! - `interval` subtracts a snapshot from the next;
//! - `view` filters, adds up and sorts what happened in an interval;
//! - `columns` with `text` and `screen`, `records` and `metrics` show it.
//!
//! `wss`, `heatmap`, `sample` and `tier` are about memory rather than exits, and have
//! directories of their own. `inputs` is for who tests what becomes of foreign bytes.

mod cli;
mod columns;
mod dump;
mod filter;
pub mod format;
mod heatmap;
mod histogram;
mod http;
pub mod inputs;
mod interval;
mod kernel;
mod latency;
mod metrics;
mod output;
mod record;
mod recording;
mod records;
mod report;
mod sample;
mod screen;
mod shell;
mod signals;
mod snapshot;
mod stat;
pub mod table;
#[cfg(test)]
mod tests;
mod text;
mod tier;
mod view;
pub mod wss;

use std::io::{stderr, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Error, Result};
use clap::Parser;

use cli::{Cli, Command, State, Switch};
use kernel::Kernel;
use signals::Interrupted;

fn run(cli: &Cli) -> Result<()> {
    let kernel = Kernel::new(&cli.root);
    match &cli.command {
        Command::Dump(args) => dump::run(&kernel, args),
        Command::Stat(args) => stat::run(&kernel, args),
        Command::Reset => kernel.write_knob("reset", "1"),
        Command::Exits(args) => switch(&kernel, "exits", args),
        Command::Latency(args) => switch(&kernel, "latency", args),
        Command::Record(args) => record::run(&kernel, args),
        Command::Report(args) => report::run(args),
        Command::Wss(args) => wss::run(&kernel, args),
        Command::Heatmap(args) => heatmap::run(&kernel, args),
        Command::Sample(args) => sample::run(&kernel, args),
        Command::Tier(args) => tier::run(&kernel, args),
        Command::Completions { shell } => shell::completions(*shell),
        Command::Man { directory } => shell::man(directory),
    }
}

fn switch(kernel: &Kernel, knob: &str, args: &Switch) -> Result<()> {
    match args.state {
        Some(State::On) => kernel.write_knob(knob, "1"),
        Some(State::Off) => kernel.write_knob(knob, "0"),
        None => {
            kernel.snapshot()?;
            let state = if kernel.knob(knob)? { "on" } else { "off" };
            output::print(format!("{state}\n").as_bytes())
        }
    }
}

/// The command: all that the program does.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

/// The status, as a shell would give it had the signal ended us.
fn failure(error: &Error) -> ExitCode {
    const SIGPIPE: u8 = 13;
    if let Some(Interrupted(signal)) = error.downcast_ref() {
        return ExitCode::from(128 + *signal as u8);
    }
    // Nobody reads on, as in `kvmscope dump | head`: nothing to complain of.
    if is_broken_pipe(error) {
        return ExitCode::from(128 + SIGPIPE);
    }
    say(&format!("{error:#}"));
    ExitCode::FAILURE
}

/// Tells the user, in one line whatever it is made of. Not eprintln!, which panics
/// where standard error is full.
pub fn say(text: &str) {
    let line = format!("kvmscope: {}\n", text.replace('\n', " "));
    let _ = stderr().write_all(line.as_bytes());
}

fn is_broken_pipe(error: &Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let csv = error.downcast_ref::<csv::Error>().map(csv::Error::kind);
    let csv = csv.and_then(|kind| match kind {
        csv::ErrorKind::Io(error) => Some(error),
        _ => None,
    });
    io.or(csv)
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
