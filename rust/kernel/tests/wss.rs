// SPDX-License-Identifier: GPL-2.0

//! The estimator against a machine in miniature: pages with dirty and accessed
//! bits, and a log that a page enters when it becomes dirty.

use std::collections::{BTreeMap, BTreeSet};

use kvmscope::wss::{Bits, Params, Period, Region, Wss, ALL, HISTORY, NONE, PAGES};
use kvmscope::wss_tables;
use proptest::prelude::*;

type Map = BTreeMap<u64, Box<Region>>;

const PARAMS: Params = Params {
    period_ms: 1000,
    intervals: 2,
    threshold: 1,
    reads: 1,
    split: 0,
    sample: 0,
};

fn bits(pages: impl IntoIterator<Item = u64>) -> Bits {
    let mut bits = NONE;
    for page in pages {
        bits[(page % PAGES / 64) as usize] |= 1 << (page % 64);
    }
    bits
}

fn members(first: u64, bits: &Bits) -> impl Iterator<Item = u64> + '_ {
    (0..PAGES)
        .filter(move |page| (bits[(page / 64) as usize] >> (page % 64)) & 1 != 0)
        .map(move |page| first + page)
}

/// Pages of 4 KiB, and regions that a huge leaf maps.
#[derive(Default)]
struct Machine {
    dirty: BTreeSet<u64>,
    accessed: BTreeSet<u64>,
    huge: BTreeSet<u64>,
    log: Vec<u64>,
}

impl Machine {
    fn leaf(&self, gfn: u64) -> u64 {
        if self.huge.contains(&(gfn / PAGES)) {
            gfn / PAGES * PAGES
        } else {
            gfn
        }
    }

    fn read(&mut self, gfn: u64) {
        self.accessed.insert(self.leaf(gfn));
    }

    fn write(&mut self, gfn: u64) {
        self.read(gfn);
        if self.dirty.insert(self.leaf(gfn)) {
            self.log.push(gfn << 12);
        }
    }

    fn rearm(&mut self, first: u64, pages: &Bits) -> (u64, bool) {
        let huge = self.huge.contains(&(first / PAGES));
        let cleared = if huge {
            u64::from(self.dirty.remove(&first))
        } else {
            members(first, pages)
                .filter(|gfn| self.dirty.remove(gfn))
                .count() as u64
        };
        (cleared, huge)
    }

    /// Unmaps the leaf that maps `gfn`.
    fn unmap(&mut self, wss: &mut Wss<Map>, gfn: u64) {
        let (leaf, number) = (self.leaf(gfn), gfn / PAGES);
        let huge = self.huge.remove(&number);
        let of = |there: bool| match (there, huge) {
            (false, _) => NONE,
            (true, true) => ALL,
            (true, false) => bits([leaf]),
        };
        let (accessed, dirty) = (self.accessed.remove(&leaf), self.dirty.remove(&leaf));
        if accessed || dirty {
            wss.unmapped(number * PAGES, &of(true), &of(dirty), huge);
        }
    }

    fn scan(&mut self, wss: &mut Wss<Map>) {
        let regions: BTreeSet<u64> = self
            .accessed
            .union(&self.dirty)
            .map(|gfn| gfn / PAGES)
            .collect();
        for number in regions {
            let huge = self.huge.contains(&number);
            let within = |set: &BTreeSet<u64>| {
                let pages: Vec<u64> = set
                    .range(number * PAGES..(number + 1) * PAGES)
                    .copied()
                    .collect();
                if huge && !pages.is_empty() {
                    ALL
                } else {
                    bits(pages)
                }
            };
            let (accessed, dirty) = (within(&self.accessed), within(&self.dirty));
            wss.scanned(number * PAGES, &accessed, &dirty, huge);
        }
        self.accessed.clear();
    }

    /// What C does at the end of a sub-interval.
    fn end_interval(&mut self, wss: &mut Wss<Map>, next: Params) {
        wss.logged(&std::mem::take(&mut self.log));
        end_interval(wss, |first, pages| self.rearm(first, pages));
        if wss.is_over() {
            self.scan(wss);
            wss.logged(&std::mem::take(&mut self.log));
            wss.end_period(&Period::default(), next);
        }
    }
}

/// In one go.
fn end_interval(wss: &mut Wss<Map>, mut leaf: impl FnMut(u64, &Bits) -> (u64, bool)) {
    let mut from = Some(0);
    while let Some(number) = from {
        from = wss.end_interval(number, &mut leaf);
    }
}

/// What a record of `pages` says.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    count: u8,
    touched: bool,
    table: bool,
}

