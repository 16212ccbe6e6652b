// SPDX-License-Identifier: GPL-2.0

//! The working set of a VM as the kernel reports it: `scope/wss/` in its
//! directory in debugfs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::machine::now;

/// The directory of a VM that tells its working set.
#[derive(Clone, Debug)]
pub struct Tracking(PathBuf);

impl Tracking {
    /// Of the VM with this descriptor in that process.
    pub fn of(pid: u32, fd: i32) -> Self {
        Self(format!("/sys/kernel/debug/kvm/{pid}-{fd}/scope/wss").into())
    }

    /// Of the VM in this process.
    pub fn here(fd: i32) -> Result<Self> {
        let tracking = Self::of(std::process::id(), fd);
        ensure!(
            tracking.0.is_dir(),
            "there is no {}: is debugfs mounted, and this kernel new enough?",
            tracking.0.display()
        );
        Ok(tracking)
    }

    /// Writes to one of its files.
    pub fn write(&self, name: &str, value: u64) -> io::Result<()> {
        // Not created: a wrong name must be an error.
        let mut file = fs::OpenOptions::new().write(true).open(self.0.join(name))?;
        io::Write::write_all(&mut file, format!("{value}\n").as_bytes())
    }

    /// Writes to one of its files what must be accepted.
    pub fn set(&self, name: &str, value: u64) -> Result<()> {
        self.write(name, value)
            .with_context(|| format!("writing {value} to wss/{name}"))
    }

    /// Reads any of its files.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    /// Opens any of its files for reading.
    pub fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::File::open(self.0.join(name))
    }

    /// Starts tracking; false if it is not possible here.
    pub fn start(&self) -> Result<bool> {
        match self.write("active", 1) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error).context("writing 1 to wss/active"),
        }
    }

    /// The last period that ended.
    pub fn estimate(&self) -> Result<Estimate> {
        let text = self.read("estimate").context("reading wss/estimate")?;
        Estimate::parse(&String::from_utf8_lossy(&text))
    }

    /// Waits until a period ends that is not `last`.
    pub fn ended(&self, last: u64) -> Result<Estimate> {
        let period_ms: u64 = String::from_utf8_lossy(&self.read("period_ms")?)
            .trim()
            .parse()
            .context("reading wss/period_ms")?;
        let pause = Duration::from_micros((period_ms * 1000 / 16).clamp(200, 20_000));
        let limit = now() + (period_ms * 30 + 60_000) * 1_000_000;
        loop {
            let estimate = self.estimate()?;
            if estimate.get("period")? != last {
                return Ok(estimate);
            }
            ensure!(now() < limit, "period {} does not end", last + 1);
            thread::sleep(pause);
        }
    }

    /// Waits until a period begins; the number of the one before.
    pub fn begun(&self) -> Result<u64> {
        let last = self.estimate()?.get("period")?;
        self.ended(last)?.get("period")
    }

    /// The pages of the last period that ended; none if none has.
    pub fn pages(&self) -> Result<Option<Pages>> {
        let bytes = self.read("pages").context("reading wss/pages")?;
        match bytes.len() {
            0 => Ok(None),
            _ => Pages::parse(&bytes).map(Some),
        }
    }
}

/// What `estimate` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate(BTreeMap<String, u64>);

impl Estimate {
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        ensure!(
            lines.next() == Some("kvmscope 1 wss"),
            "wss/estimate does not begin with its version: {text:?}"
        );
        let mut values = BTreeMap::new();
        for line in lines {
            let value = line
                .split_once(' ')
                .and_then(|(name, value)| Some((name, value.parse().ok()?)));
            let Some((name, value)) = value else {
                bail!("wss/estimate has the line {line:?}");
            };
            ensure!(
                values.insert(name.to_string(), value).is_none(),
                "wss/estimate has two lines {name}"
            );
        }
        Ok(Self(values))
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Result<u64> {
        let value = self.0.get(name).copied();
        value.with_context(|| format!("wss/estimate has no line {name}"))
    }
}

