// SPDX-License-Identifier: GPL-2.0

//! What goes wrong is said in one line with a status, and nothing stays behind.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use common::{
    are_no_words, data, fails_when_full, failure, full, kvmscope, read_a_line, replace, run,
    signal, stdout, wait_for, Machine,
};

const TABLES: &str = "sys/kernel/debug/kvm";
const SYSTEM: &str = "sys/kernel/debug/kvmscope";
const LATENCY: &str = "sys/kernel/kvmscope/latency";

#[test]
fn a_kernel_without_kvmscope() {
    let machine = Machine::copy("without");
    machine.remove("sys/kernel/kvmscope");
    machine.remove(SYSTEM);
    // An empty directory, which git does not keep.
    fs::create_dir_all(machine.path("sys/module/kvm")).unwrap();
    let other = "kvmscope: this kernel's KVM is not kvmscope's, or neither kvm-intel nor kvm-amd \
                 is loaded: boot the kernel with CONFIG_KVM_SCOPE=y and load one of them";
    for args in [
        &["dump"][..],
        &["stat"],
        &["stat", "--once"],
        &["record", "x"],
        &["latency"],
        &["reset"],
    ] {
        assert_eq!(failure(machine.root(), args), other, "{args:?}");
    }
    machine.remove("sys/module");
    assert!(failure(machine.root(), &["dump"]).contains("KVM is not loaded"));
    assert!(failure(Path::new("/nonexistent"), &["dump"]).contains("KVM is not loaded"));
}

#[test]
fn no_debugfs() {
    let machine = Machine::copy("unmounted");
    machine.remove(TABLES);
    machine.remove(SYSTEM);
    assert!(failure(machine.root(), &["dump"]).contains("is not mounted: run mount -t debugfs"));
    fs::create_dir(machine.path("sys/kernel/debug/other")).unwrap();
    assert!(failure(machine.root(), &["dump"]).contains("older than this command"));
}

