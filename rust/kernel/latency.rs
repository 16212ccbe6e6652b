// SPDX-License-Identifier: GPL-2.0

//! What exits cost: the time from each to the next entry, by the exit's reason
//! and by who spent it.
//!
//! C takes the times and adds them up, in the vCPU's thread (`kvm_scope.h`); this
//! is what becomes of them. As with [`crate::counters`] there is one writer, so
//! plain loads and stores will do: a reader sees each value as it once was,
//! though not all of them as of the same moment.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reasons::SLOTS;

/// Who can have spent the time: KVM, userspace, the vCPU asleep, or nobody
/// because it was preempted.
pub const WHO: usize = 4;

/// What the exits of one reason cost, in ticks of the TSC. Laid out as C has it.
#[repr(C)]
pub struct Cost {
    time: [AtomicU64; WHO],
    /// The least and the most that KVM took for one.
    min: AtomicU64,
    max: AtomicU64,
    /// How often KVM took so many ticks, by the number of their highest bit.
    histogram: [AtomicU64; 64],
}

/// What a vCPU's exits cost, by slot. Laid out as C has it.
#[repr(C)]
pub struct Latency {
    own: [Cost; SLOTS],
    /// Those that were taken while a guest of the guest ran.
    nested: [Cost; SLOTS],
}

/// What the exits of one reason cost, nested and not.
pub struct Row<'a> {
    own: &'a Cost,
    nested: &'a Cost,
}

fn add(to: &AtomicU64, from: &AtomicU64) {
    let sum = to.load(Relaxed).wrapping_add(from.load(Relaxed));
    to.store(sum, Relaxed);
}

impl Latency {
    /// Nothing was timed yet. To be called while no vCPU writes, and before the
    /// first does: the least of nothing is not zero.
    pub fn clear(&self) {
        for cost in self.costs() {
            let all = cost.time.iter().chain(&cost.histogram);
            all.chain([&cost.max])
                .for_each(|value| value.store(0, Relaxed));
            cost.min.store(u64::MAX, Relaxed);
        }
    }

    /// Adds what was timed to `sum`, of which the caller is the only writer.
    pub fn add_to(&self, sum: &Latency) {
        for (from, to) in self.costs().zip(sum.costs()) {
            for (from, to) in from.time.iter().zip(&to.time) {
                add(to, from);
            }
            for (from, to) in from.histogram.iter().zip(&to.histogram) {
                add(to, from);
            }
            let min = from.min.load(Relaxed).min(to.min.load(Relaxed));
            to.min.store(min, Relaxed);
            let max = from.max.load(Relaxed).max(to.max.load(Relaxed));
            to.max.store(max, Relaxed);
        }
    }

    fn costs(&self) -> impl Iterator<Item = &Cost> {
        self.own.iter().chain(&self.nested)
    }

    /// The place of one slot, or of its nested exits.
    #[cfg(not(CONFIG_KVM_SCOPE))]
    pub fn slot(&self, slot: usize, nested: bool) -> &Cost {
        let costs = if nested { &self.nested } else { &self.own };
        &costs[slot]
    }

    /// What the exits of one slot cost, if any was timed.
    pub fn row(&self, slot: usize) -> Option<Row<'_>> {
        let (own, nested) = (self.own.get(slot)?, self.nested.get(slot)?);
        Some(Row { own, nested }).filter(|row| row.samples() != 0)
    }
}

#[cfg(not(CONFIG_KVM_SCOPE))]
impl Default for Latency {
    fn default() -> Self {
        let latency = Self {
            own: [const { Cost::new() }; SLOTS],
            nested: [const { Cost::new() }; SLOTS],
        };
        latency.clear();
        latency
    }
}

impl Cost {
    /// All zero.
    #[cfg(not(CONFIG_KVM_SCOPE))]
    const fn new() -> Self {
        Self {
            time: [const { AtomicU64::new(0) }; WHO],
            min: AtomicU64::new(0),
            max: AtomicU64::new(0),
            histogram: [const { AtomicU64::new(0) }; 64],
        }
    }

    /// What C does for an exit that took so many ticks (`kvm_scope_vm_entry()`
    /// and `kvm_scope_return()`), for the tests.
    #[cfg(not(CONFIG_KVM_SCOPE))]
    pub fn account(&self, who: [u64; WHO]) {
        for (time, ticks) in self.time.iter().zip(who) {
            time.store(time.load(Relaxed) + ticks, Relaxed);
        }
        let kvm = who[0];
        self.min.fetch_min(kvm, Relaxed);
        self.max.fetch_max(kvm, Relaxed);
        self.histogram[kvm.max(1).ilog2() as usize].fetch_add(1, Relaxed);
    }

    fn samples(&self) -> u64 {
        let count = |sum: u64, n: &AtomicU64| sum.wrapping_add(n.load(Relaxed));
        self.histogram.iter().fold(0, count)
    }
}

impl Row<'_> {
    /// How many exits were timed.
    pub fn samples(&self) -> u64 {
        self.own.samples().wrapping_add(self.nested.samples())
    }

    /// Ticks spent by KVM, in userspace, asleep, and preempted.
    pub fn time(&self) -> impl Iterator<Item = u64> + '_ {
        sums(&self.own.time, &self.nested.time)
    }

    /// The least that KVM spent on one exit.
    pub fn min(&self) -> u64 {
        let nested = self.nested.min.load(Relaxed);
        self.own.min.load(Relaxed).min(nested)
    }

    /// The most that KVM spent on one exit.
    pub fn max(&self) -> u64 {
        let nested = self.nested.max.load(Relaxed);
        self.own.max.load(Relaxed).max(nested)
    }

    /// How many of the exits were nested, and the ticks that KVM spent on these.
    pub fn nested(&self) -> (u64, u64) {
        let [kvm, ..] = &self.nested.time;
        (self.nested.samples(), kvm.load(Relaxed))
    }

    /// The histogram's buckets that hold something: the fewest ticks that fall
    /// into it, and how many exits did. Less than two ticks are none.
    pub fn histogram(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let lower = (0..64u32).map(|bit| 1u64.wrapping_shl(bit) & !1);
        lower
            .zip(sums(&self.own.histogram, &self.nested.histogram))
            .filter(|&(_, n)| n != 0)
    }
}

fn sums<'a>(a: &'a [AtomicU64], b: &'a [AtomicU64]) -> impl Iterator<Item = u64> + 'a {
    let both = a.iter().zip(b);
    both.map(|(a, b)| a.load(Relaxed).wrapping_add(b.load(Relaxed)))
}

/// Ticks of a TSC of so many kHz as nanoseconds.
pub fn nanoseconds(ticks: u64, khz: u32) -> u64 {
    let khz = u64::from(khz.max(1));
    // In two steps: a tick count times a million does not fit.
    let (whole, rest) = (ticks / khz, ticks % khz);
    whole
        .wrapping_mul(1_000_000)
        .wrapping_add(rest.wrapping_mul(1_000_000) / khz)
}
