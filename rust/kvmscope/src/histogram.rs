// SPDX-License-Identifier: GPL-2.0

//! A log2 histogram of times: how many fell between a power of two and the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts by the bucket's lower bound in nanoseconds. Empty buckets are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Histogram(BTreeMap<u64, u64>);

/// The first value that no longer falls into the bucket that starts at `lower`.
pub fn upper(lower: u64) -> u64 {
    lower.saturating_mul(2).max(1)
}

impl From<Vec<(u64, u64)>> for Histogram {
    fn from(buckets: Vec<(u64, u64)>) -> Histogram {
        let mut histogram = Histogram::default();
        for (lower, count) in buckets {
            histogram.add(lower, count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u64, u64)> {
    fn from(histogram: Histogram) -> Vec<(u64, u64)> {
        histogram.buckets().collect()
    }
}

impl Histogram {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lower bounds and counts, ascending.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&lower, &count)| (lower, count))
    }

    pub fn add(&mut self, lower: u64, count: u64) {
        if count != 0 {
            let sum = self.0.entry(lower).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (lower, count) in other.buckets() {
            self.add(lower, count);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// Whether it may be a later reading of what `earlier` was read from.
    pub fn continues(&self, earlier: &Histogram) -> bool {
        earlier
            .buckets()
            .all(|(lower, count)| self.0.get(&lower).is_some_and(|&now| now >= count))
    }

    /// What was added since `earlier`, which this one continues.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut change = Histogram::default();
        for (lower, count) in self.buckets() {
            let before = earlier.0.get(&lower).copied().unwrap_or(0);
            change.add(lower, count.saturating_sub(before));
        }
        change
    }

    /// The time that a share `p` of the samples did not exceed: taken as evenly
    /// spread within its bucket, so wrong by less than a factor of two.
    pub fn percentile(&self, p: f64) -> Option<u64> {
        let rank = ((self.count() as f64 * p).ceil()).max(1.0);
        let mut below = 0.0;
        for (lower, count) in self.buckets() {
            let count = count as f64;
            if below + count >= rank {
                let part = (rank - below - 0.5) / count;
                let width = (upper(lower) - lower) as f64;
                return Some(lower.saturating_add((part * width) as u64));
            }
            below += count;
        }
        self.buckets().next_back().map(|(lower, _)| lower)
    }
}
