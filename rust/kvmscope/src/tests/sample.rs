// SPDX-License-Identifier: GPL-2.0

//! Samples: their recordings, and heat.

use std::time::Duration;

use proptest::prelude::*;

use crate::recording::{Reader, SAMPLES};
use crate::sample::columns::{region_lines, Order};
use crate::sample::heat::{Decaying, HeatMap};
use crate::sample::map;
use crate::sample::recording::{read_begin, Line};
use crate::sample::sample::{Access, Sample};

const RUN: &[u8] = include_bytes!("../../tests/data/run.sample");
const SECOND: u64 = 1_000_000_000;
const HALF_LIFE: Duration = Duration::from_secs(10);

pub fn sample(time_ns: u64, gfn: u64, access: Access) -> Sample {
    Sample {
        time_ns,
        sequence: 0,
        vcpu: 0,
        gfn,
        access,
        level: 1,
        table: false,
    }
}

#[test]
fn kinds_of_access() {
    for (text, shown) in [("r", "r--"), ("wx", "-wx"), ("xwr", "rwx"), ("-w-", "-w-")] {
        assert_eq!(text.parse::<Access>().unwrap().to_string(), shown);
    }
    for bad in ["", "-", "z", "rwxz", "7"] {
        assert!(bad.parse::<Access>().is_err(), "{bad:?}");
    }
}

/// What nobody samples any more halves, without having been kept up.
#[test]
fn abandoned_regions_cool_down() {
    let mut map = HeatMap::new(HALF_LIFE, 512);
    for i in 0..100 {
        map.add(&sample(i * 1000, 7, Access::READ));
        map.add(&sample(i * 1000, 512, Access::WRITE));
    }
    let heat = |map: &HeatMap, region, seconds| {
        let region = &map.regions[&region];
        region.heat.at(seconds * SECOND, HALF_LIFE)
    };
    assert!((heat(&map, 0, 0) - 100.0).abs() < 0.1);
    assert!((heat(&map, 0, 10) - 50.0).abs() < 0.1);
    assert!((heat(&map, 0, 100) - 100.0 / 1024.0).abs() < 0.01);
    // The other one is in use again.
    map.add(&sample(100 * SECOND, 513, Access::WRITE));
    assert!(heat(&map, 512, 100) > 1.0 && heat(&map, 0, 100) < 0.1);
    assert_eq!(map.regions[&0].reads, 100);
    assert_eq!(map.regions[&512].writes, 101);
}

fn read(bytes: &[u8]) -> Result<usize, String> {
    let said = |error: anyhow::Error| format!("{error:#}");
    let mut reader = Reader::new(bytes, &SAMPLES).map_err(said)?;
    read_begin(&mut reader).map_err(said)?;
    let mut samples = 0;
    while let Some(line) = reader.read().map_err(said)? {
        samples += usize::from(matches!(line, Line::Sample(_)));
    }
    Ok(samples)
}

#[test]
fn recordings() {
    assert_eq!(read(RUN), Ok(400));
    let second = RUN.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let said = |bytes: &[u8]| read(bytes).unwrap_err();
    assert_eq!(said(&RUN[..second]), "there is nothing in it");
    let third = second + RUN[second..].iter().position(|b| *b == b'\n').unwrap() + 1;
    let without = [&RUN[..second], &RUN[third..]].concat();
    assert_eq!(said(&without), "line 2: it is of no session");
    assert!(said(b"{}\n").contains("not a recording of samples"));
}

/// No address is so high.
#[test]
fn a_page_that_cannot_be() {
    let mut heat = HeatMap::new(HALF_LIFE, 512);
    heat.add(&sample(SECOND, u64::MAX, Access::READ));
    assert_eq!(region_lines(&heat, SECOND, Order::Heat)[0].gpa, u64::MAX);
}

proptest! {
    /// Heat is the same in whatever order samples come.
    #[test]
    fn order_does_not_matter(times in prop::collection::vec(0..60 * SECOND, 1..20)) {
        let sum = |times: &[u64]| {
            let mut heat = Decaying::default();
            times.iter().for_each(|time| heat.add(1.0, *time, HALF_LIFE));
            heat.at(60 * SECOND, HALF_LIFE)
        };
        let mut sorted = times.clone();
        sorted.sort_unstable();
        prop_assert!((sum(&times) - sum(&sorted)).abs() < 1e-6);
        let exact: f64 = times.iter().map(|time| {
            (-((60 * SECOND - time) as f64) / (10.0 * SECOND as f64)).exp2()
        }).sum();
        prop_assert!((sum(&times) - exact).abs() < 1e-6);
    }

    /// Nothing that becomes of a file makes its readers panic.
    #[test]
    fn no_file_panics(changes in prop::collection::vec((0..RUN.len(), any::<u8>()), 0..8)) {
        let mut bytes = RUN.to_vec();
        for (at, byte) in changes {
            bytes[at] = if bytes[at].is_ascii_digit() { b'0' + byte % 10 } else { byte };
        }
        let _ = read(&bytes);
        if let Ok(reader) = Reader::new(&bytes[..], &SAMPLES) {
            let _ = map::read(reader, false);
        }
    }
}
