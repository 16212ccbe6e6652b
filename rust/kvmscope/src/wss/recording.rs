// SPDX-License-Identifier: GPL-2.0

//! A file of periods, as `kvmscope wss --record` writes it.
//!
//! A line for each period of each VM, and after each as many lines with its pages as
//! it says (see `runs`).

use std::io::{BufRead, Write};

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::recording::{self, Head, WORKING_SETS};
use crate::snapshot::{About, VmId};
use crate::wss::estimate::Estimate;
use crate::wss::pages::Pages;
use crate::wss::period::Period;
use crate::wss::runs::{decode, encode};

/// As many runs as a period may have that is read: 1 GiB of them.
const RUNS_MAX: usize = 1 << 26;

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

pub struct Writer<W: Write>(recording::Writer<W>);

impl<W: Write> Writer<W> {
    pub fn new(out: W, head: &Head) -> Result<Writer<W>> {
        Ok(Writer(recording::Writer::new(out, &WORKING_SETS, head)?))
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
        self.0.write(&line)?;
        for pages in lines {
            self.0.write(&PagesLine { pages })?;
        }
        Ok(())
    }
}

pub struct Reader<R: BufRead>(recording::Reader<R>);

impl<R: BufRead> Reader<R> {
    pub fn new(input: R) -> Result<Reader<R>> {
        Ok(Reader(recording::Reader::new(input, &WORKING_SETS)?))
    }

    /// Of a file that turned out to be one of working sets.
    pub fn of(lines: recording::Reader<R>) -> Reader<R> {
        Reader(lines)
    }

    pub fn head(&self) -> &Head {
        &self.0.head
    }

    /// None at the end.
    pub fn read(&mut self) -> Result<Option<Period>> {
        let Some(line) = self.0.read::<PeriodLine>()? else {
            return Ok(None);
        };
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
            self.0.line
        );
        let (mut runs, mut at) = (Vec::new(), 0);
        for _ in 0..ahead.lines {
            let Some(PagesLine { pages }) = self.0.read_more()? else {
                return Ok(None);
            };
            at = decode(&pages, at, ahead.intervals, &mut runs)
                .with_context(|| format!("line {}", self.0.line))?;
            ensure!(
                runs.len() <= RUNS_MAX,
                "line {}: more runs of pages than there is room for",
                self.0.line
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
}
