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

/// The header as the command has it (scripts/uapi).
#[path = "../../kvmscope/src/sample/uapi.rs"]
mod uapi;

pub use uapi::{
    kvm_ept_sample_config as Config, kvm_ept_sample_record as Record, kvm_ept_sample_slot as Slot,
    kvm_ept_sample_slots as Slots, kvm_ept_sample_stats as Stats, KVM_EPT_SAMPLE_RANDOM as RANDOM,
    KVM_EPT_SAMPLE_SWEEP as SWEEP,
};

/// The file.
pub const DEVICE: &str = "/dev/kvm_ept_sample";
/// That of programs of old.
pub const OLD: &str = "/proc/kvm_ept_sample";

/// Kinds of accesses, as a record has them.
pub const READ: u8 = uapi::KVM_EPT_SAMPLE_READ as u8;
/// See [`READ`].
pub const WRITE: u8 = uapi::KVM_EPT_SAMPLE_WRITE as u8;
/// See [`READ`].
pub const EXEC: u8 = uapi::KVM_EPT_SAMPLE_EXEC as u8;

/// An access of the CPU's to a page table.
pub const TABLE: u16 = uapi::KVM_EPT_SAMPLE_TABLE as u16;

/// The size of a record.
pub const RECORD: usize = size_of::<Record>();
const PAGE: usize = 4096;

/// The commands.
pub const GET_VERSION: libc::Ioctl = uapi::IOCTL_GET_VERSION as libc::Ioctl;
/// See [`GET_VERSION`].
pub const START: libc::Ioctl = uapi::IOCTL_START as libc::Ioctl;
/// See [`GET_VERSION`].
pub const CHANGE: libc::Ioctl = uapi::IOCTL_CHANGE as libc::Ioctl;
/// See [`GET_VERSION`].
pub const STOP: libc::Ioctl = uapi::IOCTL_STOP as libc::Ioctl;
/// See [`GET_VERSION`].
pub const STATS: libc::Ioctl = uapi::IOCTL_STATS as libc::Ioctl;
/// See [`GET_VERSION`].
pub const MEMSLOTS: libc::Ioctl = uapi::IOCTL_MEMSLOTS as libc::Ioctl;

/// Those of programs of old, which have no generated form: macros that are for C alone.
pub mod old {
    /// Begins, of the process given.
    pub const INIT: libc::Ioctl = 1200;
    /// Kinds of accesses.
    pub const SET_PROT: libc::Ioctl = 1201;
    /// Samples per second.
    pub const SET_FREQ: libc::Ioctl = 1202;
    /// Three words: where to, how many at most, and how many there are.
    pub const GET_MEMSLOTS: libc::Ioctl = 1203;
}

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
        Self::begin(open()?, config)
    }

    /// Starts one of a file that has none.
    pub fn begin(file: File, config: Config) -> io::Result<Self> {
        // SAFETY: The kernel reads as much as the struct has.
        check(unsafe { libc::ioctl(file.as_raw_fd(), START, &config) })?;
        Ok(Self { file, config })
    }

    /// Goes on with other parameters.
    pub fn change(&mut self, config: Config) -> io::Result<()> {
        // SAFETY: As in `begin`.
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
