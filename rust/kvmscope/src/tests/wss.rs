// SPDX-License-Identifier: GPL-2.0

//! What the kernel says of working sets, and recordings of it.

use proptest::prelude::*;

use crate::recording::Head;
use crate::snapshot::{About, VmId};
use crate::wss::columns::{columns, percentile_columns};
use crate::wss::estimate::{read_estimate, read_history, Estimate};
use crate::wss::pages::{push, read_pages, Kind, Pages, Run};
use crate::wss::percentiles::{Distribution, Percentiles};
use crate::wss::period::Period;
use crate::wss::recording::{Reader, Writer};
use crate::wss::runs::{decode, encode};

const RUN: &[u8] = include_bytes!("../../tests/data/run.wss");
const ESTIMATE: &str =
    include_str!("../../tests/data/host/sys/kernel/debug/kvm/900-4/scope/wss/estimate");
const HISTORY: &str =
    include_str!("../../tests/data/host/sys/kernel/debug/kvm/812-11/scope/wss/history");
const PAGES: &[u8] =
    include_bytes!("../../tests/data/host/sys/kernel/debug/kvm/812-11/scope/wss/pages");

fn said<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn estimates() {
    let estimate = read_estimate(ESTIMATE).unwrap();
    assert_eq!((estimate.period, estimate.written), (2, 128));
    assert_eq!(estimate.read_set(), None);
    assert!(ESTIMATE.contains("new_thing"), "unknown names are tried");

    // What came later is 0 where it is not stated.
    assert_eq!(estimate.unmapped_lost, 0);
    let more = read_estimate(&format!("{ESTIMATE}unmapped_lost 3\n")).unwrap();
    assert_eq!(more.unmapped_lost, 3);

    let without = ESTIMATE.replace("lost 0\n", "");
    assert_eq!(said(read_estimate(&without)), "there is no lost");
    let odd = ESTIMATE.replace("lost 0", "lost many");
    assert!(said(read_estimate(&odd)).starts_with("\"many\" is no number of lost"));
    let later = ESTIMATE.replace("kvmscope 1", "kvmscope 2");
    assert!(said(read_estimate(&later)).starts_with("its format is version \"2\""));
    assert_eq!(
        said(read_estimate(HISTORY)),
        "this is of \"wss-history\", not of wss"
    );
    assert!(said(read_estimate("")).starts_with("it begins with \"\""));
}

#[test]
fn histories() {
    let history = read_history(HISTORY).unwrap();
    let numbers: Vec<u64> = history.iter().map(|estimate| estimate.period).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    // Columns are found by name.
    let mut lines = HISTORY.lines();
    let mut swapped = lines.next().unwrap().to_string();
    for line in lines {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.reverse();
        words.push("1");
        swapped.push_str(&format!("\n{}", words.join(" ")));
    }
    assert_eq!(read_history(&swapped).unwrap(), history);
    let none = HISTORY.lines().take(2).collect::<Vec<_>>().join("\n");
    assert_eq!(read_history(&none).unwrap(), []);
    let short = format!("{HISTORY}1 2 3\n");
    assert_eq!(
        said(read_history(&short)),
        "line 7: 3 values for 19 columns"
    );
}

/// As the kernel would write it: a header, and records of (gfn, flags, pages).
struct File {
    header: [u32; 6],
    records: u64,
    body: Vec<u8>,
}

impl File {
    fn new() -> File {
        File {
            header: [1, 64, 656, 10, 2, 1],
            records: 0,
            body: Vec::new(),
        }
    }

