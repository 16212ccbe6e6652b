// SPDX-License-Identifier: GPL-2.0

//! Makes tables and a plot of what qemu-test/study has measured in L1: reads its
//! lines (`lines`), computes what they say (`results`), holds that against what
//! must be so (`checks`), and shows it (`text`, `plot`).

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod checks;
mod lines;
mod plot;
mod results;
#[cfg(test)]
mod tests;
mod text;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use lines::Lines;
use results::Results;

/// Make tables and a plot of what study-l1 printed, given on standard input
///
/// Prints the tables, and writes DIR/study.{txt,json,svg,png}. Fails when
/// something is missing or cannot be; what is merely implausible is written first.
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
}

fn run(args: &Args) -> Result<()> {
    let said = io::read_to_string(io::stdin()).context("standard input")?;
    let results = Results::new(&args.engine, &args.kernel, &Lines::parse(&said)?)?;
    let text = text::tables(&results);
    io::stdout().write_all(text.as_bytes())?;

    let path = |name: &str| args.out.join(name);
    write(&path("study.txt"), text.as_bytes())?;
    let mut json = serde_json::to_vec_pretty(&results)?;
    json.push(b'\n');
    write(&path("study.json"), &json)?;
    plot::svg(&results, &path("study.svg"))?;
    plot::png(&results, &path("study.png"))?;
    checks::all(&results, args.tolerance)
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
