// SPDX-License-Identifier: GPL-2.0

//! How hot pieces of memory are: a sum of samples that halves with each half-life, so
//! that what nobody samples any more cools down.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sample::sample::{Access, Sample};

/// A sum that decays. Its value at any time is known without having been kept up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decaying {
    value: f64,
    at_ns: u64,
}

impl Decaying {
    pub fn at(&self, now_ns: u64, half_life: Duration) -> f64 {
        self.value * decay(self.at_ns, now_ns, half_life)
    }

    /// Samples of several vCPUs may be a little out of order.
    pub fn add(&mut self, weight: f64, time_ns: u64, half_life: Duration) {
        if time_ns >= self.at_ns {
            self.value = self.at(time_ns, half_life) + weight;
            self.at_ns = time_ns;
        } else {
            self.value += weight * decay(time_ns, self.at_ns, half_life);
        }
    }
}

/// What is left of one.
fn decay(from_ns: u64, to_ns: u64, half_life: Duration) -> f64 {
    let half_lives = to_ns.saturating_sub(from_ns) as f64 / half_life.as_nanos().max(1) as f64;
    (-half_lives).exp2()
}

/// What was sampled in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Region {
    pub heat: Decaying,
    pub samples: u64,
    pub reads: u64,
    pub writes: u64,
    pub fetches: u64,
    /// Walks of page tables, which are among the reads.
    pub tables: u64,
    pub last_ns: u64,
}

/// Regions of equal size, by where they begin.
#[derive(Clone, Debug)]
pub struct HeatMap {
    pub half_life: Duration,
    /// Of a region.
    pub pages: u64,
    pub regions: BTreeMap<u64, Region>,
    /// The time of the latest sample.
    pub latest_ns: u64,
}

impl HeatMap {
    pub fn new(half_life: Duration, pages: u64) -> HeatMap {
        HeatMap {
            half_life,
            pages,
            regions: BTreeMap::new(),
            latest_ns: 0,
        }
    }

    pub fn add(&mut self, sample: &Sample) {
        let first = sample.gfn / self.pages * self.pages;
        let region = self.regions.entry(first).or_default();
        region.heat.add(1.0, sample.time_ns, self.half_life);
        region.samples += 1;
        region.reads += u64::from(sample.access.has(Access::READ));
        region.writes += u64::from(sample.access.has(Access::WRITE));
        region.fetches += u64::from(sample.access.has(Access::EXECUTE));
        region.tables += u64::from(sample.table);
        region.last_ns = region.last_ns.max(sample.time_ns);
        self.latest_ns = self.latest_ns.max(sample.time_ns);
    }

    /// Of all regions together.
    pub fn total(&self, now_ns: u64) -> f64 {
        let heat = |region: &Region| region.heat.at(now_ns, self.half_life);
        self.regions.values().map(heat).sum()
    }

    pub fn clear(&mut self) {
        self.regions.clear();
    }
}
