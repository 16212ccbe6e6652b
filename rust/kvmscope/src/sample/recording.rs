// SPDX-License-Identifier: GPL-2.0

//! A file of samples, as `kvmscope sample --record` and `--json` write it: a line for
//! the session, one for each sample, one for each region of `--heat`, and one for what
//! was counted at the end.

use std::io::BufRead;

use anyhow::{bail, Result};
use serde::{Deserialize, Serialize};

use crate::recording::Reader;
use crate::sample::columns::RegionLine;
use crate::sample::sample::{Counts, Sample, Slot};
use crate::sample::session::Setup;
use crate::snapshot::{About, VmId};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    Session(Box<Begin>),
    Sample(Sample),
    Region(RegionLine),
    End(End),
}

/// Whom is sampled, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begin {
    #[serde(flatten)]
    pub vm: VmId,
    #[serde(flatten)]
    pub about: About,
    pub setup: Setup,
    /// By CLOCK_MONOTONIC.
    pub begin_ns: u64,
    pub slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct End {
    pub end_ns: u64,
    pub counts: Counts,
}

/// The session, which must be what a recording begins with.
pub fn read_begin<R: BufRead>(reader: &mut Reader<R>) -> Result<Begin> {
    match reader.read()? {
        Some(Line::Session(begin)) => Ok(*begin),
        Some(_) => bail!("line {}: it is of no session", reader.line),
        None => bail!("there is nothing in it"),
    }
}
