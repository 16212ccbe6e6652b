// SPDX-License-Identifier: GPL-2.0

//! A file of periods, as `kvmscope wss --record` writes it.
//!
//! It is text: a line of JSON that says what it is and where it was made, then one
//! for each period of each VM, and after each as many lines with its pages as it
//! says (see `runs`). A recording that was cut short can be read as far as it goes.

use std::io::{BufRead, Read, Write};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::recording::{version, write_line};
use crate::say;
use crate::snapshot::{About, VmId};
use crate::wss::estimate::Estimate;
use crate::wss::pages::Pages;
use crate::wss::period::Period;
use crate::wss::runs::{decode, encode};

const VERSION: u32 = 1;
/// No line of ours is nearly as long.
const LINE_MAX: u64 = 1 << 20;
/// As many runs as a period may have that is read: 1 GiB of them.
const RUNS_MAX: usize = 1 << 26;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    kvmscope_wss: u32,
    /// For who finds the file.
    about: String,
    pub host: String,
    pub kernel: String,
}

#[derive(Serialize, Deserialize)]
struct PeriodLine {
    time_ns: u64,
    #[serde(flatten)]
    vm: VmId,
    #[serde(flatten)]
    about: About,
    estimate: Estimate,
    pages: Option<PagesAhead>,
}

/// Announces the lines of pages.
#[derive(Serialize, Deserialize)]
struct PagesAhead {
    lines: usize,
    intervals: u8,
    threshold: u8,
    reads: bool,
}

#[derive(Serialize, Deserialize)]
struct PagesLine {
    pages: String,
}

pub struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    pub fn new(mut out: W, host: String, kernel: String) -> Result<Writer<W>> {
        let head = Head {
            kvmscope_wss: VERSION,
            about: "Working sets of KVM's guests: a line for each period of each VM follows, \
                    then lines with its pages. Read it with: kvmscope wss --from FILE, or \
                    kvmscope heatmap --from FILE"
                .to_string(),
            host,
            kernel,
        };
        write_line(&mut out, &head)?;
        Ok(Writer(out))
    }

    pub fn write(&mut self, period: &Period) -> Result<()> {
        let pages = period.pages.as_ref();
        let lines = pages.map_or(Vec::new(), |pages| encode(&pages.runs));
        let line = PeriodLine {
            time_ns: period.time_ns,
            vm: period.vm,
            about: period.about.clone(),
            estimate: period.estimate,
            pages: pages.map(|pages| PagesAhead {
                lines: lines.len(),
                intervals: pages.intervals,
                threshold: pages.threshold,
                reads: pages.reads,
            }),
        };
        write_line(&mut self.0, &line)?;
        for pages in lines {
            write_line(&mut self.0, &PagesLine { pages })?;
        }
        Ok(())
    }
}

pub struct Reader<R: BufRead> {
    input: R,
    pub head: Head,
    line: usize,
}

impl<R: BufRead> Reader<R> {
    pub fn new(mut input: R) -> Result<Reader<R>> {
        let mut first = Vec::new();
        input
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut first)?;
        match version(&first, "kvmscope_wss") {
            Some(is) if is == u64::from(VERSION) => {}
            Some(is) => {
                bail!("its format is version {is}, and this kvmscope reads version {VERSION}")
            }
            None if version(&first, "kvmscope_recording").is_some() => {
                bail!("it is a recording of exits: kvmscope report reads it")
            }
            None => bail!("it is not a recording of working sets"),
        }
        Ok(Reader {
            input,
            head: serde_json::from_slice(&first).context("line 1")?,
            line: 1,
        })
    }

    /// None at the end.
    pub fn read(&mut self) -> Result<Option<Period>> {
        let Some(line) = self.next_line(false)? else {
            return Ok(None);
        };
        let line: PeriodLine =
            serde_json::from_slice(&line).with_context(|| format!("line {}", self.line))?;
        let pages = match line.pages {
            None => None,
            Some(ahead) => match self.pages(&ahead, &line.estimate)? {
                Some(pages) => Some(pages),
                None => return Ok(None),
            },
        };
        Ok(Some(Period {
            time_ns: line.time_ns,
            vm: line.vm,
            about: line.about,
            estimate: line.estimate,
            pages,
        }))
    }

    /// None when they were cut short.
    fn pages(&mut self, ahead: &PagesAhead, estimate: &Estimate) -> Result<Option<Pages>> {
        ensure!(
            ahead.intervals != 0,
            "line {}: there are no sub-intervals",
            self.line
        );
        let (mut runs, mut at) = (Vec::new(), 0);
        for _ in 0..ahead.lines {
            let Some(line) = self.next_line(true)? else {
                return Ok(None);
            };
            let decoded = serde_json::from_slice(&line)
                .map_err(anyhow::Error::from)
                .and_then(|PagesLine { pages }| decode(&pages, at, ahead.intervals, &mut runs));
            at = decoded.with_context(|| format!("line {}", self.line))?;
            ensure!(
                runs.len() <= RUNS_MAX,
                "line {}: more runs of pages than there is room for",
                self.line
            );
        }
        Ok(Some(Pages {
            period: estimate.period,
            start_ns: estimate.start_ns,
            duration_ns: estimate.duration_ns,
            intervals: ahead.intervals,
            threshold: ahead.threshold,
            reads: ahead.reads,
            runs,
        }))
    }

    /// Without its end. None at the end of the file, which is too early within a
    /// line or where a line must follow.
    fn next_line(&mut self, must_follow: bool) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut input = self.input.by_ref().take(LINE_MAX);
        input.read_until(b'\n', &mut line)?;
        self.line += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(line));
        }
        ensure!(
            (line.len() as u64) < LINE_MAX,
            "line {} is longer than any that kvmscope writes",
            self.line
        );
        if must_follow || !line.is_empty() {
            say("the recording was cut short: it ends within a period");
        }
        Ok(None)
    }
}
