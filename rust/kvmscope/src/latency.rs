// SPDX-License-Identifier: GPL-2.0

//! Timing of exits, switched on for as long as somebody looks.

use anyhow::Result;

use crate::kernel::Kernel;
use crate::say;

/// Switches latency off when dropped.
pub struct Latency<'a>(&'a Kernel);

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
