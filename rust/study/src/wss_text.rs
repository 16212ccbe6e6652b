// SPDX-License-Identifier: GPL-2.0

//! The table of the study of working sets, for people.

use std::fmt::Write;

use crate::text::wrapped;
use crate::wss::{Pattern, Period, Study};

/// All of it, as it is printed and put into wss-study.txt.
pub fn table(study: &Study) -> String {
    let mut text = format!(
        "kvmscope's study of working sets: Linux {}, {}, engine {}\n\n",
        study.kernel, study.isa, study.engine
    );
    text += &wrapped(&format!(
        "A guest of {} pages ({:.0} MiB) touches the same pages in each period of {} ms. \
         Estimates in pages of 4 KiB: their mean, the lowest and the highest of the \
         periods, and how far the worst of them is from the pages really touched.",
        study.memory,
        study.memory as f64 / 256.0,
        study.period_ms
    ));
    for pattern in &study.patterns {
        for part in parts(pattern) {
            text += &of_part(pattern, part);
        }
    }
    text.push('\n');
    text += &costs(study);
    text
}

/// Periods in a row that do the same.
fn parts(pattern: &Pattern) -> impl Iterator<Item = &[Period]> {
    let same = |a: &Period, b: &Period| (a.reads, a.writes) == (b.reads, b.writes);
    pattern.periods.chunk_by(same)
}

fn of_part(pattern: &Pattern, part: &[Period]) -> String {
    let (first, last) = (&part[0], &part[part.len() - 1]);
    let does = match (first.reads, first.writes) {
        (true, true) => "read and written",
        (true, false) => "read",
        _ => "written",
    };
    let mut text = format!(
        "\n{}, periods {} to {}: pages are {does}; {} touched, {} of them written\n",
        pattern.name, first.period, last.period, first.touched, first.stored
    );
    let mut row = |name: &str, of: &dyn Fn(&Period) -> Option<f64>, note: &str| {
        let values: Vec<f64> = part.iter().filter_map(of).collect();
        if values.len() < part.len() {
            let _ = writeln!(text, "  {name:<30} not in this kernel");
            return;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let truth = first.touched as f64;
        let error = [low, high]
            .map(|value| (value - truth) / truth * 100.0)
            .into_iter()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
            .unwrap_or(0.0);
        // Not -0.0.
        let error = if error == 0.0 { 0.0 } else { error };
        let _ = writeln!(
            text,
            "  {name:<30} {mean:>7.0} {low:>7.0} {high:>7.0} {error:>+8.1} %{note}"
        );
    };
    let in_full = |value: u64| Some(value as f64);
    let off = part.iter().map(|p| p.written.abs_diff(p.stored)).max();
    row(
        "written, by PML",
        &|p| in_full(p.written),
        &format!("  ({} off what was written)", off.unwrap_or(0)),
    );
    row("written and read", &|p| in_full(p.read_set), "");
    let within = part.iter().filter(|period| {
        let truth = period.touched as f64;
        period
            .sampling
            .is_some_and(|s| (s.low..=s.high).contains(&truth))
    });
    row(
        &match first.sampling {
            Some(sampling) => format!("random sampling, {} pages", sampling.sampled),
            None => "random sampling".into(),
        },
        &|p| p.sampling.map(|s| s.estimate),
        &format!("  (95 %: {} of {} right)", within.count(), part.len()),
    );
    row("idle page tracking", &|p| in_full(p.idle), "");
    text
}

fn costs(study: &Study) -> String {
    let periods = || study.patterns.iter().flat_map(|pattern| &pattern.periods);
    let mean = |of: fn(&Period) -> u64| {
        periods().map(of).sum::<u64>() as f64 / periods().count().max(1) as f64 / 1e6
    };
    wrapped(&format!(
        "CPU time in a period, on the average: {:.2} ms for the first three estimates together, \
         {:.2} ms for idle page tracking, faults and what exits the guest takes for them aside.",
        mean(|period| period.spent_ns),
        mean(|period| period.idle_spent_ns)
    ))
}
