// SPDX-License-Identifier: GPL-2.0

//! Samples and regions as columns of words and numbers, for people.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::columns::{duration, Column};
use crate::heatmap::heat::size_text;
use crate::sample::heat::{HeatMap, Region};
use crate::sample::sample::{Sample, Slot, PAGE};

struct Table<'a, T>(&'a [T], Vec<Column>);

impl<T> Table<'_, T> {
    fn add(&mut self, head: &'static str, right: bool, weight: u8, cell: impl Fn(&T) -> String) {
        self.1.push(Column {
            head,
            right,
            weight,
            cells: self.0.iter().map(cell).collect(),
        });
    }
}

pub fn slots(slots: &[Slot]) -> Vec<Column> {
    let mut table = Table(slots, Vec::new());
    table.add("Slot", true, 9, |slot| slot.id.to_string());
    table.add("GPA", true, 9, |slot| format!("{:#x}", slot.gpa));
    table.add("HVA", true, 9, |slot| format!("{:#x}", slot.hva));
    table.add("Pages", true, 9, |slot| slot.pages.to_string());
    table.add("Size", true, 9, |slot| size_text(slot.pages));
    table.add("Access", false, 9, |slot| {
        if slot.readonly { "r-x" } else { "rwx" }.to_string()
    });
    table.1
}

/// A line for each sample, its time from when the session began.
pub fn samples(samples: &[Sample], begin_ns: u64) -> Vec<Column> {
    let mut table = Table(samples, Vec::new());
    table.add("Time", true, 9, |sample| {
        let ns = sample.time_ns.saturating_sub(begin_ns);
        format!("{:.6}", ns as f64 / 1e9)
    });
    table.add("vCPU", true, 9, |sample| sample.vcpu.to_string());
    table.add("GFN", true, 9, |sample| format!("{:#x}", sample.gfn));
    table.add("Access", false, 9, |sample| sample.access.to_string());
    table.add("Page", true, 9, |sample| {
        match sample.level {
            1 => "4K",
            2 => "2M",
            3 => "1G",
            _ => "?",
        }
        .to_string()
    });
    table.add("Table", false, 9, |sample| {
        if sample.table { "table" } else { "" }.to_string()
    });
    table.1
}

/// How regions are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Hottest first
    Heat,
    /// By address
    Address,
    /// Most often sampled first
    Samples,
}

/// A region as a record for programs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionLine {
    pub gpa: u64,
    pub pages: u64,
    pub heat: f64,
    /// Of all heat.
    pub share: f64,
    pub samples: u64,
    pub reads: u64,
    pub writes: u64,
    pub fetches: u64,
    pub tables: u64,
    /// Since it was sampled last.
    pub idle_ns: u64,
}

pub fn region_lines(heat: &HeatMap, now_ns: u64, order: Order) -> Vec<RegionLine> {
    let total = heat.total(now_ns);
    let line = |(first, region): (&u64, &Region)| {
        let its = region.heat.at(now_ns, heat.half_life);
        RegionLine {
            // A recording may have any number for a page's.
            gpa: first.saturating_mul(PAGE),
            pages: heat.pages,
            heat: its,
            share: if total > 0.0 { its / total } else { 0.0 },
            samples: region.samples,
            reads: region.reads,
            writes: region.writes,
            fetches: region.fetches,
            tables: region.tables,
            idle_ns: now_ns.saturating_sub(region.last_ns),
        }
    };
    let mut lines: Vec<RegionLine> = heat.regions.iter().map(line).collect();
    match order {
        Order::Heat => lines.sort_by(|a, b| b.heat.total_cmp(&a.heat)),
        Order::Address => {}
        Order::Samples => lines.sort_by_key(|line| std::cmp::Reverse(line.samples)),
    }
    lines
}

pub fn regions(lines: &[RegionLine]) -> Vec<Column> {
    let mut table = Table(lines, Vec::new());
    table.add("GPA", true, 9, |line| format!("{:#x}", line.gpa));
    table.add("Size", true, 4, |line| size_text(line.pages));
    table.add("Heat", true, 9, |line| format!("{:.1}", line.heat));
    table.add("Heat%", true, 8, |line| {
        format!("{:.2}%", line.share * 100.0)
    });
    table.add("Samples", true, 7, |line| line.samples.to_string());
    table.add("Reads", true, 6, |line| line.reads.to_string());
    table.add("Writes", true, 6, |line| line.writes.to_string());
    table.add("Fetches", true, 5, |line| line.fetches.to_string());
    table.add("Tables", true, 3, |line| line.tables.to_string());
    table.add("Idle", true, 5, |line| duration(line.idle_ns));
    table.1
}
