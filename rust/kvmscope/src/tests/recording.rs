// SPDX-License-Identifier: GPL-2.0

//! Recordings, and files that were one once.

use proptest::prelude::*;

use crate::interval::{Interval, Tracker};
use crate::recording::{Head, Reader, Writer, EXITS};
use crate::snapshot::Snapshot;

const RUN: &[u8] = include_bytes!("../../tests/data/run.kvmscope");

fn read(bytes: &[u8]) -> Result<Vec<Snapshot>, String> {
    let mut reader = Reader::new(bytes, &EXITS).map_err(|e| format!("{e:#}"))?;
    let mut snapshots = Vec::new();
    while let Some(snapshot) = reader.read().map_err(|e| format!("{e:#}"))? {
        snapshots.push(snapshot);
    }
    Ok(snapshots)
}

#[test]
fn what_is_written_is_read() {
    let snapshots = read(RUN).unwrap();
    assert_eq!(snapshots.len(), 6);
    let mut again = Vec::new();
    let head = Head {
        host: "host".to_string(),
        kernel: "6.12".to_string(),
    };
    let mut writer = Writer::new(&mut again, &EXITS, &head).unwrap();
    for snapshot in &snapshots {
        writer.write(snapshot).unwrap();
    }
    assert_eq!(read(&again).unwrap(), snapshots);
    let reader = Reader::new(&again[..], &EXITS).unwrap();
    assert_eq!((&*reader.head.host, &*reader.head.kernel), ("host", "6.12"));
}

proptest! {
    /// Nothing that becomes of a file makes its reader panic, or what comes after.
    #[test]
    fn no_file_panics(changes in prop::collection::vec((0..RUN.len(), any::<u8>()), 0..8), end in 0..RUN.len()) {
        let mut bytes = RUN.to_vec();
        for (at, byte) in changes {
            // Digits are the worst: they leave it what it is.
            bytes[at] = if bytes[at].is_ascii_digit() { b'0' + byte % 10 } else { byte };
        }
        if end % 2 == 0 {
            bytes.truncate(end);
        }
        let mut tracker = Tracker::default();
        let mut sum = Interval::default();
        for snapshot in read(&bytes).unwrap_or_default() {
            sum.merge(&tracker.advance(snapshot));
        }
        let _ = (sum.ended(false), sum.ended(true));
    }
}
