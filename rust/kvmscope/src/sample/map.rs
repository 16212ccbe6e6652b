// SPDX-License-Identifier: GPL-2.0

//! Samples as periods of a heat map. A sample stands for the 2 MiB that it is from,
//! and what was sampled most in any period is as hot as can be.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{ensure, Result};

use crate::heatmap::source::Slot;
use crate::recording::Reader;
use crate::sample::recording::{read_begin, Begin, Line};
use crate::sample::sample::{Access, Sample};
use crate::wss::pages::{Kind, Pages, Run};

/// Pages of a piece.
const PIECE: u32 = 512;
/// As many periods at most: more would be a few pixels each.
const PERIODS: u64 = 120;
/// What the hottest piece is counted as.
const FULL: u64 = 200;

/// The periods of a recording, of writes alone if asked for.
pub fn read<R: BufRead>(mut lines: Reader<R>, writes: bool) -> Result<(Begin, Vec<Slot>)> {
    let begin = read_begin(&mut lines)?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut end_ns = begin.begin_ns;
    let mut others = 0_u64;
    while let Some(line) = lines.read()? {
        match line {
            Line::Sample(sample) if !writes || sample.access.has(Access::WRITE) => {
                samples.push(sample);
            }
            Line::Sample(_) => others += 1,
            Line::End(end) => end_ns = end.end_ns,
            Line::Session(_) | Line::Region(_) => {}
        }
    }
    ensure!(
        !samples.is_empty() || others == 0,
        "no writes were sampled: --reads draws what was accessed"
    );
    ensure!(!samples.is_empty(), "there is no sample in it");
    let latest = samples.iter().map(|sample| sample.time_ns).max();
    let end_ns = end_ns.max(latest.unwrap_or(0));
    Ok((begin.clone(), slots(&samples, begin.begin_ns, end_ns)))
}

fn slots(samples: &[Sample], begin_ns: u64, end_ns: u64) -> Vec<Slot> {
    let span = end_ns.saturating_sub(begin_ns).max(1);
    let period = round(span.div_ceil(PERIODS));
    let periods = span.div_ceil(period) as usize;
    // Of each period, what was sampled in each piece, tables apart.
    let mut counts = vec![BTreeMap::<(u64, bool), u64>::new(); periods];
    for sample in samples {
        let at = (sample.time_ns.saturating_sub(begin_ns) / period) as usize;
        let piece = sample.gfn / u64::from(PIECE);
        let of_period = &mut counts[at.min(periods - 1)];
        *of_period.entry((piece, sample.table)).or_default() += 1;
    }
    let most = counts.iter().flat_map(BTreeMap::values).max();
    let most = most.copied().unwrap_or(1);
    let slot = |(number, counts): (u64, BTreeMap<(u64, bool), u64>)| {
        let start_ns = begin_ns + number * period;
        Slot {
            start_ns,
            duration_ns: period.min(end_ns.saturating_sub(start_ns)),
            pages: Some(Pages {
                period: number + 1,
                start_ns,
                duration_ns: period,
                intervals: FULL as u8,
                threshold: 1,
                reads: false,
                runs: runs(&counts, most),
            }),
        }
    };
    (0..).zip(counts).map(slot).collect()
}

/// Of each piece one; of its data where there is any, else of page tables.
fn runs(counts: &BTreeMap<(u64, bool), u64>, most: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (&(piece, table), &count) in counts {
        let gfn = piece * u64::from(PIECE);
        if runs.last().is_some_and(|last| last.gfn == gfn) {
            continue;
        }
        let kind = Kind {
            count: (count * FULL).div_ceil(most) as u8,
            table,
            ..Kind::default()
        };
        runs.push(Run {
            gfn,
            len: PIECE,
            kind,
        });
    }
    runs
}

/// The next time that is 1, 2 or 5 of something.
fn round(ns: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for number in [1, 2, 5] {
            let time = unit.saturating_mul(number);
            if time >= ns {
                return time;
            }
        }
        unit = unit.saturating_mul(10);
    }
}