#[test]
fn not_allowed_to_read() {
    let machine = Machine::copy("locked");
    let exits = machine.path("sys/kernel/debug/kvmscope/exits");
    fs::set_permissions(&exits, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&exits).is_ok() {
        // Root reads everything; its own case is tried in L1.
        return;
    }
    assert_eq!(
        failure(machine.root(), &["dump"]),
        format!(
            "kvmscope: {} is for root only: run it as root",
            machine.path("sys/kernel/debug").display()
        )
    );
    fs::create_dir(machine.path("sys/kernel/security")).unwrap();
    machine.write(
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    assert!(failure(machine.root(), &["dump"]).contains("the kernel is locked down"));
}

#[test]
fn a_table_that_is_none() {
    let machine = Machine::copy("garbled");
    machine.write(LATENCY, "maybe\n");
    assert!(failure(machine.root(), &["latency"]).contains("not 0 or 1"));
    machine.write(LATENCY, "1\n");
    let file = "sys/kernel/debug/kvm/812-11/vcpu1/scope/exits";
    machine.write(
        file,
        "kvmscope 1 exits VMX\nnumber name exits nested\n1 X\n",
    );
    let said = failure(machine.root(), &["dump"]);
    assert!(
        said.ends_with("812-11/vcpu1/scope/exits: line 3: the row ends before its exits"),
        "{said}"
    );
    machine.write(file, "kvmscope 7 exits VMX\n");
    assert!(failure(machine.root(), &["dump"]).contains("format is version \"7\""));
    machine.write(file, "kvmscope 1 exits SVM\nnumber name exits nested\n");
    assert!(failure(machine.root(), &["dump"]).contains("VMX"));
}

#[test]
fn a_vm_that_is_ending() {
    let machine = Machine::copy("ending");
    machine.remove("sys/kernel/debug/kvm/900-4/scope");
    machine.remove("sys/kernel/debug/kvm/812-11/vcpu1/scope");
    let table = stdout(machine.root(), &["dump", "--by", "vcpu"]);
    assert!(
        table.contains("812-11") && !table.contains("900-4"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[test]
fn a_kernel_that_does_not_measure_latency() {
    let machine = Machine::copy("timeless");
    for scope in [
        "../kvmscope",
        "812-11/scope",
        "812-11/vcpu0/scope",
        "812-11/vcpu1/scope",
        "900-4/scope",
        "900-4/vcpu0/scope",
    ] {
        fs::remove_file(machine.path(&format!("{TABLES}/{scope}/latency"))).unwrap();
    }
    fs::remove_file(machine.path(LATENCY)).unwrap();
    assert!(!stdout(machine.root(), &["dump"]).contains("Time%"));
    assert_eq!(stdout(machine.root(), &["latency"]), "off\n");
    let said = failure(machine.root(), &["stat", "--once", "--latency"]);
    assert!(
        said.contains("has no") && said.contains("latency"),
        "{said}"
    );
}

#[test]
fn filters_that_match_nothing() {
    let host = data("host");
    let said = failure(&host, &["dump", "--vm", "nosuch"]);
    let there = "there are 812-11 (\"web\", 2 vCPUs), 900-4 (\"guest storm\", 1 vCPUs)";
    assert_eq!(said, format!("kvmscope: the filter matches no VM; {there}"));
    failure(&host, &["dump", "--vm", "web", "--vcpu", "2"]);
    failure(&host, &["dump", "--pid", "1"]);
    failure(&host, &["stat", "--once", "-i", "0.1", "--pid", "1"]);
    // A reason may simply not have been seen.
    assert!(stdout(&host, &["dump", "--reason", "XSAVES"]).contains("TOTAL"));
}

#[test]
fn words_that_are_none() {
    are_no_words(&[
        &["dump", "--reason", "("],
        &["dump", "--vcpu", "x"],
        &["dump", "--pid", "-1"],
        &["dump", "--sort", "size"],
        &["stat", "--interval", "0"],
        &["stat", "--prometheus", "nowhere"],
        &["stat", "--json", "--csv", "x"],
        &["frobnicate"],
    ]);
}

#[test]
fn files_that_cannot_be_written() {
    let host = data("host");
    let said = failure(&host, &["dump", "--csv", "/nonexistent/x"]);
    assert!(
        said.starts_with("kvmscope: cannot write /nonexistent/x: No such file"),
        "{said}"
    );
    for args in [
        &["dump"][..],
        &["dump", "--json"],
        &["dump", "--csv", "-"],
        &["record", "-"],
        &["latency"],
        &["completions", "bash"],
    ] {
        fails_when_full(&host, args);
    }
    // Nor does it matter when the complaint itself cannot be written.
    let status = kvmscope(&host)
        .args(["dump", "--vm", "x"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn recordings_that_are_none() {
    let machine = Machine::copy("recordings");
    let root = machine.root();
    let file = machine.path("run");
    let file = file.to_str().unwrap();
    let report = |text: &str| {
        machine.write("run", text);
        failure(root, &["report", file])
    };
    assert!(report("").contains("not a recording"));
    assert!(report("\u{0}\u{1}garbage").contains("not a recording"));
    assert!(report("[1,2]\n").contains("not a recording"));
    assert!(report("{\"kvmscope_recording\":9}\n").contains("format is version 9"));
    let head = "{\"kvmscope_recording\":1,\"about\":\"\",\"host\":\"h\",\"kernel\":\"k\"}\n";
    assert!(report(head).contains("no two snapshots"));
    assert!(report(&format!("{head}{{}}\n")).contains("line 2: missing field"));
    assert!(failure(root, &["report", "/nonexistent"]).contains("cannot read /nonexistent"));

    let exists = failure(root, &["record", file]);
    assert!(exists.ends_with("exists: --force replaces it"), "{exists}");
    let output = run(root, &["record", "--force", "-d", "0.3", "-i", "0.1", file]);
    assert!(output.status.success(), "{output:?}");

    // Cut short, as by a full disk: what is whole counts.
    let whole = machine.read("run");
    assert!(stdout(root, &["report", file]).starts_with("4 snapshots"));
    machine.write("run", &whole[..whole.len() - 10]);
    let output = run(root, &["report", file]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut short"));
    assert!(output.stdout.starts_with(b"3 snapshots"));
}

/// Not even with another recording, or with what was read from it.
#[test]
fn recordings_are_not_overwritten() {
    let machine = Machine::copy("kept");
    let root = machine.root();
    for (name, commands) in [
        ("run.kvmscope", &[&["report", "--csv"][..]][..]),
        (
            "run.wss",
            &[
                &["wss", "--csv"],
                &["heatmap", "--png"],
                &["heatmap", "--svg"],
            ],
        ),
        ("run.sample", &[&["heatmap", "--png"]]),
    ] {
        let path = machine.path(name);
        fs::copy(data(name), &path).unwrap();
        let file = path.to_str().unwrap();
        for command in commands {
            let from = if command[0] == "report" {
                vec![file]
            } else {
                vec!["--vm", "web", "--from", file]
            };
            let args = [command, &[file][..], &from].concat();
            let said = failure(root, &args);
            assert!(
                said.contains("is a recording, and would be overwritten"),
                "{said}"
            );
            assert_eq!(fs::read(&path).unwrap(), fs::read(data(name)).unwrap());
        }
        failure(root, &["dump", "--csv", file]);
        // Before an hour is spent on it.
        let said = failure(root, &["heatmap", "--vm", "web", "--png", file]);
        assert!(said.contains("would be overwritten"), "{said}");
    }
    // What is none is replaced.
    machine.write("exits.csv", "{\"kvmscope_of_old\":1}\n");
    let csv = machine.path("exits.csv");
    assert_eq!(stdout(root, &["dump", "--csv", csv.to_str().unwrap()]), "");
    assert!(machine.read("exits.csv").starts_with("time,"));
}

#[test]
fn a_filter_may_be_for_what_comes() {
    let mut child = kvmscope(&data("host"))
        .args(["stat", "--json", "-i0.1", "--vm", "nosuch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"rows\":[]"), "{line}");
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let there = "until now, the filter matches no VM; there are 812-11";
    assert!(said.starts_with(&format!("kvmscope: {there}")), "{said}");
    assert!(output.status.success());
}

#[test]
fn latency_is_switched_back() {
    let machine = Machine::copy("restored");
    machine.write(LATENCY, "0");
    for (name, args, status) in [
        ("-INT", ["stat", "--latency", "--json", "-i0.1"], 0),
        ("-TERM", ["stat", "--latency", "--once", "-i60"], 143),
        ("-INT", ["stat", "--latency", "--once", "-i60"], 130),
        ("-QUIT", ["stat", "--latency", "--prometheus", "0"], 0),
        ("-TERM", ["record", "--latency", "-i60", "-"], 0),
    ] {
        let mut child = kvmscope(machine.root())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("timing", || machine.read(LATENCY) == "1");
        sleep(Duration::from_millis(100));
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(status), "{args:?}");
        assert_eq!(machine.read(LATENCY), "0", "{args:?}");
    }
}

#[test]
fn latency_that_is_taken_away() {
    let machine = Machine::copy("taken-latency");
    machine.write(LATENCY, "0");
    for args in [
        ["stat", "--latency", "--json", "-i0.1"],
        ["record", "--latency", "-i0.1", "-"],
    ] {
        let mut child = kvmscope(machine.root())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for("timing", || machine.read(LATENCY) == "1");
        replace(&machine.path(LATENCY), b"0").unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("somebody switched latency off"), "{line}");
        signal(&child, "-TERM");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
}

#[test]
fn latency_that_was_on_stays_on() {
    let machine = Machine::copy("left");
    machine.write(LATENCY, "1\n");
    stdout(
        machine.root(),
        &["stat", "--latency", "--once", "-i", "0.1"],
    );
    assert_eq!(machine.read(LATENCY), "1\n");
}

#[test]
fn nobody_reads_on() {
    let machine = Machine::copy("pipe");
    machine.write(LATENCY, "0");
    let head = read_a_line(machine.root(), &["stat", "--latency", "-i", "0.1"]);
    assert!(head.starts_with("No  VM-EXIT"), "{head}");
    assert_eq!(machine.read(LATENCY), "0");
}

#[test]
fn knobs() {
    let machine = Machine::copy("knobs");
    for (args, file, text) in [
        (&["exits", "off"][..], "exits", "0"),
        (&["exits", "on"], "exits", "1"),
        (&["latency", "off"], "latency", "0"),
        (&["reset"], "reset", "1"),
    ] {
        stdout(machine.root(), args);
        assert_eq!(
            &machine.read(&format!("sys/kernel/kvmscope/{file}"))[..1],
            text
        );
    }
    assert_eq!(stdout(machine.root(), &["exits"]), "on\n");
}

/// Whoever names a guest does not get to write to our terminal.
#[test]
fn names_are_harmless() {
    let machine = Machine::copy("names");
    machine.write("proc/812/cmdline", "qemu\0-name\0\u{1b}[2Jx\"\\\ny\0");
    let table = stdout(machine.root(), &["dump", "--by", "vm"]);
    assert!(
        table.contains("?[2Jx\"\\?y") && !table.contains('\u{1b}'),
        "{table}"
    );
    let said = failure(machine.root(), &["dump", "--vm", "x"]);
    assert!(!said.contains('\u{1b}'), "{said}");
}

/// Links and odd names in the tree are not VMs.
#[test]
fn what_is_no_vm() {
    let machine = Machine::copy("odd");
    for name in ["x-y", "1-", "-1", "77", "99999999999-1"] {
        fs::create_dir(machine.path(&format!("{TABLES}/{name}"))).unwrap();
    }
    symlink(
        machine.path(&format!("{TABLES}/900-4")),
        machine.path(&format!("{TABLES}/901-4")),
    )
    .unwrap();
    assert_eq!(
        stdout(machine.root(), &["dump", "--by", "vm"])
            .lines()
            .count(),
        4
    );
}
