// SPDX-License-Identifier: GPL-2.0

//! kvmscope wss and heatmap on VMs: what is read is what the kernel said, tracking
//! is on only meanwhile, and what goes wrong is said in one line.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::Duration;

use common::{
    are_no_words, data, fails_when_full, failure, kvmscope, read_a_line, replace, run, signal,
    stdout, wait_for, Machine,
};

const WEB: &str = "sys/kernel/debug/kvm/812-11";
const STORM: &str = "sys/kernel/debug/kvm/900-4";

/// The kernel's part: while a VM is tracked, one period after the other ends.
struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    fn run(machine: &Machine, vms: &[&str]) -> Kernel {
        let stop = Arc::new(AtomicBool::new(false));
        let vms: Vec<PathBuf> = vms.iter().map(|vm| machine.path(vm)).collect();
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let mut number = 100;
            while !until.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20));
                number += 1;
                for vm in &vms {
                    // It may have ended.
                    let _ = end_period(&vm.join("scope/wss"), number);
                }
            }
        });
        Kernel {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn end_period(wss: &Path, number: u64) -> std::io::Result<()> {
    if !fs::read_to_string(wss.join("active"))?.starts_with('1') {
        return Ok(());
    }
    let start = 1_000_000_000_000 + number * 1_000;
    let set = |text: String| -> String {
        let line = |line: &str| match line.split(' ').next() {
            Some("period") => format!("period {number}\n"),
            Some("start_ns") => format!("start_ns {start}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    };
    let mut pages = fs::read(wss.join("pages"))?;
    pages[32..40].copy_from_slice(&number.to_le_bytes());
    pages[40..48].copy_from_slice(&start.to_le_bytes());
    replace(&wss.join("pages"), &pages)?;
    let estimate = set(fs::read_to_string(wss.join("estimate"))?);
    replace(&wss.join("estimate"), estimate.as_bytes())
}

fn knob(machine: &Machine, vm: &str, name: &str) -> String {
    let text = machine.read(&format!("{vm}/scope/wss/{name}"));
    text.trim_end().to_string()
}

#[test]
fn one_period() {
    let machine = Machine::copy("once");
    let _kernel = Kernel::run(&machine, &[WEB, STORM]);
    let text = stdout(machine.root(), &["wss", "--once"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("VM       Name"), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines.iter().any(|line| line.starts_with("812-11   web  ")),
        "{text}"
    );
    // Reads were not measured.
    let storm = lines
        .iter()
        .find(|line| line.starts_with("900-4"))
        .expect("storm");
    assert!(storm.contains(" -  "), "{text}");

    let json = stdout(machine.root(), &["wss", "--once", "--json", "812"]);
    assert_eq!(json.lines().count(), 1);
    assert!(
        json.contains("\"vm\":\"812-11\",\"name\":\"web\"") && json.contains("\"written\":"),
        "{json}"
    );
    assert_eq!(knob(&machine, WEB, "active"), "0");
}

#[test]
fn tracking_is_on_meanwhile() {
    let machine = Machine::copy("meanwhile");
    for (name, args, status) in [
        ("-INT", &["wss", "--json"][..], 0),
        ("-TERM", &["wss", "--once"], 143),
        ("-INT", &["wss", "--once"], 130),
        ("-QUIT", &["wss", "--percentiles"], 0),
        ("-TERM", &["wss", "--duration", "60"], 0),
        // There is nothing to draw.
        ("-INT", &["heatmap"], 1),
    ] {
        let setup = ["--period", "0.05", "--intervals", "5", "--no-reads"];
        let threshold: &[&str] = match args[0] {
            "wss" => &["--threshold", "2"],
            _ => &[],
        };
        let child = kvmscope(machine.root())
            .args(args)
            .args(setup)
            .args(threshold)
            .args(["--split", "web"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("kvmscope runs");
        wait_for("tracking", || knob(&machine, WEB, "active") == "1");
        for (name, value) in [
            ("period_ms", "50"),
            ("intervals", "5"),
            ("threshold", threshold.last().unwrap_or(&"1")),
            ("reads", "0"),
            ("split", "1"),
        ] {
            assert_eq!(knob(&machine, WEB, name), value, "{args:?}: {name}");
        }
        // Only of the VM that was asked for.
        assert_eq!(knob(&machine, STORM, "active"), "0");
        signal(&child, name);
        assert_eq!(
            child.wait().expect("it ended").code(),
            Some(status),
            "{args:?}"
        );
        for (name, value) in [
            ("active", "0"),
            ("period_ms", "10000"),
            ("intervals", "10"),
            ("threshold", "1"),
            ("reads", "1"),
            ("split", "0"),
        ] {
            let is = knob(&machine, WEB, name);
            assert_eq!(is, value, "{args:?}: {name}");
        }
    }
}

/// What ends with the terminal, and with nohup does not.
#[test]
fn the_terminal_hung_up() {
    let machine = Machine::copy("hangup");
    for (how, survives) in [
        (&["env", "--default-signal=HUP"][..], false),
        (&["nohup"], true),
    ] {
        let mut child = Command::new(how[0])
            .args(&how[1..])
            .arg(env!("CARGO_BIN_EXE_kvmscope"))
            .arg("--root")
            .arg(machine.root())
            .args(["wss", "--percentiles", "web"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        wait_for("tracking", || knob(&machine, WEB, "active") == "1");
        signal(&child, "-HUP");
        if survives {
            sleep(Duration::from_millis(300));
            assert_eq!(knob(&machine, WEB, "active"), "1");
            signal(&child, "-TERM");
        }
        assert_eq!(child.wait().expect("it ended").code(), Some(0), "{how:?}");
        assert_eq!(knob(&machine, WEB, "active"), "0", "{how:?}");
    }
}

/// Rather than when all has been measured.
#[test]
fn mistakes_are_told_at_once() {
    let machine = Machine::copy("at-once");
    let root = machine.root();
    let picture = machine.path("run.svg");
    let picture = picture.to_str().expect("UTF-8");
    let long = ["--duration", "600"];
    let say = |args: &[&str]| failure(root, &[args, &long].concat());
    let said = say(&["heatmap", "--svg", picture]);
    assert!(
        said.ends_with("there are 812-11 (web), 900-4 (guest storm): choose one"),
        "{said}"
    );
    let said = say(&["heatmap", "--png", "/nonexistent/x", "web"]);
    assert!(said.contains("cannot write /nonexistent/x"), "{said}");
    for command in ["wss", "heatmap"] {
        let said = failure(root, &[command, "--duration", "5"]);
        assert!(
            said.ends_with("a period lasts 10 s: give a shorter --period, or a longer --duration"),
            "{said}"
        );
    }
    for more in [&["--json"][..], &["--csv", "-"], &["--percentiles"]] {
        let said = failure(root, &[&["wss", "--record", "-"], more].concat());
        assert!(
            said.contains("the recording goes to standard output"),
            "{said}"
        );
    }
    assert_eq!(knob(&machine, WEB, "active"), "0");
    assert!(!machine.path("run.svg").exists());
}

/// One that goes wrong is no reason not to watch the others.
#[test]
fn one_vm_that_goes_wrong() {
    let machine = Machine::copy("wrong");
    machine.write(&format!("{STORM}/scope/wss/period_ms"), "soon\n");
    let _kernel = Kernel::run(&machine, &[WEB]);
    let output = run(machine.root(), &["wss", "--once"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("kvmscope: 900-4: ") && said.contains("period_ms is no number"),
        "{said}"
    );

    // Nor later; the last one is.
    let machine = Machine::copy("wrong-later");
    let child = kvmscope(machine.root())
        .args(["wss", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("kvmscope runs");
    let said = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = said.lines().map(|line| line.expect("UTF-8"));
    for (vm, name) in [(STORM, "900-4"), (WEB, "812-11")] {
        wait_for("tracking", || knob(&machine, vm, "active") == "1");
        machine.write(&format!("{vm}/scope/wss/estimate"), "garbage\n");
        let line = said.next().expect("a line");
        assert!(line.starts_with(&format!("kvmscope: {name}: ")), "{line}");
    }
    assert_eq!(child.wait().expect("it ended").code(), Some(1));
    assert_eq!(knob(&machine, WEB, "active"), "0");
}

#[test]
fn what_is_tracked_already_stays_so() {
    let machine = Machine::copy("already");
    machine.write(&format!("{WEB}/scope/wss/active"), "1\n");
    let _kernel = Kernel::run(&machine, &[WEB]);
    let output = run(machine.root(), &["wss", "web", "--once", "--period", "5"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("812-11 is tracked already: its parameters are left alone, and tracking")
            && said.contains("812-11/scope/wss/active\n"),
        "{said}"
    );
    assert_eq!(knob(&machine, WEB, "active"), "1");
    assert_eq!(knob(&machine, WEB, "period_ms"), "10000");
}

#[test]
fn nobody_reads_on() {
    let machine = Machine::copy("wss-pipe");
    let _kernel = Kernel::run(&machine, &[WEB]);
    read_a_line(machine.root(), &["wss", "web", "--period", "0.02"]);
    assert_eq!(knob(&machine, WEB, "active"), "0");
}

#[test]
fn a_vm_that_ends() {
    let machine = Machine::copy("wss-ends");
    let kernel = Kernel::run(&machine, &[WEB, STORM]);
    let child = kvmscope(machine.root())
        .args(["wss", "--json", "--period", "0.02"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("kvmscope runs");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let (mut line, mut seen) = (String::new(), [false; 2]);
    while seen != [true; 2] {
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("a line"), 0);
        seen[0] |= line.contains("812-11");
        seen[1] |= line.contains("900-4");
    }
    drop(kernel);
    machine.remove(STORM);
    machine.remove(WEB);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).expect("read");
    let output = child.wait_with_output().expect("it ended");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for vm in ["812-11", "900-4"] {
        assert!(
            said.contains(&format!("kvmscope: {vm} has ended\n")),
            "{said}"
        );
    }

    // Nor is it a success when there was nothing.
    let machine = Machine::copy("wss-early");
    let child = kvmscope(machine.root())
        .args(["wss", "--once", "--period", "0.02", "web"])
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("kvmscope runs");
    wait_for("tracking", || knob(&machine, WEB, "active") == "1");
    machine.remove(WEB);
    let output = child.wait_with_output().expect("it ended");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no VM is left, and none lived to the end of a period"),
        "{said}"
    );
}

/// Somebody else switches tracking off: it is not switched on again.
#[test]
fn tracking_that_is_taken_away() {
    let machine = Machine::copy("taken");
    let child = kvmscope(machine.root())
        .args(["wss", "--json", "--period", "0.02", "web"])
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("kvmscope runs");
    wait_for("tracking", || knob(&machine, WEB, "active") == "1");
    machine.write(&format!("{WEB}/scope/wss/active"), "0\n");
    let output = child.wait_with_output().expect("it ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("812-11 is not tracked any more: somebody switched it off"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1), "no period was seen");
}

#[test]
fn recorded_and_drawn() {
    let machine = Machine::copy("wss-record");
    let _kernel = Kernel::run(&machine, &[WEB]);
    let root = machine.root();
    let file = machine.path("run.wss");
    let file = file.to_str().expect("UTF-8");
    let record = [
        "wss",
        "web",
        "--record",
        file,
        "--duration",
        "0.5",
        "--period",
        "0.02",
    ];
    let live = stdout(root, &[&record[..], &["--json"]].concat());
    assert!(live.lines().count() > 1, "{live}");
    // The same, to the letter.
    let nowhere = Path::new("/nonexistent");
    assert_eq!(stdout(nowhere, &["wss", "--from", file, "--json"]), live);
    let map = stdout(nowhere, &["heatmap", "--from", file]);
    assert!(map.starts_with("812-11 (web): written, "), "{map}");
    assert!(
        map.contains("untouched") && map.contains("% page tables") | map.contains("page tables")
    );
    // Of all periods.
    let periods = live.lines().count();
    assert!(
        map.lines()
            .next()
            .expect("a line")
            .contains(&format!("{periods} periods")),
        "{map}"
    );
    // To standard output, with nothing else there.
    let piped = ["wss", "web", "--record", "-", "--once", "--period", "0.02"];
    machine.write("piped.wss", &stdout(root, &piped));
    let piped = machine.path("piped.wss");
    let piped = piped.to_str().expect("UTF-8");
    stdout(nowhere, &["wss", "--from", piped, "--json"]);
    let drawn = stdout(
        root,
        &["heatmap", "web", "--duration", "0.3", "--period", "0.02"],
    );
    assert!(drawn.starts_with("812-11 (web): written, "), "{drawn}");

    let said = failure(root, &record);
    assert!(said.ends_with("exists: --force replaces it"), "{said}");
    assert_eq!(knob(&machine, WEB, "active"), "0");
    stdout(root, &[&record[..], &["--force"]].concat());

    // Cut short: what is whole counts.
    let whole = machine.read("run.wss");
    machine.write("run.wss", &whole[..whole.len() - 10]);
    let output = run(nowhere, &["wss", "--from", file, "--json"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut short"));
}

#[test]
fn vms_that_cannot_be_tracked() {
    let machine = Machine::copy("untracked");
    let root = machine.root();
    let said = failure(root, &["wss", "nosuch"]);
    let there = "there are 812-11 (\"web\"), 900-4 (\"guest storm\")";
    assert_eq!(said, format!("kvmscope: the filter matches no VM; {there}"));
    failure(root, &["heatmap", "--pid", "1"]);
    let said = failure(root, &["wss", "--period", "0.01", "--intervals", "11"]);
    assert!(
        said.contains("a period of 10 ms is too short for 11 sub-intervals"),
        "{said}"
    );
    assert_eq!(knob(&machine, WEB, "active"), "0");
    assert_eq!(knob(&machine, WEB, "intervals"), "10");

    // One of them alone is no obstacle.
    machine.remove(&format!("{STORM}/scope/wss"));
    let kernel = Kernel::run(&machine, &[WEB]);
    let output = run(root, &["wss", "--once"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no working sets"));
    drop(kernel);
    machine.remove(&format!("{WEB}/scope/wss"));
    for command in ["wss", "heatmap"] {
        let said = failure(root, &[command]);
        assert!(
            said.starts_with("kvmscope: this kernel's kvmscope has no working sets: there is no ")
                && said
                    .ends_with("812-11/scope/wss; build and boot one with CONFIG_KVM_SCOPE_WSS=y"),
            "{said}"
        );
    }
    machine.remove(WEB);
    machine.remove(STORM);
    assert_eq!(failure(root, &["wss"]), "kvmscope: no VM is running");
    machine.remove("sys/kernel/kvmscope");
    machine.remove("sys/kernel/debug/kvmscope");
    assert!(failure(root, &["wss"]).contains("KVM is not loaded"));
}

#[test]
fn files_of_the_kernel_that_are_none() {
    let machine = Machine::copy("wss-garbled");
    let root = machine.root();
    let estimate = format!("{WEB}/scope/wss/estimate");
    machine.write(&estimate, "kvmscope 1 wss\nperiod 1\n");
    let said = failure(root, &["wss", "web", "--once"]);
    assert!(
        said.ends_with("812-11/scope/wss/estimate: there is no start_ns"),
        "{said}"
    );
    machine.write(&estimate, "kvmscope 2 wss\n");
    assert!(failure(root, &["wss", "web"]).contains("format is version \"2\""));
    machine.write(&format!("{WEB}/scope/wss/active"), "maybe\n");
    machine.write(
        &estimate,
        &machine.read(&format!("{STORM}/scope/wss/estimate")),
    );
    assert!(failure(root, &["wss", "web"]).contains("812-11/scope/wss/active is no number"));
}

#[test]
fn recordings_that_are_none() {
    let machine = Machine::copy("wss-none");
    let nowhere = Path::new("/nonexistent");
    let file = machine.path("run");
    let file = file.to_str().expect("UTF-8");
    for command in ["wss", "heatmap"] {
        let from = |text: &str| {
            machine.write("run", text);
            let said = failure(nowhere, &[command, "--from", file]);
            assert!(said.starts_with(&format!("kvmscope: {file}: ")), "{said}");
            said
        };
        assert!(from("").contains("not a recording of working sets"));
        assert!(from("\u{0}\u{1}garbage").contains("not a recording of working sets"));
        assert!(from("{\"kvmscope_wss\":9}\n").contains("format is version 9"));
        assert!(from("{\"kvmscope_recording\":1}\n").contains("kvmscope report reads it"));
        let head = "{\"kvmscope_wss\":1,\"about\":\"\",\"host\":\"h\",\"kernel\":\"k\"}\n";
        assert!(from(head).ends_with("there is no period in it"));
        assert!(from(&format!("{head}{{}}\n")).contains("line 2: missing field"));
    }
    assert!(
        failure(nowhere, &["wss", "--from", "/nonexistent"]).contains("cannot read /nonexistent")
    );
    machine.write("run", "KVMSWSS1");
    let said = failure(nowhere, &["heatmap", "--from", file]);
    assert!(said.ends_with("it ends within its header"), "{said}");
    machine.write("run", "{\"kvmscope_wss\":1}\n");
    assert!(failure(nowhere, &["report", file]).contains("kvmscope wss --from reads it"));

    let run = data("run.wss");
    let run = run.to_str().expect("UTF-8");
    let said = failure(nowhere, &["heatmap", "--from", run, "--png", "-"]);
    let both = "812-11 (web), 900-4 (guest storm)";
    assert_eq!(
        said,
        format!("kvmscope: a picture is of one VM, and there are {both}: choose one")
    );
    let said = failure(nowhere, &["heatmap", "--from", run, "--vm", "no"]);
    assert!(said.ends_with("the filter matches no VM in it"), "{said}");
    let said = failure(nowhere, &["wss", "--from", run, "no"]);
    assert!(
        said.ends_with(
            "the filter matches no VM; there are 812-11 (\"web\"), 900-4 (\"guest storm\")"
        ),
        "{said}"
    );
    let png = [
        "heatmap",
        "--from",
        run,
        "--vm",
        "web",
        "--png",
        "/nonexistent/x",
    ];
    assert!(failure(nowhere, &png).contains("cannot write /nonexistent/x"));
    let pages = data("host").join(STORM).join("scope/wss/pages");
    let reads = [
        "heatmap",
        "--reads",
        "--from",
        pages.to_str().expect("UTF-8"),
    ];
    assert_eq!(
        failure(nowhere, &reads),
        "kvmscope: a VM: reads were not measured"
    );
}

#[test]
fn words_that_are_none() {
    are_no_words(&[
        &["wss", "--period", "0.001"],
        &["wss", "--period", "x"],
        &["wss", "--intervals", "0"],
        &["wss", "--threshold", "201"],
        &["wss", "--json", "--csv", "x"],
        &["wss", "--from", "x", "--period", "5"],
        &["wss", "--from", "x", "--once"],
        &["wss", "--from", "x", "--record", "y"],
        &["wss", "--force"],
        &["heatmap", "--size", "10x10"],
        &["heatmap", "--tables", "all"],
        &["heatmap", "--threshold", "2"],
        &["heatmap", "--reads", "--no-reads"],
        &["heatmap", "--size", "480x320"],
        &["heatmap", "--ascii", "--svg", "x"],
        &["heatmap", "--from", "x", "--no-reads"],
    ]);
}

#[test]
fn files_that_cannot_be_written() {
    let run = data("run.wss");
    let run = run.to_str().expect("UTF-8");
    for args in [
        &["wss", "--from", run][..],
        &["wss", "--from", run, "--json"],
        &["wss", "--from", run, "--csv", "-"],
        &["wss", "--from", run, "--percentiles"],
        &["heatmap", "--from", run],
        &["heatmap", "--from", run, "--vm", "web", "--svg", "-"],
        &["heatmap", "--from", run, "--vm", "web", "--png", "-"],
    ] {
        fails_when_full(Path::new("/nonexistent"), args);
    }
}

/// Whoever names a guest does not get to write to our terminal, or into a picture.
#[test]
fn names_are_harmless() {
    let machine = Machine::copy("wss-names");
    let run = fs::read_to_string(data("run.wss")).expect("read");
    machine.write(
        "run",
        &run.replace("\"name\":\"web\"", "\"name\":\"\\u001b[2J<b>&\\u0000\""),
    );
    let file = machine.path("run");
    let from = |args: &[&str]| {
        let args = [
            args,
            &["--from", file.to_str().expect("UTF-8"), "--vm", "812-11"],
        ]
        .concat();
        stdout(Path::new("/nonexistent"), &args)
    };
    for args in [&["wss"][..], &["heatmap"], &["heatmap", "--svg", "-"]] {
        let text = from(args);
        assert!(
            text.contains("?[2J") && !text.contains('\u{1b}') && !text.contains('\0'),
            "{text}"
        );
    }
    assert!(from(&["heatmap", "--svg", "-"]).contains("?[2J&lt;b&gt;&amp;?"));
}
