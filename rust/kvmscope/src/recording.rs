// SPDX-License-Identifier: GPL-2.0

//! A file of snapshots, as `kvmscope record` writes it.
//!
//! It is text: a line of JSON that says what it is and where it was made, then
//! one for each snapshot. What is written is complete up to its last whole line,
//! so a recording that was cut short can be read as far as it goes.

use std::fs;
use std::io::{BufRead, Write};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::say;
use crate::snapshot::Snapshot;

const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    kvmscope_recording: u32,
    /// For who finds the file.
    about: String,
    pub host: String,
    pub kernel: String,
}

pub struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    pub fn new(mut out: W, host: String, kernel: String) -> Result<Writer<W>> {
        let head = Head {
            kvmscope_recording: VERSION,
            about: "Exits of KVM's guests: a line for each snapshot follows, all counts are \
                    totals. Read it with: kvmscope report FILE"
                .to_string(),
            host,
            kernel,
        };
        write_line(&mut out, &head)?;
        Ok(Writer(out))
    }

    pub fn write(&mut self, snapshot: &Snapshot) -> Result<()> {
        write_line(&mut self.0, snapshot)
    }
}

/// Of this machine, wherever the tables are read from.
pub fn uname(what: &str) -> String {
    let path = format!("/proc/sys/kernel/{what}");
    fs::read_to_string(path).map_or("?".to_string(), |text| text.trim_end().to_string())
}

/// Of the format that the first line of a recording names.
pub fn version(first: &[u8], format: &str) -> Option<u64> {
    let head: Map<String, Value> = serde_json::from_slice(first).ok()?;
    head.get(format)?.as_u64()
}

/// Complete once it returns.
pub fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

pub struct Reader<R: BufRead> {
    input: R,
    pub head: Head,
    line: usize,
}

impl<R: BufRead> Reader<R> {
    pub fn new(mut input: R) -> Result<Reader<R>> {
        let mut first = Vec::new();
        input.read_until(b'\n', &mut first)?;
        match version(&first, "kvmscope_recording") {
            Some(is) if is == u64::from(VERSION) => {}
            Some(is) => {
                bail!("its format is version {is}, and this kvmscope reads version {VERSION}")
            }
            None if version(&first, "kvmscope_wss").is_some() => {
                bail!("it is a recording of working sets: kvmscope wss --from reads it")
            }
            None => bail!("it is not a recording of kvmscope's"),
        }
        Ok(Reader {
            input,
            head: serde_json::from_slice(&first).context("line 1")?,
            line: 1,
        })
    }

    /// None at the end.
    pub fn read(&mut self) -> Result<Option<Snapshot>> {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line)?;
        self.line += 1;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            say("the recording was cut short: it ends within a snapshot");
            return Ok(None);
        }
        let snapshot = serde_json::from_slice(&line);
        snapshot.with_context(|| format!("line {}", self.line))
    }
}
