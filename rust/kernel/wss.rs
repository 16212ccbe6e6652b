// SPDX-License-Identifier: GPL-2.0

//! Working sets from the log of written pages (Page-Modification Logging, SDM
//! Vol. 3, "Page-Modification Logging").
//!
//! A period has n sub-intervals. In each, the CPU logs a page when its first
//! write sets the dirty bit; at its end the bits of the logged pages are cleared
//! and every page's count rises by one. A page belongs to the period's written
//! set when its count has reached the threshold m. The pages that were read are
//! those whose accessed bit was found set, once per period.
//!
//! Memory is looked at in regions of 2 MiB, which is what a page table or a huge
//! leaf maps. The caller serialises everything here.

/// Pages of 4 KiB in a region.
pub const PAGES: u64 = 512;

/// One bit for each page of a region.
pub type Bits = [u64; 8];

/// A number up to [`MAX_INTERVALS`] for each page of a region, eight of them in a word,
/// the first one's in its lowest byte.
pub type Counts = [u64; 64];

/// Every page of a region.
pub const ALL: Bits = [u64::MAX; 8];

/// No page of a region.
pub const NONE: Bits = [0; 8];

/// The most sub-intervals that a period can have.
pub const MAX_INTERVALS: u32 = 200;

/// The most pages that are looked at in one sub-interval to see whether the
/// guest has its page tables there.
pub const MAX_CANDIDATES: usize = 128;

/// Periods after which it is asked again what a page is used for.
const ASK_AGAIN: u64 = 16;

/// So many periods a region is kept that nobody touches: more often than not somebody
/// comes back to it.
const IDLE: u8 = 4;

/// Regions whose dirty bits are cleared in one go: a vCPU may have to wait for that.
const AT_ONCE: usize = 8;

/// The periods that are remembered.
pub const HISTORY: usize = 64;

/// What is known of a region of memory.
#[repr(C)]
#[derive(Clone)]
pub struct Region {
    /// Logged since the sub-interval began.
    logged: Bits,
    /// Dirty when the page tables were read; cleared again once the log explains it.
    suspect: Bits,
    /// Logged in a sub-interval of this period that has ended.
    counted: Bits,
    /// Accessed in this period.
    accessed: Bits,
    /// Dirty when they were unmapped in this period.
    gone: Bits,
    /// Used by the guest as page tables, as far as is known.
    table: Bits,
    /// Known to be one or the other, page table or data.
    known: Bits,
    /// Sub-intervals of this period in which each page was logged.
    counts: Counts,
    /// Mapped by a huge leaf at some time in this period.
    huge: bool,
    /// A huge leaf was dirty when it was unmapped in this period.
    huge_gone: bool,
    /// Periods without a part in them.
    idle: u8,
    /// The period before.
    last: Last,
}

/// What was found out of a region in a period that has ended.
#[repr(C)]
#[derive(Clone)]
pub struct Last {
    /// In how many sub-intervals each page was logged.
    pub counts: Counts,
    /// Read or written: a write is an access, whether the accessed bits were looked
    /// at or not.
    pub touched: Bits,
    /// The page tables, as far as they were known then.
    pub table: Bits,
    /// Mapped by a huge leaf.
    pub huge: bool,
    any: bool,
}

