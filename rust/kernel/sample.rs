// SPDX-License-Identifier: GPL-2.0

//! The decisions of the access sampler: which pages lose their access next, how
//! many of them and when, and where in the ring a sample goes.
//!
//! A page whose access was taken away is *armed*; the guest's next access to it is
//! a sample and maps it again. The guest pays a fault for each sample, so there is
//! a rate that is asked for and a budget of the guest's time that is kept, but for
//! what nobody could foresee. The caller serialises everything here.

use core::num::NonZeroU64;

/// Pages of 4 KiB in a region, 2 MiB.
pub const REGION: u64 = 512;

/// Kinds of accesses.
pub const READ: u32 = 1;
/// See [`READ`].
pub const WRITE: u32 = 2;
/// See [`READ`].
pub const EXEC: u32 = 4;

/// A page at random in each region, in turn.
pub const SWEEP: u32 = 0;
/// Pages at random, each as likely as any other.
pub const RANDOM: u32 = 1;

/// The most samples per second that may be asked for.
pub const MAX_RATE: u32 = 1_000_000;
/// All of the guest's time.
pub const MAX_BUDGET: u32 = 1_000_000;
/// Pages that are armed at a time, at the most.
pub const MAX_WANT: u64 = 4096;

/// Of a page's number, in a sample as programs of old have it.
const OLD_GFN_BITS: u32 = 29;

const SECOND: u64 = 1_000_000_000;
/// A tick is no shorter and, unless it is too expensive, no longer than this.
const MIN_WAIT: u64 = 10_000_000;
const MAX_WAIT: u64 = 100_000_000;
/// What a fault costs as long as none was measured.
const FIRST_COST: u64 = 50_000;
/// Faults for which the first guess counts.
const FIRST_FAULTS: u64 = 4;

/// Random numbers (SplitMix64): enough for sampling, and for nothing else.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, each as likely as any other; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let Some(n) = NonZeroU64::new(n) else {
            return 0;
        };
        // The numbers beyond the last whole multiple of n would favour small ones.
        let excess = (u64::MAX % n).wrapping_add(1) % n;
        loop {
            let x = self.next();
            if x <= u64::MAX.wrapping_sub(excess) {
                return x % n;
            }
        }
    }
}

/// A memory slot; they come sorted by address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its first page.
    pub gfn: u64,
    /// Its pages.
    pub pages: u64,
    /// The pages of all slots that come before it.
    pub before: u64,
}

/// What is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// [`SWEEP`] or [`RANDOM`].
    pub strategy: u32,
    /// Kinds of accesses, or-ed.
    pub access: u32,
    /// Samples per second.
    pub rate: u32,
    /// Millionths of the guest's time.
    pub budget_ppm: u32,
}

impl Params {
    /// Whether there are such.
    pub fn are_valid(&self) -> bool {
        self.strategy <= RANDOM
            && self.access != 0
            && self.access & !(READ | WRITE | EXEC) == 0
            && self.rate <= MAX_RATE
            && self.budget_ppm != 0
            && self.budget_ppm <= MAX_BUDGET
    }
}

/// The accesses to take away in order to see those of `access`. Write access can be
/// taken away alone; a page that can be written or executed but not read is none
/// that the hardware knows everywhere, so anything else takes all three.
pub const fn widened(access: u32) -> u32 {
    if access == WRITE {
        WRITE
    } else {
        READ | WRITE | EXEC
    }
}

/// The kind of an access, one bit, from what the hardware says of it. The CPU's
/// walk of a page table reads an entry, whatever else it does to it.
pub const fn kind(write: bool, fetch: bool, walk: bool) -> u32 {
    if walk {
        READ
    } else if fetch {
        EXEC
    } else if write {
        WRITE
    } else {
        READ
    }
}

/// A sample as programs of old have it: the page in 29 bits, the kind above them. What
/// does not fit is none; no sample is 0, for each has a kind.
pub const fn old(gfn: u64, access: u32) -> Option<u32> {
    if gfn >> OLD_GFN_BITS != 0 || access == 0 || access > READ | WRITE | EXEC {
        return None;
    }
    Some((access << OLD_GFN_BITS) | gfn as u32)
}

