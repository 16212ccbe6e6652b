// SPDX-License-Identifier: GPL-2.0

//! The kernel's access sampler, `/dev/kvm_ept_sample`, by the structs of
//! `linux/kvm_ept_sample.h`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{ensure, Context, Result};

/// The file.
pub const DEVICE: &str = "/dev/kvm_ept_sample";

/// Kinds of accesses.
pub const READ: u8 = 1;
/// See [`READ`].
pub const WRITE: u8 = 2;
/// See [`READ`].
pub const EXEC: u8 = 4;

/// A page at random in each 2 MiB in turn.
pub const SWEEP: u32 = 0;
/// Pages at random.
pub const RANDOM: u32 = 1;

/// An access of the CPU's to a page table.
pub const TABLE: u16 = 1;

/// What is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as the header has them
pub struct Config {
    pub size: u32,
    pub flags: u32,
    pub pid: i32,
    pub vm_fd: i32,
    pub strategy: u32,
    pub access: u32,
    pub rate: u32,
    pub budget_ppm: u32,
    pub ring_records: u32,
    pub reserved: [u32; 7],
}

/// What was counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub size: u32,
    pub reserved: u32,
    pub armed: u64,
    pub taken: u64,
    pub filtered: u64,
    pub disarmed: u64,
    pub delivered: u64,
    pub lost: u64,
    pub waiting: u64,
    pub batches: u64,
    pub flushes: u64,
    pub spent_ns: u64,
    pub elapsed_ns: u64,
    pub rate_now: u64,
}

/// A sample.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Record {
    pub time_ns: u64,
    pub gfn: u64,
    pub sequence: u64,
    pub vcpu: u32,
    pub level: u8,
    pub access: u8,
    pub flags: u16,
}

/// A memory slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Slot {
    pub gpa: u64,
    pub hva: u64,
    pub pages: u64,
    pub id: u32,
    pub flags: u32,
}

/// Room for memory slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Slots {
    pub size: u32,
    pub capacity: u32,
    pub count: u32,
    pub reserved: u32,
    pub slots: u64,
}

const _: () = {
    assert!(size_of::<Config>() == 64);
    assert!(size_of::<Stats>() == 104);
    assert!(size_of::<Record>() == RECORD);
    assert!(size_of::<Slots>() == 24);
};

/// The size of a record.
pub const RECORD: usize = 32;
const PAGE: usize = 4096;

const fn ioctl(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u32) << 16) | (0xe5 << 8) | number) as libc::Ioctl
}
/// The commands.
pub const GET_VERSION: libc::Ioctl = ioctl(0, 0, 0);
/// See [`GET_VERSION`].
pub const START: libc::Ioctl = ioctl(1, 1, size_of::<Config>());
/// See [`GET_VERSION`].
pub const CHANGE: libc::Ioctl = ioctl(1, 2, size_of::<Config>());
/// See [`GET_VERSION`].
pub const STOP: libc::Ioctl = ioctl(0, 3, 0);
/// See [`GET_VERSION`].
pub const STATS: libc::Ioctl = ioctl(3, 4, size_of::<Stats>());
/// See [`GET_VERSION`].
pub const MEMSLOTS: libc::Ioctl = ioctl(3, 5, size_of::<Slots>());

impl Config {
    /// Everything at once, of the first VM of a process.
    pub fn of(pid: u32, vm_fd: i32) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            flags: 0,
            pid: pid as i32,
            vm_fd,
            strategy: RANDOM,
            access: u32::from(READ | WRITE | EXEC),
            rate: 1000,
            budget_ppm: 1_000_000,
            ring_records: 0,
            reserved: [0; 7],
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its file.
    pub file: File,
    /// What it was started with.
    pub config: Config,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Opens the file, not to block.
pub fn open() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
}

impl Session {
    /// Starts one.
    pub fn start(config: Config) -> io::Result<Self> {
        let file = open()?;
        // SAFETY: The kernel reads as much as the struct has.
        check(unsafe { libc::ioctl(file.as_raw_fd(), START, &config) })?;
        Ok(Self { file, config })
    }

