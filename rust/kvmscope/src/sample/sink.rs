// SPDX-License-Identifier: GPL-2.0

//! Where samples go: to a reader as they come, to a recording, and into the heat of
//! regions, which is shown at the end if asked for.

use std::io::Write;

use anyhow::{ensure, Context, Result};

use crate::cli::Sample as Args;
use crate::columns::harmless;
use crate::output::{create, create_new, is_stdout, print};
use crate::recording::{Head, Writer, SAMPLES};
use crate::sample::columns::{region_lines, regions, samples, slots, Order};
use crate::sample::heat::HeatMap;
use crate::sample::recording::{Begin, End, Line};
use crate::sample::sample::{Counts, Sample};
use crate::sample::wanted::Wanted;
use crate::say;
use crate::text::{more, table};

pub struct Sink<'a> {
    args: &'a Args,
    begin: Begin,
    out: Out,
    recording: Option<Writer<Box<dyn Write>>>,
    pub wanted: Wanted,
    pub heat: HeatMap,
    /// How its regions are shown at the end.
    pub order: Order,
    /// How many were wanted.
    shown: u64,
}

enum Out {
    /// The recording's.
    Taken,
    /// A screen's, or the table at the end.
    None,
    /// As wide as the columns have been.
    Text(Vec<usize>),
    Json(Writer<Box<dyn Write>>),
}

impl<'a> Sink<'a> {
    /// On a screen, all lines are the screen's. What is read from a file is
    /// introduced by its head.
    pub fn new(args: &'a Args, begin: Begin, head: Option<&Head>, on_screen: bool) -> Result<Self> {
        let here = Head::here();
        let session = Line::Session(Box::new(begin.clone()));
        let open = |out| -> Result<Writer<Box<dyn Write>>> {
            let mut writer = Writer::new(out, &SAMPLES, head.unwrap_or(&here))?;
            writer.write(&session)?;
            Ok(writer)
        };
        let taken = is_stdout(args.record.as_deref());
        ensure!(
            !taken || !(args.json || args.heat),
            "the recording goes to standard output: nothing else can, so give it a file"
        );
        let recording = args.record.as_ref().map(|path| {
            let writer = open(create_new(path, args.force)?);
            writer.context("cannot write the recording")
        });
        let recording = recording.transpose()?;
        let out = if taken {
            Out::Taken
        } else if args.json {
            Out::Json(open(create("-".as_ref())?)?)
        } else if on_screen {
            Out::None
        } else {
            if let Some(Head { host, kernel }) = head {
                let (host, kernel) = (harmless(host), harmless(kernel));
                print(format!("recorded on {host}, Linux {kernel}\n").as_bytes())?;
            }
            let name = harmless(&begin.about.name);
            let title = format!("memory slots of {} ({name})\n", begin.vm);
            print(format!("{title}{}\n", table(&slots(&begin.slots))).as_bytes())?;
            match args.heat {
                true => Out::None,
                false => Out::Text(Vec::new()),
            }
        };
        Ok(Sink {
            args,
            out,
            recording,
            wanted: args.wanted.clone(),
            heat: HeatMap::new(args.half_life, args.region),
            order: args.sort,
            shown: 0,
            begin,
        })
    }

    pub fn begin(&self) -> &Begin {
        &self.begin
    }

    pub fn take(&mut self, taken: &[Sample]) -> Result<()> {
        if let Some(recording) = &mut self.recording {
            let lines = taken.iter().copied().map(Line::Sample);
            let written = recording.write_all(lines);
            written.context("cannot write the recording")?;
        }
        let wanted = taken.iter().filter(|sample| self.wanted.wants(sample));
        let wanted: Vec<Sample> = wanted.copied().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.shown += wanted.len() as u64;
        wanted.iter().for_each(|sample| self.heat.add(sample));
        match &mut self.out {
            Out::Json(writer) if !self.args.heat => {
                writer.write_all(wanted.iter().copied().map(Line::Sample))
            }
            Out::Text(widths) => {
                let columns = samples(&wanted, self.begin.begin_ns);
                print(more(widths, &columns).as_bytes())
            }
            Out::None | Out::Taken | Out::Json(_) => Ok(()),
        }
    }

    /// All were taken. None is known of a recording that was cut short.
    pub fn finish(mut self, end: Option<End>) -> Result<()> {
        let now_ns = end.map_or(self.heat.latest_ns, |end| end.end_ns);
        if let (Some(recording), Some(end)) = (&mut self.recording, end) {
            let written = recording.write(&Line::End(end));
            written.context("cannot write the recording")?;
        }
        let lines = region_lines(&self.heat, now_ns, self.order);
        match &mut self.out {
            Out::Json(writer) => {
                if self.args.heat {
                    writer.write_all(lines.into_iter().map(Line::Region))?;
                }
                if let Some(end) = end {
                    writer.write(&Line::End(end))?;
                }
            }
            // What was on the screen stays to be read.
            Out::None => print(table(&regions(&lines)).as_bytes())?,
            Out::Taken | Out::Text(_) => {}
        }
        if let Some(end) = end {
            say(&self.account(&end.counts));
        }
        Ok(())
    }

    /// To the sample.
    fn account(&self, counts: &Counts) -> String {
        let Counts {
            taken,
            delivered,
            lost,
            filtered,
            waiting,
            ..
        } = *counts;
        let mut text = format!("{taken} samples taken, {delivered} delivered, {lost} lost");
        if waiting != 0 {
            text += &format!(", {waiting} left behind");
        }
        if filtered != 0 {
            text += &format!("; {filtered} accesses were of other kinds");
        }
        if self.shown != delivered {
            text += &format!("; {} were wanted", self.shown);
        }
        text
    }
}