fn read_pages(wss: &mut Wss<Map>) -> BTreeMap<u64, Page> {
    let len = wss_tables::pages(wss, &mut []);
    let mut bytes = vec![0; len];
    assert_eq!(wss_tables::pages(wss, &mut bytes), len);
    assert_eq!(&bytes[..8], b"KVMSWSS1");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let records = word(56) as usize;
    assert_eq!(len, 64 + records * 656);

    let mut pages = BTreeMap::new();
    for at in (0..records).map(|n| 64 + n * 656) {
        for page in 0..PAGES as usize {
            let bit = |field: usize| (word(at + field + page / 64 * 8) >> (page % 64)) & 1 != 0;
            let found = Page {
                count: bytes[at + 144 + page],
                touched: bit(16),
                table: bit(80),
            };
            if found.count != 0 || found.touched {
                pages.insert(word(at) + page as u64, found);
            }
        }
    }
    pages
}

proptest! {
    /// The sets are exact, whatever is written, read and unmapped, in pages of either
    /// size.
    #[test]
    fn sets_are_what_was_written_and_read(
        huge in prop::collection::btree_set(0u64..4, 0..3),
        intervals in 1u32..6,
        threshold in 1u32..6,
        accesses in prop::collection::vec(
            prop::collection::vec((0u64..4 * PAGES, 0..3), 0..60), 12),
    ) {
        let params = Params { intervals, threshold, ..PARAMS };
        let mut wss = Wss::new(Map::default(), params);
        let mut machine = Machine { huge: huge.clone(), ..Machine::default() };
        let spread = |gfn: u64| {
            let pages = if huge.contains(&(gfn / PAGES)) { PAGES } else { 1 };
            let first = gfn / pages * pages;
            first..first + pages
        };

        for period in accesses.chunks_exact(intervals as usize) {
            let mut counts: BTreeMap<u64, u8> = BTreeMap::new();
            let mut touched = BTreeSet::new();
            for interval in period {
                let mut written = BTreeSet::new();
                // One that is unmapped is as often as not one that was touched.
                let mut last = 0;
                for &(gfn, what) in interval {
                    match what {
                        0 => machine.read(gfn),
                        1 => {
                            machine.write(gfn);
                            written.extend(spread(gfn));
                        }
                        _ => {
                            let gfn = if gfn % 2 == 0 { last } else { gfn };
                            if !machine.huge.contains(&(gfn / PAGES)) {
                                machine.unmap(&mut wss, gfn);
                            }
                            continue;
                        }
                    }
                    touched.extend(spread(gfn));
                    last = gfn;
                }
                written.iter().for_each(|gfn| *counts.entry(*gfn).or_default() += 1);
                machine.end_interval(&mut wss, params);
            }

            let estimate = wss.estimate();
            let reached = threshold.min(intervals) as u8;
            let written = counts.values().filter(|count| **count >= reached).count();
            prop_assert_eq!(estimate.written, written as u64);
            prop_assert_eq!(estimate.read_set, touched.len() as u64);
            prop_assert_eq!(estimate.lost, 0);
            let expected: BTreeMap<u64, Page> = touched.iter().map(|gfn| {
                let count = counts.get(gfn).copied().unwrap_or(0);
                (*gfn, Page { count, touched: true, table: false })
            }).collect();
            prop_assert_eq!(read_pages(&mut wss), expected);
        }
    }
}

