// SPDX-License-Identifier: GPL-2.0

//! The tables, for people.

use std::fmt::Write;

use crate::results::{Cost, Results, Workload};

const WIDTH: usize = 78;

/// All of it, as it is printed and put into study.txt.
pub fn tables(results: &Results) -> String {
    let mut text = format!(
        "kvmscope's study: Linux {}, {}, engine {}, {} in L1\n\n",
        results.kernel,
        results.isa,
        results.engine,
        if results.cpus == 1 {
            "1 CPU".to_string()
        } else {
            format!("{} CPUs", results.cpus)
        }
    );
    text += &wrapped(results.note);
    text += "\nA Linux guest boots and powers off, twice\n\n";
    text += &boots(results);
    text += "\nWorkloads on L1 itself, in one guest, in two guests at once\n\n";
    for workload in &results.workloads {
        text += &runs(workload);
    }
    text += &wrapped(
        "Time is by the clock where the workload ran, and Clock how much it showed \
         of L1's, until all guests were done. Lost is the part of it that KVM spent in exits, QEMU that QEMU did, \
         Waited that in which another vCPU, or L1, had the CPU. The cost of starting \
         the program is measured by a run without rounds, and taken off; what is \
         less than nothing is by how much two of these differ.",
    );
    text
}

fn boots(results: &Results) -> String {
    let [first, second] = &results.boots[..] else {
        return String::new();
    };
    let mut text = format!(
        "{:<24} {:>9} {:>9} {:>11} {:>9}\n",
        "VM-EXIT", "first", "second", "difference", "KVM"
    );
    let differ = &results.boots_differ;
    let mut reasons: Vec<_> = differ
        .reasons
        .iter()
        .map(|(reason, difference)| {
            let of = |table: &std::collections::BTreeMap<String, Cost>| {
                table.get(reason).copied().unwrap_or_default()
            };
            (reason, of(&first.reasons), of(&second.reasons), *difference)
        })
        .collect();
    reasons.sort_by_key(|(reason, cost, _, _)| (-cost.exits, reason.to_string()));
    let mut row = |name: &str, first: Cost, second: Cost, difference: i64| {
        let _ = writeln!(
            text,
            "{name:<24} {:>9} {:>9} {difference:>+11} {:>6.1} ms",
            first.exits,
            second.exits,
            first.kvm_ns as f64 / 1e6
        );
    };
    for (reason, first, second, difference) in reasons {
        row(reason, first, second, difference);
    }
    row("total", first.total, second.total, differ.total);
    let _ = writeln!(
        text,
        "{:<24} {:>7.2} s {:>7.2} s\n",
        "time", first.seconds, second.seconds
    );
    text += &wrapped(&format!(
        "The second boot took {:+} exits, {:+.2} % of the first's. Reason by reason, \
         they differ in {}, {:.2} %.",
        differ.total, differ.total_percent, differ.by_reason, differ.by_reason_percent
    ));
    text
}

fn runs(workload: &Workload) -> String {
    let mut text = format!(
        "{:<13} {:>8} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>6}  {}\n",
        format!("{} x {}", workload.name, workload.rounds),
        "Time",
        "of L1",
        "Clock",
        "Exits",
        "Exits/s",
        "Lost",
        "QEMU",
        "Waited",
        "most of them"
    );
    let on_l1 = workload.runs[0].seconds;
    for run in &workload.runs {
        let place = match run.guest.as_str() {
            "-" => run.place.to_string(),
            guest => format!("{} {guest}", run.place),
        };
        let _ = write!(
            text,
            "{place:<13} {:>6.3} s {:>5.2}x",
            run.seconds,
            run.seconds / on_l1
        );
        if run.guest == "-" {
            let _ = writeln!(text, " {:>6} {:>6}", "", run.total.exits);
            continue;
        }
        let most = run.reasons.iter().max_by_key(|(_, cost)| cost.exits);
        let most = most.map_or(String::new(), |(reason, cost)| {
            format!("{reason} {}", cost.exits)
        });
        let _ = writeln!(
            text,
            " {:>5.2}x {:>6} {:>7.0} {:>4.1} % {:>4.1} % {:>4.1} %  {most}",
            run.seconds / run.l1_seconds,
            run.total.exits,
            run.exits_per_s,
            run.lost_percent,
            run.qemu_percent,
            run.waited_percent
        );
    }
    text.push('\n');
    text
}

/// A paragraph.
pub fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column + word.len() > WIDTH {
            lines.push('\n');
            column = 0;
        } else if column != 0 {
            lines.push(' ');
        }
        lines += word;
        column += word.len() + 1;
    }
    lines.push('\n');
    lines
}
