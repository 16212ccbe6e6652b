// SPDX-License-Identifier: GPL-2.0

//! How the working set of a VM was distributed over time.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::snapshot::{About, VmId};
use crate::wss::estimate::Estimate;
use crate::wss::period::Period;

/// Of each VM, what its periods said.
#[derive(Default)]
pub struct Distribution {
    pub vms: BTreeMap<VmId, Samples>,
}

#[derive(Default)]
pub struct Samples {
    pub about: About,
    pub written: Vec<u64>,
    /// Of periods that measured it.
    pub read_set: Vec<u64>,
    /// Some of which the kernel may not know all of.
    pub or_more: bool,
}

/// Percentiles by the nearest rank: each is a value that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    pub min: u64,
    pub p25: u64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
    pub max: u64,
}

impl Distribution {
    pub fn add(&mut self, period: &Period) {
        let samples = self.vms.entry(period.vm).or_default();
        samples.about.clone_from(&period.about);
        let Estimate { written, .. } = period.estimate;
        samples.written.push(written);
        samples.read_set.extend(period.estimate.read_set());
        samples.or_more |= period.estimate.unmapped_lost != 0;
    }

    pub fn periods(&self) -> usize {
        self.vms.values().map(|vm| vm.written.len()).sum()
    }
}

impl Percentiles {
    /// None of nothing.
    pub fn of(values: &[u64]) -> Option<Percentiles> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        let rank = |percent: usize| sorted[(percent * sorted.len()).div_ceil(100).max(1) - 1];
        Some(Percentiles {
            min: sorted[0],
            p25: rank(25),
            p50: rank(50),
            p75: rank(75),
            p90: rank(90),
            max,
        })
    }

    pub fn values(&self) -> [u64; 6] {
        [self.min, self.p25, self.p50, self.p75, self.p90, self.max]
    }
}
