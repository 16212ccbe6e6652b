// SPDX-License-Identifier: GPL-2.0

//! A view as records for programs: JSON and CSV, with the same words in both.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::interval::Interval;
use crate::table::Reason;
use crate::view::{By, Line, Owner, View};

/// Raised when a field changes its meaning; new fields do not raise it.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    kvmscope: u32,
    isa: &'a str,
    /// Seconds since the Unix epoch.
    time: f64,
    /// How long the interval took; null when it is all that was ever counted.
    seconds: Option<f64>,
    counting: bool,
    latency: bool,
    by: By,
    rows: Vec<Record>,
    total: Record,
}

#[derive(Serialize)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    exits: u64,
    exits_per_s: Option<f64>,
    nested: u64,
    timed: u64,
    kvm_ns: u64,
    user_ns: u64,
    sleep_ns: u64,
    preempt_ns: u64,
    nested_timed: u64,
    nested_kvm_ns: u64,
    min_ns: Option<u64>,
    avg_ns: Option<u64>,
    max_ns: Option<u64>,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    histogram: Vec<(u64, u64)>,
}

impl Record {
    fn new(line: &Line) -> Record {
        let (subject, cost) = (&line.subject, &line.cost);
        let time = &cost.time;
        let timed = |ns: u64| (time.samples != 0).then_some(ns);
        Record {
            vm: subject.vm.as_ref().map(|owner| match owner {
                Owner::Vm(id, _) => id.to_string(),
                Owner::Ended => "ended".to_string(),
            }),
            name: subject.vm.as_ref().and_then(|owner| match owner {
                Owner::Vm(_, name) => Some(name.clone()),
                Owner::Ended => None,
            }),
            vcpu: subject.vcpu,
            number: subject.reason.as_ref().and_then(Reason::signed),
            reason: subject.reason.as_ref().map(|reason| reason.name.clone()),
            exits: cost.exits,
            exits_per_s: line.rate.map(thousandths),
            nested: cost.nested,
            timed: time.samples,
            kvm_ns: time.kvm_ns,
            user_ns: time.user_ns,
            sleep_ns: time.sleep_ns,
            preempt_ns: time.preempt_ns,
            nested_timed: time.nested_samples,
            nested_kvm_ns: time.nested_kvm_ns,
            min_ns: timed(time.min_ns),
            avg_ns: time.average_ns(),
            max_ns: timed(time.max_ns),
            p50_ns: time.percentile_ns(0.5),
            p99_ns: time.percentile_ns(0.99),
            histogram: time.histogram.buckets().collect(),
        }
    }
}

fn thousandths(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

pub fn seconds(ns: u64) -> f64 {
    thousandths(ns as f64 / 1e9)
}

/// One line.
pub fn write_json(out: &mut dyn Write, interval: &Interval, view: &View) -> Result<()> {
    let document = Document {
        kvmscope: VERSION,
        isa: &interval.isa,
        time: seconds(interval.time_ns),
        seconds: (interval.elapsed_ns != 0).then(|| seconds(interval.elapsed_ns)),
        counting: interval.counting,
        latency: interval.latency,
        by: view.by,
        rows: view.lines.iter().map(Record::new).collect(),
        total: Record::new(&view.total),
    };
    serde_json::to_writer(&mut *out, &document).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// The same columns whatever the view, so that files can be joined.
const COLUMNS: &str = "time,seconds,vm,name,vcpu,number,reason,exits,nested,timed,kvm_ns,user_ns,\
                       sleep_ns,preempt_ns,min_ns,max_ns,p50_ns,p99_ns,nested_timed,nested_kvm_ns";

pub struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    /// Writes the head.
    pub fn new(out: W) -> Result<Csv<W>> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS.split(','))?;
        csv.flush()?;
        Ok(Csv(csv))
    }

    /// Writes a row for each line, and all of them at once.
    pub fn write(&mut self, interval: &Interval, view: &View) -> Result<()> {
        let text = |x: Option<u64>| x.map_or(String::new(), |x| x.to_string());
        for line in &view.lines {
            let row = Record::new(line);
            self.0.write_record([
                seconds(interval.time_ns).to_string(),
                seconds(interval.elapsed_ns).to_string(),
                row.vm.unwrap_or_default(),
                row.name.unwrap_or_default(),
                row.vcpu.map_or(String::new(), |n| n.to_string()),
                row.number.map_or(String::new(), |n| n.to_string()),
                row.reason.unwrap_or_default(),
                row.exits.to_string(),
                row.nested.to_string(),
                row.timed.to_string(),
                row.kvm_ns.to_string(),
                row.user_ns.to_string(),
                row.sleep_ns.to_string(),
                row.preempt_ns.to_string(),
                text(row.min_ns),
                text(row.max_ns),
                text(row.p50_ns),
                text(row.p99_ns),
                row.nested_timed.to_string(),
                row.nested_kvm_ns.to_string(),
            ])?;
        }
        self.0.flush()?;
        Ok(())
    }
}
