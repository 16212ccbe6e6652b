// SPDX-License-Identifier: GPL-2.0

//! Every form of output, to the letter. `KVMSCOPE_BLESS=1 cargo test` writes down
//! what comes out now as what should; look at the difference.

mod common;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use common::{data, kvmscope, stdout};

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if env::var_os("KVMSCOPE_BLESS").is_some() {
        fs::write(&path, text).expect("blessed");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == golden,
        "{name} is not what it was; it was\n{golden}\nand is\n{text}"
    );
}

/// Dumps of one machine: all but the time of day is the same every time.
fn dump(name: &str, args: &[&str]) {
    let args = [&["dump"], args].concat();
    let text = stdout(&data("host"), &args);
    check(
        name,
        &text
            .lines()
            .map(|line| timeless(line) + "\n")
            .collect::<String>(),
    );
}

fn timeless(line: &str) -> String {
    let number = |text: &str| text.find([',', '}']).unwrap_or(text.len());
    if let Some((before, after)) = line.split_once("\"time\":") {
        return format!("{before}\"time\":0{}", &after[number(after)..]);
    }
    match line.split_once(',') {
        Some((time, rest)) if time.parse::<f64>().is_ok() => format!("0,{rest}"),
        _ => line.to_string(),
    }
}

#[test]
fn dump_as_text() {
    dump("dump.txt", &[]);
    dump("dump-vm.txt", &["--by", "vm"]);
    dump("dump-vcpu.txt", &["--by", "vcpu", "--sort", "time"]);
    dump("dump-all.txt", &["--by", "all", "--sort", "number"]);
    dump(
        "dump-filtered.txt",
        &[
            "--vm",
            "web",
            "--vcpu",
            "1",
            "--reason",
            "cpuid|ept",
            "--sort",
            "avg",
        ],
    );
    dump("dump-process.txt", &["--pid", "810"]);
}

#[test]
fn dump_as_json() {
    dump("dump.json", &["--json"]);
    dump("dump-all.json", &["--json", "--by", "all", "--vm", "900-4"]);
}

#[test]
fn dump_as_csv() {
    dump("dump.csv", &["--csv", "-"]);
    dump("dump-all.csv", &["--csv", "-", "--by", "all"]);
}

/// The recording is of a machine with a VM that ends, one that begins, a reset
/// and a kernel that stops measuring latency.
fn report(name: &str, args: &[&str]) {
    let file = data("run.kvmscope");
    let args = [&["report", file.to_str().expect("UTF-8")], args].concat();
    check(name, &stdout(Path::new("/nonexistent"), &args));
}

#[test]
fn reports() {
    report("report.txt", &[]);
    report("report-vm.txt", &["--by", "vm"]);
    report("report.json", &["--json", "--by", "vcpu"]);
    report("report.csv", &["--csv", "-", "--by", "vm"]);
}

/// Working sets of a VM with a buffer that moves, and of one that comes later.
fn recorded(name: &str, command: &str, args: &[&str]) {
    let file = data("run.wss");
    let args = [&[command, "--from", file.to_str().expect("UTF-8")], args].concat();
    check(name, &stdout(Path::new("/nonexistent"), &args));
}

#[test]
fn working_sets() {
    recorded("wss.txt", "wss", &[]);
    recorded("wss-storm.txt", "wss", &["guest storm"]);
    recorded("wss.json", "wss", &["--json", "--pid", "810"]);
    recorded("wss.csv", "wss", &["--csv", "-"]);
    recorded("wss-percentiles.txt", "wss", &["--percentiles"]);
    recorded("wss-percentiles.json", "wss", &["--percentiles", "--json"]);
}

#[test]
fn heat_maps() {
    recorded("heatmap.txt", "heatmap", &[]);
    recorded(
        "heatmap-reads.txt",
        "heatmap",
        &["--reads", "--vm", "web", "--width", "60"],
    );
    recorded(
        "heatmap-omit.txt",
        "heatmap",
        &["web", "--tables", "omit", "--height", "30"],
    );
    recorded(
        "heatmap-small.txt",
        "heatmap",
        &["web", "--width", "40", "--height", "8"],
    );
    recorded(
        "heatmap.svg",
        "heatmap",
        &["web", "--size", "480x320", "--svg", "-"],
    );

    let pages = data("host/sys/kernel/debug/kvm/812-11/scope/wss/pages");
    let args = ["heatmap", "--from", pages.to_str().expect("UTF-8")];
    check(
        "heatmap-pages.txt",
        &stdout(Path::new("/nonexistent"), &args),
    );
}

