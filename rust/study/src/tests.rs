// SPDX-License-Identifier: GPL-2.0

//! A study made up, from L1's lines to the files.

use std::fs;
use std::path::PathBuf;

use crate::lines::Lines;
use crate::results::Results;
use crate::{checks, plot, text};

/// A row of a dump: as many microseconds in KVM as exits, half of that in QEMU.
fn row(vm: &str, reason: &str, exits: u64) -> String {
    format!(
        r#"{{"vm":"1-2","name":"{vm}","vcpu":0,"reason":"{reason}","exits":{exits},"kvm_ns":{},"user_ns":{},"sleep_ns":7,"preempt_ns":0,"histogram":[[1,2]]}}"#,
        exits * 1000,
        exits * 500
    )
}

/// A dump at that time of so many CPUIDs of VM a and HLTs of VM b.
fn dump(time: f64, a: u64, b: u64) -> String {
    format!(
        r#"{{"kvmscope":1,"isa":"VMX","time":{time},"seconds":null,"counting":true,"latency":true,"by":"all","rows":[{},{}],"total":{}}}"#,
        row("a", "CPUID", a),
        row("b", "HLT", b),
        row("", "", a + b)
    )
}

/// What L1 would print: 600 exits in one guest, 400 and 500 in two. To start the
/// program takes 10.
fn said() -> String {
    let mut lines = vec![
        "study cpus 1".to_string(),
        format!("study boot 1 10.00 12.50 {}", dump(12.5, 1000, 100)),
        format!("study boot 2 13.00 15.00 {}", dump(15.0, 990, 120)),
    ];
    for (name, checksum) in [("crc32", "0x1"), ("pages", "0x2")] {
        for (place, ends, works) in [
            ("l1", (20, 20), &[("-", 1_000_000_000u64)][..]),
            ("one", (630, 20), &[("a", 1_200_000_000)]),
            (
                "two",
                (430, 530),
                &[("a", 2_400_000_000), ("b", 2_500_000_000)],
            ),
        ] {
            let ran = works.last().map_or(0.0, |work| work.1 as f64 / 1e9);
            let idle = if place == "two" { 20 } else { 0 };
            let starts = if place == "l1" { 0 } else { 10 };
            for (step, time, a, b) in [
                ("begin", 20.0, 20 - starts, 20 - idle / 2),
                ("empty", 20.5, 20, 20),
                ("end", 21.0 + ran, ends.0, ends.1),
            ] {
                lines.push(format!("study {place} {name} {step} {}", dump(time, a, b)));
            }
            for (guest, ns) in works {
                lines.push(format!(
                    "study {place} {name} {guest} work {name} rounds 3 checksum {checksum} ns {ns}"
                ));
            }
        }
    }
    lines.join("\n")
}

fn results(said: &str) -> anyhow::Result<Results> {
    Results::new("bochs", "6.12.0 test", &Lines::parse(said)?)
}

/// What the checks say to lines of which `from` was made `to`.
fn verdict(from: &str, to: &str) -> String {
    let said = said();
    assert!(said.contains(from), "{from:?} is in no line");
    checks::all(&results(&said.replace(from, to)).unwrap(), None)
        .expect_err("should be told")
        .to_string()
}

#[test]
fn the_boots_are_compared() {
    let results = results(&said()).unwrap();
    assert_eq!(results.boots[0].seconds, 2.5);
    assert_eq!(results.boots[0].reasons["CPUID"].exits, 1000);
    let differ = &results.boots_differ;
    assert_eq!((differ.total, differ.by_reason), (10, 30));
    assert_eq!(differ.reasons["CPUID"], -10);
    assert_eq!(differ.reasons["HLT"], 20);
    assert!((differ.by_reason_percent - 100.0 * 30.0 / 1100.0).abs() < 1e-9);
    checks::all(&results, None).unwrap();
    checks::all(&results, Some(2.8)).unwrap();
    let told = checks::all(&results, Some(2.7)).unwrap_err().to_string();
    assert!(
        told.contains("2.73 % of the exits of two boots differ"),
        "{told}"
    );
}

#[test]
fn the_cost_of_starting_is_taken_off() {
    let results = results(&said()).unwrap();
    let work = &results.workloads[1];
    assert_eq!((work.name.as_str(), work.rounds), ("pages", 3));
    let exits: Vec<_> = work.runs.iter().map(|run| run.total.exits).collect();
    assert_eq!(exits, [0, 600, 400, 500]);
    assert!(work.runs[1..].iter().all(|run| run.empty_exits == 10));

    let one = &work.runs[1];
    assert_eq!(one.seconds, 1.2);
    assert!((one.l1_seconds - 1.2).abs() < 1e-9);
    assert_eq!(one.exits_per_s, 500.0);
    // 600 us of 1.2 s.
    assert!((one.lost_percent - 0.05).abs() < 1e-9);
    assert!((one.qemu_percent - 0.025).abs() < 1e-9);
    assert_eq!(one.reasons["CPUID"].exits, 600);
    assert!(
        !one.reasons.contains_key("HLT"),
        "that is of the other guest"
    );
}

