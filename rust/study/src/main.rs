// SPDX-License-Identifier: GPL-2.0

//! Makes tables and a plot of what qemu-test/study has measured in L1: reads its
//! lines (`lines`), computes what they say (`results`), holds that against what
//! must be so (`checks`), and shows it (`text`, `plot`). The study of working sets
//! (qemu-test/study-wss) has the same parts in files that begin with `wss`.

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod checks;
mod lines;
mod plot;
mod results;
#[cfg(test)]
mod tests;
mod text;
mod wss;
mod wss_plot;
#[cfg(test)]
mod wss_tests;
mod wss_text;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

use lines::Lines;
use results::Results;
use wss::Study;

/// Make tables and a plot of what study-l1 printed, given on standard input
///
/// Prints the tables, and writes DIR/study.{txt,json,svg,png}, or wss-study with
/// the same endings. Fails when is missing or cannot be; what is merely implausible is written first.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to write the files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What ran L1
    #[arg(long)]
    engine: String,
    /// Which kernel L1 was
    #[arg(long)]
    kernel: String,
    /// Fail if more exits of the two boots differ, reason by reason
    #[arg(long, value_name = "PERCENT")]
    tolerance: Option<f64>,
    /// It was study-wss-l1 that printed
    #[arg(long, conflicts_with = "tolerance")]
    wss: bool,
}

fn run(args: &Args) -> Result<()> {
    let said = io::read_to_string(io::stdin()).context("standard input")?;
    if args.wss {
        working_sets(args, &said)
    } else {
        exits(args, &said)
    }
}

fn working_sets(args: &Args, said: &str) -> Result<()> {
    let study = Study::parse(&args.engine, &args.kernel, said)?;
    let text = wss_text::table(&study);
    io::stdout().write_all(text.as_bytes())?;
    let path = |name: &str| args.out.join(name);
    write(&path("wss-study.txt"), text.as_bytes())?;
    write_json(&path("wss-study.json"), &study)?;
    wss_plot::svg(&study, &path("wss-study.svg"))?;
    wss_plot::png(&study, &path("wss-study.png"))?;
    study.check()
}

fn exits(args: &Args, said: &str) -> Result<()> {
    let results = Results::new(&args.engine, &args.kernel, &Lines::parse(said)?)?;
    let text = text::tables(&results);
    io::stdout().write_all(text.as_bytes())?;

    let path = |name: &str| args.out.join(name);
    write(&path("study.txt"), text.as_bytes())?;
    write_json(&path("study.json"), &results)?;
    plot::svg(&results, &path("study.svg"))?;
    plot::png(&results, &path("study.png"))?;
    checks::all(&results, args.tolerance)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    write(path, &json)
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("study: {error:#}");
            ExitCode::FAILURE
        }
    }
}
