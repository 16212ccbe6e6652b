// SPDX-License-Identifier: GPL-2.0

//! What users write to the knobs and read from the log.

use kvmscope::counters::Table;
use kvmscope::dump::dump;
use kvmscope::knobs::{self, Dump};
use kvmscope::leaves::Numbering;
use kvmscope::reasons::{Isa, EMULATION_REQUIRED, SLOTS};
use proptest::prelude::*;

fn lines(isa: Isa, what: Dump, table: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    dump(isa, what, table, |line| lines.push(line.to_string()));
    lines
}

#[test]
fn the_table_looks_like_this() {
    let mut table = Table::new();
    table.all[10] = 1000;
    table.all[48] = 1;
    table.all[99] = 2;
    table.all[EMULATION_REQUIRED] = 3;

    let expected = [
        "        10 CPUID                                    1000  99.40%",
        "        48 EPT_VIOLATION                               1   0.10%",
        "        99 RESERVED                                    2   0.20%",
        "         - EMULATION_REQUIRED                          3   0.30%",
        "     total                                          1006",
    ];
    assert_eq!(lines(Isa::Vmx, Dump::Seen, &table), expected);
}

#[test]
fn svm_numbers_are_readable() {
    let mut table = Table::new();
    let slot = |code| kvmscope::reasons::slot(Isa::Svm, code);
    table.all[slot(u32::MAX)] = 1;
    table.all[slot(0xf000_0000)] = 1;
    table.all[slot(0x400)] = 2;

    let lines = lines(Isa::Svm, Dump::Seen, &table);
    assert!(lines[0].starts_with("      1024 NPF "), "{}", lines[0]);
    assert!(lines[1].starts_with("0xf0000000 SW "), "{}", lines[1]);
    assert!(lines[2].starts_with("        -1 ERR "), "{}", lines[2]);
}

#[test]
fn an_empty_table_is_a_total_and_all_names_every_reason() {
    let table = Table::new();
    assert_eq!(lines(Isa::Vmx, Dump::Seen, &table).len(), 1);
    let all = lines(Isa::Vmx, Dump::All, &table);
    assert!(all.iter().any(|line| line.contains(" 17 RSM ")));
    assert!(all.iter().any(|line| line.contains(" - VMFAIL ")));
    assert!(!all.iter().any(|line| line.contains("RESERVED")));
}

fn field(line: &str, i: usize) -> &str {
    line.split_whitespace().nth(i).unwrap()
}

proptest! {
    /// The total is the sum of the rows, and each share is right to a
    /// hundredth of a percent, up to counts no machine will reach.
    #[test]
    fn rows_add_up(counts in prop::collection::vec((0..SLOTS, 0u64..1 << 56), 1..100)) {
        let mut table = Table::new();
        for (slot, count) in counts {
            // A CPU with SVM never counts in a slot that only VMX has.
            if kvmscope::reasons::reason(Isa::Svm, slot).is_some() {
                table.all[slot] = count;
            }
        }
        let lines = lines(Isa::Svm, Dump::Seen, &table);
        let (total, rows) = lines.split_last().unwrap();
        let total: u64 = field(total, 1).parse().unwrap();

        let mut sum = 0u64;
        for row in rows {
            let count: u64 = field(row, 2).parse().unwrap();
            let share: f64 = field(row, 3).trim_end_matches('%').parse().unwrap();
            let exact = count as f64 * 100.0 / total as f64;
            prop_assert!((share - exact).abs() < 0.0051, "{row}: {exact}");
            sum += count;
        }
        prop_assert_eq!(sum, total);
    }

    #[test]
    fn only_the_documented_words_are_taken(written: Vec<u8>) {
        let word = written.strip_suffix(b"\n").unwrap_or(&written);
        prop_assert_eq!(knobs::switch(&written).is_some(), word == b"0" || word == b"1");
        prop_assert_eq!(knobs::dump(&written).is_some(), word == b"1" || word == b"all" || word == b"vm");
        prop_assert_eq!(knobs::leaves(&written).is_some(), word == b"off" || word == b"a" || word == b"b");
    }
}

#[test]
fn words_are_taken_with_and_without_newline() {
    assert_eq!(knobs::dump(b"1\n"), Some(Dump::Seen));
    assert_eq!(knobs::dump(b"all"), Some(Dump::All));
    assert_eq!(knobs::dump(b"vm\n"), Some(Dump::Vms));
    assert_eq!(knobs::leaves(b"off\n"), Some(None));
    assert_eq!(knobs::leaves(b"a"), Some(Some(Numbering::A)));
    assert_eq!(knobs::leaves(b"b\n"), Some(Some(Numbering::B)));
    assert_eq!(knobs::switch(b"0\n"), Some(false));
    assert_eq!(knobs::switch(b"1"), Some(true));
    for odd in [
        &b""[..],
        b"\n",
        b"1\n\n",
        b" 1",
        b"1 ",
        b"01",
        b"1\0",
        b"1\0x",
        b"yes",
    ] {
        assert_eq!(knobs::switch(odd), None, "{odd:?}");
        assert_eq!(knobs::dump(odd), None, "{odd:?}");
    }
}