    /// Pages are (page, count, read, table).
    fn record(mut self, gfn: u64, flags: u32, pages: &[(usize, u8, bool, bool)]) -> File {
        let mut record = vec![0; 656];
        record[0..8].copy_from_slice(&gfn.to_le_bytes());
        record[8..12].copy_from_slice(&flags.to_le_bytes());
        for &(page, count, read, table) in pages {
            let bit = 1 << (page % 8);
            record[16 + page / 8] |= if read { bit } else { 0 };
            record[80 + page / 8] |= if table { bit } else { 0 };
            record[144 + page] = count;
        }
        self.records += 1;
        self.body.extend(record);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"KVMSWSS1".to_vec();
        for word in self.header {
            bytes.extend(word.to_le_bytes());
        }
        for word in [7, 1_000, 2_000, self.records] {
            bytes.extend(u64::to_le_bytes(word));
        }
        bytes.extend(&self.body);
        bytes
    }
}

fn run(gfn: u64, len: u32, count: u8, read: bool, table: bool, huge: bool) -> Run {
    let kind = Kind {
        count,
        read,
        table,
        huge,
    };
    Run { gfn, len, kind }
}

#[test]
fn pages_are_runs() {
    let file = File::new()
        .record(
            0,
            0,
            &[
                (0, 0, true, false),
                (63, 10, true, false),
                (64, 10, true, false),
                // A page table that nobody touched is none of the working set.
                (70, 0, false, true),
                (510, 3, false, false),
                (511, 3, false, true),
            ],
        )
        .record(512, 0, &[(0, 3, false, true)])
        .record(
            0x10_0000,
            1,
            &(0..512).map(|i| (i, 4, true, false)).collect::<Vec<_>>(),
        );
    let pages = read_pages(&file.bytes()).unwrap().unwrap();
    assert_eq!(
        (pages.period, pages.start_ns, pages.duration_ns),
        (7, 1_000, 2_000)
    );
    assert_eq!(
        (pages.intervals, pages.threshold, pages.reads),
        (10, 2, true)
    );
    assert_eq!(
        pages.runs,
        [
            run(0, 1, 0, true, false, false),
            run(63, 2, 10, true, false, false),
            run(510, 1, 3, false, false, false),
            run(511, 2, 3, false, true, false),
            run(0x10_0000, 512, 4, true, false, true),
        ]
    );
    assert_eq!(read_pages(b"").unwrap(), None);
    assert!(read_pages(&File::new().bytes())
        .unwrap()
        .unwrap()
        .runs
        .is_empty());
}

#[test]
fn pages_that_are_none() {
    let whole = File::new().record(512, 0, &[]).bytes();
    let bad = |bytes: &[u8]| said(read_pages(bytes));
    assert_eq!(bad(b"garbage"), "it does not begin with KVMSWSS1");
    assert_eq!(bad(&whole[..40]), "it ends within its header");
    assert!(bad(&whole[..whole.len() - 1]).starts_with("it should have 1 records of 656 bytes"));
    let with = |at: usize, value: u32| {
        let mut file = File::new().record(512, 0, &[(5, 10, true, false)]);
        file.header[at] = value;
        bad(&file.bytes())
    };
    assert!(with(0, 2).starts_with("its format is version 2"));
    assert!(with(1, 8).contains("which is too few"));
    assert!(with(2, 0).contains("which is too few"));
    assert_eq!(with(3, 0), "0 is no number of sub-intervals");
    assert_eq!(with(3, 201), "201 is no number of sub-intervals");
    assert!(with(3, 9).ends_with("page 0x205 was counted 10 times in 9 sub-intervals"));
    for gfn in [5, 0, 512, 1 << 40, u64::MAX - 511] {
        let file = File::new().record(512, 0, &[]).record(gfn, 0, &[]);
        assert!(
            bad(&file.bytes()).contains("is not where it can begin"),
            "{gfn:#x}"
        );
    }
    // A later kernel may append to its records.
    let mut later = File::new().record(512, 0, &[(5, 10, true, false)]);
    later.header[2] = 664;
    later.body.extend([0; 8]);
    assert_eq!(
        read_pages(&later.bytes()).unwrap().unwrap().runs,
        [run(517, 1, 10, true, false, false)]
    );
}

