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
    /// Accessed in this period.
    accessed: Bits,
    /// Used by the guest as page tables, as far as is known.
    table: Bits,
    /// Known to be one or the other, page table or data.
    known: Bits,
    /// Sub-intervals of this period in which each page was logged.
    counts: [u8; PAGES as usize],
    /// Mapped by a huge leaf at some time in this period.
    huge: bool,
    /// Any of the counts is not zero.
    counted: bool,
    /// The period before.
    last: Last,
}

#[repr(C)]
#[derive(Clone)]
struct Last {
    counts: [u8; PAGES as usize],
    accessed: Bits,
    huge: bool,
    any: bool,
}

impl Region {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self {
            logged: NONE,
            suspect: NONE,
            accessed: NONE,
            table: NONE,
            known: NONE,
            counts: [0; PAGES as usize],
            huge: false,
            counted: false,
            last: Last {
                counts: [0; PAGES as usize],
                accessed: NONE,
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
        for (counts, &word) in self.counts.chunks_exact_mut(64).zip(&self.logged) {
            for_each_bit(word, |bit| {
                if let Some(count) = counts.get_mut(bit) {
                    *count = count.saturating_add(1);
                }
            });
        }
        self.counted = true;
        self.logged = NONE;
        rearmed
    }

    /// Adds the period to `sum`, makes it the last, and begins another.
    fn end_period(&mut self, threshold: u8, sum: &mut Sets) {
        self.last.any = self.counted || !is_empty(&self.accessed);
        if self.last.any {
            let words = self.counts.chunks_exact(64).zip(&self.accessed);
            for ((counts, &accessed), &table) in words.zip(&self.table) {
                let mut written = 0u64;
                let mut any = 0u64;
                for (bit, &count) in (0..64u32).zip(counts) {
                    written |= u64::from(count >= threshold).wrapping_shl(bit);
                    any |= u64::from(count != 0).wrapping_shl(bit);
                }
                add(&mut sum.written, (written & !table).count_ones());
                add(&mut sum.tables, (written & table).count_ones());
                add(&mut sum.read_set, (accessed | any).count_ones());
            }
            let reached = |count: &u8| *count >= threshold;
            let huge = self.huge && self.counts.first().is_some_and(reached);
            add(&mut sum.huge, huge.into());
        }
        self.last.counts = self.counts;
        self.last.accessed = self.accessed;
        self.last.huge = self.huge;
        self.counts = [0; PAGES as usize];
        self.accessed = NONE;
        self.counted = false;
        self.huge = false;
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
        !self.last.any && !self.counted && is_empty(&self.logged) && is_empty(&self.table)
    }

    /// The last period, for [`crate::wss_tables::pages`]; None if the region had
    /// no part in it.
    pub fn last(&self) -> Option<(&[u8; PAGES as usize], &Bits, &Bits, bool)> {
        let last = &self.last;
        last.any
            .then_some((&last.counts, &last.accessed, &self.table, last.huge))
    }

    /// The pages that were read or written: a write is an access, whether the
    /// accessed bits were looked at or not.
    pub fn touched(counts: &[u8; PAGES as usize], accessed: &Bits) -> Bits {
        let mut touched = *accessed;
        for (word, counts) in touched.iter_mut().zip(counts.chunks_exact(64)) {
            for (bit, &count) in (0..64u32).zip(counts) {
                *word |= u64::from(count != 0).wrapping_shl(bit);
            }
        }
        touched
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

fn add(sum: &mut u64, count: u32) {
    *sum = sum.wrapping_add(count.into());
}

fn is_empty(bits: &Bits) -> bool {
    bits.iter().all(|word| *word == 0)
}

fn for_each_bit(mut word: u64, mut f: impl FnMut(usize)) {
    while word != 0 {
        f(word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
    }
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
    /// Every region, ascending.
    fn for_each(&mut self, f: impl FnMut(u64, &mut Region));
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
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    written: u64,
    tables: u64,
    read_set: u64,
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
        let mut gfns = gpas.iter().map(|gpa| gpa >> 12).peekable();
        while let Some(&gfn) = gfns.peek() {
            let number = gfn / PAGES;
            let mut region = self.regions.region(number);
            while let Some(gfn) = gfns.next_if(|gfn| gfn / PAGES == number) {
                match &mut region {
                    Some(region) => set(&mut region.logged, gfn),
                    None => self.lost = self.lost.wrapping_add(1),
                }
            }
        }
    }

    /// Ends a sub-interval. For each region that was written, `leaf` is to clear
    /// the dirty bits of the given pages; it says how many it cleared and whether
    /// a huge leaf maps the region. The TLBs are to be flushed after that.
    pub fn end_interval(&mut self, mut leaf: impl FnMut(u64, &Bits) -> (u64, bool)) {
        self.intervals = self.intervals.saturating_add(1);
        let so_far = self.intervals;
        // Once is what every page is that was written at all.
        let telling = so_far > 1 || self.params.intervals == 1;
        let budget = self.candidate_budget();
        let (candidates, mut found) = (&mut self.candidates, 0);
        let mut rearmed = 0u64;

        self.regions.for_each(|number, region| {
            let logged = region.logged;
            let first = number.wrapping_mul(PAGES);
            rearmed = rearmed.wrapping_add(region.end_interval(|logged| leaf(first, logged)));
            if !telling || region.huge || found >= budget {
                return;
            }
            for (index, (word, known)) in (0u64..8).zip(logged.iter().zip(&region.known)) {
                for_each_bit(word & !known, |bit| {
                    let page = index.wrapping_mul(64).wrapping_add(bit as u64);
                    let steady = region.counts.get(page as usize);
                    let steady = steady.is_some_and(|&count| u32::from(count) == so_far);
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
        let merge = |to: &mut Bits, from: &Bits| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to |= from);
        };
        merge(&mut region.accessed, accessed);
        merge(&mut region.suspect, dirty);
        region.huge |= huge;
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
            read_set: if reads { sets.read_set } else { 0 },
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
