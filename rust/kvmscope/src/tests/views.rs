// SPDX-License-Identifier: GPL-2.0

//! Filters, sorting and what belongs to whom.

use std::collections::BTreeMap;

use crate::filter::Filter;
use crate::interval::{Change, Interval};
use crate::snapshot::{About, VmId};
use crate::table::{Reason, Table};
use crate::view::{any_vm, view, By, Sort};

fn table(rows: &[(u32, &str, u64)]) -> Table {
    let mut table = Table::default();
    for &(number, name, exits) in rows {
        table.cost_mut(Reason::new(Some(number), name)).exits = exits;
    }
    table
}

/// Two VMs, one of them with two vCPUs, and the remains of a third.
pub fn interval() -> Interval {
    let vm = |name: &str, process, vcpus: Vec<Table>| {
        let mut table = Table::default();
        vcpus.iter().for_each(|vcpu| table.merge(vcpu));
        Change {
            about: About {
                process,
                name: name.to_string(),
            },
            table,
            vcpus: (0..).zip(vcpus).collect(),
        }
    };
    let id = |pid, fd| VmId { pid, fd, inode: 0 };
    let web = vm(
        "web",
        810,
        vec![
            table(&[(10, "CPUID", 50), (12, "HLT", 5)]),
            table(&[(10, "CPUID", 1), (48, "EPT_VIOLATION", 7)]),
        ],
    );
    let db = vm("db", 900, vec![table(&[(12, "HLT", 20)])]);
    let ended = table(&[(10, "CPUID", 4)]);
    let mut system = ended;
    system.merge(&web.table);
    system.merge(&db.table);
    Interval {
        elapsed_ns: 2_000_000_000,
        isa: "VMX".to_string(),
        counting: true,
        system,
        vms: BTreeMap::from([(id(812, 11), web), (id(900, 4), db)]),
        vanished: true,
        ..Interval::default()
    }
}

fn counts(by: By, sort: Sort, filter: &Filter) -> Vec<u64> {
    let interval = interval();
    let view = view(&interval, &interval, by, sort, filter);
    let lines: Vec<u64> = view.lines.iter().map(|line| line.cost.exits).collect();
    assert_eq!(view.total.cost.exits, lines.iter().sum::<u64>());
    assert_eq!(view.total.rate, Some(view.total.cost.exits as f64 / 2.0));
    lines
}

#[test]
fn every_exit_is_in_every_view() {
    let all = Filter::default();
    assert_eq!(counts(By::Reason, Sort::Count, &all), [55, 25, 7]);
    assert_eq!(counts(By::Vm, Sort::Count, &all), [63, 20, 4]);
    assert_eq!(counts(By::Vcpu, Sort::Count, &all), [55, 20, 8, 4]);
    assert_eq!(counts(By::All, Sort::Count, &all), [50, 20, 7, 5, 4, 1]);
}

#[test]
fn sorting() {
    let all = Filter::default();
    assert_eq!(counts(By::Reason, Sort::Number, &all), [55, 25, 7]);
    assert_eq!(counts(By::Reason, Sort::Name, &all), [55, 7, 25]);
    // Without times there is nothing to tell them apart but their numbers.
    assert_eq!(counts(By::Reason, Sort::P99, &all), [55, 25, 7]);
}

#[test]
fn filters() {
    let vm = |vm: &str| Filter {
        vms: vec![vm.to_string()],
        ..Filter::default()
    };
    let pid = |pid| Filter {
        pids: vec![pid],
        ..Filter::default()
    };
    let reason = |text: &str| Filter {
        reason: Some(text.parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(counts(By::Reason, Sort::Count, &vm("web")), [51, 7, 5]);
    assert_eq!(counts(By::Reason, Sort::Count, &vm("900-4")), [20]);
    assert_eq!(counts(By::Vm, Sort::Count, &vm("900")), [0u64; 0]);
    // The task's and the process's.
    assert_eq!(counts(By::Vm, Sort::Count, &pid(812)), [63]);
    assert_eq!(counts(By::Vm, Sort::Count, &pid(810)), [63]);

    let second = Filter {
        vcpus: vec![1],
        ..Filter::default()
    };
    assert_eq!(counts(By::Reason, Sort::Count, &second), [7, 1]);
    assert_eq!(counts(By::Vm, Sort::Count, &second), [8]);
    assert!(any_vm(&interval(), &second));
    assert!(!any_vm(
        &interval(),
        &Filter {
            vcpus: vec![2],
            ..vm("web")
        }
    ));

    assert_eq!(counts(By::Reason, Sort::Count, &reason("ept|hlt")), [25, 7]);
    assert_eq!(counts(By::Reason, Sort::Count, &reason("^hlt$")), [25]);
    assert_eq!(counts(By::Vm, Sort::Count, &reason("CPUID")), [51, 4, 0]);
}
