// SPDX-License-Identifier: GPL-2.0

//! Every model holds as it is, and does not without any one of its rules.

use std::process::Command;

fn models(words: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_models"));
    // Each in a process of its own: what fails within a model may abort.
    let output = command.args(words).env("RUST_BACKTRACE", "0").output();
    output.expect("it runs")
}

fn holds_and_needs_its_rules(model: &str) {
    let list = String::from_utf8(models(&[]).stdout).expect("UTF-8");
    let rules = list.lines().filter_map(|line| line.split_once(' '));
    let rules: Vec<&str> = rules
        .filter(|(its, _)| *its == model)
        .map(|(_, rule)| rule)
        .collect();
    assert!(rules.len() > 2 && rules[0] == "Nothing", "{rules:?}");

    for rule in rules {
        let output = models(&[model, rule]);
        let said = String::from_utf8_lossy(&output.stderr);
        if rule == "Nothing" {
            assert!(output.status.success(), "{model} does not hold:\n{said}");
        } else {
            let noticed = !output.status.success() && said.contains("panicked at");
            assert!(noticed, "{model} does not need {rule}:\n{said}");
        }
    }
}

#[test]
fn totals() {
    holds_and_needs_its_rules("totals");
}

#[test]
fn reset() {
    holds_and_needs_its_rules("reset");
}

#[test]
fn hand_over() {
    holds_and_needs_its_rules("hand_over");
}

#[test]
fn restart() {
    holds_and_needs_its_rules("restart");
}

#[test]
fn mapped_ring() {
    holds_and_needs_its_rules("mapped_ring");
}

#[test]
fn read_ring() {
    holds_and_needs_its_rules("read_ring");
}
