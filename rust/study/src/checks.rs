// SPDX-License-Identifier: GPL-2.0

//! What must be so in any study, on any machine.

use anyhow::{bail, Result};

use crate::results::{Boots, Results, Run, Workload, PLACES};

/// Fails with all that is implausible.
pub fn all(results: &Results, tolerance: Option<f64>) -> Result<()> {
    let mut wrong = Vec::new();
    let differ = results.boots_differ.by_reason_percent;
    if tolerance.is_some_and(|tolerance| differ > tolerance) {
        wrong.push(format!("{differ:.2} % of the exits of two boots differ"));
    }
    for (index, boot) in results.boots.iter().enumerate() {
        wrong.extend(of_boot(boot).map(|what| format!("boot {}: {what}", index + 1)));
    }
    for workload in &results.workloads {
        for run in &workload.runs {
            let (name, place, guest) = (&workload.name, run.place, &run.guest);
            let what = of_run(workload, run);
            wrong.extend(what.map(|what| format!("{name} in {place}, {guest}: {what}")));
        }
        if results.cpus == 1 {
            let what = of_sharing(&workload.runs);
            wrong.extend(what.map(|what| format!("{}: {what}", workload.name)));
        }
    }
    if !wrong.is_empty() {
        bail!(
            "this cannot be, unless the workloads took too little time to tell:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn of_boot(boot: &Boots) -> Option<String> {
    let sum: i64 = boot.reasons.values().map(|cost| cost.exits).sum();
    let exits = boot.total.exits;
    if exits == 0 {
        Some("no exits".into())
    } else if exits != sum {
        Some(format!("{exits} exits, and {sum} of all reasons"))
    } else if boot.total.kvm_ns == 0 || boot.total.kvm_ns as f64 > boot.seconds * 1e9 {
        Some(format!(
            "{} ns of {} s in KVM",
            boot.total.kvm_ns, boot.seconds
        ))
    } else {
        None
    }
}

fn of_run(workload: &Workload, run: &Run) -> Option<String> {
    let exits = run.total.exits;
    let lost = run.lost_percent;
    let known = &workload.runs[0].checksum;
    if run.checksum != *known {
        Some(format!("checksum {}, not {known}", run.checksum))
    } else if run.seconds <= 0.0 {
        Some(format!("{} s", run.seconds))
    } else if run.guest == "-" {
        (exits != 0).then(|| format!("{exits} exits, and no guest"))
    } else if exits <= 0 {
        Some(format!("{exits} exits in a guest"))
    } else if lost <= 0.0 || lost >= 100.0 {
        Some(format!("{lost:.1} % of the time lost to exits"))
    } else {
        None
    }
}

/// Two guests on one CPU have half of it each.
fn of_sharing(runs: &[Run]) -> Option<String> {
    let time = |place: &str| {
        let of_place = runs.iter().filter(|run| run.place == place);
        of_place.map(|run| run.seconds).fold(0.0, f64::max)
    };
    let [_, (_, one, _), (_, two, _)] = PLACES;
    (time(two) < time(one) * 1.5).then(|| {
        format!(
            "{:.3} s in {two} that share a CPU, {:.3} s in {one}",
            time(two),
            time(one)
        )
    })
}