/// A region that was only read, while nobody asks for reads.
#[test]
fn nothing_to_say_of_a_region_is_no_loss() {
    let params = Params {
        intervals: 1,
        reads: 0,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    end_interval(&mut wss, |_, _| (0, false));
    assert!(wss.scanned(0, &NONE, &NONE, false));
    wss.end_period(&Period::default(), params);
    assert_eq!(wss.estimate().lost, 0);
}

#[test]
fn a_dirty_page_that_is_not_in_the_log_is_lost() {
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    let mut machine = Machine::default();
    machine.write(7);
    machine.dirty.insert(8);
    machine.accessed.insert(8);
    machine.end_interval(&mut wss, params);
    assert_eq!((wss.estimate().written, wss.estimate().lost), (1, 1));
    // Found, it is tracked from then on.
    machine.end_interval(&mut wss, params);
    assert_eq!((wss.estimate().written, wss.estimate().lost), (1, 0));
    assert!(machine.dirty.is_empty());
}

#[test]
fn a_dirty_page_that_is_unmapped_and_not_in_the_log_is_lost() {
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    for huge in [false, true] {
        let mut wss = Wss::new(Map::default(), params);
        let mut machine = Machine::default();
        machine.huge.extend(huge.then_some(0));
        machine.write(0);
        machine.log.clear();
        machine.unmap(&mut wss, 0);
        machine.end_interval(&mut wss, params);
        let pages = if huge { PAGES } else { 1 };
        let estimate = wss.estimate();
        assert_eq!((estimate.read_set, estimate.lost), (pages, pages));
        machine.end_interval(&mut wss, params);
        assert_eq!(wss.estimate().lost, 0);
    }
}

/// Its one entry stood for all of it, whatever is mapped there afterwards.
#[test]
fn a_huge_page_that_is_unmapped_was_written_as_a_whole() {
    let mut wss = Wss::new(Map::default(), PARAMS);
    let mut machine = Machine::default();
    machine.huge.insert(1);
    machine.write(PAGES + 7);
    machine.unmap(&mut wss, PAGES + 7);
    machine.write(PAGES + 8);
    machine.end_interval(&mut wss, PARAMS);
    machine.write(PAGES + 8);
    machine.end_interval(&mut wss, PARAMS);
    let estimate = wss.estimate();
    assert_eq!((estimate.written, estimate.lost), (PAGES, 0));
    let pages = read_pages(&mut wss);
    let counts: Vec<u8> = [6, 7, 8].map(|n| pages[&(PAGES + n)].count).into();
    assert_eq!(counts, [1, 1, 2]);
}

/// What is dirty at the scan and in the log after it belongs to the next period.
#[test]
fn a_page_that_is_written_meanwhile_is_not_lost() {
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    let mut machine = Machine::default();
    machine.write(3);
    wss.logged(&std::mem::take(&mut machine.log));
    end_interval(&mut wss, |first, pages| machine.rearm(first, pages));
    machine.write(5);
    machine.scan(&mut wss);
    wss.logged(&std::mem::take(&mut machine.log));
    wss.end_period(&Period::default(), params);
    assert_eq!((wss.estimate().written, wss.estimate().lost), (1, 0));
    machine.end_interval(&mut wss, params);
    assert_eq!((wss.estimate().written, wss.estimate().lost), (1, 0));
    assert!(read_pages(&mut wss)[&5].count == 1);
}

/// In a large VM, logs are drained and mappings go while the dirty bits are being
/// cleared: in regions that were looked at already, and in others.
#[test]
fn a_page_that_is_logged_while_a_sub_interval_ends_is_counted_once() {
    const REGIONS: u64 = 40;
    for last in [false, true] {
        let params = Params {
            intervals: if last { 1 } else { 2 },
            ..PARAMS
        };
        let mut wss = Wss::new(Map::default(), params);
        let mut machine = Machine::default();
        machine.huge.extend([1, REGIONS - 2]);
        let (mut from, mut parts) = (Some(0), 0);
        while let Some(number) = from {
            (0..REGIONS).for_each(|n| machine.write(n * PAGES + parts));
            wss.logged(&std::mem::take(&mut machine.log));
            from = wss.end_interval(number, |first, pages| machine.rearm(first, pages));
            for n in [2, REGIONS - 3] {
                machine.unmap(&mut wss, n * PAGES + parts);
            }
            parts += 1;
        }
        assert!(parts > 2);
        let dirty = machine.dirty.len() as u64;
        assert!(0 < dirty && dirty < REGIONS * parts);

        let mut counts = BTreeMap::<u64, u8>::new();
        let mut add_up = |wss: &mut Wss<Map>| {
            for (gfn, page) in read_pages(wss) {
                *counts.entry(gfn).or_default() += page.count;
            }
        };
        if last {
            machine.scan(&mut wss);
            wss.end_period(&Period::default(), params);
            assert_eq!(wss.estimate().lost, 0);
            add_up(&mut wss);
        }
        machine.end_interval(&mut wss, params);
        assert_eq!(wss.estimate().lost, 0);
        add_up(&mut wss);
        for n in 0..REGIONS {
            // What a huge leaf maps was written in either sub-interval.
            let (pages, count) = match machine.huge.contains(&n) {
                true => (PAGES, 1..=2),
                false => (parts, 1..=1),
            };
            for page in 0..pages {
                let found = counts.remove(&(n * PAGES + page));
                assert!(
                    found.is_some_and(|found| count.contains(&found)),
                    "{n} {page} {found:?}"
                );
            }
        }
        assert!(counts.values().all(|&count| count == 0), "{counts:?}");
        assert!(machine.dirty.is_empty());
    }
}

#[test]
fn candidates_are_found_in_all_regions() {
    let mut wss = Wss::new(Map::default(), PARAMS);
    let mut machine = Machine::default();
    let steady: Vec<u64> = (0..40).map(|n| n * PAGES + n).collect();
    for _ in 0..2 {
        steady.iter().for_each(|&gfn| machine.write(gfn));
        machine.end_interval(&mut wss, PARAMS);
    }
    assert_eq!(wss.candidates(), steady);
}

/// Steadily logged pages are asked about, once, and page tables reported apart.
#[test]
fn page_tables_are_told_apart() {
    let mut wss = Wss::new(Map::default(), PARAMS);
    let mut machine = Machine::default();
    let mut asked = Vec::new();
    for _ in 0..8 {
        for gfn in [100, 101, 600] {
            machine.write(gfn);
        }
        machine.end_interval(&mut wss, PARAMS);
        let candidates = wss.candidates().to_vec();
        for gfn in candidates {
            asked.push(gfn);
            wss.probed(gfn, gfn == 600);
        }
    }
    assert_eq!(asked, [100, 101, 600]);
    let estimate = wss.estimate();
    assert_eq!((estimate.written, estimate.tables), (2, 1));
    assert!(read_pages(&mut wss)[&600].table);
    // What is found out later is not in a period that has ended: both say the same.
    wss.probed(100, true);
    wss.probed(600, false);
    let pages = read_pages(&mut wss);
    assert_eq!(
        (pages[&100].table, pages[&600].table, wss.estimate().tables),
        (false, true, 1)
    );
}

#[test]
fn no_more_candidates_than_the_budget() {
    let params = Params {
        period_ms: 100,
        intervals: 10,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    let mut machine = Machine::default();
    for _ in 0..2 {
        (0..2000).for_each(|gfn| machine.write(gfn));
        machine.end_interval(&mut wss, params);
    }
    assert_eq!(wss.candidates().len(), 1);
}

#[test]
fn the_estimate_looks_like_this() {
    let mut wss = Wss::new(Map::default(), PARAMS);
    let mut text = String::new();
    wss_tables::estimate(&mut text, &wss.estimate()).unwrap();
    assert_eq!(text.lines().next(), Some("kvmscope 1 wss"));
    assert!(
        text.lines().skip(1).all(|line| line.ends_with(" 0")),
        "{text}"
    );

    let mut machine = Machine::default();
    for _ in 0..2 {
        machine.write(1);
        machine.read(2);
        machine.end_interval(&mut wss, PARAMS);
    }
    text.clear();
    wss_tables::history(&mut text, wss.history()).unwrap();
    let expected = "\
kvmscope 1 wss-history
period start_ns duration_ns intervals threshold written tables read_set reads huge entries swaps in_place full_exits flushes rearmed spent_ns lost nested_runs sampled sampled_touched unmapped_lost
1 0 0 2 1 1 0 2 1 0 2 0 0 0 0 2 0 0 0 0 0 0
";
    assert_eq!(text, expected);
}

/// What C counted stands under its name, and what it had no room to remember is no page
/// that the log does not have.
#[test]
fn what_the_caller_counted_is_told() {
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    end_interval(&mut wss, |_, _| (0, false));
    let period = Period {
        start_ns: 11,
        duration_ns: 12,
        swaps: 13,
        in_place: 14,
        full_exits: 15,
        flushes: 16,
        spent_ns: 17,
        nested_runs: 18,
        sampled: 19,
        sampled_touched: 20,
        unmapped_lost: 21,
    };
    wss.end_period(&period, params);
    let mut text = String::new();
    wss_tables::estimate(&mut text, &wss.estimate()).unwrap();
    for line in [
        "start_ns 11",
        "duration_ns 12",
        "swaps 13",
        "in_place 14",
        "full_exits 15",
        "flushes 16",
        "spent_ns 17",
        "nested_runs 18",
        "sampled 19",
        "sampled_touched 20",
        "unmapped_lost 21",
        "lost 0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    end_interval(&mut wss, |_, _| (0, false));
    wss.end_period(&Period::default(), params);
    assert_eq!(wss.estimate().period, Period::default());
}

#[test]
fn the_history_is_bounded_and_in_order() {
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    let mut machine = Machine::default();
    for _ in 0..HISTORY + 10 {
        machine.end_interval(&mut wss, params);
    }
    let numbers: Vec<u64> = wss.history().map(|estimate| estimate.number).collect();
    assert_eq!(numbers, (11..=HISTORY as u64 + 10).collect::<Vec<_>>());
}

/// Memory that is no longer touched is no longer remembered.
#[test]
fn idle_regions_are_forgotten() {
    let mut regions = 0;
    let params = Params {
        intervals: 1,
        ..PARAMS
    };
    let mut wss = Wss::new(Map::default(), params);
    let mut machine = Machine::default();
    (0..10).for_each(|n| machine.write(n * PAGES));
    for _ in 0..7 {
        machine.end_interval(&mut wss, params);
    }
    wss.for_each_region(|_, _| regions += 1);
    assert_eq!(regions, 0);
    assert_eq!(read_pages(&mut wss), BTreeMap::new());
}
