// SPDX-License-Identifier: GPL-2.0

//! Where a command's intervals go: a table, JSON or CSV, to a file or standard output.
//! And how files are opened.

use std::fs::{File, OpenOptions};
use std::io::{stdin, stdout, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

use anyhow::{anyhow, ensure, Context, Result};

use crate::cli::Look;
use crate::interval::Interval;
use crate::recording::is_recording;
use crate::records::{write_json, Csv};
use crate::text::text;
use crate::view::view;

pub enum Output {
    /// How many tables were printed.
    Text(usize),
    Json,
    Csv(Box<Csv<Box<dyn Write>>>),
}

impl Output {
    pub fn new(json: bool, csv: Option<&Path>) -> Result<Output> {
        Ok(match csv {
            Some(path) => Output::Csv(Box::new(Csv::new(create(path)?)?)),
            None if json => Output::Json,
            None => Output::Text(0),
        })
    }

    pub fn write(&mut self, interval: &Interval, look: &Look) -> Result<()> {
        let view = view(interval, interval, look.by, look.sort, &look.filter());
        match self {
            Output::Text(tables) => {
                let mut out = String::new();
                if *tables != 0 {
                    out.push('\n');
                }
                *tables += 1;
                out.push_str(&text(&view));
                print(out.as_bytes())?;
            }
            Output::Json => {
                let mut out = Vec::new();
                write_json(&mut out, interval, &view)?;
                print(&out)?;
            }
            Output::Csv(csv) => csv.write(interval, &view).context("cannot write CSV")?,
        }
        Ok(())
    }
}

/// Creates the file, `-` being standard output. What was there is lost.
pub fn create(path: &Path) -> Result<Box<dyn Write>> {
    check_no_recording(path)?;
    make(path)
}

/// A recording is too dear to be overwritten: it may be the one that is read.
pub fn check_no_recording(path: &Path) -> Result<()> {
    ensure!(
        !is_recording(path),
        "{} is a recording, and would be overwritten: name another file",
        path.display()
    );
    Ok(())
}

fn make(path: &Path) -> Result<Box<dyn Write>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(stdout()));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(file))
}

/// The same for a recording, which replaces none that exists unless told to.
pub fn create_new(path: &Path, replace: bool) -> Result<Box<dyn Write>> {
    if !replace && path.as_os_str() != "-" {
        // So that two recordings do not race for one file either.
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow!("{} exists: --force replaces it", path.display()),
            _ => anyhow!(error).context(format!("cannot write {}", path.display())),
        })?;
    }
    make(path)
}

/// Whether the file is standard output, which then is nothing else's.
pub fn is_stdout(path: Option<&Path>) -> bool {
    path.is_some_and(|path| path.as_os_str() == "-")
}

/// Writes to standard output, now.
pub fn print(text: &[u8]) -> Result<()> {
    let mut out = stdout();
    out.write_all(text)
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// Opens the file, `-` being standard input.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}
