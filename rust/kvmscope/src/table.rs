// SPDX-License-Identifier: GPL-2.0

//! Exits and their cost by reason: what one VM, one vCPU or the whole machine
//! adds up to. Tables can be added, and a later reading subtracted from an
//! earlier one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::histogram::{upper, Histogram};

/// Why a guest exited. Ordered by number; what has none comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    order: (bool, u32),
    pub name: String,
}

impl Reason {
    /// None for what is not an exit of a known reason. The numbers are those of
    /// the CPU's manual; SVM's codes from -4 to -1 are those that end in `u32::MAX`.
    pub fn new(number: Option<u32>, name: &str) -> Reason {
        Reason {
            order: (number.is_none(), number.unwrap_or(0)),
            name: name.to_string(),
        }
    }

    pub fn number(&self) -> Option<u32> {
        (!self.order.0).then_some(self.order.1)
    }

    /// The number as the kernel's header has it, where a few of SVM's are negative.
    pub fn signed(&self) -> Option<i64> {
        self.number().map(|number| {
            let signed = number as i32;
            if (LOWEST..0).contains(&signed) {
                signed.into()
            } else {
                number.into()
            }
        })
    }

    /// Reads the number as the kernel prints it.
    pub fn parse_number(text: &str) -> Option<Option<u32>> {
        if text == "-" {
            Some(None)
        } else if text.starts_with('-') {
            let signed = text.parse().ok()?;
            (LOWEST..0).contains(&signed).then_some(Some(signed as u32))
        } else if let Some(hex) = text.strip_prefix("0x") {
            u32::from_str_radix(hex, 16).ok().map(Some)
        } else {
            text.parse().ok().map(Some)
        }
    }

    /// The number as the kernel prints it.
    pub fn number_text(&self) -> String {
        match self.signed() {
            None => "-".to_string(),
            Some(number) if number > 0xffff => format!("{number:#x}"),
            Some(number) => number.to_string(),
        }
    }
}

/// The lowest of SVM's negative codes.
const LOWEST: i32 = -4;

/// Where the time from an exit to the next entry went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Exits that were timed: those taken while latency was on.
    #[serde(rename = "timed")]
    pub samples: u64,
    pub kvm_ns: u64,
    pub user_ns: u64,
    pub sleep_ns: u64,
    pub preempt_ns: u64,
    /// Of KVM's part, as are `max_ns` and the histogram.
    pub min_ns: u64,
    pub max_ns: u64,
    pub histogram: Histogram,
    /// Of the timed exits, those of nested guests, and KVM's part of their time;
    /// both were not told apart at first.
    #[serde(rename = "nested_timed", default)]
    pub nested_samples: u64,
    #[serde(default)]
    pub nested_kvm_ns: u64,
}

/// How many of its fields only ever grow.
const COUNTERS: usize = 7;

impl Time {
    fn counters(&self) -> [u64; COUNTERS] {
        [
            self.samples,
            self.kvm_ns,
            self.user_ns,
            self.sleep_ns,
            self.preempt_ns,
            self.nested_samples,
            self.nested_kvm_ns,
        ]
    }

    fn from_counters(counters: [u64; COUNTERS]) -> Time {
        let [samples, kvm_ns, user_ns, sleep_ns, preempt_ns, nested_samples, nested_kvm_ns] =
            counters;
        Time {
            samples,
            kvm_ns,
            user_ns,
            sleep_ns,
            preempt_ns,
            nested_samples,
            nested_kvm_ns,
            ..Time::default()
        }
    }

    fn continues(&self, earlier: &Time) -> bool {
        self.counters()
            .iter()
            .zip(earlier.counters())
            .all(|(now, before)| *now >= before)
            && self.histogram.continues(&earlier.histogram)
    }

    /// What was added since `earlier`, which this one continues.
    ///
    /// The shortest and the longest are exact when they changed: then they were
    /// taken since. Otherwise they lie within the bucket that bounds them here.
    fn since(&self, earlier: &Time) -> Time {
        let (now, before) = (self.counters(), earlier.counters());
        let mut change = Time::from_counters(std::array::from_fn(|i| now[i] - before[i]));
        change.histogram = self.histogram.since(&earlier.histogram);
        if change.samples == 0 {
            return change;
        }

        let lowest = change.histogram.buckets().next().map(|(lower, _)| lower);
        let highest = change
            .histogram
            .buckets()
            .next_back()
            .map(|(lower, _)| lower);
        change.min_ns = match lowest {
            Some(lower) if earlier.samples != 0 && self.min_ns == earlier.min_ns => {
                lower.max(self.min_ns)
            }
            _ => self.min_ns,
        };
        change.max_ns = match highest {
            Some(lower) if earlier.samples != 0 && self.max_ns == earlier.max_ns => {
                // The bound may have been rounded down to a whole nanosecond.
                (upper(lower) + 1).min(self.max_ns)
            }
            _ => self.max_ns,
        };
        change
    }

