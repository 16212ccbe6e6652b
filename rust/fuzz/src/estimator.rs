// SPDX-License-Identifier: GPL-2.0

//! Whatever the CPUs log and the page tables say: what the estimator makes of it is
//! read by the command as it was meant, and adds up.

use std::collections::BTreeMap;

use kernel::wss::{Bits, Params, Period, Region, Regions, Wss, ALL, MAX_CANDIDATES, NONE, PAGES};
use kernel::wss_tables;
use kvmscope_command::wss::estimate::{read_estimate, read_history};
use kvmscope_command::wss::pages::read_pages;

use crate::bytes::Bytes;

/// Memory for so many regions: the rest is lost, and must be counted so.
const ROOM: usize = 24;

#[derive(Default)]
struct Map(BTreeMap<u64, Box<Region>>);

impl Regions for Map {
    fn region(&mut self, number: u64) -> Option<&mut Region> {
        let room = self.0.len() < ROOM || self.0.contains_key(&number);
        room.then(|| self.0.region(number)).flatten()
    }
    fn known(&mut self, number: u64) -> Option<&mut Region> {
        self.0.known(number)
    }
    fn for_some(
        &mut self,
        from: u64,
        count: usize,
        f: impl FnMut(u64, &mut Region),
    ) -> Option<u64> {
        self.0.for_some(from, count, f)
    }
    fn retain(&mut self, keep: impl FnMut(&Region) -> bool) {
        Regions::retain(&mut self.0, keep);
    }
}

impl Bytes<'_> {
    /// Zero once there are none left.
    fn small(&mut self) -> u64 {
        self.byte().unwrap_or(0).into()
    }
    /// A page: most of them near each other, a few anywhere.
    fn gfn(&mut self) -> u64 {
        let (kind, low) = (self.small(), self.small());
        match kind {
            0xff => (1 << 40) - 1,
            0xf0.. => ((kind & 15) << 36) | (low << 9),
            _ => (kind << 2) | low,
        }
    }
    fn bits(&mut self) -> Bits {
        match self.small() {
            0 => NONE,
            1 => ALL,
            seed => std::array::from_fn(|i| seed.rotate_left(i as u32 * 8) & (seed << 3)),
        }
    }
    fn params(&mut self) -> Params {
        Params {
            period_ms: self.small() as u32 * 1000,
            intervals: self.small() as u32,
            threshold: self.small() as u32,
            reads: self.small() as u32 & 1,
            split: 0,
            sample: 0,
        }
    }
}

/// Parameters, then what happens, a byte saying what.
pub fn estimator(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut params = bytes.params();
    let mut wss = Wss::new(Map::default(), params);
    let mut entries = 0;
    while let Some(what) = bytes.byte() {
        match what % 8 {
            0..=2 => {
                let gpas: Vec<u64> = (0..what / 8).map(|_| bytes.gfn() << 12).collect();
                wss.logged(&gpas);
                entries += gpas.len() as u64;
            }
            3 => {
                let (gfn, accessed, dirty) =
                    (bytes.gfn() / PAGES * PAGES, bytes.bits(), bytes.bits());
                wss.scanned(gfn, &accessed, &dirty, what & 8 != 0);
            }
            4 => wss.probed(bytes.gfn(), what & 8 != 0),
            5 => entries += interval(&mut wss, bytes.small()),
            6 => {
                let huge = bytes.small();
                while !wss.is_over() {
                    entries += interval(&mut wss, huge);
                }
                let next = bytes.params();
                let reads = params.reads != 0;
                wss.end_period(&Period::default(), next);
                period(&mut wss, entries, reads);
                (entries, params) = (0, next);
            }
            _ => {
                params = bytes.params();
                wss.begin(params);
                entries = 0;
                assert_eq!(wss.estimate().number, 0);
            }
        }
    }
}

/// A sub-interval ends; regions are huge if their number's end is that. Between two of its
/// parts, a page of what comes next is logged, and one of the first region. Returns how
/// many were.
fn interval(wss: &mut Wss<Map>, huge: u64) -> u64 {
    let (mut from, mut logged) = (0, 0);
    while let Some(next) = wss.end_interval(from, |gfn, pages| {
        let logged = pages.iter().map(|word| u64::from(word.count_ones())).sum();
        assert!(logged > 0, "a region that nothing was logged in");
        (logged, gfn / PAGES % 8 == huge)
    }) {
        assert!(next > from, "{next} after {from}");
        wss.logged(&[(next * PAGES) << 12, huge << 12]);
        (from, logged) = (next, logged + 2);
    }
    assert!(wss.candidates().len() <= MAX_CANDIDATES);
    logged
}

/// What is shown of a period that has ended.
fn period(wss: &mut Wss<Map>, entries: u64, reads: bool) {
    let mut text = String::new();
    wss_tables::estimate(&mut text, &wss.estimate()).expect("a string has room");
    let estimate = read_estimate(&text).expect("the kernel's estimate");
    assert_eq!(estimate.period, wss.estimate().number);
    assert_eq!(estimate.entries, entries);
    assert_eq!(estimate.reads != 0, reads);

    let mut text = String::new();
    wss_tables::history(&mut text, wss.history()).expect("a string has room");
    let history = read_history(&text).expect("the kernel's history");
    assert_eq!(history.last(), Some(&estimate));

    let size = wss_tables::pages(wss, &mut []);
    let mut file = vec![0; size];
    // One byte too few is not written beyond; then all of it fits.
    assert_eq!(wss_tables::pages(wss, &mut file[..size - 1]), size);
    assert_eq!(wss_tables::pages(wss, &mut file), size);
    let pages = read_pages(&file)
        .expect("the kernel's pages")
        .expect("a period");
    assert_eq!(pages.period, estimate.period);
    let of = |wanted: &dyn Fn(&kvmscope_command::wss::pages::Kind) -> bool| -> u64 {
        let runs = pages.runs.iter().filter(|run| wanted(&run.kind));
        runs.map(|run| u64::from(run.len)).sum()
    };
    let written = |table: bool| of(&|kind| kind.count >= pages.threshold && kind.table == table);
    assert_eq!(written(false), estimate.written);
    assert_eq!(written(true), estimate.tables);
    if reads {
        assert_eq!(of(&|kind| kind.read), estimate.read_set);
    }
}
