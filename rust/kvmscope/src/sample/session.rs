// SPDX-License-Identifier: GPL-2.0

//! A session of sampling, whatever stands behind it: the kernel, or a test.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::sample::sample::{Access, Counts, Sample, Slot};

pub trait Session {
    /// The VM's memory, as it is now.
    fn slots(&mut self) -> Result<Vec<Slot>>;

    fn counts(&mut self) -> Result<Counts>;

    /// Appends the samples that there are; waits for some, but no longer than this.
    fn read(&mut self, wait: Duration, samples: &mut Vec<Sample>) -> Result<State>;

    /// No more samples are taken; those that were can be read.
    fn pause(&mut self) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// The VM has gone, and nothing is left to be read.
    Ended,
}

/// What a session is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub pid: u32,
    /// The file descriptor that the process has for the VM; None is its only one.
    pub vm_fd: Option<u32>,
    pub strategy: Strategy,
    pub access: Access,
    /// Samples per second.
    pub rate: u32,
    /// Of the guest's time, in millionths.
    pub budget_ppm: u32,
}

/// Which pages are watched
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Pages of 4 KiB from all memory, each as likely as any other
    Random,
    /// One page in each region of 2 MiB, region after region
    Sweep,
}

/// Reads what is left once no more is taken, and what was counted in all.
pub fn finish(session: &mut dyn Session, samples: &mut Vec<Sample>) -> Result<Counts> {
    session.pause()?;
    loop {
        let before = samples.len();
        let state = session.read(Duration::ZERO, samples)?;
        if state == State::Ended || samples.len() == before {
            return session.counts();
        }
    }
}
