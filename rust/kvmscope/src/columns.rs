// SPDX-License-Identifier: GPL-2.0

//! A view as columns of words and numbers, for people: on paper and on screen.

use crate::table::Cost;
use crate::view::{By, Line, Owner, View};

pub struct Column {
    pub head: &'static str,
    pub right: bool,
    /// A screen that is too narrow leaves out the least important ones first.
    pub weight: u8,
    pub cells: Vec<String>,
}

impl Column {
    pub fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.fold(self.head.len(), usize::max)
    }
}

/// The columns of a view; their last cells are the total's. A column that has
/// nothing to say in any line is left out.
pub fn columns(view: &View) -> Vec<Column> {
    let mut columns = Vec::new();
    let total = &view.total.cost;

    let mut add = |head, right, weight, cell: &dyn Fn(&Line) -> String, sum: String| {
        let mut cells: Vec<String> = view.lines.iter().map(cell).collect();
        cells.push(sum);
        columns.push(Column {
            head,
            right,
            weight,
            cells,
        });
    };

    let none = String::new;
    let mut sum = "TOTAL".to_string();
    let mut first = || std::mem::take(&mut sum);
    if view.by != By::Reason {
        add("VM", false, 9, &vm, first());
        add("Name", false, 7, &vm_name, none());
    }
    if matches!(view.by, By::Vcpu | By::All) {
        add("vCPU", true, 9, &vcpu, none());
    }
    if matches!(view.by, By::Reason | By::All) {
        add("No", true, 2, &number, none());
        add("VM-EXIT", false, 9, &reason, first());
    }

    let mut count = |head, weight, cell: &dyn Fn(&Line) -> String| {
        add(head, true, weight, cell, cell(&view.total));
    };
    count("Samples", 9, &|line| line.cost.exits.to_string());
    count("Samples%", 8, &|line| percent(line.cost.exits, total.exits));
    if view.total.rate.is_some() {
        count("Rate/s", 8, &|line| rate(line.rate));
    }
    if total.nested != 0 {
        count("Nested", 5, &|line| line.cost.nested.to_string());
    }
    if total.time.samples != 0 {
        count("Time%", 8, &|line| {
            percent(line.cost.time.kvm_ns, total.time.kvm_ns)
        });
        count("Min Time", 4, &time(|cost| Some(cost.time.min_ns)));
        count("Max Time", 6, &time(|cost| Some(cost.time.max_ns)));
        count("Avg time", 7, &time(|cost| cost.time.average_ns()));
        count("p50", 5, &time(|cost| cost.time.percentile_ns(0.5)));
        count("p99", 7, &time(|cost| cost.time.percentile_ns(0.99)));
        count("KVM", 3, &time(|cost| Some(cost.time.kvm_ns)));
        count("User", 3, &time(|cost| Some(cost.time.user_ns)));
        count("Sleep", 3, &time(|cost| Some(cost.time.sleep_ns)));
        count("Preempt", 3, &time(|cost| Some(cost.time.preempt_ns)));
    }
    if total.time.nested_samples != 0 {
        count(
            "Nested time",
            3,
            &time(|cost| Some(cost.time.nested_kvm_ns)),
        );
    }
    columns
}

fn vm(line: &Line) -> String {
    match &line.subject.vm {
        Some(Owner::Vm(id, _)) => id.to_string(),
        Some(Owner::Ended) => "(ended)".to_string(),
        None => String::new(),
    }
}

fn vm_name(line: &Line) -> String {
    match &line.subject.vm {
        Some(Owner::Vm(_, name)) => harmless(name),
        _ => String::new(),
    }
}

fn vcpu(line: &Line) -> String {
    line.subject.vcpu.map_or(String::new(), |n| n.to_string())
}

fn number(line: &Line) -> String {
    let reason = line.subject.reason.as_ref();
    reason.map_or(String::new(), |reason| reason.number_text())
}

fn reason(line: &Line) -> String {
    let reason = line.subject.reason.as_ref();
    reason.map_or(String::new(), |reason| harmless(&reason.name))
}

/// A guest may be named by whoever likes to write to our terminal.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_string(),
        Some(rate) if rate < 10.0 && rate > 0.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_string();
    }
    format!("{:.2}%", part as f64 * 100.0 / whole as f64)
}

/// A time of timed exits; of none, there is nothing to say.
fn time(ns: fn(&Cost) -> Option<u64>) -> impl Fn(&Line) -> String {
    move |line| match ns(&line.cost) {
        Some(ns) if line.cost.time.samples != 0 => duration(ns),
        _ => "-".to_string(),
    }
}

/// Three digits or more, and the unit that makes them readable.
pub fn duration(ns: u64) -> String {
    let x = ns as f64;
    match ns {
        0..=999 => format!("{ns}ns"),
        1_000..=999_994 => format!("{:.2}us", x / 1e3),
        999_995..=999_994_999 => format!("{:.2}ms", x / 1e6),
        _ => format!("{:.2}s", x / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (12_345, "12.35us"),
            (999_994, "999.99us"),
            (999_995, "1.00ms"),
            (1_500_000, "1.50ms"),
            (999_994_999, "999.99ms"),
            (999_995_000, "1.00s"),
            (61_000_000_000, "61.00s"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text, "{ns}");
        }
    }
}