impl Region {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self {
            logged: NONE,
            suspect: NONE,
            counted: NONE,
            accessed: NONE,
            gone: NONE,
            table: NONE,
            known: NONE,
            counts: [0; PAGES as usize / 8],
            huge: false,
            huge_gone: false,
            idle: 0,
            last: Last {
                counts: [0; PAGES as usize / 8],
                touched: NONE,
                table: NONE,
                huge: false,
                any: false,
            },
        }
    }

    /// Ends a sub-interval. `leaf` clears the dirty bits of the pages it is
    /// given and says how many there were and whether a huge leaf has them.
    fn end_interval(&mut self, leaf: impl FnOnce(&Bits) -> (u64, bool)) -> u64 {
        if is_empty(&self.logged) {
            return 0;
        }
        let (rearmed, huge) = leaf(&self.logged);
        if huge {
            // One entry stands for all that the leaf maps.
            self.logged = ALL;
            self.huge = true;
        }
        for (counts, &word) in self.counts.chunks_exact_mut(8).zip(&self.logged) {
            count(counts, word);
        }
        merge(&mut self.counted, &self.logged);
        self.logged = NONE;
        rearmed
    }

    /// The pages that were logged in so many sub-intervals of this period.
    fn reached(&self, threshold: u8) -> Bits {
        if threshold == 1 {
            return self.counted;
        }
        let mut reached = NONE;
        for (word, counts) in reached.iter_mut().zip(self.counts.chunks_exact(8)) {
            let counts = counts.iter().flat_map(|counts| counts.to_le_bytes());
            for (bit, count) in (0..64u32).zip(counts) {
                *word |= u64::from(count >= threshold).wrapping_shl(bit);
            }
        }
        reached
    }

    /// Adds the period to `sum`, makes it the last, and begins another.
    fn end_period(&mut self, threshold: u8, sum: &mut Sets) {
        let any = !is_empty(&self.counted) || !is_empty(&self.accessed);
        self.idle = if any { 0 } else { self.idle.saturating_add(1) };
        if any {
            let written = self.reached(threshold);
            for (written, table) in written.iter().zip(&self.table) {
                add(&mut sum.written, written & !table);
                add(&mut sum.tables, written & table);
            }
            let huge = self.huge && written.first().is_some_and(|word| word & 1 != 0);
            add(&mut sum.huge, huge.into());
            self.last.touched = self.accessed;
            merge(&mut self.last.touched, &self.counted);
            for touched in &self.last.touched {
                add(&mut sum.touched, *touched);
            }
            self.last.counts = self.counts;
            self.last.table = self.table;
            self.last.huge = self.huge;
            self.counts = [0; PAGES as usize / 8];
        }
        self.last.any = any;
        self.counted = NONE;
        self.accessed = NONE;
        self.gone = NONE;
        self.huge = false;
        self.huge_gone = false;
    }

    /// Takes into account what was dirty when it was unmapped: it must have been
    /// logged in this period, or be in the log by now.
    fn settle(&mut self) {
        if is_empty(&self.gone) {
            return;
        }
        if self.huge_gone && !(is_empty(&self.counted) && is_empty(&self.logged)) {
            // Its one entry stood for all of it.
            for (counts, counted) in self.counts.chunks_exact_mut(8).zip(&self.counted) {
                count(counts, !counted);
            }
            self.counted = ALL;
        }
        let words = self.gone.iter().zip(&self.counted);
        for (suspect, (gone, counted)) in self.suspect.iter_mut().zip(words) {
            *suspect |= gone & !counted;
        }
    }

    /// Counts the pages that were dirty when they were looked at, but are not in
    /// the log since.
    fn lost(&mut self) -> u64 {
        let lost = if self.huge || self.suspect == ALL {
            // The leaf's one entry explains it.
            let unexplained = !is_empty(&self.suspect) && is_empty(&self.logged);
            u64::from(unexplained).wrapping_mul(PAGES)
        } else {
            let pairs = self.suspect.iter().zip(&self.logged);
            pairs.fold(0, |sum, (suspect, logged)| {
                u64::wrapping_add(sum, (suspect & !logged).count_ones().into())
            })
        };
        // Logged belatedly: its dirty bit is cleared, and it is lost but once.
        for (logged, suspect) in self.logged.iter_mut().zip(&self.suspect) {
            *logged |= suspect;
        }
        self.suspect = NONE;
        lost
    }

    /// Whether there is nothing worth remembering.
    fn is_blank(&self) -> bool {
        self.idle > IDLE && is_empty(&self.logged) && is_empty(&self.table)
    }

    /// The last period, for [`crate::wss_tables::pages`]; None if the region had
    /// no part in it.
    pub fn last(&self) -> Option<&Last> {
        self.last.any.then_some(&self.last)
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds the members of a set.
fn add(sum: &mut u64, set: u64) {
    // The kernel's CPUs cannot be assumed to count bits: most sets are empty.
    if set != 0 {
        *sum = sum.wrapping_add(set.count_ones().into());
    }
}

/// Raises the counts of the pages that `word` has a bit for by one, eight at a time.
/// None exceeds a byte: there are no more sub-intervals.
fn count(counts: &mut [u64], mut word: u64) {
    while word != 0 {
        let byte = word.trailing_zeros() / 8;
        let bits = word.wrapping_shr(8 * byte) & 0xff;
        // To each byte of a word its own bit, then a one to those that have it.
        let spread = bits.wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let ones = (spread.wrapping_add(0x7f7f_7f7f_7f7f_7f7f) >> 7) & 0x0101_0101_0101_0101;
        if let Some(counts) = counts.get_mut(byte as usize) {
            *counts = counts.wrapping_add(ones);
        }
        word &= !0xffu64.wrapping_shl(8 * byte);
    }
}

fn is_empty(bits: &Bits) -> bool {
    bits.iter().all(|word| *word == 0)
}

fn merge(to: &mut Bits, from: &Bits) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to |= from);
}

