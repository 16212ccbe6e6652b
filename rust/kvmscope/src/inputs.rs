// SPDX-License-Identifier: GPL-2.0

//! What becomes of bytes that others wrote, from where they come in to where they
//! are shown: one function for each kind of input, for `rust/fuzz` and for the tests.
//!
//! Each takes whatever there is and panics when something is wrong: what was parsed
//! does not survive being written and read again, JSON or CSV that is none, or a
//! line for a terminal that would do something to it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::cli::{Cli, Command, Heatmap};
use crate::columns::harmless;
use crate::filter::Filter;
use crate::format::{read_exits, read_latency};
use crate::heatmap::canvas::Canvas;
use crate::heatmap::{picture, source, svg, text as map};
use crate::http;
use crate::interval::{Interval, Tracker};
use crate::kernel;
use crate::metrics::metrics;
use crate::recording::{Head, Reader, Writer, EXITS, SAMPLES};
use crate::records::{write_json, Csv};
use crate::sample::columns::{region_lines, regions, samples as sample_columns, slots, Order};
use crate::sample::heat::HeatMap;
use crate::sample::recording::{read_begin, Line};
use crate::snapshot::{Snapshot, Vm, VmId};
use crate::table::Table;
use crate::text;
use crate::view::{view, By, Sort};
use crate::wss;
use crate::wss::estimate::{read_estimate, read_history};
use crate::wss::pages::{read_pages, Run};
use crate::wss::percentiles::Distribution;
use crate::wss::period::Period;

/// Takes whatever there is.
pub type Take = fn(&[u8]);

/// Their names, as `scripts/fuzz` has them.
pub const KINDS: [(&str, Take); 10] = [
    ("tables", tables),
    ("recording", recording),
    ("working_set", working_set),
    ("samples", samples),
    ("pages", pages),
    ("periods", periods),
    ("runs", runs),
    ("command_line", command_line),
    ("process", process),
    ("http", scrape),
];

/// Nothing but printable characters, and ends of lines where there may be any.
fn fit_for_terminal(text: &str) {
    let bad = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "in {text:?}");
}

/// What there is; what went wrong is said in words that are fit to be printed.
fn ok<T>(result: Result<T>) -> Option<T> {
    result
        .map_err(|error| fit_for_terminal(&format!("{error:#}")))
        .ok()
}

/// Two readings of the kernel's tables, with a NUL between them.
pub fn tables(bytes: &[u8]) {
    let mut tracker = Tracker::default();
    let mut sum = Interval::default();
    for (clock_ns, bytes) in (1..).zip(bytes.splitn(2, |byte| *byte == 0)) {
        let text = String::from_utf8_lossy(bytes);
        let (mut exits, mut latency) = (Table::default(), Table::default());
        let isa = ok(read_exits(&text, &mut exits));
        let isa = isa.or(ok(read_latency(&text, &mut latency)));
        let snapshot = Snapshot {
            clock_ns,
            isa: isa.unwrap_or_default(),
            system: exits.clone(),
            vms: vec![Vm {
                table: exits,
                vcpus: BTreeMap::from([(0, latency)]),
                ..Vm::default()
            }],
            ..Snapshot::default()
        };
        survives(&snapshot);
        let _ = metrics(&snapshot, &Filter::default());
        sum.merge(&tracker.advance(snapshot));
    }
    show(&sum);
}

/// A file of `kvmscope record`.
pub fn recording(bytes: &[u8]) {
    let Some(mut reader) = ok(Reader::new(bytes, &EXITS)) else {
        return;
    };
    fit_for_terminal(&harmless(&reader.head.host));
    let mut tracker = Tracker::default();
    let mut sum = Interval::default();
    while let Some(snapshot) = ok(reader.read::<Snapshot>()).flatten() {
        survives(&snapshot);
        let _ = metrics(&snapshot, &Filter::default());
        sum.merge(&tracker.advance(snapshot));
    }
    let _ = (sum.ended(false), sum.ended(true));
    show(&sum);
}

fn nowhere() -> Head {
    Head {
        host: "\u{1b}[2J".to_string(),
        kernel: "\"".to_string(),
    }
}

/// Written and read again, a snapshot is what it was.
fn survives(snapshot: &Snapshot) {
    let mut file = Vec::new();
    let written =
        Writer::new(&mut file, &EXITS, &nowhere()).and_then(|mut writer| writer.write(snapshot));
    written.expect("it can be written");
    let mut reader = Reader::new(&file[..], &EXITS).expect("it is a recording");
    let again: Option<Snapshot> = reader.read().expect("it can be read");
    assert_eq!(again.as_ref(), Some(snapshot));
}

