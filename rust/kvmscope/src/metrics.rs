// SPDX-License-Identifier: GPL-2.0

//! A snapshot in Prometheus' text format, version 0.0.4. Its counters are the
//! kernel's totals, so whoever scrapes does the subtracting.

use std::fmt::Write;

use crate::filter::Filter;
use crate::histogram::upper;
use crate::snapshot::Snapshot;
use crate::table::{Cost, Reason, Table, Time};

/// Upper bounds of the histogram's buckets, in nanoseconds: every second power of
/// two. They are the same for all series, or nobody could add them up.
const BOUNDS: [u32; 12] = [8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];

pub fn metrics(snapshot: &Snapshot, filter: &Filter) -> String {
    let mut series = Vec::new();
    for vm in &snapshot.vms {
        if !filter.wants_vm(vm.id, &vm.about) {
            continue;
        }
        for (&vcpu, table) in &vm.vcpus {
            if filter.wants_vcpu(vcpu) {
                let labels = format!(
                    "vm=\"{}\",name=\"{}\",vcpu=\"{vcpu}\",",
                    vm.id,
                    escape(&vm.about.name)
                );
                series.push((labels, filter.reasons(table)));
            }
        }
    }
    let machine = [(String::new(), filter.reasons(&snapshot.system))];

    let mut out = String::new();
    gauge(
        &mut out,
        "kvmscope_counting",
        "Whether exits are being counted.",
        snapshot.counting.into(),
    );
    gauge(
        &mut out,
        "kvmscope_latency",
        "Whether exits are being timed.",
        snapshot.latency.into(),
    );
    gauge(
        &mut out,
        "kvmscope_vms",
        "VMs there are.",
        snapshot.vms.len(),
    );
    exits(
        &mut out,
        "kvmscope_exits_total",
        "VM exits of a vCPU.",
        &series,
        |cost| cost.exits,
    );
    exits(
        &mut out,
        "kvmscope_nested_exits_total",
        "VM exits of a vCPU that ran a guest of its guest.",
        &series,
        |cost| cost.nested,
    );
    if !filter.selects_vms() {
        exits(
            &mut out,
            "kvmscope_machine_exits_total",
            "VM exits of all VMs since the last reset, ended ones included.",
            &machine,
            |cost| cost.exits,
        );
    }
    if timed(&series).next().is_some() {
        times(&mut out, &series);
        nested_times(&mut out, &series);
        histograms(&mut out, &series);
    }
    out
}

type Series = (String, Table);

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail, here and below.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(out: &mut String, name: &str, help: &str, value: usize) {
    head(out, name, "gauge", help);
    let _ = writeln!(out, "{name} {value}");
}

fn exits(out: &mut String, name: &str, help: &str, series: &[Series], count: fn(&Cost) -> u64) {
    head(out, name, "counter", help);
    for (labels, table) in series {
        for (reason, cost) in table.rows() {
            let reason = escape(&reason.name);
            let _ = writeln!(out, "{name}{{{labels}reason=\"{reason}\"}} {}", count(cost));
        }
    }
}

fn timed(series: &[Series]) -> impl Iterator<Item = (&str, &Reason, &Time)> {
    series.iter().flat_map(|(labels, table)| {
        let timed = table.rows().filter(|(_, cost)| cost.time.samples != 0);
        timed.map(|(reason, cost)| (labels.as_str(), reason, &cost.time))
    })
}

fn times(out: &mut String, series: &[Series]) {
    let name = "kvmscope_exit_time_seconds_total";
    head(
        out,
        name,
        "counter",
        "Time from an exit to the next entry, by where it went.",
    );
    for (labels, reason, time) in timed(series) {
        let reason = escape(&reason.name);
        let parts = [
            ("kvm", time.kvm_ns),
            ("user", time.user_ns),
            ("sleep", time.sleep_ns),
            ("preempt", time.preempt_ns),
        ];
        for (part, ns) in parts {
            let seconds = ns as f64 / 1e9;
            let _ = writeln!(
                out,
                "{name}{{{labels}reason=\"{reason}\",part=\"{part}\"}} {seconds}"
            );
        }
    }
}

fn nested_times(out: &mut String, series: &[Series]) {
    let name = "kvmscope_nested_exit_time_seconds_total";
    let nested = || timed(series).filter(|(_, _, time)| time.nested_samples != 0);
    if nested().next().is_none() {
        return;
    }
    head(
        out,
        name,
        "counter",
        "KVM's part of it for exits of a guest's guest.",
    );
    for (labels, reason, time) in nested() {
        let reason = escape(&reason.name);
        let seconds = time.nested_kvm_ns as f64 / 1e9;
        let _ = writeln!(out, "{name}{{{labels}reason=\"{reason}\"}} {seconds}");
    }
}

fn histograms(out: &mut String, series: &[Series]) {
    let name = "kvmscope_exit_kvm_seconds";
    head(
        out,
        name,
        "histogram",
        "What KVM spent on an exit, in the buckets of the kernel.",
    );
    for (labels, reason, time) in timed(series) {
        let reason = escape(&reason.name);
        for power in BOUNDS {
            let bound = 1u64 << power;
            let below = time
                .histogram
                .buckets()
                .filter(|(lower, _)| upper(*lower) <= bound);
            let count = below.fold(0u64, |sum, (_, n)| sum.saturating_add(n));
            let le = bound as f64 / 1e9;
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels}reason=\"{reason}\",le=\"{le}\"}} {count}"
            );
        }
        let count = time.histogram.count();
        let sum = time.kvm_ns as f64 / 1e9;
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}reason=\"{reason}\",le=\"+Inf\"}} {count}\n\
             {name}_sum{{{labels}reason=\"{reason}\"}} {sum}\n\
             {name}_count{{{labels}reason=\"{reason}\"}} {count}"
        );
    }
}

/// A label's value, whatever a guest is called.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}