fn for_each_bit(mut word: u64, mut f: impl FnMut(usize)) {
    while word != 0 {
        f(word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
    }
}

/// The number of the region that a guest physical address is in.
fn region_of(gpa: u64) -> u64 {
    (gpa >> 12) / PAGES
}

/// The word and the bit of a page in its region.
fn place(gfn: u64) -> (usize, u64) {
    let page = gfn % PAGES;
    ((page / 64) as usize, 1u64.wrapping_shl(page as u32 % 64))
}

fn set(bits: &mut Bits, gfn: u64) {
    let (word, bit) = place(gfn);
    if let Some(word) = bits.get_mut(word) {
        *word |= bit;
    }
}

fn clear(bits: &mut Bits, gfn: u64) {
    let (word, bit) = place(gfn);
    if let Some(word) = bits.get_mut(word) {
        *word &= !bit;
    }
}

/// Where regions are kept: a tree in the kernel, another one in the tests.
pub trait Regions {
    /// The region with this number, made if there is none; None without memory.
    fn region(&mut self, number: u64) -> Option<&mut Region>;
    /// The region with this number if there is one.
    fn known(&mut self, number: u64) -> Option<&mut Region>;
    /// So many regions, ascending, from the number `from` on; the next one's number, if
    /// there are more.
    fn for_some(&mut self, from: u64, count: usize, f: impl FnMut(u64, &mut Region))
        -> Option<u64>;
    /// Every region, ascending.
    fn for_each(&mut self, f: impl FnMut(u64, &mut Region)) {
        self.for_some(0, usize::MAX, f);
    }
    /// Forgets those for which `keep` is false.
    fn retain(&mut self, keep: impl FnMut(&Region) -> bool);
}

/// What the user asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The length of a period in milliseconds.
    pub period_ms: u32,
    /// Its sub-intervals, from 1 to [`MAX_INTERVALS`].
    pub intervals: u32,
    /// In how many of them a page must be logged to belong to the written set.
    pub threshold: u32,
    /// Not 0: reads are looked for.
    pub reads: u32,
    /// Not 0: huge pages are split.
    pub split: u32,
    /// Pages that are unmapped at random at the beginning of a period.
    pub sample: u32,
}

/// What the caller counted in a period.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// When it began, in nanoseconds of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// How long it was.
    pub duration_ns: u64,
    /// Log pages that were handed over.
    pub swaps: u64,
    /// Log pages that a vCPU drained for lack of an empty one.
    pub in_place: u64,
    /// VM exits because a log was full.
    pub full_exits: u64,
    /// TLB flushes.
    pub flushes: u64,
    /// The worker's CPU time.
    pub spent_ns: u64,
    /// Entries into guests of the guest, whose writes are not logged.
    pub nested_runs: u64,
    /// Pages that were unmapped at random.
    pub sampled: u64,
    /// Those of them that the guest touched.
    pub sampled_touched: u64,
    /// Pages of which nothing is known of when they were unmapped: so many may be
    /// missing.
    pub unmapped_lost: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    written: u64,
    tables: u64,
    touched: u64,
    huge: u64,
}

/// What is known of a period that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Its number, from 1; 0 for none.
    pub number: u64,
    /// Sub-intervals and threshold that it had.
    pub intervals: u32,
    /// See [`Estimate::intervals`].
    pub threshold: u32,
    /// Whether the pages that were read are known.
    pub reads: bool,
    /// What the caller counted.
    pub period: Period,
    /// Pages in the written set, those of page tables aside.
    pub written: u64,
    /// Pages of the guest's page tables in the written set.
    pub tables: u64,
    /// Pages that were written or read.
    pub read_set: u64,
    /// Huge leaves in the written set.
    pub huge: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Dirty bits that were cleared.
    pub rearmed: u64,
    /// Pages that were dirty without an entry, or for which there was no memory.
    pub lost: u64,
}

/// The working set of a VM.
#[repr(C)]
pub struct Wss<R> {
    regions: R,
    params: Params,
    /// Periods that have ended.
    number: u64,
    /// Sub-intervals of this period that have ended.
    intervals: u32,
    entries: u64,
    rearmed: u64,
    lost: u64,
    candidates: [u64; MAX_CANDIDATES],
    candidate_count: usize,
    history: [Estimate; HISTORY],
}

impl<R: Regions> Wss<R> {
    /// Nothing was logged yet.
    pub fn begin(&mut self, params: Params) {
        self.regions.retain(|_| false);
        self.adopt(params);
        self.number = 0;
        self.intervals = 0;
        self.entries = 0;
        self.rearmed = 0;
        self.lost = 0;
        self.candidate_count = 0;
    }