const HEADER: usize = 64;
const RECORD: usize = 656;
/// The pages of a record.
pub const CHUNK: u64 = 512;

/// What `pages` says.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Sub-intervals of the period.
    pub intervals: u32,
    /// In how many of them a page must have been written.
    pub threshold: u32,
    /// Whether reads were measured.
    pub reads: bool,
    /// The number of the period.
    pub period: u64,
    /// Ascending, with nothing twice.
    pub chunks: Vec<Chunk>,
}

/// 512 pages of them.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The first one.
    pub gfn: u64,
    /// Tracked as one page of 2 MiB.
    pub huge: bool,
    read: [u64; 8],
    table: [u64; 8],
    /// In how many sub-intervals each was logged.
    pub count: [u8; CHUNK as usize],
}

fn bit(bits: &[u64; 8], index: usize) -> bool {
    (bits[index / 64] >> (index % 64)) & 1 != 0
}

impl Chunk {
    /// One of which nothing is reported.
    pub fn empty(gfn: u64) -> Self {
        Self {
            gfn,
            huge: false,
            read: [0; 8],
            table: [0; 8],
            count: [0; CHUNK as usize],
        }
    }

    /// Whether page `index` of it was accessed.
    pub fn read(&self, index: usize) -> bool {
        bit(&self.read, index)
    }

    /// Whether page `index` of it is known for a page table.
    pub fn table(&self, index: usize) -> bool {
        bit(&self.table, index)
    }
}

/// The little-endian fields of a piece of the file, front to back.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_at(N);
        self.0 = rest;
        front.try_into().expect("is N long")
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
    fn bits(&mut self) -> [u64; 8] {
        std::array::from_fn(|_| self.u64())
    }
}

impl Pages {
    /// The record that a page is in, and its place there.
    fn place(&self, gfn: u64) -> Option<(&Chunk, usize)> {
        let first = gfn / CHUNK * CHUNK;
        let at = self.chunks.binary_search_by_key(&first, |chunk| chunk.gfn);
        Some((self.chunks.get(at.ok()?)?, (gfn % CHUNK) as usize))
    }

    /// Whether a page was accessed.
    pub fn read(&self, gfn: u64) -> bool {
        let place = self.place(gfn);
        place.is_some_and(|(chunk, index)| chunk.read(index))
    }

    /// Whether a page is known for a page table.
    pub fn table(&self, gfn: u64) -> bool {
        let place = self.place(gfn);
        place.is_some_and(|(chunk, index)| chunk.table(index))
    }