/// What was counted since the session began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The time.
    pub now_ns: u64,
    /// Mappings that were taken away.
    pub armed: u64,
    /// Samples.
    pub taken: u64,
    /// Accesses of other kinds.
    pub filtered: u64,
    /// Mapped again by something else.
    pub disarmed: u64,
    /// What KVM took over the faults of `taken` and `filtered`.
    pub fault_ns: u64,
    /// For how long vCPUs may have waited for batches, summed over them.
    pub batch_ns: u64,
    /// For how long its vCPUs ran, summed over them.
    pub guest_ns: u64,
    /// Batches.
    pub batches: u64,
    /// vCPUs.
    pub vcpus: u64,
}

impl Seen {
    /// What sampling has cost the guest. A fault costs the exit and the entry as
    /// well, which take no longer than what KVM does in between.
    pub fn spent_ns(&self) -> u64 {
        self.fault_ns
            .saturating_mul(2)
            .saturating_add(self.batch_ns)
    }

    /// What it could have cost, if that had always been the budget.
    fn earned_ns(&self, params: &Params) -> i64 {
        let ppm = u64::from(params.budget_ppm);
        signed(scale(self.guest_ns, ppm, MAX_BUDGET.into()))
    }

    fn faults(&self) -> u64 {
        self.taken.saturating_add(self.filtered)
    }

    /// Mappings that are not armed any more.
    fn resolved(&self) -> u64 {
        self.faults().saturating_add(self.disarmed)
    }

    /// Mappings that are still to be accessed.
    fn pending(&self) -> u64 {
        self.armed.saturating_sub(self.resolved())
    }

    /// What a fault costs, in the mean.
    fn cost_ns(&self) -> u64 {
        let first = FIRST_COST.saturating_mul(FIRST_FAULTS);
        let sum = self.fault_ns.saturating_mul(2).saturating_add(first);
        let mean = div(sum, self.faults().saturating_add(FIRST_FAULTS));
        mean.max(1)
    }
}

/// What to do next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Mappings to take away now.
    pub want: u64,
    /// When to ask again.
    pub wait_ns: u64,
    /// Samples per second that are aimed at.
    pub rate_now: u64,
}

fn div(a: u64, b: u64) -> u64 {
    NonZeroU64::new(b).map_or(u64::MAX, |b| a / b)
}

fn signed(a: u64) -> i64 {
    a.min(i64::MAX as u64) as i64
}

/// `a * b / c` without overflow in between.
fn scale(a: u64, b: u64, c: u64) -> u64 {
    let Some(c) = NonZeroU64::new(c) else {
        return u64::MAX;
    };
    let (whole, rest) = (a / c, a % c);
    whole
        .saturating_mul(b)
        .saturating_add(rest.saturating_mul(b) / c)
}

/// The rate controller: samples in billionths, so that nanoseconds times samples
/// per second need no division.
#[repr(C)]
#[derive(Clone, Debug, Default)]
struct Pace {
    last: Seen,
    /// Samples that should have been taken and were not.
    owed: i64,
    /// Of late, samples and what was armed for them; and what is too fresh to tell.
    came: u64,
    armed: u64,
    fresh: u64,
    /// Guest time that the budget has given up because nobody wanted it, less what it was
    /// let off.
    settled_ns: i64,
    rate_now: u64,
}

impl Pace {
    /// The share of armed mappings that come to be samples, in 1/1024.
    fn share(&self) -> u64 {
        let share = scale(
            self.came.saturating_add(1),
            1024,
            self.armed.saturating_add(1),
        );
        share.clamp(16, 1024)
    }

    /// What has come, and what has not come within a second or so and counts as cold.
    fn learn(&mut self, armed: u64, taken: u64, resolved: u64, since: u64) {
        let fresh = self.fresh.saturating_add(armed).saturating_sub(resolved);
        let cold = scale(fresh, since, SECOND);
        self.fresh = fresh.saturating_sub(cold);
        let ripe = resolved.saturating_add(cold);
        self.came = self.came.saturating_add(taken);
        self.armed = self.armed.saturating_add(ripe);
        if self.armed > 512 {
            self.came /= 2;
            self.armed /= 2;
        }
        self.came = self.came.min(self.armed);
    }

