// SPDX-License-Identifier: GPL-2.0

//! A file of snapshots, as `kvmscope record` writes it.
//!
//! It is text: a line of JSON that says what it is and where it was made, then
//! one for each snapshot. What is written is complete up to its last whole line,
//! so a recording that was cut short can be read as far as it goes.

use std::io::{BufRead, Write};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

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

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
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
        #[derive(Deserialize)]
        struct Version {
            kvmscope_recording: u32,
        }
        let mut first = Vec::new();
        input.read_until(b'\n', &mut first)?;
        let Ok(version) = serde_json::from_slice::<Version>(&first) else {
            bail!("it is not a recording of kvmscope's");
        };
        if version.kvmscope_recording != VERSION {
            bail!(
                "its format is version {}, and this kvmscope reads version {VERSION}",
                version.kvmscope_recording
            );
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
