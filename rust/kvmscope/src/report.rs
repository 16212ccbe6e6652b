// SPDX-License-Identifier: GPL-2.0

//! kvmscope report: what a recording holds.

use anyhow::{ensure, Context, Result};

use crate::cli::Report;
use crate::columns::{duration, harmless};
use crate::dump::check_filter;
use crate::interval::{Interval, Tracker};
use crate::output::{open, print, Output};
use crate::recording::{Reader, EXITS};
use crate::snapshot::Snapshot;

pub fn run(args: &Report) -> Result<()> {
    let file = args.file.display();
    let mut reader = Reader::new(open(&args.file)?, &EXITS).with_context(|| file.to_string())?;
    let mut next = || reader.read::<Snapshot>().with_context(|| file.to_string());

    // All of it is checked before any of it is printed; only CSV, which has a
    // row for each interval, may be too long to keep.
    let mut tracker = Tracker::default();
    let mut snapshots = 0;
    let mut all = Interval::default();
    if let Some(first) = next()? {
        // Counted before the recording began; its VMs count as seen.
        all = tracker.advance(first).emptied();
        snapshots = 1;
    }
    let mut output = Output::new(args.form.json, args.form.csv.as_deref())?;
    while let Some(snapshot) = next()? {
        let interval = tracker.advance(snapshot);
        snapshots += 1;
        if matches!(output, Output::Csv(_)) {
            output.write(&interval, &args.look)?;
        }
        all.merge(&interval);
    }
    ensure!(
        snapshots > 1,
        "{file}: there are no two snapshots in it, so nothing lies between them"
    );
    check_filter(&all, &args.look)?;

    match output {
        Output::Csv(_) => return Ok(()),
        Output::Text(_) => {
            let head = format!(
                "{snapshots} snapshots in {} on {}, Linux {}, {}\n\n",
                duration(all.elapsed_ns),
                harmless(&reader.head.host),
                harmless(&reader.head.kernel),
                harmless(&all.isa)
            );
            print(head.as_bytes())?;
        }
        Output::Json => {}
    }
    output.write(&all, &args.look)
}