    /// In how many sub-intervals a page was logged.
    pub fn count(&self, gfn: u64) -> u8 {
        self.place(gfn)
            .map_or(0, |(chunk, index)| chunk.count[index])
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() >= HEADER, "wss/pages ends in its header");
        let (header, mut rest) = bytes.split_at(HEADER);
        let mut header = Fields(header);
        ensure!(
            &header.bytes() == b"KVMSWSS1",
            "wss/pages has another magic"
        );
        ensure!(header.u32() == 1, "wss/pages has another version");
        ensure!(
            header.u32() as usize == HEADER,
            "its header is not 64 bytes"
        );
        ensure!(
            header.u32() as usize == RECORD,
            "its record is not 656 bytes"
        );
        let (intervals, threshold, flags) = (header.u32(), header.u32(), header.u32());
        let period = header.u64();
        let (_start, _duration, records) = (header.u64(), header.u64(), header.u64());
        ensure!(
            rest.len() as u64 == records * RECORD as u64,
            "wss/pages has {} bytes for {records} records",
            rest.len()
        );
        let mut chunks: Vec<Chunk> = Vec::new();
        while !rest.is_empty() {
            let (record, after) = rest.split_at(RECORD);
            rest = after;
            let mut record = Fields(record);
            let (gfn, flags, reserved) = (record.u64(), record.u32(), record.u32());
            let chunk = Chunk {
                gfn,
                huge: flags & 1 != 0,
                read: record.bits(),
                table: record.bits(),
                count: record.bytes(),
            };
            ensure!(
                flags & !1 == 0 && reserved == 0,
                "the record of gfn {gfn:#x} has unknown flags"
            );
            ensure!(gfn % CHUNK == 0, "a record begins with gfn {gfn:#x}");
            ensure!(
                chunks.last().is_none_or(|last| last.gfn < gfn),
                "the record of gfn {gfn:#x} is out of order"
            );
            chunks.push(chunk);
        }
        Ok(Self {
            intervals,
            threshold,
            reads: flags & 1 != 0,
            period,
            chunks,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record: gfn, flags, read pages, table pages, counts.
    pub type Record<'a> = (u64, u32, &'a [usize], &'a [usize], &'a [(usize, u8)]);

    /// A file with these records.
    pub fn file(records: &[Record]) -> Vec<u8> {
        let mut bytes = b"KVMSWSS1".to_vec();
        for word in [1, 64, 656, 10, 1, 1u32] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [7, 1000, 2000, records.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        for (gfn, flags, read, table, counts) in records {
            bytes.extend(gfn.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend([0; 4]);
            for set in [read, table] {
                let mut bits = [0u8; 64];
                set.iter().for_each(|i| bits[i / 8] |= 1 << (i % 8));
                bytes.extend(bits);
            }
            let mut count = [0; 512];
            counts.iter().for_each(|&(i, n)| count[i] = n);
            bytes.extend(count);
        }
        bytes
    }

    /// The same, parsed.
    pub fn pages(records: &[Record]) -> Pages {
        Pages::parse(&file(records)).expect("is well formed")
    }

    #[test]
    fn pages_are_read_as_documented() {
        let pages = pages(&[(1024, 1, &[0, 64, 511], &[65], &[(64, 3), (65, 10)])]);
        assert_eq!((pages.period, pages.intervals, pages.threshold), (7, 10, 1));
        assert!(pages.reads);
        let chunk = &pages.chunks[0];
        assert!(chunk.gfn == 1024 && chunk.huge);
        assert!(chunk.read(0) && !chunk.read(1) && chunk.read(64) && chunk.read(511));
        assert!(chunk.table(65) && !chunk.table(64));
        assert!(pages.read(1024 + 511) && !pages.read(1023) && !pages.read(1536));
        assert!(pages.table(1024 + 65) && pages.count(1024 + 65) == 10);
        assert_eq!(
            (chunk.count[64], chunk.count[65], chunk.count[0]),
            (3, 10, 0)
        );
    }

    #[test]
    fn a_malformed_file_is_refused() {
        let good = file(&[(512, 0, &[1], &[], &[]), (1024, 0, &[1], &[], &[])]);
        assert!(Pages::parse(&good).is_ok());
        assert!(Pages::parse(&good[..good.len() - 1]).is_err());
        assert!(Pages::parse(&good[..63]).is_err());
        for at in [0, 8, 12, 16, 64 + 8, 64 + 12, 64] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(Pages::parse(&bad).is_err(), "byte {at}");
        }
        let twice = file(&[(512, 0, &[1], &[], &[]), (512, 0, &[1], &[], &[])]);
        assert!(Pages::parse(&twice).is_err());
    }

    #[test]
    fn an_estimate_is_read_by_name() {
        let estimate = Estimate::parse("kvmscope 1 wss\nperiod 3\nwritten 12\n").unwrap();
        assert_eq!(estimate.get("written").unwrap(), 12);
        assert!(estimate.get("tables").is_err());
        for bad in [
            "",
            "kvmscope 2 wss\n",
            "kvmscope 1 wss\nperiod x\n",
            "kvmscope 1 wss\na 1\na 1\n",
        ] {
            assert!(Estimate::parse(bad).is_err(), "{bad:?}");
        }
    }
}
