// SPDX-License-Identifier: GPL-2.0

//! Samples and tiering, as far as there is no kernel to do them: recordings, and what
//! is in the way.

mod common;

use std::fs;
use std::path::Path;

use common::{are_no_words, data, fails_when_full, failure, read_a_line, run, stdout, Machine};

const NOWHERE: &str = "/nonexistent";

fn recording() -> String {
    data("run.sample").to_str().expect("UTF-8").to_string()
}

/// In order: each is what stands in the way once the one before is out of it.
#[test]
fn what_is_in_the_way() {
    let machine = Machine::copy("sampler");
    let root = machine.root();
    let nodes = "sys/devices/system/node";
    for command in ["sample", "tier"] {
        for who in ["812", "web"] {
            let said = failure(Path::new(NOWHERE), &[command, who]);
            assert!(said.contains("KVM is not loaded"), "{said}");
        }
        if command == "tier" {
            let said = failure(root, &[command, "812"]);
            assert!(said.ends_with("boot one with CONFIG_NUMA=y"), "{said}");
            fs::create_dir_all(machine.path(nodes)).expect("made");
            machine.write(&format!("{nodes}/has_cpu"), "0\n");
            machine.write(&format!("{nodes}/has_memory"), "0\n");
            let said = failure(root, &[command, "812"]);
            assert!(said.ends_with("boot with numa=fake=2"), "{said}");
            machine.write(&format!("{nodes}/has_memory"), "0-1\n");
            let said = failure(root, &[command, "812", "--fast-node", "4"]);
            assert!(
                said.ends_with("node 4 has no memory; there are 0, 1"),
                "{said}"
            );
            let same = ["tier", "812", "--fast-node", "1", "--slow-node", "1"];
            assert!(failure(root, &same).ends_with("node 1 cannot be both fast and slow"));
            let idle = ["--weight-r", "0", "--weight-w", "0", "--weight-x", "0"];
            let said = failure(root, &[&["tier", "812"], &idle[..]].concat());
            assert!(said.contains("all weights are 0"), "{said}");
            let _ = fs::remove_dir_all(machine.path("dev"));
        }
        let said = failure(root, &[command, "812"]);
        assert!(
            said.starts_with("kvmscope: there is no ")
                && said.ends_with(
                    "dev/kvm_ept_sample: build and boot a kernel with CONFIG_KVM_SCOPE_SAMPLE=y"
                ),
            "{said}"
        );
        fs::create_dir_all(machine.path("dev")).expect("made");
        machine.write("dev/kvm_ept_sample", "");
        let said = failure(root, &[command, "812"]);
        assert!(said.contains("is not the kernel's sampler"), "{said}");
    }
}

/// A process, a VM or its guest's name.
#[test]
fn whom_to_sample() {
    let machine = Machine::copy("whom");
    let root = machine.root();
    let said = |args: &[&str]| failure(root, &[&["sample"], args].concat());
    for whom in ["812", "812-11", "web"] {
        assert!(said(&[whom]).contains("there is no "), "{whom}");
        assert!(
            said(&[whom, "--vm", "11"]).contains("there is no "),
            "{whom}"
        );
    }
    assert_eq!(
        said(&["nobody"]),
        "kvmscope: no VM is called \"nobody\"; there are 812-11 (\"web\"), 900-4 (\"guest storm\")"
    );
    assert!(said(&["web", "--vm", "4"]).starts_with("kvmscope: no VM is called \"web\""));
    assert!(said(&["812-11", "--vm", "4"]).ends_with("leave out --vm"));
    machine.write("proc/900/cmdline", "qemu\0-name\0web\0");
    assert!(said(&["web"]).ends_with("812-11 and 900-4 are both called \"web\": give one of these"));
    assert!(said(&["web", "--vm", "4"]).contains("there is no "));
}

#[test]
fn words_that_are_none() {
    are_no_words(&[
        &["sample"],
        &["sample", "0"],
        &["sample", ""],
        &["sample", "0-11"],
        &["sample", "812", "--rate", "0"],
        &["sample", "812", "--access", "z"],
        &["sample", "812", "--access", ""],
        &["sample", "812", "--strategy", "hope"],
        &["sample", "812", "--budget", "101"],
        &["sample", "812", "--gfn", "2-1"],
        &["sample", "812", "--tables", "--no-tables"],
        &["sample", "812", "--region", "3M"],
        &["sample", "812", "--force"],
        &["sample", "812", "--sort", "heat"],
        &["sample", "812", "--half-life", "9"],
        &["sample", "812", "--region", "4K"],
        &["sample", "812", "--from", "x"],
        &["sample", "--from", "x", "--rate", "7"],
        &["tier"],
        &["tier", "812", "--fast-ratio", "1.1"],
        &["tier", "812", "--bandwidth", "many"],
        &["tier", "812", "--weight-w", "-1"],
        &["tier", "812", "--migration-delay", "nan"],
        &["tier", "812", "--interval", "0"],
    ]);
}