    /// Guest time that may be spent now beyond what is spent or pending. What is
    /// saved up is a second's worth of all vCPUs at most, lest it be spent all at once;
    /// or what a page costs. So is what was spent beyond it: a batch that was held up,
    /// by a CPU that is late to flush its TLB or that its own host has taken away, is
    /// not to end sampling until all of it was earned. What batches take in the mean is
    /// in the cost of a page.
    fn affordable_ns(&mut self, params: &Params, seen: &Seen, cost: u64) -> u64 {
        let second = seen
            .vcpus
            .max(1)
            .saturating_mul(1000)
            .saturating_mul(params.budget_ppm.into());
        let most = signed(second.max(cost));
        let pending = signed(seen.pending().saturating_mul(seen.cost_ns()));
        let balance = seen
            .earned_ns(params)
            .saturating_sub(signed(seen.spent_ns()))
            .saturating_sub(self.settled_ns);
        let kept = balance
            .min(most.saturating_add(pending))
            .max(most.saturating_neg());
        self.settled_ns = self.settled_ns.saturating_add(balance.saturating_sub(kept));
        kept.saturating_sub(pending).max(0) as u64
    }

    fn plan(&mut self, params: &Params, seen: &Seen, random: &mut Random) -> Plan {
        let rate = u64::from(params.rate);
        let since = match self.last.now_ns {
            0 => 0,
            last => seen.now_ns.saturating_sub(last).min(SECOND),
        };
        let armed = seen.armed.saturating_sub(self.last.armed);
        let taken = seen.taken.saturating_sub(self.last.taken);
        let resolved = seen.resolved().saturating_sub(self.last.resolved());
        self.learn(armed, taken, resolved, since);
        self.last = *seen;

        // What a guest that touches little leaves undone is not all made up for.
        let debt = rate.max(16).saturating_mul(SECOND) as i64;
        let credit = rate.max(16).saturating_mul(10 * SECOND) as i64;
        self.owed = self
            .owed
            .saturating_add(rate.saturating_mul(since) as i64)
            .saturating_sub(taken.saturating_mul(SECOND) as i64)
            .min(debt)
            .max(credit.saturating_neg());

        let share = self.share();
        let expected = scale(self.fresh.saturating_mul(SECOND), share, 1024);
        let missing = self.owed.saturating_sub(expected as i64).max(0) as u64;
        // Looking for it and taking it away, and the fault.
        let batch_share = div(seen.batch_ns, seen.armed.max(1));
        let cost = seen.cost_ns().saturating_add(batch_share);
        let affordable = self.affordable_ns(params, seen, cost);
        let want = if rate == 0 {
            0
        } else {
            // Rounded at random: samples are few, and none must be lost for good.
            let parts = scale(missing, 1024, share);
            let round = u64::from(random.below(SECOND) < parts % SECOND);
            (parts / SECOND)
                .saturating_add(round)
                .min(div(affordable, cost))
                .min(MAX_WANT)
        };

        let batch = div(seen.batch_ns, seen.batches.max(1));
        let per_second = seen
            .vcpus
            .max(1)
            .saturating_mul(1000)
            .saturating_mul(params.budget_ppm.into());
        let wait = self.wait_ns(rate, batch, per_second);
        let can = div(per_second, scale(cost, 1024, share));
        self.rate_now = rate.min(can);

        // Neither in step with the guest nor with anything else.
        let wait = (wait / 2).saturating_add(random.below(wait));
        Plan {
            want,
            wait_ns: wait,
            rate_now: self.rate_now,
        }
    }

    /// Batches take a quarter of the budget at most.
    fn wait_ns(&self, rate: u64, batch: u64, per_second: u64) -> u64 {
        let one = div(SECOND, rate).clamp(MIN_WAIT, MAX_WAIT);
        one.max(scale(batch.saturating_mul(4), SECOND, per_second).min(SECOND))
    }
}

/// Of sorted slots, how many there are before the first for which `before` is false.
/// (What core has for that may panic, as far as the compiler can tell.)
fn first_beyond(slots: &[Slot], before: impl Fn(&Slot) -> bool) -> usize {
    let (mut low, mut high) = (0usize, slots.len());
    while low < high {
        let middle = low.wrapping_add(high.wrapping_sub(low) / 2);
        match slots.get(middle) {
            Some(slot) if before(slot) => low = middle.wrapping_add(1),
            _ => high = middle,
        }
    }
    low
}

/// Decides what is sampled.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    random: Random,
    params: Params,
    /// Where the sweep goes on.
    cursor: u64,
    pace: Pace,
}

impl Sampler {
    /// Begins.
    pub fn new(seed: u64, params: Params) -> Self {
        Self {
            random: Random::new(seed),
            params,
            ..Self::default()
        }
    }

