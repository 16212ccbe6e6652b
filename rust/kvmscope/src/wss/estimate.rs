// SPDX-License-Identifier: GPL-2.0

//! The working set of a period, as the kernel states it: its files `estimate` and
//! `history`, version 1.
//!
//! Both name their values, so a later kernel may add some: unknown ones are
//! passed over.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::format::quote;

const VERSION: &str = "1";

/// The struct and the list of its fields, which is the kernel's. Those that came later are
/// 0 where they are not stated.
macro_rules! estimate {
    ($($(#[$doc:meta])* $name:ident,)* { $($(#[$later_doc:meta])* $later:ident,)* }) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Estimate {
            $($(#[$doc])* pub $name: u64,)*
            $($(#[$later_doc])* #[serde(default)] pub $later: u64,)*
        }

        impl Estimate {
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)* $(stringify!($later),)*];

            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name,)* $(self.$later,)*]
            }

            fn from_values(value: impl Fn(&str) -> Result<Option<u64>>) -> Result<Estimate> {
                Ok(Estimate {
                    $($name: value(stringify!($name))?
                        .context(concat!("there is no ", stringify!($name)))?,)*
                    $($later: value(stringify!($later))?.unwrap_or_default(),)*
                })
            }
        }
    };
}

estimate! {
    /// Its number since tracking started; zero when none has ended.
    period,
    /// By CLOCK_MONOTONIC.
    start_ns,
    duration_ns,
    intervals,
    threshold,
    /// Pages of 4 KiB in the written set, without the guest's page tables.
    written,
    tables,
    /// Pages written or read.
    read_set,
    /// Whether that was measured.
    reads,
    huge,
    entries,
    swaps,
    in_place,
    full_exits,
    flushes,
    rearmed,
    spent_ns,
    lost,
    nested_runs,
    {
        /// Pages that were unmapped at random, and those of them that the guest touched.
        sampled,
        sampled_touched,
        /// Pages that may have been read and of which nobody knows any more: by as many the
        /// read set may be too small.
        unmapped_lost,
    }
}

impl Estimate {
    /// None where it was not measured.
    pub fn read_set(&self) -> Option<u64> {
        (self.reads != 0).then_some(self.read_set)
    }
}

/// An `estimate` file.
pub fn read_estimate(text: &str) -> Result<Estimate> {
    let mut lines = text.lines();
    check_head(lines.next(), "wss")?;
    let mut values = BTreeMap::new();
    for (number, line) in (2..).zip(lines) {
        let (name, value) = line
            .split_once(' ')
            .with_context(|| format!("line {number}: {} is no name and value", quote(line)))?;
        values.insert(name, value);
    }
    from_words(&values)
}

/// A `history` file: oldest first.
pub fn read_history(text: &str) -> Result<Vec<Estimate>> {
    let mut lines = text.lines();
    check_head(lines.next(), "wss-history")?;
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let row = |(number, line): (usize, &str)| {
        let values: Vec<&str> = line.split(' ').collect();
        ensure!(
            values.len() == columns.len(),
            "line {number}: {} values for {} columns",
            values.len(),
            columns.len()
        );
        let values = columns.iter().copied().zip(values).collect();
        from_words(&values).with_context(|| format!("line {number}"))
    };
    (3..).zip(lines).map(row).collect()
}

fn check_head(line: Option<&str>, kind: &str) -> Result<()> {
    let head = line.unwrap_or_default();
    match head.split(' ').collect::<Vec<_>>()[..] {
        ["kvmscope", VERSION, its, ..] if its == kind => Ok(()),
        ["kvmscope", VERSION, its, ..] => bail!("this is of {}, not of {kind}", quote(its)),
        ["kvmscope", version, ..] => bail!(
            "its format is version {}, and this kvmscope reads version {VERSION}: \
             use the kvmscope that came with the kernel",
            quote(version)
        ),
        _ => bail!("it begins with {}, not with kvmscope", quote(head)),
    }
}

fn from_words(values: &BTreeMap<&str, &str>) -> Result<Estimate> {
    Estimate::from_values(|name| {
        let Some(word) = values.get(name) else {
            return Ok(None);
        };
        let value = word.parse().map(Some);
        value.with_context(|| format!("{} is no number of {name}", quote(word)))
    })
}
