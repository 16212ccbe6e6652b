// SPDX-License-Identifier: GPL-2.0

//! Which samples are wanted. Kinds of filters must all match; of several of one kind,
//! any.

use std::ops::RangeInclusive;

use clap::Args;

use crate::sample::sample::Sample;

#[derive(Args, Clone, Debug, Default)]
pub struct Wanted {
    /// Only these pages of the guest, by number: FIRST-LAST, FIRST+COUNT or one
    #[arg(long = "gfn", value_name = "RANGE", value_parser = gfns)]
    pub gfns: Vec<RangeInclusive<u64>>,
    /// Only this vCPU
    #[arg(long = "vcpu", value_name = "N")]
    pub vcpus: Vec<u32>,
    /// Only walks of the guest's page tables
    #[arg(long, conflicts_with = "no_tables")]
    pub tables: bool,
    /// No walks of the guest's page tables
    #[arg(long)]
    pub no_tables: bool,
}

impl Wanted {
    pub fn wants(&self, sample: &Sample) -> bool {
        let gfn = self.gfns.is_empty() || self.gfns.iter().any(|r| r.contains(&sample.gfn));
        let vcpu = self.vcpus.is_empty() || self.vcpus.contains(&sample.vcpu);
        let table = if sample.table {
            !self.no_tables
        } else {
            !self.tables
        };
        gfn && vcpu && table
    }

    /// As the user would say it.
    pub fn words(&self) -> Vec<String> {
        let gfns = self.gfns.iter();
        let mut words: Vec<String> = gfns
            .map(|range| format!("gfn {:#x}-{:#x}", range.start(), range.end()))
            .collect();
        words.extend(self.vcpus.iter().map(|vcpu| format!("vCPU {vcpu}")));
        if self.tables {
            words.push("page tables".to_string());
        }
        if self.no_tables {
            words.push("no page tables".to_string());
        }
        words
    }
}

/// Numbers as the table has them, or decimal.
fn gfns(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let range = || {
        if let Some((first, last)) = text.split_once('-') {
            Some(number(first)?..=number(last)?)
        } else if let Some((first, count)) = text.split_once('+') {
            let (first, count) = (number(first)?, number(count)?);
            Some(first..=first.checked_add(count.checked_sub(1)?)?)
        } else {
            let only = number(text)?;
            Some(only..=only)
        }
    };
    let range = range().filter(|range| !range.is_empty());
    range.ok_or("not FIRST-LAST, FIRST+COUNT or a page, such as 0x1000-0x1fff".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_pages() {
        assert_eq!(gfns("0x10-0x1f"), Ok(16..=31));
        assert_eq!(gfns("16+16"), Ok(16..=31));
        assert_eq!(gfns("7"), Ok(7..=7));
        for bad in [
            "",
            "-",
            "1-",
            "-1",
            "2-1",
            "1+0",
            "x",
            "0x",
            "1+1+1",
            "0xffffffffffffffff+2",
        ] {
            assert!(gfns(bad).is_err(), "{bad:?}");
        }
    }
}
