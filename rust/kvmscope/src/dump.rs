// SPDX-License-Identifier: GPL-2.0

//! kvmscope dump: all that was counted until now, once.

use anyhow::{bail, Result};

use crate::cli::{Dump, Look};
use crate::interval::{Interval, Tracker};
use crate::kernel::Kernel;
use crate::output::Output;
use crate::view::any_vm;

pub fn run(kernel: &Kernel, args: &Dump) -> Result<()> {
    let counted = Tracker::default().advance(kernel.snapshot()?);
    check_filter(&counted, &args.look)?;
    Output::new(args.form.json, args.form.csv.as_deref())?.write(&counted, &args.look)
}

/// A filter that matches no VM is a mistake, and an empty table would not say so.
pub fn check_filter(interval: &Interval, look: &Look) -> Result<()> {
    let filter = look.filter();
    if !filter.selects_vms() || any_vm(interval, &filter) {
        return Ok(());
    }
    if interval.vms.is_empty() {
        bail!("the filter matches no VM: there is none");
    }
    let mut vms: Vec<String> = interval
        .vms
        .iter()
        .map(|(id, change)| {
            format!(
                "{id} ({:?}, {} vCPUs)",
                change.about.name,
                change.vcpus.len()
            )
        })
        .collect();
    if vms.len() > 8 {
        let more = vms.split_off(8).len();
        vms.push(format!("{more} more"));
    }
    bail!("the filter matches no VM; there are {}", vms.join(", "))
}