#[test]
fn files_that_cannot_be_written() {
    let from = recording();
    for args in [
        &["sample"][..],
        &["sample", "--json"],
        &["sample", "--heat"],
    ] {
        fails_when_full(Path::new(NOWHERE), &[args, &["--from", &from]].concat());
    }
    let head = read_a_line(
        Path::new(NOWHERE),
        &["sample", "--from", &long_recording(), "--json"],
    );
    assert!(head.starts_with("{\"kvmscope_sample\":1,"), "{head}");
}

/// More than a pipe holds.
fn long_recording() -> String {
    let run = fs::read_to_string(recording()).expect("read");
    let (samples, others): (Vec<_>, Vec<_>) = run
        .lines()
        .partition(|line| line.starts_with("{\"sample\""));
    let long = [&others[..2], &samples.repeat(20), &others[2..]].concat();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("long.sample");
    fs::write(&path, long.join("\n") + "\n").expect("written");
    path.to_str().expect("UTF-8").to_string()
}

#[test]
fn recordings() {
    let machine = Machine::copy("samples");
    let nowhere = Path::new(NOWHERE);
    let from = |args: &[&str]| {
        stdout(
            nowhere,
            &[&["sample", "--from", &recording()], args].concat(),
        )
    };

    // What is printed as JSON is a recording.
    let json = from(&["--json"]);
    let samples = |text: &str| {
        text.lines()
            .filter(|l| l.starts_with("{\"sample\""))
            .count()
    };
    assert_eq!(samples(&json), 400);
    machine.write("copy", &json);
    let copy = machine.path("copy");
    let copy = copy.to_str().expect("UTF-8");
    assert_eq!(stdout(nowhere, &["sample", "--from", copy, "--json"]), json);

    // Filters.
    let count = |args: &[&str]| samples(&from(&[&["--json"], args].concat()));
    let (tables, others) = (count(&["--tables"]), count(&["--no-tables"]));
    assert!(tables != 0 && tables + others == 400);
    let (zero, one) = (count(&["--vcpu", "0"]), count(&["--vcpu", "1"]));
    assert!(zero != 0 && one != 0 && zero + one == 400);
    assert_eq!(count(&["--vcpu", "0", "--vcpu", "1"]), 400);
    let hot = ["--gfn", "0x2000-0x23ff", "--gfn", "0x4000+1024"];
    let within = count(&hot);
    assert!((250..350).contains(&within), "{within}");
    let said = run(
        nowhere,
        &[&["sample", "--from", &recording()], &hot[..]].concat(),
    );
    let said = String::from_utf8(said.stderr).expect("UTF-8");
    let expected = "kvmscope: 403 samples taken, 400 delivered, 3 lost";
    assert_eq!(said, format!("{expected}; {within} were wanted\n"));

    // Cut short.
    machine.write("copy", &json[..json.len() - 10]);
    let output = run(nowhere, &["sample", "--from", copy]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("it ends within a sample"));

    // Of other kinds.
    let wss = data("run.wss");
    let wss = wss.to_str().expect("UTF-8");
    let said = failure(nowhere, &["sample", "--from", wss]);
    assert!(said.ends_with("it is a recording of working sets: kvmscope wss --from reads it"));
    let said = failure(nowhere, &["wss", "--from", &recording()]);
    assert!(said.ends_with("it is a recording of samples: kvmscope sample --from reads it"));
    let said = failure(nowhere, &["heatmap", "--from", &recording(), "db"]);
    assert!(said.ends_with("the filter matches no VM in it"), "{said}");
    let reads = json.replace("\"-w-\"", "\"r--\"");
    machine.write("copy", &reads);
    let said = failure(nowhere, &["heatmap", "--from", copy]);
    assert!(said.ends_with("--reads draws what was accessed"), "{said}");
    stdout(nowhere, &["heatmap", "--from", copy, "--reads"]);
    let first = json.lines().next().expect("a line");
    machine.write("copy", &format!("{first}\n"));
    assert!(failure(nowhere, &["sample", "--from", copy]).ends_with("there is nothing in it"));
}

/// Whoever names a guest does not get to write to our terminal.
#[test]
fn names_are_harmless() {
    let machine = Machine::copy("sample-names");
    let run = fs::read_to_string(data("run.sample")).expect("read");
    machine.write(
        "run",
        &run.replace("\"name\":\"web\"", "\"name\":\"\\u001b[2J\""),
    );
    let file = machine.path("run");
    let file = file.to_str().expect("UTF-8");
    for args in [
        &["sample", "--from", file][..],
        &["heatmap", "--from", file],
    ] {
        let text = stdout(Path::new(NOWHERE), args);
        assert!(text.contains("?[2J") && !text.contains('\u{1b}'), "{text}");
    }
}
