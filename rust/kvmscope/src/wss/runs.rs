// SPDX-License-Identifier: GPL-2.0

//! Runs of pages as words, for recordings.
//!
//! `+N` passes over N pages. `N*C` is N pages that were written in C of the
//! sub-intervals, and `C` is one such page; after it `r` says that they were
//! accessed, `t` that they are page tables, `h` that a huge page maps them:
//! `+4096 512*3rh 2*0r 10rt`. Lines go on where the line before them ended.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};

use crate::format::quote;
use crate::wss::pages::{push, Kind, Run, END};

/// Runs of a line: so that lines stay short enough to be read with a bound.
pub const RUNS_PER_LINE: usize = 16_384;

/// As many lines as it takes.
pub fn encode(runs: &[Run]) -> Vec<String> {
    let mut at = 0;
    let line = |runs: &[Run]| {
        let mut line = String::new();
        for run in runs {
            if !line.is_empty() {
                line.push(' ');
            }
            // Writing to a string does not fail.
            if run.gfn != at {
                let _ = write!(line, "+{} ", run.gfn - at);
            }
            if run.len != 1 {
                let _ = write!(line, "{}*", run.len);
            }
            let _ = write!(line, "{}", run.kind.count);
            let flags = [
                (run.kind.read, 'r'),
                (run.kind.table, 't'),
                (run.kind.huge, 'h'),
            ];
            line.extend(flags.iter().filter(|(set, _)| *set).map(|(_, c)| c));
            at = run.end();
        }
        line
    };
    runs.chunks(RUNS_PER_LINE).map(line).collect()
}

/// Appends what a line says to the runs before it, which end before page `at`;
/// where the next line goes on.
pub fn decode(line: &str, at: u64, intervals: u8, runs: &mut Vec<Run>) -> Result<u64> {
    let mut at = at;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        at = decode_word(word, at, intervals, runs)
            .with_context(|| format!("{} is no run of pages", quote(word)))?;
    }
    Ok(at)
}

fn decode_word(word: &str, at: u64, intervals: u8, runs: &mut Vec<Run>) -> Result<u64> {
    let skip = word.strip_prefix('+').map(str::parse).transpose()?;
    let (len, kind) = match skip {
        Some(skip) => (skip, None),
        None => {
            let (len, kind) = word.split_once('*').unwrap_or(("1", word));
            (len.parse()?, Some(kind_of(kind, intervals)?))
        }
    };
    let end = at.checked_add(len).filter(|end| *end <= END);
    let end = end.context("it ends beyond all memory")?;
    if let Some(kind) = kind {
        let len = u32::try_from(len).context("it is too long")?;
        ensure!(len != 0 && !kind.is_idle(), "it is of nothing");
        push(runs, at, len, kind);
    }
    Ok(end)
}

fn kind_of(text: &str, intervals: u8) -> Result<Kind> {
    let count = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let mut kind = Kind {
        count: count.parse()?,
        ..Kind::default()
    };
    ensure!(kind.count <= intervals, "that is more than sub-intervals");
    for flag in text[count.len()..].chars() {
        let flag = match flag {
            'r' => &mut kind.read,
            't' => &mut kind.table,
            'h' => &mut kind.huge,
            _ => anyhow::bail!("{flag:?} means nothing"),
        };
        *flag = true;
    }
    Ok(kind)
}
