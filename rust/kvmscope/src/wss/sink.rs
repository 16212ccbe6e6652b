// SPDX-License-Identifier: GPL-2.0

//! Where periods go: to a reader as they end, to a recording, and into the
//! distribution that is shown at the end.

use std::io::Write;

use anyhow::{ensure, Context, Result};

use crate::cli::Wss;
use crate::columns::harmless;
use crate::output::{create, create_new, is_stdout, print};
use crate::recording::Head;
use crate::text::{more, table};
use crate::wss::columns::{columns, percentile_columns};
use crate::wss::percentiles::Distribution;
use crate::wss::period::Period;
use crate::wss::recording::Writer;
use crate::wss::records::{write_json, write_percentiles_json, Csv};

pub struct Sink {
    lines: Lines,
    recording: Option<Writer<Box<dyn Write>>>,
    pub distribution: Distribution,
    /// What is shown at the end.
    last: Last,
}

enum Lines {
    None,
    /// As wide as the columns have been.
    Text(Vec<usize>),
    Json,
    Csv(Box<Csv<Box<dyn Write>>>),
}

enum Last {
    None,
    Text,
    Json,
}

impl Sink {
    /// On a screen, all lines are the screen's.
    pub fn new(args: &Wss, on_screen: bool) -> Result<Sink> {
        let taken = is_stdout(args.record.as_deref());
        let csv = is_stdout(args.csv.as_deref());
        ensure!(
            !taken || !(args.json || csv || args.percentiles),
            "the recording goes to standard output: nothing else can, so give it a file"
        );
        let lines = match &args.csv {
            Some(path) => Lines::Csv(Box::new(Csv::new(create(path)?)?)),
            None if args.percentiles || on_screen || taken => Lines::None,
            None if args.json => Lines::Json,
            None => Lines::Text(Vec::new()),
        };
        let last = match (args.json, args.percentiles) {
            (true, true) => Last::Json,
            (true, false) => Last::None,
            _ if args.once || args.csv.is_some() || taken => Last::None,
            _ => Last::Text,
        };
        let recording = args.record.as_ref().map(|path| {
            let out = create_new(path, args.force)?;
            Writer::new(out, &Head::here())
        });
        Ok(Sink {
            lines,
            recording: recording.transpose()?,
            distribution: Distribution::default(),
            last,
        })
    }

    /// Where what follows was recorded.
    pub fn introduce(&self, head: &Head) -> Result<()> {
        if !matches!(self.last, Last::Text) {
            return Ok(());
        }
        let (host, kernel) = (harmless(&head.host), harmless(&head.kernel));
        print(format!("recorded on {host}, Linux {kernel}\n\n").as_bytes())
    }

    pub fn take(&mut self, period: &Period) -> Result<()> {
        self.distribution.add(period);
        if let Some(recording) = &mut self.recording {
            recording
                .write(period)
                .context("cannot write the recording")?;
        }
        match &mut self.lines {
            Lines::None => Ok(()),
            Lines::Text(widths) => print(more(widths, &columns(&[period])).as_bytes()),
            Lines::Json => {
                let mut out = Vec::new();
                write_json(&mut out, period)?;
                print(&out)
            }
            Lines::Csv(csv) => csv.write(period).context("cannot write CSV"),
        }
    }

    /// All periods were taken.
    pub fn finish(&self) -> Result<()> {
        if self.distribution.periods() == 0 {
            return Ok(());
        }
        match self.last {
            Last::None => Ok(()),
            Last::Text => {
                let gap = if matches!(self.lines, Lines::Text(_)) {
                    "\n"
                } else {
                    ""
                };
                let table = table(&percentile_columns(&self.distribution.vms));
                print(format!("{gap}{table}").as_bytes())
            }
            Last::Json => {
                let mut out = Vec::new();
                write_percentiles_json(&mut out, &self.distribution)?;
                print(&out)
            }
        }
    }
}
