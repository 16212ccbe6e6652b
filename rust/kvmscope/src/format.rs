// SPDX-License-Identifier: GPL-2.0

//! The kernel's tables as text, version 1: `exits` and `latency`.
//!
//! The first line says what it is, the second names the columns, then comes a
//! row for each reason. Columns are found by name and unknown ones are passed
//! over, so a later kernel may add some.

use anyhow::{bail, ensure, Context, Result};

use crate::histogram::Histogram;
use crate::table::{Cost, Reason, Table, Time};

const VERSION: &str = "1";

/// Whose exits: the CPU's virtualisation extension names the reasons.
pub type Isa = String;

/// Adds the rows of an `exits` file.
pub fn read_exits(text: &str, table: &mut Table) -> Result<Isa> {
    read(text, "exits", table, |row, cost| {
        cost.exits = row.count("exits")?;
        cost.nested = row.count("nested")?;
        ensure!(cost.nested <= cost.exits, "more nested exits than exits");
        Ok(())
    })
}

/// Adds the rows of a `latency` file.
pub fn read_latency(text: &str, table: &mut Table) -> Result<Isa> {
    read(text, "latency", table, |row, cost| {
        cost.time = Time {
            samples: row.count("samples")?,
            kvm_ns: row.count("kvm_ns")?,
            user_ns: row.count("user_ns")?,
            sleep_ns: row.count("sleep_ns")?,
            preempt_ns: row.count("preempt_ns")?,
            min_ns: row.count("min_ns")?,
            max_ns: row.count("max_ns")?,
            histogram: histogram(row.field("histogram")?)?,
            nested_samples: row.count_if_any("nested")?,
            nested_kvm_ns: row.count_if_any("nested_kvm_ns")?,
        };
        Ok(())
    })
}

struct Row<'a> {
    columns: &'a [&'a str],
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn field(&self, column: &str) -> Result<&'a str> {
        let at = self.columns.iter().position(|name| *name == column);
        let at = at.with_context(|| format!("there is no column {column}"))?;
        let field = self.fields.get(at);
        Ok(*field.with_context(|| format!("the row ends before its {column}"))?)
    }

    /// Zero where the kernel has no such column yet.
    fn count_if_any(&self, column: &str) -> Result<u64> {
        if self.columns.contains(&column) {
            self.count(column)
        } else {
            Ok(0)
        }
    }

    fn count(&self, column: &str) -> Result<u64> {
        let field = self.field(column)?;
        field
            .parse()
            .with_context(|| format!("{} is no count of {column}", quote(field)))
    }
}

fn read(
    text: &str,
    what: &str,
    table: &mut Table,
    fill: impl Fn(&Row, &mut Cost) -> Result<()>,
) -> Result<Isa> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let isa = match head.split(' ').collect::<Vec<_>>()[..] {
        ["kvmscope", VERSION, kind, isa] if kind == what => isa.to_string(),
        ["kvmscope", VERSION, kind, ..] => {
            bail!("this is a table of {}, not of {what}", quote(kind))
        }
        ["kvmscope", version, ..] => bail!(
            "its format is version {}, and this kvmscope reads version {VERSION}: \
             use the kvmscope that came with the kernel",
            quote(version)
        ),
        _ => bail!("it begins with {}, not with kvmscope", quote(head)),
    };
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();

    for (number, line) in (3..).zip(lines) {
        let row = Row {
            columns: &columns,
            fields: line.split(' ').collect(),
        };
        let mut fill_row = || -> Result<()> {
            let code = row.field("number")?;
            let code = Reason::parse_number(code)
                .with_context(|| format!("{} is no reason's number", quote(code)))?;
            let name = row.field("name")?;
            ensure!(!name.is_empty(), "the reason has no name");
            fill(&row, table.cost_mut(Reason::new(code, name)))
        };
        fill_row().with_context(|| format!("line {number}"))?;
    }
    Ok(isa)
}

/// `LOWER_NS:COUNT` pairs with commas between them, or `-`.
fn histogram(text: &str) -> Result<Histogram> {
    let mut histogram = Histogram::default();
    if text == "-" {
        return Ok(histogram);
    }
    for pair in text.split(',') {
        let bucket = pair
            .split_once(':')
            .and_then(|(lower, count)| Some((lower.parse().ok()?, count.parse().ok()?)));
        let (lower, count) =
            bucket.with_context(|| format!("{} is no bucket of a histogram", quote(pair)))?;
        histogram.add(lower, count);
    }
    Ok(histogram)
}

/// Foreign text, short and harmless to a terminal.
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
