// SPDX-License-Identifier: GPL-2.0

//! What all recordings have in common: they are text, a line of JSON that says what
//! they are and where they were made, then lines of JSON with what was recorded.
//! What is written is complete up to its last whole line, so a recording that was
//! cut short can be read as far as it goes.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use crate::say;

/// A kind of recording.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    /// The first line's first word, which has the version.
    key: &'static str,
    /// Raised when a field changes its meaning.
    version: u64,
    /// What they are recordings of.
    what: &'static str,
    /// One of the things recorded, which may have several lines.
    unit: &'static str,
    /// Which command reads it.
    reader: &'static str,
    /// For who finds the file.
    about: &'static str,
    /// No line of ours is nearly as long.
    line_max: u64,
}

/// Snapshots of all counters, by `kvmscope record`.
pub const EXITS: Format = Format {
    key: "kvmscope_recording",
    version: 1,
    what: "exits",
    unit: "a snapshot",
    reader: "kvmscope report",
    about: "Exits of KVM's guests: a line for each snapshot follows, all counts are totals. \
            Read it with: kvmscope report FILE",
    line_max: 1 << 30,
};

/// Periods and their pages, by `kvmscope wss --record`.
pub const WORKING_SETS: Format = Format {
    key: "kvmscope_wss",
    version: 1,
    what: "working sets",
    unit: "a period",
    reader: "kvmscope wss --from",
    about: "Working sets of KVM's guests: a line for each period of each VM follows, then lines \
            with its pages. Read it with: kvmscope wss --from FILE, or kvmscope heatmap --from \
            FILE",
    line_max: 1 << 20,
};

/// Accesses of a guest's, by `kvmscope sample --record`.
pub const SAMPLES: Format = Format {
    key: "kvmscope_sample",
    version: 1,
    what: "samples",
    unit: "a sample",
    reader: "kvmscope sample --from",
    about: "Accesses of a KVM guest to its memory, sampled: a line for the session follows, \
            one for each sample, and one for what was counted. Read it with: kvmscope sample \
            --from FILE, or kvmscope heatmap --from FILE",
    line_max: 1 << 24,
};

const FORMATS: [&Format; 3] = [&EXITS, &WORKING_SETS, &SAMPLES];

/// Whether the file begins as one of them does. Other than a regular file is none.
pub fn is_recording(path: &Path) -> bool {
    const LONGEST: u64 = 64;
    let read = || -> io::Result<Vec<u8>> {
        let mut first = Vec::new();
        if fs::metadata(path)?.is_file() {
            File::open(path)?.take(LONGEST).read_to_end(&mut first)?;
        }
        Ok(first)
    };
    let first = read().unwrap_or_default();
    FORMATS
        .iter()
        .any(|format| first.starts_with(format!("{{\"{}\":", format.key).as_bytes()))
}

/// Where a recording was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub host: String,
    pub kernel: String,
}

impl Head {
    /// Of this machine, wherever the tables are read from.
    pub fn here() -> Head {
        let uname = |what: &str| {
            let path = format!("/proc/sys/kernel/{what}");
            fs::read_to_string(path).map_or("?".to_string(), |text| text.trim_end().to_string())
        };
        Head {
            host: uname("hostname"),
            kernel: uname("osrelease"),
        }
    }
}

pub struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    pub fn new(out: W, format: &Format, head: &Head) -> Result<Writer<W>> {
        let mut writer = Writer(out);
        // The key comes first: by it a file is known.
        let rest = json!({ "about": format.about, "host": head.host, "kernel": head.kernel });
        let rest = rest.to_string();
        let first = format!("{{\"{}\":{},{}\n", format.key, format.version, &rest[1..]);
        writer.put(first.as_bytes())?;
        Ok(writer)
    }

    /// A line, which is complete once this returns.
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        self.write_all([value])
    }

    /// A line for each, at once.
    pub fn write_all(&mut self, values: impl IntoIterator<Item = impl Serialize>) -> Result<()> {
        let mut lines = Vec::new();
        for value in values {
            serde_json::to_writer(&mut lines, &value)?;
            lines.push(b'\n');
        }
        self.put(&lines)
    }

    fn put(&mut self, lines: &[u8]) -> Result<()> {
        self.0.write_all(lines)?;
        self.0.flush()?;
        Ok(())
    }
}

pub struct Reader<R: BufRead> {
    input: R,
    format: &'static Format,
    pub head: Head,
    /// The number of the line that was read last.
    pub line: usize,
}

impl<R: BufRead> Reader<R> {
    /// Of a file that must be of this kind.
    pub fn new(input: R, format: &'static Format) -> Result<Reader<R>> {
        let reader = Reader::of_any(input, &[format])?;
        Ok(reader)
    }

    /// Of a file that must be of one of these.
    pub fn of_any(mut input: R, wanted: &[&'static Format]) -> Result<Reader<R>> {
        const HEAD_MAX: u64 = 1 << 16;
        let mut first = Vec::new();
        let mut bounded = input.by_ref().take(HEAD_MAX);
        bounded.read_until(b'\n', &mut first)?;
        let head: Map<String, Value> = serde_json::from_slice(&first).unwrap_or_default();
        let version = |format: &Format| head.get(format.key)?.as_u64();
        for format in wanted.iter().copied() {
            match version(format) {
                None => continue,
                Some(its) if its != format.version => bail!(
                    "its format is version {its}, and this kvmscope reads version {}",
                    format.version
                ),
                Some(_) => {
                    let head = serde_json::from_slice(&first).context("line 1")?;
                    return Ok(Reader {
                        input,
                        format,
                        head,
                        line: 1,
                    });
                }
            }
        }
        if let Some(other) = FORMATS.iter().find(|format| version(format).is_some()) {
            bail!(
                "it is a recording of {}: {} reads it",
                other.what,
                other.reader
            );
        }
        let what: Vec<&str> = wanted.iter().map(|format| format.what).collect();
        bail!("it is not a recording of {}", what.join(" or "))
    }

    pub fn format(&self) -> &'static Format {
        self.format
    }

    /// None at the end.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.read_line(false)
    }

    /// What belongs to a line that was read: that the file ends before it is too
    /// early.
    pub fn read_more<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.read_line(true)
    }

    fn read_line<T: DeserializeOwned>(&mut self, must_follow: bool) -> Result<Option<T>> {
        let mut line = Vec::new();
        let max = self.format.line_max;
        let mut bounded = self.input.by_ref().take(max);
        bounded.read_until(b'\n', &mut line)?;
        self.line += 1;
        if line.last() != Some(&b'\n') {
            ensure!(
                (line.len() as u64) < max,
                "line {} is longer than any that kvmscope writes",
                self.line
            );
            if must_follow || !line.is_empty() {
                let unit = self.format.unit;
                say(&format!(
                    "the recording was cut short: it ends within {unit}"
                ));
            }
            return Ok(None);
        }
        let value = serde_json::from_slice(&line);
        value.with_context(|| format!("line {}", self.line))
    }
}
