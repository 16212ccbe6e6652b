// SPDX-License-Identifier: GPL-2.0

//! kvmscope stat: what is being counted, interval by interval.

pub mod screen;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cli::Stat;
use crate::dump::check_filter;
use crate::http;
use crate::interval::{Interval, Tracker};
use crate::kernel::Kernel;
use crate::latency::{Latency, Wanted};
use crate::metrics::metrics;
use crate::output::Output;
use crate::say;
use crate::screen::is_possible;
use crate::signals::Stop;

pub fn run(kernel: &Kernel, args: &Stat) -> Result<()> {
    let stop = Stop::install()?;
    let _latency = if args.latency {
        Latency::switch_on(kernel)?
    } else {
        None
    };
    match args.prometheus {
        Some(address) => serve(kernel, args, address, &stop),
        None if on_screen(args) => screen::run(kernel, args),
        None => print(kernel, args, &stop),
    }
}

/// VMs that come later may be what the filter is for, and so it is no error.
fn remark_filter(args: &Stat, first: &Interval) {
    if let (false, Err(error)) = (args.once, check_filter(first, &args.look)) {
        say(&format!("until now, {error}"));
    }
}

fn on_screen(args: &Stat) -> bool {
    is_possible() && !args.once && !args.json && args.csv.is_none()
}

/// Answers scrapers until asked to stop.
fn serve(kernel: &Kernel, args: &Stat, address: SocketAddr, stop: &Stop) -> Result<()> {
    // What is wrong with the kernel is said now, not to the first who asks.
    remark_filter(args, &Tracker::default().advance(kernel.snapshot()?));
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    say(&format!("serving http://{address}/metrics; Ctrl-C ends it"));
    if !address.ip().is_loopback() {
        say("whoever reaches this address can read it");
    }

    let (root, filter) = (kernel.root().to_path_buf(), args.look.filter());
    thread::spawn(move || {
        let kernel = Kernel::new(&root);
        http::serve(&listener, || Ok(metrics(&kernel.snapshot()?, &filter)))
    });
    stop.wait_for_signal();
    Ok(())
}

/// A table, a line of JSON or rows of CSV for each interval.
fn print(kernel: &Kernel, args: &Stat, stop: &Stop) -> Result<()> {
    let mut tracker = Tracker::default();
    let first = tracker.advance(kernel.snapshot()?);
    remark_filter(args, &first);
    let mut output = Output::new(args.json, args.csv.as_deref())?;
    if let Some(file) = args
        .csv
        .as_ref()
        .filter(|file| file.as_os_str() != "-" && !args.once)
    {
        say(&format!("writing {}; Ctrl-C ends it", file.display()));
    }

    let mut wanted = Wanted::new(args.latency);
    let mut next = Instant::now();
    loop {
        next += args.interval;
        if let Err(interrupted) = stop.wait_until(next) {
            // Only what ends by itself was cut short.
            return if args.once {
                Err(interrupted.into())
            } else {
                Ok(())
            };
        }
        let snapshot = kernel.snapshot()?;
        wanted.check(&snapshot);
        let interval = tracker.advance(snapshot);
        if args.once {
            check_filter(&interval, &args.look)?;
        }
        output.write(&interval, &args.look)?;
        if args.once {
            return Ok(());
        }
    }
}
