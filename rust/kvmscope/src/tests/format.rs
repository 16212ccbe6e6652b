// SPDX-License-Identifier: GPL-2.0

//! The kernel's text, and text that no kernel would write.

use proptest::prelude::*;

use crate::format::{read_exits, read_latency};
use crate::table::{Reason, Table};

const EXITS: &str = "kvmscope 1 exits VMX\nnumber name exits nested\n";
const LATENCY: &str = "kvmscope 1 latency SVM\nnumber name samples kvm_ns user_ns sleep_ns \
                       preempt_ns min_ns max_ns histogram\n";

fn exits(rows: &str) -> Result<Table, String> {
    let mut table = Table::default();
    let isa = read_exits(&format!("{EXITS}{rows}"), &mut table).map_err(|e| format!("{e:#}"))?;
    assert_eq!(isa, "VMX");
    Ok(table)
}

fn latency(rows: &str) -> Result<Table, String> {
    let mut table = Table::default();
    read_latency(&format!("{LATENCY}{rows}"), &mut table).map_err(|e| format!("{e:#}"))?;
    Ok(table)
}

#[test]
fn numbers_of_reasons() {
    let rows = "-1 ERR 5 0\n-4 INVALID_PMC 6 0\n10 CPUID 7 2\n1024 NPF 1 1\n0x80000001 VMGEXIT 3 0\n- VMFAIL 4 0\n";
    let mut table = exits(rows).unwrap();
    let numbers: Vec<String> = table
        .rows()
        .map(|(reason, _)| reason.number_text())
        .collect();
    assert_eq!(numbers, ["10", "1024", "0x80000001", "-4", "-1", "-"]);
    assert_eq!(table.cost_mut(Reason::new(Some(10), "CPUID")).nested, 2);
    assert_eq!(table.cost_mut(Reason::new(Some(u32::MAX), "ERR")).exits, 5);
    let pmc = Reason::new(Some(0xffff_fffc), "INVALID_PMC");
    assert_eq!((pmc.signed(), table.cost_mut(pmc).exits), (Some(-4), 6));
    for odd in [
        "-5",
        "-0",
        "--",
        "-x",
        "",
        "0x",
        "0x1ffffffff",
        "4294967296",
    ] {
        assert!(exits(&format!("{odd} ERR 5 0\n")).is_err(), "{odd}");
    }
    assert_eq!(table.cost_mut(Reason::new(None, "VMFAIL")).exits, 4);
}

#[test]
fn times() {
    let table = latency("10 CPUID 4 2500 1 2 3 512 1200 512:3,1024:1\n12 HLT 0 0 0 0 0 0 0 -\n");
    let total = table.unwrap().total().time;
    assert_eq!((total.samples, total.kvm_ns, total.user_ns), (4, 2500, 1));
    assert_eq!((total.sleep_ns, total.preempt_ns), (2, 3));
    assert_eq!((total.min_ns, total.max_ns), (512, 1200));
    assert_eq!(
        total.histogram.buckets().collect::<Vec<_>>(),
        [(512, 3), (1024, 1)]
    );
}

/// Kernels tell them apart since they have the columns for it.
#[test]
fn nested_times() {
    let old = latency("10 CPUID 4 2500 1 2 3 512 1200 512:3,1024:1\n").unwrap();
    let time = old.total().time;
    assert_eq!((time.nested_samples, time.nested_kvm_ns), (0, 0));

    let mut table = Table::default();
    let text = "kvmscope 1 latency SVM\nnumber name samples kvm_ns user_ns sleep_ns preempt_ns \
                min_ns max_ns nested nested_kvm_ns histogram\n\
                114 CPUID 4 2500 1 2 3 512 1200 2 1700 512:3,1024:1\n";
    read_latency(text, &mut table).unwrap();
    let time = table.total().time;
    assert_eq!((time.samples, time.kvm_ns), (4, 2500));
    assert_eq!((time.nested_samples, time.nested_kvm_ns), (2, 1700));
    assert!(read_latency(&text.replace("1700", "x"), &mut table).is_err());
}

