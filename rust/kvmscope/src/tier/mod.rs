// SPDX-License-Identifier: GPL-2.0

//! kvmscope tier: a guest's hot memory on the fast NUMA node, its cold memory on the
//! slow one.
//!
//! - `policy` decides, of samples and of where pages are; it knows no clock and no VM;
//! - `memory` says where the VM's process has a page, `mover` moves it;
//! - `nodes` finds the two nodes, `tiering` is the loop, `records` what it tells.

pub mod memory;
pub mod mover;
pub mod nodes;
pub mod policy;
pub mod records;
pub mod tiering;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

use crate::cli::Tier as Args;
use crate::kernel::Kernel;
use crate::sample::device::Device;
use crate::sample::identify;
use crate::say;
use crate::signals::Stop;
use mover::Process;
use nodes::Nodes;
use records::Records;
use tiering::Tiering;

pub fn run(kernel: &Kernel, args: &Args) -> Result<()> {
    let stop = Stop::install()?;
    let setup = args.setup(args.target.find(kernel, args.which.vm_fd)?);
    ensure!(
        setup.access.bits() != 0,
        "all weights are 0: give one that is not"
    );
    // Nodes would be of no use on another kernel.
    let nodes = Nodes::find(kernel, args.fast_node, args.slow_node)
        .or_else(|error| kernel.check().and(Err(error)))?;
    let mut device = Device::start(kernel, &setup)?;
    let (vm, about) = identify(kernel, &setup)?;
    let mut process = Process::new(setup.pid);
    let mut records = Records::new(args.json, args.dry_run, vm, about);
    let rules = args.rules();
    let mut tiering = Tiering::new(&mut device, &mut process, nodes, rules, args.dry_run)?;
    say(&format!(
        "the fast node is {}, the slow one {}; Ctrl-C ends it",
        nodes.fast, nodes.slow
    ));
    let balancing = kernel.root().join("proc/sys/kernel/numa_balancing");
    if fs::read_to_string(balancing).is_ok_and(|text| text.trim() != "0") {
        say("the kernel balances nodes as well: sysctl kernel.numa_balancing=0 has it leave that");
    }

    let end = args.duration.map(|time| Instant::now() + time);
    let is_over =
        || stop.wait(Duration::ZERO).is_err() || end.is_some_and(|end| Instant::now() >= end);
    // A signal is told once.
    let over = std::cell::Cell::new(false);
    let is_over = || {
        over.set(over.get() || is_over());
        over.get()
    };
    let mut report = tiering.survey(&is_over)?;
    while report.is_some() && !over.get() {
        report = match tiering.interval(&is_over)? {
            Some(report) => Some(records.write(&report)?),
            None => None,
        };
    }
    if report.is_none() {
        say(&format!("{vm} has ended"));
    }
    say(&records::account(&tiering.total, args.dry_run));
    Ok(())
}
