// SPDX-License-Identifier: GPL-2.0

//! What tiering did, interval by interval: a line of a table, or of JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::Serialize;

use crate::columns::{harmless, Column};
use crate::output::print;
use crate::records::seconds;
use crate::sample::sample::PAGE;
use crate::snapshot::{About, VmId};
use crate::text::more;
use crate::tier::mover::Failures;
use crate::tier::tiering::{Moved, Report};
use crate::wss::columns::mib;

/// Raised when a field changes its meaning; new fields do not raise it.
const VERSION: u32 = 1;

pub struct Records {
    json: bool,
    dry_run: bool,
    vm: VmId,
    about: About,
    /// As wide as the columns have been.
    widths: Vec<usize>,
}

#[derive(Serialize)]
struct Record<'a> {
    kvmscope_tier: u32,
    time: f64,
    vm: String,
    name: &'a str,
    dry_run: bool,
    samples: u64,
    /// Since it began.
    lost: u64,
    rate_now: u64,
    spent_ns: u64,
    fast_pages: u64,
    slow_pages: u64,
    /// Of the heat, the share that is on the fast node; null where nothing is hot.
    fast_heat: Option<f64>,
    to_fast: u64,
    to_slow: u64,
    moved_bytes: u64,
    failed: Failures,
}

impl Records {
    pub fn new(json: bool, dry_run: bool, vm: VmId, about: About) -> Records {
        Records {
            json,
            dry_run,
            vm,
            about,
            widths: Vec::new(),
        }
    }

    pub fn write(&mut self, report: &Report) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now.map_or(0, |time| time.as_nanos() as u64);
        self.write_at(report, now_ns)
    }

    fn write_at(&mut self, report: &Report, now_ns: u64) -> Result<()> {
        let text = if self.json {
            self.json(report, now_ns)?
        } else {
            more(&mut self.widths, &columns(report))
        };
        print(text.as_bytes())
    }

    fn json(&self, report: &Report, now_ns: u64) -> Result<String> {
        let Report {
            counts,
            samples,
            moved,
            standing,
        } = *report;
        let record = Record {
            kvmscope_tier: VERSION,
            time: seconds(now_ns),
            vm: self.vm.to_string(),
            name: &harmless(&self.about.name),
            dry_run: self.dry_run,
            samples,
            lost: counts.lost,
            rate_now: counts.rate_now,
            spent_ns: counts.spent_ns,
            fast_pages: standing.fast_pages,
            slow_pages: standing.slow_pages,
            fast_heat: (standing.heat > 0.0).then_some(standing.fast_heat),
            to_fast: moved.to_fast,
            to_slow: moved.to_slow,
            moved_bytes: (moved.to_fast + moved.to_slow) * PAGE,
            failed: moved.failures,
        };
        Ok(serde_json::to_string(&record)? + "\n")
    }
}

fn columns(report: &Report) -> Vec<Column> {
    let (standing, moved) = (&report.standing, &report.moved);
    let heat = match standing.heat > 0.0 {
        true => format!("{:.1}%", standing.fast_heat * 100.0),
        false => "-".to_string(),
    };
    let cells = [
        ("Samples", report.samples.to_string()),
        ("Rate/s", report.counts.rate_now.to_string()),
        ("Lost", report.counts.lost.to_string()),
        ("Fast MiB", mib(standing.fast_pages)),
        ("Slow MiB", mib(standing.slow_pages)),
        ("Fast heat", heat),
        ("To fast", moved.to_fast.to_string()),
        ("To slow", moved.to_slow.to_string()),
        ("Failed", moved.failures.total().to_string()),
    ];
    let column = |(head, cell)| Column {
        head,
        right: true,
        weight: 9,
        cells: vec![cell],
    };
    cells.into_iter().map(column).collect()
}

/// In one line, at the end.
pub fn account(total: &Moved, dry_run: bool) -> String {
    let would = if dry_run { "would have " } else { "" };
    let mut text = format!(
        "{} pages {would}moved to the fast node, {} to the slow one",
        total.to_fast, total.to_slow
    );
    let reasons = total.failures.named().into_iter();
    let reasons = reasons.filter(|(_, pages)| *pages != 0);
    let reasons: Vec<String> = reasons.map(|(name, n)| format!("{n} {name}")).collect();
    if !reasons.is_empty() {
        text += &format!("; could not be moved: {}", reasons.join(", "));
    }
    text
}