    fn merge(&mut self, other: &Time) {
        let (a, b) = (self.counters(), other.counters());
        let mut sum = Time::from_counters(std::array::from_fn(|i| a[i].saturating_add(b[i])));
        sum.min_ns = match (self.samples, other.samples) {
            (0, _) => other.min_ns,
            (_, 0) => self.min_ns,
            _ => self.min_ns.min(other.min_ns),
        };
        sum.max_ns = self.max_ns.max(other.max_ns);
        sum.histogram = std::mem::take(&mut self.histogram);
        sum.histogram.merge(&other.histogram);
        *self = sum;
    }

    pub fn average_ns(&self) -> Option<u64> {
        self.kvm_ns.checked_div(self.samples)
    }

    /// See Histogram::percentile. No sample was shorter than the shortest or
    /// longer than the longest.
    pub fn percentile_ns(&self, p: f64) -> Option<u64> {
        let value = self.histogram.percentile(p)?;
        Some(value.max(self.min_ns).min(self.max_ns.max(self.min_ns)))
    }
}

/// What the exits of one reason add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub exits: u64,
    /// How many of them were taken while a guest of this guest ran.
    pub nested: u64,
    #[serde(flatten)]
    pub time: Time,
}

impl Cost {
    pub fn merge(&mut self, other: &Cost) {
        self.exits = self.exits.saturating_add(other.exits);
        self.nested = self.nested.saturating_add(other.nested);
        self.time.merge(&other.time);
    }

    pub fn is_zero(&self) -> bool {
        self.exits == 0 && self.nested == 0 && self.time.counters() == [0; COUNTERS]
    }
}

/// Costs by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Row>", into = "Vec<Row>")]
pub struct Table(BTreeMap<Reason, Cost>);

impl Table {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rows(&self) -> impl Iterator<Item = (&Reason, &Cost)> {
        self.0.iter()
    }

    pub fn cost_mut(&mut self, reason: Reason) -> &mut Cost {
        self.0.entry(reason).or_default()
    }

    pub fn total(&self) -> Cost {
        self.0.values().fold(Cost::default(), |mut sum, cost| {
            sum.merge(cost);
            sum
        })
    }

    pub fn merge(&mut self, other: &Table) {
        for (reason, cost) in other.rows() {
            match self.0.get_mut(reason) {
                Some(sum) => sum.merge(cost),
                None => drop(self.0.insert(reason.clone(), cost.clone())),
            }
        }
    }

    /// What was added since `earlier` was read.
    ///
    /// Counters only grow, so where one shrank, counting began anew in between
    /// (a reset), and all that stands now was added since. Exits and times are
    /// two files and judged apart: the reset may have come between the two.
    pub fn since(&self, earlier: &Table) -> Table {
        let none = Cost::default();
        let now = |reason| self.0.get(reason).unwrap_or(&none);
        let counts_go_on = earlier.rows().all(|(reason, before)| {
            now(reason).exits >= before.exits && now(reason).nested >= before.nested
        });
        let times_go_on = earlier
            .rows()
            .all(|(reason, before)| now(reason).time.continues(&before.time));

        let mut change = BTreeMap::new();
        for (reason, now) in self.rows() {
            let before = earlier.0.get(reason).unwrap_or(&none);
            let mut cost = now.clone();
            if counts_go_on {
                cost.exits -= before.exits;
                cost.nested -= before.nested;
            }
            if times_go_on {
                cost.time = now.time.since(&before.time);
            }
            if !cost.is_zero() {
                change.insert(reason.clone(), cost);
            }
        }
        Table(change)
    }

    /// What this one has more than `part`, nothing where it has less.
    pub fn beyond(&self, part: &Table) -> Table {
        let mut rest = BTreeMap::new();
        for (reason, all) in self.rows() {
            let exits = part.0.get(reason).map_or(0, |cost| cost.exits);
            let nested = part.0.get(reason).map_or(0, |cost| cost.nested);
            let cost = Cost {
                exits: all.exits.saturating_sub(exits),
                nested: all.nested.saturating_sub(nested),
                // Two readings of the same time do not subtract to a histogram.
                time: Time::default(),
            };
            if cost.exits != 0 {
                rest.insert(reason.clone(), cost);
            }
        }
        Table(rest)
    }
}

/// A row as a recording holds it.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    number: Option<u32>,
    name: String,
    #[serde(flatten)]
    cost: Cost,
}

impl From<Vec<Row>> for Table {
    fn from(rows: Vec<Row>) -> Table {
        let mut table = Table::default();
        for row in rows {
            table
                .cost_mut(Reason::new(row.number, &row.name))
                .merge(&row.cost);
        }
        table
    }
}

impl From<Table> for Vec<Row> {
    fn from(table: Table) -> Vec<Row> {
        let row = |(reason, cost): (Reason, Cost)| Row {
            number: reason.number(),
            name: reason.name,
            cost,
        };
        table.0.into_iter().map(row).collect()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