#[test]
fn words_of_runs() {
    let runs = [
        run(4096, 512, 3, true, false, true),
        run(4608, 2, 0, true, false, false),
        run(5000, 1, 10, true, true, false),
    ];
    assert_eq!(encode(&runs), ["+4096 512*3rh 2*0r +390 10rt"]);
    let mut decoded = Vec::new();
    assert_eq!(
        decode("+4096 512*3rh 2*0r +390 10rt", 0, 10, &mut decoded).unwrap(),
        5001
    );
    assert_eq!(decoded, runs);
    for bad in [
        "x",
        "0",
        "3*0",
        "0*3",
        "11",
        "256",
        "-1",
        "+-1",
        "+",
        "3*",
        "*3",
        "3x",
        "3 *3",
        "r",
        "+1099511627777",
        "4294967296*1",
        "+18446744073709551615 1",
        "1é",
    ] {
        let said = said(decode(bad, 0, 10, &mut Vec::new()));
        assert!(said.contains("is no run of pages"), "{bad}: {said}");
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Period>, String> {
    let mut reader = Reader::new(bytes).map_err(|e| format!("{e:#}"))?;
    let mut periods = Vec::new();
    while let Some(period) = reader.read().map_err(|e| format!("{e:#}"))? {
        periods.push(period);
    }
    Ok(periods)
}

fn written(periods: &[Period]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = Head {
        host: "host".to_string(),
        kernel: "6.12".to_string(),
    };
    let mut writer = Writer::new(&mut bytes, &head).unwrap();
    for period in periods {
        writer.write(period).unwrap();
    }
    bytes
}

#[test]
fn what_is_written_is_read() {
    let periods = read(RUN).unwrap();
    assert_eq!(periods.len(), 20);
    assert_eq!(
        periods
            .iter()
            .filter(|period| period.pages.is_none())
            .count(),
        1
    );
    let again = written(&periods);
    assert_eq!(read(&again).unwrap(), periods);
    let reader = Reader::new(&again[..]).unwrap();
    assert_eq!(
        (&*reader.head().host, &*reader.head().kernel),
        ("host", "6.12")
    );
}

#[test]
fn lines_have_a_bound() {
    let head = RUN.split(|byte| *byte == b'\n').next().unwrap();
    let endless = [head, b"\n", &vec![b' '; 3 << 20]].concat();
    assert_eq!(
        read(&endless).unwrap_err(),
        "line 2 is longer than any that kvmscope writes"
    );
    assert!(read(&vec![b'x'; 3 << 20])
        .unwrap_err()
        .contains("not a recording"));
}

/// Runs as they come from pages: ascending, and like ones joined.
fn any_runs() -> impl Strategy<Value = Vec<Run>> {
    let kind = (0..=10_u8, any::<[bool; 3]>()).prop_map(|(count, [read, table, huge])| Kind {
        count,
        read,
        table,
        huge,
    });
    let piece = (0..2_000_u64, 1..3_000_u32, kind);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| {
        let (mut runs, mut at) = (Vec::new(), 0);
        for (gap, len, kind) in pieces {
            // Often none.
            at += gap.saturating_sub(1_000);
            if !kind.is_idle() {
                push(&mut runs, at, len, kind);
            }
            at += u64::from(len);
        }
        runs
    })
}

fn period(runs: Vec<Run>, values: u64) -> Period {
    let estimate = Estimate {
        period: values,
        start_ns: values / 2,
        written: values / 3,
        reads: values % 2,
        lost: values,
        ..Estimate::default()
    };
    Period {
        time_ns: values,
        vm: VmId::default(),
        about: About {
            process: 1,
            name: "\u{1b}\"\n,é".to_string(),
        },
        estimate,
        pages: Some(Pages {
            period: estimate.period,
            start_ns: estimate.start_ns,
            duration_ns: 0,
            intervals: 10,
            threshold: 1,
            reads: true,
            runs,
        }),
    }
}

proptest! {
    #[test]
    fn any_pages_come_back(runs in any_runs(), values in any::<u64>()) {
        let periods = [period(runs, values)];
        prop_assert_eq!(read(&written(&periods)).unwrap(), periods);
    }

    /// Bitmaps and counts, page by page, are what the runs say.
    #[test]
    fn any_record_comes_back(pages in prop::collection::vec((0..512_usize, 0..=10_u8, any::<bool>(), any::<bool>()), 0..40)) {
        let pages: std::collections::BTreeMap<_, _> =
            pages.into_iter().map(|page| (page.0, page)).collect();
        let list: Vec<_> = pages.values().copied().collect();
        let file = File::new().record(1024, 0, &list);
        let read = read_pages(&file.bytes()).unwrap().unwrap();
        let mut seen = Vec::new();
        for run in &read.runs {
            for gfn in run.gfn..run.end() {
                seen.push((gfn as usize - 1024, run.kind.count, run.kind.read, run.kind.table));
            }
        }
        let touched: Vec<_> = list.into_iter().filter(|page| page.1 != 0 || page.2).collect();
        prop_assert_eq!(seen, touched);
    }

    /// Nothing that becomes of a file makes its reader panic, or what comes after.
    #[test]
    fn no_recording_panics(changes in prop::collection::vec((0..RUN.len(), any::<u8>()), 0..8), end in 0..RUN.len()) {
        let mut bytes = RUN.to_vec();
        for (at, byte) in changes {
            // Digits are the worst: they leave it what it is.
            bytes[at] = if bytes[at].is_ascii_digit() { b'0' + byte % 10 } else { byte };
        }
        if end % 2 == 0 {
            bytes.truncate(end);
        }
        let periods = read(&bytes).unwrap_or_default();
        let mut distribution = Distribution::default();
        periods.iter().for_each(|period| distribution.add(period));
        columns(&periods.iter().collect::<Vec<_>>());
        percentile_columns(&distribution.vms);
    }

    #[test]
    fn no_pages_panic(changes in prop::collection::vec((0..PAGES.len(), any::<u8>()), 0..8), end in 0..PAGES.len()) {
        let mut bytes = PAGES.to_vec();
        for (at, byte) in changes {
            // The header is where it hurts.
            let at = if byte % 2 == 0 { at % 64 } else { at };
            bytes[at] = byte;
        }
        if end % 3 == 0 {
            bytes.truncate(end);
        }
        let _ = read_pages(&bytes);
    }

    #[test]
    fn no_text_panics(text in ".*", line in "[+*0-9rth ]{0,40}") {
        let _ = read_estimate(&text);
        let _ = read_estimate(&format!("kvmscope 1 wss\n{text}"));
        let _ = read_history(&format!("kvmscope 1 wss-history\n{text}"));
        let _ = decode(&text, 0, 10, &mut Vec::new());
        let mut runs = Vec::new();
        if decode(&line, 1 << 39, 200, &mut runs).is_ok() {
            let ascending = runs.windows(2).all(|pair| pair[0].end() <= pair[1].gfn);
            prop_assert!(ascending);
        }
    }

    /// Against what the words mean: no percentile is passed by more than its share.
    #[test]
    fn percentiles(values in prop::collection::vec(0..50_u64, 1..80)) {
        let is = Percentiles::of(&values).unwrap();
        prop_assert_eq!(Some(is.min), values.iter().copied().min());
        prop_assert_eq!(Some(is.max), values.iter().copied().max());
        for (percent, value) in [(25, is.p25), (50, is.p50), (75, is.p75), (90, is.p90)] {
            let up_to = values.iter().filter(|v| **v <= value).count();
            let below = values.iter().filter(|v| **v < value).count();
            prop_assert!(up_to * 100 >= percent * values.len());
            prop_assert!(below * 100 < percent * values.len());
            prop_assert!(values.contains(&value));
        }
    }
}

#[test]
fn percentiles_of_nothing() {
    assert_eq!(Percentiles::of(&[]), None);
    assert_eq!(Percentiles::of(&[7]).unwrap().values(), [7; 6]);
}