    /// Goes on with other parameters.
    pub fn change(&mut self, config: Config) -> io::Result<()> {
        // SAFETY: As in `start`.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), CHANGE, &config) })?;
        self.config = config;
        Ok(())
    }

    /// Ends it; the file stays open.
    pub fn stop(&self) -> io::Result<()> {
        // SAFETY: It takes no argument.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), STOP, 0) }).map(drop)
    }

    /// What it has counted.
    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats {
            size: size_of::<Stats>() as u32,
            ..Stats::default()
        };
        // SAFETY: The kernel writes as much as the struct has.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), STATS, &mut stats) })?;
        Ok(stats)
    }

    /// The VM's memory slots.
    pub fn slots(&self) -> io::Result<Vec<Slot>> {
        let mut slots = vec![Slot::default(); 64];
        let mut asked = Slots {
            size: size_of::<Slots>() as u32,
            capacity: slots.len() as u32,
            slots: slots.as_mut_ptr() as u64,
            ..Slots::default()
        };
        // SAFETY: The kernel writes as much as `capacity` allows.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), MEMSLOTS, &mut asked) })?;
        slots.truncate(asked.count as usize);
        Ok(slots)
    }

    /// The samples that wait, up to so many; none if there are none.
    pub fn read(&mut self, most: usize) -> Result<Vec<Record>> {
        let mut bytes = vec![0; most * RECORD];
        let length = match self.file.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).context("reading samples"),
        };
        ensure!(length % RECORD == 0, "{length} bytes are no records");
        Ok(bytes[..length].chunks_exact(RECORD).map(parse).collect())
    }
}

fn parse(bytes: &[u8]) -> Record {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    Record {
        time_ns: long(0),
        gfn: long(8),
        sequence: long(16),
        vcpu: long(24) as u32,
        level: bytes[28],
        access: bytes[29],
        flags: u16::from_le_bytes([bytes[30], bytes[31]]),
    }
}

/// The ring of a session, in this process's memory.
pub struct Ring {
    at: *mut u8,
    size: usize,
    records: u64,
}

impl Ring {
    const HEAD: usize = 64;
    const TAIL: usize = 128;

    /// Maps it.
    pub fn map(session: &Session) -> io::Result<Self> {
        let records = match session.config.ring_records {
            0 => 65536,
            n => n as usize,
        };
        let size = PAGE + (records * RECORD).next_multiple_of(PAGE);
        // SAFETY: A new mapping, of no Rust object.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                session.file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            at: at.cast(),
            size,
            records: records as u64,
        })
    }

    fn number(&self, at: usize) -> &AtomicU64 {
        // SAFETY: Within the mapping and aligned; the kernel's accesses are atomic.
        unsafe { &*self.at.add(at).cast::<AtomicU64>() }
    }

    /// What waits, without taking it out.
    pub fn peek(&self) -> Vec<Record> {
        let head = self.number(Self::HEAD).load(Ordering::Acquire);
        let tail = self.number(Self::TAIL).load(Ordering::Relaxed);
        (tail..head)
            .map(|n| {
                let at = PAGE + (n % self.records) as usize * RECORD;
                let mut bytes = [0; RECORD];
                // SAFETY: Within the mapping; the kernel writes nothing there
                // before it is taken out.
                unsafe { ptr::copy_nonoverlapping(self.at.add(at), bytes.as_mut_ptr(), RECORD) };
                parse(&bytes)
            })
            .collect()
    }

    /// Takes out so many.
    pub fn consume(&self, count: u64) {
        let tail = self.number(Self::TAIL).load(Ordering::Relaxed);
        self.number(Self::TAIL)
            .store(tail + count, Ordering::Release);
    }

    /// Writes anything where the reader's place is.
    pub fn scribble(&self, value: u64) {
        self.number(Self::TAIL).store(value, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: Our own mapping, and nothing refers to it any more.
        unsafe { libc::munmap(self.at.cast(), self.size) };
    }
}