#[test]
fn samples() {
    let file = data("run.sample");
    let file = file.to_str().expect("UTF-8");
    let from = |name: &str, args: &[&str]| {
        let args = [&args[..1], &["--from", file], &args[1..]].concat();
        check(name, &stdout(Path::new("/nonexistent"), &args));
    };
    from("sample.txt", &["sample", "--vcpu", "1"]);
    from("sample.json", &["sample", "--json", "--tables"]);
    from("sample-heat.txt", &["sample", "--heat", "--region", "64K"]);
    from(
        "sample-heat.json",
        &["sample", "--heat", "--json", "--sort", "address"],
    );
    from("heatmap-samples.txt", &["heatmap", "--reads"]);
    from(
        "heatmap-samples.svg",
        &["heatmap", "--size", "480x320", "--svg", "-"],
    );
}

/// A picture's file may differ with the encoder; its pixels do not.
#[test]
fn a_picture() {
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heatmap.png");
    let picture = picture.to_str().expect("UTF-8");
    let file = data("run.wss");
    let file = file.to_str().expect("UTF-8");
    let args = ["heatmap", "--from", file, "guest storm", "--png", picture];
    stdout(
        Path::new("/nonexistent"),
        &[&args[..], &["--size", "480x320"]].concat(),
    );

    let decoder = png::Decoder::new(fs::File::open(picture).expect("written"));
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut pixels).expect("whole");
    assert_eq!((info.width, info.height), (480, 320));
    // Stretches of one colour, in every seventh row of pixels that is not as the one
    // before.
    let mut text = String::new();
    let mut before = Vec::new();
    for (y, row) in pixels.chunks_exact(480 * 3).enumerate().step_by(7) {
        if row == before {
            continue;
        }
        before = row.to_vec();
        text.push_str(&format!("{y}:"));
        let pixels: Vec<&[u8]> = row.chunks_exact(3).collect();
        for stretch in pixels.chunk_by(|a, b| a == b) {
            let [r, g, b] = *stretch[0] else {
                unreachable!()
            };
            text.push_str(&format!(" {}x{r:02x}{g:02x}{b:02x}", stretch.len()));
        }
        text.push('\n');
    }
    check("heatmap.pixels", &text);
}

/// Ended also when the test fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus() {
    let mut server = kvmscope(&data("host"))
        .args(["stat", "--prometheus", "0", "--reason", "IO|CPUID|EMUL"])
        .stderr(Stdio::piped())
        .spawn()
        .map(Server)
        .expect("kvmscope runs");
    let mut said = String::new();
    let stderr = server.0.stderr.as_mut().expect("piped");
    BufReader::new(stderr)
        .read_line(&mut said)
        .expect("it says where it listens");
    let address = said.split('/').nth(2).expect("an address").to_string();

    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).expect("connected");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    let body = body.to_string();

    let cases = [
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET /metrics?x HTTP/1.1\n\n", "HTTP/1.1 200 OK"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        (
            "GET /../etc/passwd HTTP/1.1\r\n\r\n",
            "HTTP/1.1 404 Not Found",
        ),
        (
            "POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        ("GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("\u{0}\u{1}\n\n", "HTTP/1.1 400 Bad Request"),
    ];
    for (request, status) in cases {
        assert_eq!(ask(request).lines().next(), Some(status), "{request:?}");
    }
    check("metrics.txt", &body);
}

#[test]
fn man_pages_and_completions() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    let _ = fs::remove_dir_all(&directory);
    stdout(Path::new("/"), &["man", directory.to_str().expect("UTF-8")]);
    for page in [
        "kvmscope.1",
        "kvmscope-dump.1",
        "kvmscope-stat.1",
        "kvmscope-report.1",
        "kvmscope-wss.1",
        "kvmscope-heatmap.1",
        "kvmscope-sample.1",
        "kvmscope-tier.1",
    ] {
        let text = fs::read_to_string(directory.join(page)).expect("a page");
        assert!(
            text.contains(".SH SYNOPSIS") && text.contains("Examples:"),
            "{page}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(Path::new("/"), &["completions", shell]);
        assert!(script.contains("prometheus"), "{shell}");
    }
}