#[test]
fn every_line_is_needed() {
    let said = said();
    let lines: Vec<_> = said.lines().collect();
    for missing in 0..lines.len() {
        let mut rest = lines.clone();
        rest.remove(missing);
        let result = results(&rest.join("\n"));
        assert!(result.is_err(), "nobody missed {:?}", lines[missing]);
    }
}

#[test]
fn what_is_not_understood_is_told() {
    for (line, told) in [
        ("study", "what is this?"),
        ("study boot 2 1 2 {}", "out of turn"),
        ("study boot 1 1 x {}", "invalid float"),
        ("study one crc32 end {}", "no dump of kvmscope's"),
        ("study one crc32 a work crc32 rounds 3", "guest work said"),
        (
            "study one fft a work crc32 rounds 3 checksum 1 ns 1",
            "crc32 ran as fft",
        ),
    ] {
        let Err(error) = Lines::parse(line) else {
            panic!("{line:?} was taken");
        };
        let error = format!("{error:#}");
        assert!(error.starts_with("line 1 from L1: "), "{error}");
        assert!(error.contains(told), "{error}");
    }
    let untimed = said().replace(r#""latency":true"#, r#""latency":false"#);
    assert!(results(&untimed).is_err());
    let other_rounds = said().replace(
        "one pages a work pages rounds 3",
        "one pages a work pages rounds 4",
    );
    assert!(results(&other_rounds).is_err());
}

#[test]
fn what_cannot_be_is_told() {
    let of = |place: &str, step: &str, time: f64, a: u64, b: u64| {
        format!("study {place} pages {step} {}", dump(time, a, b))
    };
    for (from, to, told) in [
        (
            of("l1", "end", 22.0, 20, 20),
            of("l1", "end", 22.0, 21, 20),
            "pages in L1, -: 1 exits, and no guest",
        ),
        (
            of("one", "end", 22.2, 630, 20),
            of("one", "end", 22.2, 30, 20),
            "pages in one guest, a: 0 exits in a guest",
        ),
        (
            "checksum 0x2 ns 2400000000".into(),
            "checksum 0x3 ns 2400000000".into(),
            "pages in two guests, a: checksum 0x3, not 0x2",
        ),
        (
            "ns 1200000000".into(),
            "ns 500000".into(),
            "pages in one guest, a: 120.0 % of the time lost to exits",
        ),
    ] {
        let verdict = verdict(&from, &to);
        assert!(verdict.contains(told), "{verdict}");
    }
    let shared = said()
        .replace("ns 2400000000", "ns 1300000000")
        .replace("ns 2500000000", "ns 1300000000");
    let verdict = checks::all(&results(&shared).unwrap(), None).unwrap_err();
    let told = "pages: 1.300 s in two guests that share a CPU, 1.200 s in one guest";
    assert!(verdict.to_string().contains(told), "{verdict}");
    let two_cpus = shared.replace("cpus 1", "cpus 2");
    checks::all(&results(&two_cpus).unwrap(), None).unwrap();
}

#[test]
fn tables_have_the_figures() {
    let text = text::tables(&results(&said()).unwrap());
    for line in [
        "CPUID                         1000       990         -10    1.0 ms",
        "total                         1100      1110         +10    1.1 ms",
        "one guest a    1.200 s  1.20x  1.00x    600     500  0.1 %  0.0 %  0.0 %  CPUID 600",
        "two guests b   2.500 s  2.50x  1.00x    500     200  0.0 %  0.0 %  0.0 %  HLT 500",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "no {line:?} in\n{text}"
        );
    }
}

#[test]
fn plots_have_every_bar() {
    let results = results(&said()).unwrap();
    let path = |name: &str| -> PathBuf {
        std::env::temp_dir().join(format!("study-{}-{name}", std::process::id()))
    };
    let (svg, png) = (path("plot.svg"), path("plot.png"));
    plot::svg(&results, &svg).unwrap();
    plot::png(&results, &png).unwrap();
    let drawn = fs::read_to_string(&svg).unwrap();
    let pixels = fs::read(&png).unwrap();
    fs::remove_file(svg).unwrap();
    fs::remove_file(png).unwrap();

    // Two boots with two reasons, and two workloads: 4 times, 3 of each rate.
    for colour in ["#0072B2", "#E69F00", "#009E73", "#CC79A7"] {
        assert!(drawn.contains(colour), "no bar has the colour {colour}");
    }
    for (label, times) in [("CPUID", 1), ("pages", 3), ("990", 1), ("two guests b", 3)] {
        let found = drawn.lines().filter(|&line| line == label).count();
        assert_eq!(found, times, "{label}");
    }
    assert!(pixels.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(pixels[16..24], [0, 0, 5, 120, 0, 0, 3, 232], "1400 x 1000");
    // A white area of that size takes less than 10 kB.
    assert!(pixels.len() > 20_000, "{} bytes", pixels.len());
}
