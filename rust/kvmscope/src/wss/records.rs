// SPDX-License-Identifier: GPL-2.0

//! Working sets as records for programs: JSON and CSV, in the kernel's words.

use std::io::Write;

use anyhow::Result;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::records::seconds;
use crate::wss::estimate::Estimate;
use crate::wss::percentiles::{Distribution, Percentiles};
use crate::wss::period::Period;

/// Raised when a field changes its meaning; new fields do not raise it.
const VERSION: u32 = 1;

struct Record<'a>(&'a Period);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Record(period) = self;
        let estimate = &period.estimate;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kvmscope_wss", &VERSION)?;
        map.serialize_entry("time", &seconds(period.time_ns))?;
        map.serialize_entry("vm", &period.vm.to_string())?;
        map.serialize_entry("name", &period.about.name)?;
        for (name, value) in Estimate::NAMES.iter().zip(estimate.values()) {
            match *name {
                "read_set" => map.serialize_entry(name, &estimate.read_set())?,
                "reads" => map.serialize_entry(name, &(value != 0))?,
                _ => map.serialize_entry(name, &value)?,
            }
        }
        map.end()
    }
}

/// One line.
pub fn write_json(out: &mut dyn Write, period: &Period) -> Result<()> {
    write_line(out, &Record(period))
}

/// A line for each VM.
pub fn write_percentiles_json(out: &mut dyn Write, distribution: &Distribution) -> Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        kvmscope_wss: u32,
        vm: String,
        name: &'a str,
        periods: usize,
        written: Option<Percentiles>,
        read_set: Option<Percentiles>,
    }
    for (id, vm) in &distribution.vms {
        let document = Document {
            kvmscope_wss: VERSION,
            vm: id.to_string(),
            name: &vm.about.name,
            periods: vm.written.len(),
            written: Percentiles::of(&vm.written),
            read_set: Percentiles::of(&vm.read_set),
        };
        write_line(out, &document)?;
    }
    Ok(())
}

fn write_line(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

pub struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    /// Writes the head.
    pub fn new(out: W) -> Result<Csv<W>> {
        let mut csv = csv::Writer::from_writer(out);
        let names = ["time", "vm", "name"];
        csv.write_record(names.iter().chain(Estimate::NAMES))?;
        csv.flush()?;
        Ok(Csv(csv))
    }

    pub fn write(&mut self, period: &Period) -> Result<()> {
        let estimate = &period.estimate;
        let mut row = vec![
            seconds(period.time_ns).to_string(),
            period.vm.to_string(),
            period.about.name.clone(),
        ];
        for (name, value) in Estimate::NAMES.iter().zip(estimate.values()) {
            // Nothing where it was not measured.
            let cell = match *name {
                "read_set" => estimate.read_set(),
                _ => Some(value),
            };
            row.push(cell.map_or(String::new(), |value| value.to_string()));
        }
        self.0.write_record(row)?;
        self.0.flush()?;
        Ok(())
    }
}