    fn adopt(&mut self, params: Params) {
        self.params = params;
        self.params.intervals = params.intervals.clamp(1, MAX_INTERVALS);
        self.params.threshold = params.threshold.min(self.params.intervals).max(1);
    }

    /// Takes entries of a log, guest physical addresses.
    pub fn logged(&mut self, gpas: &[u64]) {
        self.entries = self.entries.wrapping_add(gpas.len() as u64);
        let mut gpas = gpas.iter();
        let mut next = gpas.next();
        while let Some(&first) = next {
            // One look-up for as many as lie in the same region.
            let number = region_of(first);
            let same = |gpa: &&u64| region_of(**gpa) == number;
            if let Some(region) = self.regions.region(number) {
                while let Some(gpa) = next.filter(same) {
                    set(&mut region.logged, gpa >> 12);
                    next = gpas.next();
                }
            } else {
                while next.filter(same).is_some() {
                    self.lost = self.lost.wrapping_add(1);
                    next = gpas.next();
                }
            }
        }
    }

    /// Ends a sub-interval, some regions at a time: those from the number `from` on, which
    /// is 0 at first; returns where to go on, or None at the end. For each region that was
    /// written, `leaf` is to clear the dirty bits of the given pages; it says how many it
    /// cleared and whether a huge leaf maps the region. The TLBs are to be flushed after
    /// the last.
    ///
    /// Entries may be taken in between, and belong to this sub-interval if their region's
    /// turn is to come, else to the next.
    pub fn end_interval(
        &mut self,
        from: u64,
        mut leaf: impl FnMut(u64, &Bits) -> (u64, bool),
    ) -> Option<u64> {
        if from == 0 {
            self.intervals = self.intervals.saturating_add(1);
            self.candidate_count = 0;
        }
        let so_far = self.intervals;
        // Once is what every page is that was written at all.
        let telling = so_far > 1 || self.params.intervals == 1;
        let budget = self.candidate_budget();
        let (candidates, mut found) = (&mut self.candidates, self.candidate_count);
        let mut rearmed = 0u64;

        let next = self.regions.for_some(from, AT_ONCE, |number, region| {
            let logged = region.logged;
            let first = number.wrapping_mul(PAGES);
            rearmed = rearmed.wrapping_add(region.end_interval(|logged| leaf(first, logged)));
            if !telling || region.huge || found >= budget {
                return;
            }
            for (index, (word, known)) in (0u64..8).zip(logged.iter().zip(&region.known)) {
                for_each_bit(word & !known, |bit| {
                    let page = index.wrapping_mul(64).wrapping_add(bit as u64);
                    let counts = region.counts.get((page / 8) as usize);
                    let count = counts.map(|counts| counts.to_le_bytes()[(page % 8) as usize]);
                    let steady = count.is_some_and(|count| u32::from(count) == so_far);
                    if let (true, true, Some(slot)) =
                        (steady, found < budget, candidates.get_mut(found))
                    {
                        *slot = first.wrapping_add(page);
                        found = found.wrapping_add(1);
                    }
                });
            }
        });
        self.rearmed = self.rearmed.wrapping_add(rearmed);
        self.candidate_count = found;
        next
    }

    /// A page costs the guest a fault to look at: so many per second, no more.
    fn candidate_budget(&self) -> usize {
        let interval_ms = self.params.period_ms / self.params.intervals.max(1);
        let budget = u64::from(interval_ms).wrapping_mul(MAX_CANDIDATES as u64) / 1000;
        budget.clamp(1, MAX_CANDIDATES as u64) as usize
    }

    /// The pages that are logged so steadily that they may be page tables: the CPU
    /// writes these when it walks them, be it for a read. Unmapping one and looking
    /// at the first access to it tells.
    pub fn candidates(&self) -> &[u64] {
        self.candidates.get(..self.candidate_count).unwrap_or(&[])
    }

    /// What the first access to a candidate was.
    pub fn probed(&mut self, gfn: u64, table: bool) {
        if let Some(region) = self.regions.known(gfn / PAGES) {
            set(&mut region.known, gfn);
            if table {
                set(&mut region.table, gfn);
            } else {
                clear(&mut region.table, gfn);
            }
        }
    }

    /// Takes what the page tables say of a region, dirty bits of logged pages
    /// being cleared already. False without memory.
    pub fn scanned(&mut self, gfn: u64, accessed: &Bits, dirty: &Bits, huge: bool) -> bool {
        let number = gfn / PAGES;
        if is_empty(accessed) && is_empty(dirty) {
            return true;
        }
        let Some(region) = self.regions.region(number) else {
            self.lost = self.lost.wrapping_add(1);
            return false;
        };
        merge(&mut region.accessed, accessed);
        merge(&mut region.suspect, dirty);
        region.huge |= huge;
        true
    }

