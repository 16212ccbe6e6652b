// SPDX-License-Identifier: GPL-2.0

//! kvmscope record: snapshots into a file.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::cli::Record;
use crate::kernel::Kernel;
use crate::latency::{Latency, Wanted};
use crate::output::create_new;
use crate::recording::{Head, Writer, EXITS};
use crate::say;
use crate::signals::Stop;

pub fn run(kernel: &Kernel, args: &Record) -> Result<()> {
    let stop = Stop::install()?;
    let first = kernel.snapshot()?;
    let file = args.file.display();

    let out = create_new(&args.file, args.force)?;
    let _latency = if args.latency {
        Latency::switch_on(kernel)?
    } else {
        None
    };

    let mut wanted = Wanted::new(args.latency);
    let write = || -> Result<usize> {
        let mut recording = Writer::new(out, &EXITS, &Head::here())?;
        recording.write(&first)?;
        let mut snapshots = 1;

        let began = Instant::now();
        let end = args.duration.map(|duration| began + duration);
        let mut next = began;
        loop {
            next += args.interval;
            let when = end.map_or(next, |end| end.min(next));
            let stopped = stop.wait_until(when).is_err();
            // Also when stopped: what happened since the last one counts.
            let snapshot = kernel.snapshot()?;
            wanted.check(&snapshot);
            recording.write(&snapshot)?;
            snapshots += 1;
            if stopped || end.is_some_and(|end| when >= end) {
                return Ok(snapshots);
            }
        }
    };
    let snapshots = write().with_context(|| file.to_string())?;
    say(&format!("{snapshots} snapshots in {file}"));
    Ok(())
}