#[test]
fn later_kernels_may_add_columns() {
    let mut table = Table::default();
    let text = "kvmscope 1 exits VMX more\nnumber name new exits nested newer\n10 CPUID 9 7 2 x\n";
    assert!(
        read_exits(text, &mut table).is_err(),
        "the first line is the format itself"
    );
    let text = text.replace(" more", "");
    read_exits(&text, &mut table).unwrap();
    assert_eq!((table.total().exits, table.total().nested), (7, 2));
}

#[test]
fn an_empty_table_is_one() {
    assert!(exits("").unwrap().is_empty());
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        ("", "it begins with \"\", not with kvmscope"),
        ("\u{1b}[31mred", "it begins with \"\\u{1b}[31mred\", not with kvmscope"),
        ("kvmscope 2 exits VMX\n", "its format is version \"2\", and this kvmscope reads version 1: use the kvmscope that came with the kernel"),
        ("kvmscope 1 latency VMX\n", "this is a table of \"latency\", not of exits"),
        ("kvmscope 1 exits VMX\n", ""),
        ("kvmscope 1 exits VMX\nnumber name\n1 X\n", "line 3: there is no column exits"),
    ];
    for (text, message) in cases {
        let error = read_exits(text, &mut Table::default());
        let error = error.map_or_else(|e| format!("{e:#}"), |_| String::new());
        assert_eq!(error, message, "{text:?}");
    }
    let rows = [
        ("10 CPUID 7", "line 3: the row ends before its nested"),
        ("10 CPUID -7 0", "line 3: \"-7\" is no count of exits: invalid digit found in string"),
        ("10 CPUID 18446744073709551616 0", "line 3: \"18446744073709551616\" is no count of exits: number too large to fit in target type"),
        ("10 CPUID 1 0\nten CPUID 7 0", "line 4: \"ten\" is no reason's number"),
        ("0x100000000 X 7 0", "line 3: \"0x100000000\" is no reason's number"),
        ("10  7 0", "line 3: the reason has no name"),
        ("", ""),
        ("\n", "line 3: \"\" is no reason's number"),
        ("10 CPUID 1 2", "line 3: more nested exits than exits"),
    ];
    for (row, message) in rows {
        assert_eq!(exits(row).err().unwrap_or_default(), message, "{row:?}");
    }
    for histogram in [
        "",
        "1",
        "1:",
        ":1",
        "a:b",
        "1:1,",
        "1:1,,2:2",
        "-1:1",
        "1:1 2:2:2",
    ] {
        let row = format!("10 CPUID 1 1 0 0 0 1 1 {histogram}");
        let fails = latency(&row).is_err();
        assert_eq!(fails, histogram != "1:1 2:2:2", "{histogram:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = read_exits(&text, &mut Table::default());
        let _ = exits(&text);
        let _ = latency(&text);
    }

    #[test]
    fn no_almost_right_text_panics(
        rows in "((-?[0-9x]{0,22}|-|0x[0-9a-f]{0,9}) ?[A-Z]{0,3}( [0-9:,-]{0,30}){0,10}\n){0,4}"
    ) {
        let _ = exits(&rows);
        let _ = latency(&rows);
    }

    #[test]
    fn what_is_written_is_read(counts in proptest::collection::btree_map(0..2000u32, (any::<u64>(), any::<bool>()), 0..20)) {
        let rows = counts.iter().map(|(number, (n, nested))| {
            format!("{number} R{number} {n} {}\n", if *nested { *n } else { 0 })
        });
        let table = exits(&rows.collect::<String>()).unwrap();
        prop_assert_eq!(table.rows().count(), counts.len());
        for (reason, cost) in table.rows() {
            let (n, nested) = counts[&reason.number().unwrap()];
            prop_assert_eq!((cost.exits, cost.nested), (n, if nested { n } else { 0 }));
        }
    }
}