/// In every form there is.
fn show(interval: &Interval) {
    for by in By::value_variants() {
        for sort in Sort::value_variants() {
            let view = view(interval, interval, *by, *sort, &Filter::default());
            if *sort == Sort::Count {
                fit_for_terminal(&text::text(&view));
                let mut json = Vec::new();
                write_json(&mut json, interval, &view).expect("JSON");
                assert_eq!(records(&json), 1);
                let mut rows = Vec::new();
                let csv = Csv::new(&mut rows).and_then(|mut csv| csv.write(interval, &view));
                csv.expect("CSV");
                assert_eq!(csv_rows(&rows), view.lines.len());
            }
        }
    }
}

/// How many lines of JSON there are.
fn records(json: &[u8]) -> usize {
    let lines = json.split_inclusive(|byte| *byte == b'\n');
    let parse = |line| serde_json::from_slice(line).expect("JSON");
    lines.map(parse).collect::<Vec<serde_json::Value>>().len()
}

/// How many rows, which all have as many cells as the head.
fn csv_rows(csv: &[u8]) -> usize {
    let rows = csv::Reader::from_reader(csv).into_byte_records();
    rows.collect::<Result<Vec<_>, _>>().expect("CSV").len()
}

/// A file of `kvmscope wss --record`, or a kernel's `pages`, as `kvmscope wss` and
/// `kvmscope heatmap` show it.
pub fn working_set(bytes: &[u8]) {
    draw(bytes);
    let Some(mut reader) = ok(wss::recording::Reader::new(bytes)) else {
        return;
    };
    let mut distribution = Distribution::default();
    let mut json = Vec::new();
    let mut csv = Vec::new();
    let mut rows = wss::records::Csv::new(&mut csv).expect("CSV");
    let mut number = 0;
    while let Some(period) = ok(reader.read()).flatten() {
        fit_for_terminal(&text::table(&wss::columns::columns(&[&period])));
        wss::records::write_json(&mut json, &period).expect("JSON");
        rows.write(&period).expect("CSV");
        distribution.add(&period);
        number += 1;
        period_survives(&period);
    }
    drop(rows);
    assert_eq!(records(&json), number);
    assert_eq!(csv_rows(&csv), number);
    let columns = wss::columns::percentile_columns(&distribution.vms);
    fit_for_terminal(&text::table(&columns));
}

/// As maps, of whatever it is.
fn draw(bytes: &[u8]) {
    for words in [
        &["--ascii", "--width", "60"][..],
        &["--ascii", "--reads", "--tables", "omit"],
    ] {
        let args = heatmap(words);
        for source in ok(source::from(bytes, &args)).unwrap_or_default() {
            fit_for_terminal(&map::draw(&source, &args, &map::Style::new(&args)));
            let mut canvas = svg::Svg::new(480, 320);
            picture::draw(&mut canvas, &source, &args);
            canvas.finish().expect("SVG");
        }
    }
}

/// A file of `kvmscope sample --record`, as that and `kvmscope heatmap` show it.
pub fn samples(bytes: &[u8]) {
    draw(bytes);
    let Some(mut reader) = ok(Reader::new(bytes, &SAMPLES)) else {
        return;
    };
    let Some(begin) = ok(read_begin(&mut reader)) else {
        return;
    };
    fit_for_terminal(&harmless(&begin.about.name));
    fit_for_terminal(&text::table(&slots(&begin.slots)));
    let mut taken = Vec::new();
    let mut heat = HeatMap::new(Duration::from_secs(10), 512);
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &SAMPLES, &nowhere()).expect("it can be written");
    while let Some(line) = ok(reader.read::<Line>()).flatten() {
        writer.write(&line).expect("it can be written");
        if let Line::Sample(sample) = line {
            heat.add(&sample);
            taken.push(sample);
        }
    }
    fit_for_terminal(&text::table(&sample_columns(&taken, begin.begin_ns)));
    for order in Order::value_variants() {
        let lines = region_lines(&heat, heat.latest_ns, *order);
        fit_for_terminal(&text::table(&regions(&lines)));
        for line in lines {
            writer
                .write(&Line::Region(line))
                .expect("it can be written");
        }
    }

    let mut reader = Reader::new(&file[..], &SAMPLES).expect("it is a recording");
    let mut again = Vec::new();
    while let Some(line) = reader.read::<Line>().expect("it can be read") {
        if let Line::Sample(sample) = line {
            again.push(sample);
        }
    }
    assert_eq!(again, taken);
}

fn heatmap(args: &[&str]) -> Heatmap {
    let words = ["kvmscope", "heatmap"].iter().chain(args);
    match Cli::try_parse_from(words).expect("a command").command {
        Command::Heatmap(args) => args,
        _ => unreachable!("it is heatmap"),
    }
}