    /// Goes on with other parameters; the parameters are valid.
    pub fn change(&mut self, params: Params) {
        if params.rate != self.params.rate {
            // From now on: what was before is nothing to be made up for at this rate.
            self.pace.owed = 0;
            self.pace.last.now_ns = 0;
        }
        // Nor is what was earned worth more now, or less.
        let last = &self.pace.last;
        let more = last
            .earned_ns(&params)
            .saturating_sub(last.earned_ns(&self.params));
        self.pace.settled_ns = self.pace.settled_ns.saturating_add(more);
        self.params = params;
    }

    /// How many mappings to take away now, and when to ask again.
    pub fn plan(&mut self, seen: &Seen) -> Plan {
        self.pace.plan(&self.params, seen, &mut self.random)
    }

    /// Chooses pages of the slots. Returns how many.
    pub fn choose(&mut self, slots: &[Slot], gfns: &mut [u64]) -> usize {
        let mut count = 0usize;
        for gfn in gfns {
            let page = if self.params.strategy == RANDOM {
                self.at_random(slots)
            } else {
                self.in_turn(slots)
            };
            let Some(page) = page else {
                break;
            };
            *gfn = page;
            count = count.wrapping_add(1);
        }
        count
    }

    fn at_random(&mut self, slots: &[Slot]) -> Option<u64> {
        let last = slots.last()?;
        let page = self.random.below(last.before.wrapping_add(last.pages));
        let after = first_beyond(slots, |slot| slot.before <= page);
        let slot = slots.get(after.wrapping_sub(1))?;
        Some(slot.gfn.wrapping_add(page.wrapping_sub(slot.before)))
    }

    fn in_turn(&mut self, slots: &[Slot]) -> Option<u64> {
        let end = |slot: &Slot| slot.gfn.wrapping_add(slot.pages);
        let next = first_beyond(slots, |slot| end(slot) <= self.cursor);
        let slot = match slots.get(next) {
            Some(slot) => slot,
            None => {
                self.cursor = 0;
                slots.first()?
            }
        };
        let first = slot.gfn.max(self.cursor);
        let region_end = (first / REGION).wrapping_add(1).wrapping_mul(REGION);
        self.cursor = region_end.min(end(slot));
        let pages = self.cursor.wrapping_sub(first);
        Some(first.wrapping_add(self.random.below(pages)))
    }
}

/// The ring's numbers. Record n is in place n modulo the number of records.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Records that were put in.
    pub head: u64,
    /// Records that were taken out.
    pub tail: u64,
    /// Samples for which there was no room.
    pub lost: u64,
    /// Records that were taken out and could not be delivered.
    pub dropped: u64,
    /// Records that there is room for; a power of two.
    pub records: u64,
}

impl Ring {
    /// Samples that were taken.
    pub fn taken(&self) -> u64 {
        self.head.wrapping_add(self.lost)
    }

    /// Records that wait to be taken out.
    pub fn waiting(&self) -> u64 {
        self.head.wrapping_sub(self.tail)
    }

    fn place(&self, n: u64) -> u64 {
        n & self.records.wrapping_sub(1)
    }

    /// Believes the reader as to how far it has come, within reason: not back, and
    /// not beyond what there is.
    pub fn heed(&mut self, tail: u64) {
        if tail.wrapping_sub(self.tail) <= self.waiting() {
            self.tail = tail;
        }
    }

    /// Takes a sample: the place where its record goes, if there is room. It counts
    /// once [`Ring::put`] says so.
    pub fn room(&mut self) -> Option<u64> {
        if self.waiting() >= self.records {
            self.lost = self.lost.wrapping_add(1);
            return None;
        }
        Some(self.place(self.head))
    }

    /// The record is in its place.
    pub fn put(&mut self) {
        self.head = self.head.wrapping_add(1);
    }

    /// Where the next records are, and how many of them in a row, `max` at the most.
    pub fn next(&self, max: u64) -> (u64, u64) {
        let at = self.place(self.tail);
        let row = self.records.wrapping_sub(at);
        (at, self.waiting().min(row).min(max))
    }

    /// Those were taken out, `dropped` of them for nothing.
    pub fn consume(&mut self, count: u64, dropped: u64) {
        let count = count.min(self.waiting());
        self.tail = self.tail.wrapping_add(count);
        self.dropped = self.dropped.wrapping_add(dropped.min(count));
    }
}
