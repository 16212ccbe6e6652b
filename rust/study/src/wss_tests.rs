// SPDX-License-Identifier: GPL-2.0

//! A study of working sets made up, from L1's lines to the files.

use std::fs;

use crate::wss::Study;
use crate::{wss_plot, wss_text};

/// What L1 would print: 1000 pages of 4000, four periods, reads first.
fn said() -> String {
    let mut lines = vec!["study wss isa VMX period_ms 1000".to_string()];
    for by in ["track", "idle"] {
        for period in 1..=4 {
            let (reads, writes, stored) = if period <= 2 { (1, 0, 1) } else { (0, 1, 996) };
            let found = match by {
                "track" => format!("written {stored} tables 0 read_set 1000 lost 0 spent_ns 2000000 sampled 100 sampled_touched {}", 20 + 3 * period),
                _ => "in_use 1010 spent_ns 4000000".into(),
            };
            lines.push(format!("study wss_study by {by} pattern read-then-write period {period} reads {reads} writes {writes} memory 4000 touched 1000 stored {stored} {found}"));
        }
    }
    lines.join("\n")
}

fn study(text: &str) -> anyhow::Result<Study> {
    Study::parse("bochs", "6.12", text)
}

#[test]
fn what_is_said_is_understood() {
    let study = study(&said()).unwrap();
    study.check().unwrap();
    let period = &study.patterns[0].periods[1];
    assert!(period.reads && !period.writes);
    assert_eq!((period.idle, period.idle_spent_ns), (1010, 4_000_000));
    // 26 of 100, of 4000. Wilson's interval is 0.1840 to 0.3537.
    let sampling = period.sampling.unwrap();
    assert_eq!(sampling.estimate.round(), 1040.0);
    assert_eq!(
        (sampling.low.round(), sampling.high.round()),
        (736.0, 1415.0)
    );
}

#[test]
fn what_is_wrong_is_told() {
    for (from, to, told) in [
        (
            "written 1 tables",
            "written 2 tables",
            "period 1: 2 pages in the written set, 1 in truth",
        ),
        (
            "read_set 1000",
            "read_set 999",
            "period 1: 999 pages in the read set, 1000 in truth",
        ),
        ("lost 0", "lost 3", "period 1: 3 pages lost, 0 in truth"),
        (
            "stored 1 written 1 ",
            "stored 21 written 21 ",
            "PML has 21 of 1000 pages that are only read",
        ),
        (
            "writes 0",
            "writes 1",
            "no period in which nothing is written",
        ),
        (
            "sampled 100 sampled_touched 23",
            "sampled 1000 sampled_touched 900",
            "of 1300 samples, 987 were touched, and not about 325",
        ),
    ] {
        let error = study(&said().replace(from, to)).unwrap().check();
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn what_is_missing_is_told() {
    for (from, to) in [
        (
            "by idle pattern read-then-write period 3",
            "by idle pattern read-then-write period 5",
        ),
        (
            "by idle pattern read-then-write period 3",
            "by idle pattern read-then-write period 2",
        ),
        (
            "by track pattern read-then-write period 3",
            "by track pattern read-then-write period 2",
        ),
        (" lost 0", ""),
        ("memory 4000", "memory x"),
        ("sampled_touched 23", "sampled_touched 101"),
        ("study wss ", "study "),
    ] {
        assert!(study(&said().replace(from, to)).is_err(), "{to}");
    }
    assert!(study("").is_err());
}

#[test]
fn the_table_has_the_figures() {
    let text = wss_text::table(&study(&said()).unwrap());
    for line in [
        "read-then-write, periods 1 to 2: pages are read; 1000 touched, 1 of them written",
        "  written, by PML                      1       1       1    -99.9 %  (0 off what was written)",
        "  written and read                  1000    1000    1000     +0.0 %",
        "  random sampling, 100 pages         980     920    1040     -8.0 %  (95 %: 2 of 2 right)",
        "  idle page tracking                1010    1010    1010     +1.0 %",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "no {line:?} in\n{text}"
        );
    }
    let old = said().replace(" sampled 100", "");
    let old: Vec<String> = old
        .lines()
        .map(|line| line.split(" sampled_touched").next().unwrap().to_string())
        .collect();
    let text = wss_text::table(&study(&old.join("\n")).unwrap());
    assert!(text.contains("random sampling                not in this kernel"));
}

#[test]
fn the_plot_has_every_sign() {
    let path = std::env::temp_dir().join(format!("wss-study-{}.svg", std::process::id()));
    wss_plot::svg(&study(&said()).unwrap(), &path).unwrap();
    let drawn = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    for name in ["read-then-write", "written, by PML", "idle page tracking"] {
        assert!(drawn.lines().any(|line| line == name), "{name}");
    }
    // Four periods and the legend.
    for colour in ["#0072B2", "#009E73", "#E69F00", "#CC79A7"] {
        assert!(drawn.matches(colour).count() >= 5, "{colour}");
    }
}
