// SPDX-License-Identifier: GPL-2.0

//! Tracking of a VM, switched on for as long as somebody looks.

use anyhow::Result;

use crate::say;
use crate::wss::knobs::{Knobs, Refusal, Setup};

/// Switches tracking off when dropped, and gives back the parameters.
pub struct Tracking {
    pub knobs: Knobs,
    /// What the parameters were before; None where tracking was on already: then
    /// it is not ours to switch off, nor its parameters to change.
    ours: Option<Setup>,
    /// It may be on.
    started: bool,
}

impl Tracking {
    pub fn start(knobs: Knobs, setup: &Setup) -> Result<Result<Tracking, Refusal>> {
        if let Some(refusal) = knobs.refusal() {
            return Ok(Err(refusal));
        }
        let Some(active) = knobs.number("active")? else {
            return Ok(Err(Refusal::Gone));
        };
        if active != 0 {
            return Ok(Ok(Tracking {
                knobs,
                ours: None,
                started: false,
            }));
        }
        // From here on, whatever fails, what was changed is changed back.
        let mut tracking = Tracking {
            knobs,
            ours: Some(Setup::default()),
            started: false,
        };
        if !tracking.set_up(setup)? {
            return Ok(Err(Refusal::Gone));
        }
        tracking.started = true;
        let started = tracking.knobs.write("active", 1)?;
        Ok(started.map(|()| tracking))
    }

    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Changes the parameters of what is ours. False when the VM has ended.
    pub fn set_up(&mut self, setup: &Setup) -> Result<bool> {
        match &mut self.ours {
            Some(before) => self.knobs.set_up(setup, before),
            None => Ok(true),
        }
    }

    fn stop(&self, before: &Setup) -> Result<()> {
        if self.started && self.knobs.write("active", 0)?.is_err() {
            return Ok(());
        }
        self.knobs.set_up(before, &mut Setup::default())?;
        Ok(())
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        let Some(before) = &self.ours else { return };
        if let Err(error) = self.stop(before) {
            say(&format!("tracking is not as it was before: {error:#}"));
        }
    }
}