    /// Takes what the leaves of a region said when they were unmapped, or when
    /// somebody else cleared their accessed bits: nothing else tells of pages that
    /// were read. False without memory.
    pub fn unmapped(&mut self, gfn: u64, accessed: &Bits, dirty: &Bits, huge: bool) -> bool {
        let Some(region) = self.regions.region(gfn / PAGES) else {
            self.lost = self.lost.wrapping_add(1);
            return false;
        };
        merge(&mut region.accessed, accessed);
        merge(&mut region.gone, dirty);
        region.huge |= huge;
        region.huge_gone |= huge && !is_empty(dirty);
        true
    }

    /// Ends a period, whose sub-intervals have ended, whose pages were scanned and
    /// whose log was drained since. The next has other parameters.
    pub fn end_period(&mut self, period: &Period, next: Params) {
        let threshold = self.params.threshold as u8;
        let mut sets = Sets::default();
        let mut lost = self.lost;
        let ask_again = self.number % ASK_AGAIN == ASK_AGAIN - 1;
        self.regions.for_each(|_, region| {
            region.settle();
            lost = lost.wrapping_add(region.lost());
            region.end_period(threshold, &mut sets);
            if ask_again {
                region.known = NONE;
            }
        });
        self.regions.retain(|region| !region.is_blank());

        self.number = self.number.wrapping_add(1);
        let reads = self.params.reads != 0;
        let estimate = Estimate {
            number: self.number,
            intervals: self.intervals,
            threshold: self.params.threshold,
            reads,
            period: *period,
            written: sets.written,
            tables: sets.tables,
            read_set: if reads { sets.touched } else { 0 },
            huge: sets.huge,
            entries: self.entries,
            rearmed: self.rearmed,
            lost,
        };
        if let Some(slot) = self.history.get_mut(slot_of(self.number)) {
            *slot = estimate;
        }
        self.intervals = 0;
        self.entries = 0;
        self.rearmed = 0;
        self.lost = 0;
        self.adopt(next);
    }

    /// Whether the period has had all its sub-intervals.
    pub fn is_over(&self) -> bool {
        self.intervals >= self.params.intervals
    }

    /// The last period that has ended.
    pub fn estimate(&self) -> Estimate {
        let slot = self.history.get(slot_of(self.number));
        slot.filter(|_| self.number != 0)
            .copied()
            .unwrap_or_default()
    }

    /// The periods that are remembered, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Estimate> {
        let oldest = self.number.saturating_sub(HISTORY as u64).wrapping_add(1);
        (oldest..=self.number)
            .filter(|number| *number != 0)
            .filter_map(|number| self.history.get(slot_of(number)))
    }

    /// Every region, ascending.
    pub fn for_each_region(&mut self, f: impl FnMut(u64, &mut Region)) {
        self.regions.for_each(f);
    }
}

fn slot_of(number: u64) -> usize {
    (number % HISTORY as u64) as usize
}

#[cfg(not(CONFIG_KVM_SCOPE))]
impl<R: Regions> Wss<R> {
    /// For the tests; in the kernel it begins as zeroes, being too large for the stack.
    pub fn new(regions: R, params: Params) -> Self {
        let mut wss = Self {
            regions,
            params,
            number: 0,
            intervals: 0,
            entries: 0,
            rearmed: 0,
            lost: 0,
            candidates: [0; MAX_CANDIDATES],
            candidate_count: 0,
            history: [Estimate::default(); HISTORY],
        };
        wss.begin(params);
        wss
    }
}

/// For the tests and the fuzz target; the kernel has a tree of its own.
#[cfg(not(CONFIG_KVM_SCOPE))]
impl Regions for std::collections::BTreeMap<u64, Box<Region>> {
    fn region(&mut self, number: u64) -> Option<&mut Region> {
        Some(self.entry(number).or_default())
    }
    fn known(&mut self, number: u64) -> Option<&mut Region> {
        self.get_mut(&number).map(|region| &mut **region)
    }
    fn for_some(
        &mut self,
        from: u64,
        count: usize,
        mut f: impl FnMut(u64, &mut Region),
    ) -> Option<u64> {
        let mut regions = self.range_mut(from..);
        for (number, region) in regions.by_ref().take(count) {
            f(*number, region);
        }
        regions.next().map(|(number, _)| *number)
    }
    fn retain(&mut self, mut keep: impl FnMut(&Region) -> bool) {
        self.retain(|_, region| keep(region));
    }
}
