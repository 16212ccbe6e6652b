// SPDX-License-Identifier: GPL-2.0

//! Timing of exits, switched on for as long as somebody looks.

use anyhow::Result;

use crate::kernel::Kernel;
use crate::say;
use crate::snapshot::Snapshot;

/// Switches latency off when dropped.
pub struct Latency<'a>(&'a Kernel);

/// Says so, once, when somebody else has switched off what is wanted.
pub struct Wanted(bool);

impl Wanted {
    pub fn new(wanted: bool) -> Wanted {
        Wanted(wanted)
    }

    pub fn check(&mut self, snapshot: &Snapshot) {
        if self.0 && !snapshot.latency {
            self.0 = false;
            say("somebody switched latency off: from here on there are no times");
        }
    }
}

impl<'a> Latency<'a> {
    /// None where it is on already: then it is not ours to switch off.
    pub fn switch_on(kernel: &'a Kernel) -> Result<Option<Latency<'a>>> {
        if kernel.knob("latency")? {
            return Ok(None);
        }
        kernel.write_knob("latency", "1")?;
        Ok(Some(Latency(kernel)))
    }
}

impl Drop for Latency<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.write_knob("latency", "0") {
            say(&format!("latency stays on: {error:#}"));
        }
    }
}