fn period_survives(period: &Period) {
    let mut file = Vec::new();
    let written = wss::recording::Writer::new(&mut file, &nowhere())
        .and_then(|mut writer| writer.write(period));
    written.expect("it can be written");
    let mut reader = wss::recording::Reader::new(&file[..]).expect("it is a recording");
    let again = reader.read().expect("it can be read").expect("it is there");
    let pages = |period: &Period| period.pages.as_ref().map(|pages| pages.runs.clone());
    assert_eq!(pages(&again), pages(period));
    assert_eq!(again.estimate, period.estimate);
    assert_eq!(again.about, period.about);
}

/// A kernel's `pages`.
pub fn pages(bytes: &[u8]) {
    if let Some(Some(pages)) = ok(read_pages(bytes)) {
        runs_survive(&pages.runs, pages.intervals);
    }
}

/// A kernel's `estimate` or `history`.
pub fn periods(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut estimates = ok(read_history(&text)).unwrap_or_default();
    estimates.extend(ok(read_estimate(&text)));
    for estimate in estimates {
        let period = Period {
            time_ns: 0,
            vm: VmId::default(),
            about: kernel::about(1, b"", b"", b""),
            estimate,
            pages: None,
        };
        fit_for_terminal(&text::table(&wss::columns::columns(&[&period])));
        period_survives(&period);
    }
}

/// A number of sub-intervals, then lines of runs of pages.
pub fn runs(bytes: &[u8]) {
    let Some((&intervals, lines)) = bytes.split_first() else {
        return;
    };
    let intervals = intervals.max(1);
    let (mut runs, mut at) = (Vec::new(), 0);
    for line in String::from_utf8_lossy(lines).lines() {
        match ok(wss::runs::decode(line, at, intervals, &mut runs)) {
            Some(next) => at = next,
            None => return,
        }
    }
    runs_survive(&runs, intervals);
}

fn runs_survive(runs: &[Run], intervals: u8) {
    let (mut again, mut at) = (Vec::new(), 0);
    for line in wss::runs::encode(runs) {
        at = wss::runs::decode(&line, at, intervals, &mut again).expect("its own words");
    }
    assert_eq!(again, runs);
}

/// A command line, a word on each line.
pub fn command_line(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let cli = match Cli::try_parse_from([OsStr::new("kvmscope")].into_iter().chain(words)) {
        Ok(cli) => cli,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let look = match &cli.command {
        Command::Dump(args) => &args.look,
        Command::Stat(args) => &args.look,
        Command::Report(args) => &args.look,
        Command::Heatmap(args) => {
            let (width, height) = args.size;
            assert!(width <= 8000 && height <= 8000);
            return;
        }
        _ => return,
    };
    let mut table = Table::default();
    let _ = read_exits(
        "kvmscope 1 exits VMX\nnumber name exits nested\n10 CPUID 3 1\n48 EPT_VIOLATION 1 0\n",
        &mut table,
    );
    let filter = look.filter();
    assert!(filter.reasons(&table).rows().count() <= 2);
    let _ = filter.selects_vms();
}

/// A task's `status`, `comm` and `cmdline`, with a byte of 1 between them, and the
/// name of a VM's directory.
pub fn process(bytes: &[u8]) {
    let mut files = bytes.splitn(4, |byte| *byte == 1);
    let mut next = || files.next().unwrap_or_default();
    let (status, comm, cmdline) = (next(), next(), next());
    let about = kernel::about(1, status, cmdline, comm);
    fit_for_terminal(&harmless(&about.name));
    let vm = Vm {
        about,
        ..Vm::default()
    };
    let snapshot = Snapshot {
        vms: vec![vm],
        ..Snapshot::default()
    };
    // A name breaks out of no label.
    for line in metrics(&snapshot, &Filter::default()).lines() {
        assert!(
            line.starts_with('#') || line.starts_with("kvmscope_"),
            "{line:?}"
        );
    }
    survives(&snapshot);
    if let Some((pid, fd)) = kernel::vm_name(&String::from_utf8_lossy(next())) {
        let id = VmId { pid, fd, inode: 0 };
        assert_eq!(kernel::vm_name(&id.to_string()), Some((pid, fd)));
    }
}

/// A request of who scrapes.
pub fn scrape(bytes: &[u8]) {
    let mut answer = Vec::new();
    let page = || Ok("page\n".to_string());
    http::exchange(bytes, &mut answer, &page).expect("nothing fails in memory");
    let answer = String::from_utf8(answer).expect("ASCII");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.and_then(|n| n.parse().ok()).expect("a length");
    // HEAD is answered without the body.
    assert!(body.len() == length || (body.is_empty() && bytes.starts_with(b"HEAD ")));
}
